//! The RDB format of Valkey and Redis: files, the payloads of DUMP, and the base of an AOF.
//!
//! A file is a magic with its version, then pieces that each begin with an opcode or the type of a value, then a
//! CRC64. A key with all that belongs to it is one *record*: expiry, access clock, type, key, value.
//!
//! - [`value`]: a value as its type byte and body; a module for each type
//! - [`record`]: a key with its value, expiry and access clock as one byte string
//! - [`split`]: finds where the pieces of a file begin and end
//! - [`file`]: [`file::Writer`] and [`file::Reader`] over `std::io`
//! - [`payload`]: what DUMP replies and RESTORE takes
//! - [`check`]: the report of `keyward-node check-rdb`
//! - [`input`], [`output`]: lengths and strings; `lzf`, `checksum`, and in `compact` the encodings of small collections
//!
//! What is read may come from anybody: a length is checked against the bytes that are there before anything is
//! allocated for it, contradictions and duplicates are refused, and nothing panics.
//!
//! Architecture invariant: no clock, no socket, no task; only [`file`] does I/O, on what it is given.

pub mod check;
mod checksum;
pub(crate) mod compact;
mod error;
pub mod file;
mod input;
mod lzf;
pub(crate) mod output;
pub mod payload;
pub mod record;
pub mod split;
#[cfg(test)]
mod tests;
pub mod value;

pub use checksum::Checksum;
pub use error::RdbError;
pub use input::{Input, Text};
pub use output::Compression;

/// The version that is written. All that Keyward saves has been known since this one, so that Redis 7.0 and
/// everything since reads it; in particular a small set is saved as a plain one, whose encoding the reader chooses.
pub const VERSION: u32 = 10;

/// The version of what may hold a stream: consumers of Valkey's groups have a time that Redis 7.0 does not know.
pub const VERSION_STREAMS: u32 = 11;

/// The version of what may hold a hash of which fields expire.
pub const VERSION_FIELD_TIMES: u32 = 80;

/// The newest version that is read.
pub const VERSION_MAX: u32 = 81;
/// Versions between these are not Valkey's but of Redis 7.4 and later, with types of the same numbers.
const FOREIGN_VERSIONS: std::ops::Range<u32> = 12..80;

/// Whether files and payloads of this version can be read.
pub fn is_known_version(version: u32) -> bool {
    (1..=VERSION_MAX).contains(&version) && !FOREIGN_VERSIONS.contains(&version)
}

/// Which versions of files are read: `rdb-version-check`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum VersionCheck {
    /// Those that are known.
    #[default]
    Strict,
    /// Others, too, as long as everything in them is known.
    Relaxed,
}

const LENGTH_32: u8 = 0x80;
const LENGTH_64: u8 = 0x81;

const ENCODED_INT8: u8 = 0;
const ENCODED_INT16: u8 = 1;
const ENCODED_INT32: u8 = 2;
const ENCODED_LZF: u8 = 3;

/// What a piece of a file begins with, unless it is a key's type.
mod opcode {
    /// An import of slots that was running: name, number of ranges, ranges.
    pub(super) const SLOT_IMPORT: u8 = 243;
    /// Number of a slot, of its keys and of those with an expiry: a hint.
    pub(super) const SLOT_INFO: u8 = 244;
    /// The source of a function library.
    pub(super) const FUNCTION: u8 = 245;
    /// The same, in the release candidates of Redis 7.0.
    pub(super) const FUNCTION_PRE_GA: u8 = 246;
    pub(super) const MODULE_AUX: u8 = 247;
    /// Seconds since the last access.
    pub(super) const IDLE: u8 = 248;
    /// The counter of LFU.
    pub(super) const FREQ: u8 = 249;
    pub(super) const AUX: u8 = 250;
    /// Numbers of keys and of those with an expiry in the current database: a hint.
    pub(super) const RESIZE_DB: u8 = 251;
    pub(super) const EXPIRE_MILLIS: u8 = 252;
    pub(super) const EXPIRE_SECONDS: u8 = 253;
    pub(super) const SELECT_DB: u8 = 254;
    pub(super) const EOF: u8 = 255;
}

/// Types of values, with their encoding.
pub(crate) mod type_byte {
    pub(crate) const STRING: u8 = 0;
    pub(crate) const LIST: u8 = 1;
    pub(crate) const SET: u8 = 2;
    /// Scores as text.
    pub(crate) const ZSET: u8 = 3;
    pub(crate) const HASH: u8 = 4;
    /// Scores as eight bytes.
    pub(crate) const ZSET_2: u8 = 5;
    pub(crate) const MODULE: u8 = 6;
    pub(crate) const MODULE_2: u8 = 7;
    pub(crate) const HASH_ZIPMAP: u8 = 9;
    pub(crate) const LIST_ZIPLIST: u8 = 10;
    pub(crate) const SET_INTSET: u8 = 11;
    pub(crate) const ZSET_ZIPLIST: u8 = 12;
    pub(crate) const HASH_ZIPLIST: u8 = 13;
    pub(crate) const LIST_QUICKLIST: u8 = 14;
    pub(crate) const STREAM: u8 = 15;
    pub(crate) const HASH_LISTPACK: u8 = 16;
    pub(crate) const ZSET_LISTPACK: u8 = 17;
    pub(crate) const LIST_QUICKLIST_2: u8 = 18;
    pub(crate) const STREAM_2: u8 = 19;
    pub(crate) const SET_LISTPACK: u8 = 20;
    pub(crate) const STREAM_3: u8 = 21;
    /// Fields with an expiry of their own.
    pub(crate) const HASH_2: u8 = 22;

    // What these numbers and those behind them mean in the files of Redis 7.4 and later.
    /// Each field with an expiry, in release candidates.
    pub(crate) const REDIS_HASH_TTL_EARLY: u8 = 22;
    pub(crate) const REDIS_HASH_LISTPACK_TTL_EARLY: u8 = 23;
    /// The earliest expiry first.
    pub(crate) const REDIS_HASH_TTL: u8 = 24;
    pub(crate) const REDIS_HASH_LISTPACK_TTL: u8 = 25;
    pub(crate) const REDIS_STREAM_4: u8 = 26;
    pub(crate) const REDIS_STREAM_5: u8 = 27;
}

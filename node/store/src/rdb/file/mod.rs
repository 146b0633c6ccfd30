//! RDB files over `std::io`: magic and version, pieces, checksum.

mod reader;
mod writer;

pub use reader::{Chunk, Facts, FileError, FileErrorKind, Reader, RecordName, Skipped, Span, Trust};
pub use writer::{Ending, Writer};

/// Before four digits of the version, up to version 11.
const MAGIC_REDIS: &[u8; 5] = b"REDIS";
/// Before three digits of the version, from version 80 on.
const MAGIC_VALKEY: &[u8; 6] = b"VALKEY";
/// Whether a file that begins with these bytes is an RDB file, or begins with one; eight are enough.
pub fn has_magic(begin: &[u8]) -> bool {
    begin.starts_with(MAGIC_REDIS) || begin.starts_with(MAGIC_VALKEY)
}

/// Both with their version.
const MAGIC_LEN: usize = 9;
/// Files of older versions end without a checksum.
const CHECKSUM_SINCE: u32 = 5;

//! The value types. Small collections are compact: listpacks and intsets in Valkey's byte format, kept in the entry of
//! their key. Beyond limits that can be configured they become tables, trees and chains of listpacks. What form a
//! value has is decided as in Valkey, but nothing that is replicated depends on it.
//!
//! Each type comes as a view for reading (`HashRef`), one for changing what a key holds (`HashMut`), and as a value
//! that has no key yet (`Hash`).

pub mod buffer;
pub mod collection;
pub mod element;
pub mod hash;
pub mod list;
pub mod listpack;
mod random;
pub mod set;
pub mod sorted_set;
pub mod stream;
mod tree;

use collection::Codec;
pub use collection::Collection;
pub use element::Element;
pub use hash::{Before, Hash, HashLimits, HashMut, HashRef, Pair};
pub use list::{End, List, ListMut, ListRef, Side, quicklist};
pub use set::{Set, SetLimits, SetMut, SetRef, intset};
pub use sorted_set::{
    Direction, LexBound, LexRange, ScoreRange, SortedSet, SortedSetLimits, SortedSetMut, SortedSetRef,
};
pub use stream::{Stream, StreamId, StreamLimits};

/// How the collections are read from RDB. A new type has its line here.
pub(crate) static CODECS: &[&Codec] =
    &[&list::rdb::CODEC, &set::rdb::CODEC, &hash::rdb::CODEC, &sorted_set::rdb::CODEC, &stream::rdb::CODEC];

/// Up to where collections are compact.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    pub hash: HashLimits,
    pub list: quicklist::Fill,
    pub set: SetLimits,
    pub sorted_set: SortedSetLimits,
    pub stream: StreamLimits,
}

/// No compact collection is larger, whatever the limits say. Differs from Valkey, where this is 1 GiB.
const COMPACT_BYTES_MAX: usize = 8 << 20;

/// Whether so many bytes may be added to a compact collection of this size.
fn fits_compact(bytes: usize, added: usize) -> bool {
    bytes.saturating_add(added) <= COMPACT_BYTES_MAX
}

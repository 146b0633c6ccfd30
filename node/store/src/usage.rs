//! What a key takes, by a look at a few of its elements: MEMORY USAGE, and the memory that is about to be freed.

use super::entry::{Entry, ValueRef};

/// Bytes of a key with its value; `samples` elements of a collection are looked at, the rest is taken to be like them.
pub fn usage_bytes(entry: &Entry, samples: usize) -> usize {
    let value = match entry.value() {
        ValueRef::String(bytes) if entry.is_raw() => size_of::<Vec<u8>>() + bytes.len(),
        // What is not in the entry.
        value => value.collection().map_or(0, |collection| collection.usage_bytes(samples)),
    };
    entry.allocation_len() + size_of::<Entry>() + value
}

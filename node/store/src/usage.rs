//! What a key takes, by a look at a few of its elements: MEMORY USAGE, and the memory that is about to be freed.

use super::entry::{Entry, ValueRef};
use super::types::{HashRef, ListRef, SetRef, SortedSetRef};

/// What a collection needs per element beside its bytes: pointers, lengths, the allocator's rounding.
const ELEMENT_OVERHEAD_BYTES: usize = 32;

/// Bytes of a key with its value; `samples` elements of a collection are looked at, the rest is taken to be like them.
pub fn usage_bytes(entry: &Entry, samples: usize) -> usize {
    let value = match entry.value() {
        ValueRef::String(v) if entry.is_raw() => size_of::<Vec<u8>>() + v.len(),
        ValueRef::List(ListRef::Quicklist(list)) => list.memory_bytes(),
        ValueRef::Set(v @ SetRef::Table(_)) => estimate(v.len(), samples, v.iter().map(|m| m.len())),
        ValueRef::Hash(v @ HashRef::Table(_)) => {
            estimate(v.len(), samples, v.iter().map(|(name, value)| name.len() + value.len()))
        }
        ValueRef::SortedSet(v @ SortedSetRef::Skiplist(_)) => {
            estimate(v.len(), samples, v.iter().map(|(m, _)| m.len() + size_of::<f64>()))
        }
        // All of it is in the entry.
        _ => 0,
    };
    entry.allocation_len() + size_of::<Entry>() + value
}

fn estimate(len: usize, samples: usize, sizes: impl Iterator<Item = usize>) -> usize {
    let (count, sum) = sizes.take(samples).fold((0, 0), |(n, sum), size| (n + 1, sum + size));
    len * ELEMENT_OVERHEAD_BYTES + sum * len / count.max(1)
}

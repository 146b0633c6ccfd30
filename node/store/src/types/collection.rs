//! What the rest of the store asks of a collection, whatever its type.
//!
//! Each type's view for reading implements it in the type's folder, and [`ValueRef::collection`] is the one place that
//! knows them all.

use crate::digest::Digest;
use crate::entry::ValueRef;
use crate::rdb::{Compression, Input, RdbError, value::Loaded};
use crate::rebuild::Emit;
use crate::types::Limits;

/// See the module documentation.
pub trait Collection {
    /// As TYPE reports it.
    fn type_name(&self) -> &'static str;
    /// The group of the commands for this type.
    fn group(&self) -> &'static str;
    /// As OBJECT ENCODING reports it.
    fn encoding(&self) -> &'static str;
    fn is_empty(&self) -> bool;
    /// How many allocations are freed with it, about: one if it is compact.
    fn allocations(&self) -> usize;
    /// Bytes that it takes beside its entry; `samples` elements are looked at, the rest is taken to be like them.
    fn usage_bytes(&self, samples: usize) -> usize;
    /// The commands that build it under `key`, where nothing is.
    fn rebuild(&self, key: &[u8], emit: &mut Emit<'_>);
    /// Valkey's number of the type, which is part of a digest.
    fn type_number(&self) -> u32;
    /// Adds the elements to a digest.
    fn digest(&self, digest: &mut Digest);
    /// The type of RDB under which it is saved.
    fn rdb_type(&self) -> u8;
    /// Appends what follows the type in RDB.
    fn save_body(&self, compression: Compression, out: &mut Vec<u8>);
    /// How many elements can be saved one by one while it changes; zero of a compact one, which is saved whole.
    fn pieces(&self) -> usize;
    /// What stands before these in RDB.
    fn saved_count(&self) -> usize {
        self.pieces()
    }
}

impl<'a> ValueRef<'a> {
    /// The value unless it is a string.
    #[inline]
    pub fn collection(&self) -> Option<&(dyn Collection + 'a)> {
        match self {
            ValueRef::String(_) => None,
            ValueRef::List(list) => Some(list),
            ValueRef::Set(set) => Some(set),
            ValueRef::Hash(hash) => Some(hash),
            ValueRef::SortedSet(set) => Some(set),
            ValueRef::Stream(stream) => Some(stream),
        }
    }
}

/// How values of a type are read from RDB.
#[derive(Debug)]
pub(crate) struct Codec {
    pub(crate) encodings: &'static [Encoding],
    /// Reads the body of one of these encodings, all of it checked.
    pub(crate) load: for<'a> fn(u8, &mut Input<'a>, &Limits) -> Result<Loaded<'a>, RdbError>,
    /// Passes over a body that is not one string.
    pub(crate) skip: fn(u8, &mut Input<'_>) -> Result<(), RdbError>,
}

/// One of the forms in which RDB has a type.
#[derive(Debug)]
pub(crate) struct Encoding {
    pub(crate) type_byte: u8,
    /// Type and encoding in words.
    pub(crate) name: &'static str,
    pub(crate) body: Body,
}

/// What follows the type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    /// One string, as of all compact encodings.
    OneString,
    Elements,
}

/// What a collection needs per element beside its bytes: pointers, lengths, the allocator's rounding.
const ELEMENT_OVERHEAD_BYTES: usize = 32;

/// What `len` elements take, of which `sizes` gives the bytes one by one.
pub(crate) fn estimate(len: usize, samples: usize, sizes: impl Iterator<Item = usize>) -> usize {
    let (count, sum) = sizes.take(samples).fold((0, 0), |(n, sum), size| (n + 1, sum + size));
    len * ELEMENT_OVERHEAD_BYTES + sum * len / count.max(1)
}

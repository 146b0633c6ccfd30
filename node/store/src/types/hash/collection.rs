//! What the store asks of a hash: see [`Collection`].

use super::{HashRef, rdb};
use crate::rdb::Compression;
use crate::rebuild::{Emit, pairs_in_pieces};
use crate::types::collection::{Collection, estimate};

impl Collection for HashRef<'_> {
    fn type_name(&self) -> &'static str {
        "hash"
    }

    fn group(&self) -> &'static str {
        "hash"
    }

    fn encoding(&self) -> &'static str {
        match self {
            HashRef::Listpack(_) => "listpack",
            HashRef::Table(_) => "hashtable",
        }
    }

    fn is_empty(&self) -> bool {
        HashRef::is_empty(*self)
    }

    fn allocations(&self) -> usize {
        if matches!(self, HashRef::Table(_)) { self.len() } else { 1 }
    }

    fn usage_bytes(&self, samples: usize) -> usize {
        match self {
            HashRef::Table(_) => {
                estimate(self.len(), samples, self.iter().map(|(name, value)| name.len() + value.len()))
            }
            _ => 0,
        }
    }

    fn rebuild(&self, key: &[u8], emit: &mut Emit<'_>) {
        pairs_in_pieces(b"HSET", key, self.iter(), emit);
    }

    fn rdb_type(&self) -> u8 {
        rdb::type_byte(*self)
    }

    fn save_body(&self, compression: Compression, out: &mut Vec<u8>) {
        rdb::save_body(*self, compression, out);
    }

    fn pieces(&self) -> usize {
        if matches!(self, HashRef::Table(_)) { self.len() } else { 0 }
    }
}

//! What the store asks of a set: see [`Collection`].

use super::{SetRef, rdb};
use crate::digest::Digest;
use crate::rdb::Compression;
use crate::rebuild::{Emit, in_pieces};
use crate::types::collection::{Collection, estimate};

impl Collection for SetRef<'_> {
    fn type_name(&self) -> &'static str {
        "set"
    }

    fn group(&self) -> &'static str {
        "set"
    }

    fn encoding(&self) -> &'static str {
        match self {
            SetRef::Listpack(_) => "listpack",
            SetRef::Intset(_) => "intset",
            SetRef::Table(_) => "hashtable",
        }
    }

    fn is_empty(&self) -> bool {
        SetRef::is_empty(*self)
    }

    fn allocations(&self) -> usize {
        if matches!(self, SetRef::Table(_)) { self.len() } else { 1 }
    }

    fn usage_bytes(&self, samples: usize) -> usize {
        match self {
            SetRef::Table(_) => estimate(self.len(), samples, self.iter().map(|member| member.len())),
            _ => 0,
        }
    }

    fn rebuild(&self, key: &[u8], emit: &mut Emit<'_>) {
        in_pieces(b"SADD", key, self.iter(), emit);
    }

    fn type_number(&self) -> u32 {
        2
    }

    fn digest(&self, digest: &mut Digest) {
        self.iter().for_each(|member| digest.add(&member));
    }

    fn rdb_type(&self) -> u8 {
        rdb::type_byte(*self)
    }

    fn save_body(&self, compression: Compression, out: &mut Vec<u8>) {
        rdb::save_body(*self, compression, out);
    }

    fn pieces(&self) -> usize {
        if matches!(self, SetRef::Table(_)) { self.len() } else { 0 }
    }
}

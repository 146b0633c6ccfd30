//! What the store asks of a list: see [`Collection`].

use super::{ListRef, rdb};
use crate::digest::Digest;
use crate::rdb::{Compression, type_byte as t};
use crate::rebuild::{Emit, in_pieces};
use crate::types::collection::Collection;

impl Collection for ListRef<'_> {
    fn type_name(&self) -> &'static str {
        "list"
    }

    fn group(&self) -> &'static str {
        "list"
    }

    fn encoding(&self) -> &'static str {
        match self {
            ListRef::Listpack(_) => "listpack",
            ListRef::Quicklist(_) => "quicklist",
        }
    }

    fn is_empty(&self) -> bool {
        ListRef::is_empty(*self)
    }

    fn allocations(&self) -> usize {
        match self {
            ListRef::Listpack(_) => 1,
            ListRef::Quicklist(chain) => chain.nodes().len(),
        }
    }

    fn usage_bytes(&self, _samples: usize) -> usize {
        match self {
            ListRef::Listpack(_) => 0,
            ListRef::Quicklist(chain) => chain.memory_bytes(),
        }
    }

    fn rebuild(&self, key: &[u8], emit: &mut Emit<'_>) {
        in_pieces(b"RPUSH", key, self.iter(), emit);
    }

    fn type_number(&self) -> u32 {
        1
    }

    fn digest(&self, digest: &mut Digest) {
        self.iter().for_each(|element| digest.append(&element));
    }

    fn rdb_type(&self) -> u8 {
        t::LIST_QUICKLIST_2
    }

    fn save_body(&self, compression: Compression, out: &mut Vec<u8>) {
        rdb::save_body(*self, compression, out);
    }

    fn pieces(&self) -> usize {
        if self.is_compact() { 0 } else { self.len() }
    }

    fn saved_count(&self) -> usize {
        match self {
            ListRef::Listpack(_) => 0,
            ListRef::Quicklist(chain) => chain.nodes().len(),
        }
    }
}

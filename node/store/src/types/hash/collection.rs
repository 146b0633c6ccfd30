//! What the store asks of a hash: see [`Collection`].

use super::{HashRef, VolatileTable, rdb};
use crate::digest::Digest;
use crate::rdb::Compression;
use crate::rebuild::{Emit, fits, pairs_in_pieces};
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
            HashRef::Table(_) | HashRef::Volatile(..) => "hashtable",
        }
    }

    fn is_empty(&self) -> bool {
        HashRef::is_empty(*self)
    }

    fn allocations(&self) -> usize {
        if self.is_compact() { 1 } else { self.len() }
    }

    fn usage_bytes(&self, samples: usize) -> usize {
        let sizes = self.iter().map(|(name, value)| name.len() + value.len());
        match self {
            HashRef::Listpack(_) => 0,
            HashRef::Table(_) => estimate(self.len(), samples, sizes),
            HashRef::Volatile(volatile, _) => {
                size_of::<VolatileTable>()
                    + volatile.timed_len() * (TIME_BYTES + size_of::<usize>())
                    + estimate(self.len(), samples, sizes)
            }
        }
    }

    fn rebuild(&self, key: &[u8], emit: &mut Emit<'_>) {
        pairs_in_pieces(b"HSET", key, self.iter(), emit);
        if let HashRef::Volatile(volatile, _) = self {
            times_in_pieces(key, volatile, emit);
        }
    }

    fn type_number(&self) -> u32 {
        4
    }

    fn digest(&self, digest: &mut Digest) {
        for (name, value) in self.iter() {
            let mut pair = Digest::default();
            pair.append(&name);
            pair.append(&value);
            digest.add_digest(pair);
        }
    }

    fn rdb_type(&self) -> u8 {
        rdb::type_byte(*self)
    }

    fn save_body(&self, compression: Compression, out: &mut Vec<u8>) {
        rdb::save_body(*self, compression, out);
    }

    fn pieces(&self) -> usize {
        if self.is_compact() { 0 } else { self.len() }
    }
}

/// What a field's time takes beside its place in the order.
const TIME_BYTES: usize = 12;

/// The commands that give fields their times, a time in each.
fn times_in_pieces(key: &[u8], volatile: &VolatileTable, emit: &mut Emit<'_>) {
    let mut timed = volatile.timed().peekable();
    while let Some((at, _)) = timed.peek().copied() {
        let (mut names, mut bytes) = (Vec::new(), 0);
        while let Some((_, name)) =
            timed.next_if(|(time, name)| *time == at && fits(names.len(), bytes, name.len()))
        {
            names.push(name);
            bytes += name.len();
        }
        let (mut time, mut count) = (itoa::Buffer::new(), itoa::Buffer::new());
        let head: [&[u8]; 5] =
            [b"HPEXPIREAT", key, time.format(at).as_bytes(), b"FIELDS", count.format(names.len()).as_bytes()];
        let command: Vec<&[u8]> = head.into_iter().chain(names).collect();
        emit(&command);
    }
}

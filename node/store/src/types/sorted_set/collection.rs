//! What the store asks of a sorted set: see [`Collection`].

use keyward_proto::resp::number::format_double;

use super::{SortedSetRef, rdb};
use crate::digest::Digest;
use crate::rdb::Compression;
use crate::rebuild::{Emit, fits, pairs_in_pieces};
use crate::types::collection::{Collection, estimate};

impl Collection for SortedSetRef<'_> {
    fn type_name(&self) -> &'static str {
        "zset"
    }

    fn group(&self) -> &'static str {
        "sorted-set"
    }

    fn encoding(&self) -> &'static str {
        match self {
            SortedSetRef::Listpack(_) => "listpack",
            SortedSetRef::Skiplist(_) => "skiplist",
        }
    }

    fn is_empty(&self) -> bool {
        SortedSetRef::is_empty(*self)
    }

    fn allocations(&self) -> usize {
        if matches!(self, SortedSetRef::Skiplist(_)) { self.len() } else { 1 }
    }

    fn usage_bytes(&self, samples: usize) -> usize {
        match self {
            SortedSetRef::Skiplist(_) => {
                estimate(self.len(), samples, self.iter().map(|(member, _)| member.len() + size_of::<f64>()))
            }
            _ => 0,
        }
    }

    fn rebuild(&self, key: &[u8], emit: &mut Emit<'_>) {
        let mut pieces = self.iter().peekable();
        while pieces.peek().is_some() {
            // The texts of the scores live as long as the piece that borrows them.
            let (mut piece, mut bytes) = (Vec::new(), 0);
            while let Some((member, score)) = pieces.next_if(|(m, _)| fits(piece.len(), bytes, m.len() + 24))
            {
                let score = format_double(score);
                bytes += member.len() + score.len();
                piece.push((score, member));
            }
            let pairs = piece.iter().map(|(score, member)| (score.as_bytes().into(), *member));
            pairs_in_pieces(b"ZADD", key, pairs, emit);
        }
    }

    fn type_number(&self) -> u32 {
        3
    }

    fn digest(&self, digest: &mut Digest) {
        for (member, score) in self.iter() {
            let mut element = Digest::default();
            element.append(&member);
            element.append(format_double(score).as_bytes());
            digest.add_digest(element);
        }
    }

    fn rdb_type(&self) -> u8 {
        rdb::type_byte(*self)
    }

    fn save_body(&self, compression: Compression, out: &mut Vec<u8>) {
        rdb::save_body(*self, compression, out);
    }

    fn pieces(&self) -> usize {
        if matches!(self, SortedSetRef::Skiplist(_)) { self.len() } else { 0 }
    }
}

//! Writes a value as the commands that build it anew: how a value enters the log of effects of another slot, and
//! how it travels in a full sync.
//!
//! A string is one `SET key value [PXAT ms]`. A collection is written in pieces, so that no single command (and no
//! buffer on the way) is as large as the value; its expiry follows as a `PEXPIREAT`. The key must not exist where
//! the commands are applied. The order of elements is the value's own, so equal values give equal commands.

use super::entry::{Entry, NewValue, ValueRef};
use super::types::Element;

/// Elements (fields, members) of one command.
pub const PIECE_LEN_MAX: usize = 128;
/// Bytes of elements in one command, unless a single element is larger.
pub const PIECE_BYTES_MAX: usize = 64 * 1024;

/// Receives one command after another.
pub type Emit<'a> = dyn FnMut(&[&[u8]]) + 'a;

/// The commands that build an entry under its own key.
pub fn rebuild(entry: &Entry, emit: &mut Emit<'_>) {
    rebuild_as(entry.key(), entry.value(), entry.expire_at(), emit);
}

/// The commands that build a value under `key`.
pub fn rebuild_as(key: &[u8], value: ValueRef<'_>, expire_at: Option<i64>, emit: &mut Emit<'_>) {
    let mut number = itoa::Buffer::new();
    let expire_at = expire_at.map(|at| number.format(at).as_bytes());
    match value {
        ValueRef::String(bytes) => {
            return match expire_at {
                Some(at) => emit(&[b"SET", key, bytes, b"PXAT", at]),
                None => emit(&[b"SET", key, bytes]),
            };
        }
        _ => value.collection().expect("it is no string").rebuild(key, emit),
    }
    if let Some(at) = expire_at {
        emit(&[b"PEXPIREAT", key, at]);
    }
}

/// A copy of an entry's value, to be put under another key.
pub fn copied(entry: &Entry) -> NewValue<'_> {
    match entry.value() {
        ValueRef::String(bytes) if !entry.is_raw() && !entry.is_not_integer() => NewValue::Bytes(bytes),
        _ => NewValue::Value(entry.copied_value()),
    }
}

pub(crate) fn fits(len: usize, bytes: usize, more: usize) -> bool {
    len == 0 || len < PIECE_LEN_MAX && bytes + more <= PIECE_BYTES_MAX
}

pub(crate) fn in_pieces<'a>(
    name: &[u8],
    key: &[u8],
    elements: impl Iterator<Item = Element<'a>>,
    emit: &mut Emit<'_>,
) {
    write_pieces(name, key, elements.map(|e| [e]), emit);
}

pub(crate) fn pairs_in_pieces<'a>(
    name: &[u8],
    key: &[u8],
    pairs: impl Iterator<Item = (Element<'a>, Element<'a>)>,
    emit: &mut Emit<'_>,
) {
    write_pieces(name, key, pairs.map(|(a, b)| [a, b]), emit);
}

fn write_pieces<'a, const N: usize>(
    name: &[u8],
    key: &[u8],
    elements: impl Iterator<Item = [Element<'a>; N]>,
    emit: &mut Emit<'_>,
) {
    let mut elements = elements.peekable();
    let mut piece: Vec<Element<'_>> = Vec::new();
    let size = |element: &[Element<'_>; N]| element.iter().map(|part| part.len()).sum::<usize>();
    while elements.peek().is_some() {
        piece.clear();
        let (mut len, mut bytes) = (0, 0);
        while let Some(element) = elements.next_if(|e| fits(len, bytes, size(e))) {
            len += 1;
            bytes += size(&element);
            piece.extend(element);
        }
        let command: Vec<&[u8]> = [name, key].into_iter().chain(piece.iter().map(|e| &**e)).collect();
        emit(&command);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Hash, List, Set, SortedSet};

    fn commands(entry: &Entry) -> Vec<String> {
        let mut commands = Vec::new();
        rebuild(entry, &mut |command| {
            let words: Vec<_> = command.iter().map(|w| String::from_utf8_lossy(w)).collect();
            commands.push(words.join(" "));
        });
        commands
    }

    #[test]
    fn a_string_is_one_command() {
        let entry = Entry::new(b"k", NewValue::Bytes(b"v"), None, 0);
        assert_eq!(commands(&entry), ["SET k v"]);
        let entry = Entry::new(b"k", NewValue::Bytes(b"v"), Some(12), 0);
        assert_eq!(commands(&entry), ["SET k v PXAT 12"]);
    }

    #[test]
    fn each_type_has_its_command() {
        let mut list = List::default();
        list.push_back(b"a");
        list.push_back(b"b");
        let entry = Entry::new(b"k", NewValue::Value(list.into()), Some(7), 0);
        assert_eq!(commands(&entry), ["RPUSH k a b", "PEXPIREAT k 7"]);
        let mut set = Set::default();
        set.insert(b"a");
        assert_eq!(commands(&Entry::new(b"k", NewValue::Value(set.into()), None, 0)), ["SADD k a"]);
        let mut hash = Hash::default();
        hash.set(b"f", b"v");
        assert_eq!(commands(&Entry::new(b"k", NewValue::Value(hash.into()), None, 0)), ["HSET k f v"]);
        let mut zset = SortedSet::default();
        zset.insert(b"m", 1.5);
        zset.insert(b"n", f64::INFINITY);
        let entry = Entry::new(b"k", NewValue::Value(zset.into()), None, 0);
        assert_eq!(commands(&entry), ["ZADD k 1.5 m inf n"]);
    }

    #[test]
    fn a_large_collection_is_written_in_pieces() {
        let (mut list, mut zset) = (List::default(), SortedSet::default());
        for i in 0..300 {
            list.push_back(format!("{i}").as_bytes());
            zset.insert(format!("{i:03}").as_bytes(), f64::from(i));
        }
        let list = commands(&Entry::new(b"k", NewValue::Value(list.into()), Some(1), 0));
        let words: Vec<usize> = list.iter().map(|c| c.split(' ').count()).collect();
        assert_eq!(words, [130, 130, 46, 3]);
        let zset = commands(&Entry::new(b"k", NewValue::Value(zset.into()), None, 0));
        let words: Vec<usize> = zset.iter().map(|c| c.split(' ').count()).collect();
        assert_eq!(words, [258, 258, 90]);

        let mut list = List::default();
        for len in [40_000, 40_000, 100_000, 1] {
            list.push_back(&vec![b'x'; len]);
        }
        let sizes: Vec<usize> = commands(&Entry::new(b"k", NewValue::Value(list.into()), None, 0))
            .iter()
            .map(String::len)
            .collect();
        assert_eq!(sizes, [40_008, 40_008, 100_008, 9]);
    }
}

//! Keys that a command has touched and that are looked at again at its end. Mostly it is one, and short: that takes no
//! memory of its own.

use std::collections::BTreeSet;

use crate::{DbIndex, DbKey};

const SHORT_LEN_MAX: usize = 60;

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct NotedKeys {
    first: Option<Short>,
    more: BTreeSet<DbKey>,
}

#[derive(Debug)]
struct Short {
    db: DbIndex,
    len: u8,
    bytes: [u8; SHORT_LEN_MAX],
}

impl Short {
    fn new(db: DbIndex, key: &[u8]) -> Option<Short> {
        let mut bytes = [0; SHORT_LEN_MAX];
        bytes.get_mut(..key.len())?.copy_from_slice(key);
        Some(Short { db, len: u8::try_from(key.len()).ok()?, bytes })
    }

    fn key(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl NotedKeys {
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none() && self.more.is_empty()
    }

    pub(super) fn note(&mut self, db: DbIndex, key: &[u8]) {
        match &self.first {
            Some(first) if (first.db, first.key()) == (db, key) => return,
            None => self.first = Short::new(db, key),
            Some(_) => {
                self.more.insert((db, key.into()));
                return;
            }
        }
        if self.first.is_none() {
            self.more.insert((db, key.into()));
        }
    }

    /// Calls `look` with each of them.
    pub(super) fn each(&self, mut look: impl FnMut(DbIndex, &[u8])) {
        if let Some(first) = &self.first {
            look(first.db, first.key());
        }
        self.more.iter().for_each(|(db, key)| look(*db, key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_is_noted_once() {
        let long = [b'x'; SHORT_LEN_MAX + 1];
        let mut keys = NotedKeys::default();
        assert!(keys.is_empty());
        for _ in 0..2 {
            for (db, key) in [(0, &long[..]), (0, &long[1..]), (1, &long[1..]), (0, b""), (0, b"a")] {
                keys.note(db, key);
            }
        }
        let mut noted = Vec::new();
        keys.each(|db, key| noted.push((db, key.len())));
        noted.sort_unstable();
        assert_eq!(noted, [(0, 0), (0, 1), (0, SHORT_LEN_MAX), (0, SHORT_LEN_MAX + 1), (1, SHORT_LEN_MAX)]);
        assert!(!keys.is_empty());
    }
}

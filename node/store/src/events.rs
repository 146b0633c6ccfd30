//! Keyspace events (<https://valkey.io/topics/notifications/>): which classes are published, and the events that a
//! command leaves behind.

use crate::DbIndex;

/// The class of an event: one letter of `notify-keyspace-events`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum EventClass {
    Generic = 1 << 2,
    String = 1 << 3,
    List = 1 << 4,
    Set = 1 << 5,
    Hash = 1 << 6,
    SortedSet = 1 << 7,
    Expired = 1 << 8,
    Evicted = 1 << 9,
    Stream = 1 << 10,
    KeyMiss = 1 << 11,
    Module = 1 << 13,
    New = 1 << 14,
}

const KEYSPACE: u32 = 1;
const KEYEVENT: u32 = 1 << 1;
/// What `A` stands for.
const ALL: u32 = 0b11_0111_1111_1100 & !(1 << 11);

const LETTERS: [(char, u32); 14] = [
    ('K', KEYSPACE),
    ('E', KEYEVENT),
    ('g', EventClass::Generic as u32),
    ('$', EventClass::String as u32),
    ('l', EventClass::List as u32),
    ('s', EventClass::Set as u32),
    ('h', EventClass::Hash as u32),
    ('z', EventClass::SortedSet as u32),
    ('x', EventClass::Expired as u32),
    ('e', EventClass::Evicted as u32),
    ('t', EventClass::Stream as u32),
    ('m', EventClass::KeyMiss as u32),
    ('d', EventClass::Module as u32),
    ('n', EventClass::New as u32),
];

/// The value of `notify-keyspace-events`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EventClasses(u32);

impl EventClasses {
    /// `None` if a letter is unknown.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bits = 0;
        for letter in text.chars() {
            bits |= match letter {
                'A' => ALL,
                _ => LETTERS.iter().find(|(l, _)| *l == letter)?.1,
            };
        }
        Some(EventClasses(bits))
    }

    /// As CONFIG GET shows it: the classes, or `A` for all of them, then where to, then `m`.
    /// Differs from Valkey: `n` is shown beside `A` too, because the configuration keeps this text.
    pub fn to_text(self) -> String {
        let has = |bit: u32| self.0 & bit != 0;
        let all = self.0 & ALL == ALL;
        let key_miss = EventClass::KeyMiss as u32;
        let classes =
            LETTERS[2..].iter().filter(|(_, bit)| !(all && bit & ALL != 0) && *bit != key_miss && has(*bit));
        let rest =
            LETTERS.iter().filter(|(_, bit)| [KEYSPACE, KEYEVENT, key_miss].contains(bit) && has(*bit));
        let mut text = String::from(if all { "A" } else { "" });
        text.extend(classes.chain(rest).map(|(letter, _)| *letter));
        text
    }

    /// Whether events of this class go anywhere.
    #[inline]
    pub fn contains(self, class: EventClass) -> bool {
        self.0 & class as u32 != 0 && self.0 & (KEYSPACE | KEYEVENT) != 0
    }

    /// Publish to `__keyspace@db__:key`.
    pub fn keyspace(self) -> bool {
        self.0 & KEYSPACE != 0
    }

    /// Publish to `__keyevent@db__:event`.
    pub fn keyevent(self) -> bool {
        self.0 & KEYEVENT != 0
    }
}

/// Something happened to a key.
#[derive(Debug, Clone)]
pub struct Event {
    pub class: EventClass,
    pub event: &'static str,
    pub db: DbIndex,
    pub key: Box<[u8]>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_round_trip() {
        for (input, output) in [
            ("KEA", "AKE"),
            ("Kg$", "g$K"),
            ("", ""),
            ("Elx", "lxE"),
            ("AKEm", "AKEm"),
            ("AKEmn", "AnKEm"),
            ("KEgmnt", "gtnKEm"),
        ] {
            assert_eq!(EventClasses::parse(input).unwrap().to_text(), output);
        }
        assert!(EventClasses::parse("q").is_none());
    }
}

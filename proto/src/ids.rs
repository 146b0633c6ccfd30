//! Identifiers and log positions.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// 40 hexadecimal digits, as Valkey writes them; `None` otherwise.
            pub fn parse(text: &str) -> Option<Self> {
                let ok = text.len() == 40 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
                ok.then(|| $name(Arc::from(text)))
            }

            /// From 20 random bytes.
            pub fn from_random(bytes: [u8; 20]) -> Self {
                use fmt::Write;
                let mut text = String::with_capacity(40);
                for b in bytes {
                    write!(text, "{b:02x}").expect("writing to a String cannot fail");
                }
                $name(Arc::from(text))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.0.get(..8).unwrap_or(&self.0))
            }
        }
    };
}

name_type!(
    /// A data directory's identity: it survives restarts and changes of address.
    NodeId
);
name_type!(
    /// A shard: the nodes that hold the same slots.
    ShardId
);

macro_rules! counter_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Before the first.
            pub const ZERO: $name = $name(0);

            pub const fn new(value: u64) -> Self {
                $name(value)
            }

            pub const fn get(self) -> u64 {
                self.0
            }

            /// The one after this.
            pub const fn next(self) -> Self {
                $name(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter_type!(
    /// Grows by one at each change of a shard's primary. Zero: the shard never had one.
    Term
);
counter_type!(
    /// A position in the write log; the first entry has index 1, zero is "before everything".
    LogIndex
);
counter_type!(
    /// One start of a node process: the Raft index at which it registered.
    Incarnation
);

/// Identifies an entry of the write log. Ordered by term first, as elections compare it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    pub term: Term,
    pub index: LogIndex,
}

impl Position {
    pub const ZERO: Position = Position { term: Term::ZERO, index: LogIndex::ZERO };

    pub const fn new(term: u64, index: u64) -> Self {
        Position { term: Term::new(term), index: LogIndex::new(index) }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.index)
    }
}

//! The value types. Each keeps its representation to itself, so that it can change without its commands.

pub mod buffer;
pub mod element;
mod hash;
pub mod intset;
mod list;
pub mod listpack;
mod random;
mod set;
mod sorted_set;

pub use element::Element;
pub use hash::{Hash, Pair};
pub use list::{End, List};
pub use set::Set;
pub use sorted_set::{Direction, LexBound, LexRange, ScoreRange, SortedSet};

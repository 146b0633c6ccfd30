//! Large values that were deleted or replaced: they are dropped when no slot is locked any more, in the background if
//! `lazyfree-lazy-...` says so. Freeing a million elements takes long; taking them out of the table does not.

use super::entry::Entry;

/// A value of more allocations than this is not dropped under its slot's lock.
const ALLOCATIONS_MAX: usize = 64;

/// Why a value is dropped: each has its own `lazyfree-lazy-...`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    Evicted,
    Expired,
    /// A command replaced it, or it was the old value of a destination.
    Replaced,
    /// DEL.
    Deleted,
    /// UNLINK: always in the background.
    Unlinked,
}

/// A large value, with the key that it had.
#[derive(Debug)]
pub struct LazyFree {
    pub entry: Entry,
    pub cause: Cause,
}

/// Whether dropping it takes long. Strings and compact collections are an allocation or two.
pub fn is_large(entry: &Entry) -> bool {
    entry.value().collection().is_some_and(|collection| ALLOCATIONS_MAX < collection.allocations())
}

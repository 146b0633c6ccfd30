//! Entries that come in parts.
//!
//! A large entry takes its time on the way, and beacons do not overtake it: they are parts of the same stream. So a
//! message has so many bytes at most, whatever the entries in it are, and each part is a beacon, too. A replica appends
//! the entries when it has the last part; until then it holds what it held.

use bytes::Bytes;
use keyward_proto::ids::{Position, Term};

use super::messages::Append;

/// What entries of one message may have altogether: an entry may be as large as a value (512 MiB), a transaction larger.
const ENTRIES_BYTES_MAX: u64 = 2 << 30;

/// A part does not go on with what was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a part of entries that were not begun")]
pub(crate) struct OutOfOrder;

#[derive(Debug)]
struct Begun {
    previous: Position,
    entries_term: Term,
    count: u64,
    bytes: Vec<u8>,
    rest_bytes: u64,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    begun: Option<Begun>,
}

impl Assembly {
    /// Takes the entries out of a message that is not the last part, and puts all of them into the last one.
    ///
    /// # Errors
    /// It is no part of what was begun.
    pub(crate) fn take_in(&mut self, append: &mut Append) -> Result<(), OutOfOrder> {
        let part = std::mem::take(&mut append.entries);
        let mut begun = match self.begun.take() {
            None if append.rest_bytes == 0 => {
                append.entries = part;
                return Ok(());
            }
            None => Begun::with(append, part.len())?,
            Some(begun) if begun.goes_on_with(append, part.len()) => begun,
            Some(_) => return Err(OutOfOrder),
        };
        begun.bytes.extend_from_slice(&part);
        begun.rest_bytes = append.rest_bytes;
        if append.rest_bytes == 0 {
            append.entries = Bytes::from(begun.bytes);
        } else {
            append.count = 0;
            self.begun = Some(begun);
        }
        Ok(())
    }
}

impl Begun {
    fn with(append: &Append, part: usize) -> Result<Begun, OutOfOrder> {
        let all = append.rest_bytes.saturating_add(part as u64);
        if ENTRIES_BYTES_MAX < all {
            return Err(OutOfOrder);
        }
        Ok(Begun {
            previous: append.previous,
            entries_term: append.entries_term,
            count: append.count,
            bytes: Vec::with_capacity(usize::try_from(all).map_err(|_| OutOfOrder)?),
            rest_bytes: all,
        })
    }

    fn goes_on_with(&self, append: &Append, part: usize) -> bool {
        let Append { previous, entries_term, count, rest_bytes, .. } = *append;
        (previous, entries_term, count) == (self.previous, self.entries_term, self.count)
            && 0 < part
            && rest_bytes.checked_add(part as u64) == Some(self.rest_bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use keyward_proto::ids::LogIndex;
    use keyward_proto::time::Monotonic;

    use super::*;

    fn part(index: u64, count: u64, entries: &'static str, rest_bytes: u64) -> Append {
        Append {
            term: Term::new(3),
            previous: Position::new(2, index),
            entries_term: Term::new(3),
            count,
            entries: Bytes::from_static(entries.as_bytes()),
            rest_bytes,
            commit: LogIndex::ZERO,
            sent_at: Monotonic::ZERO,
            unheard: Duration::ZERO,
            lease: Duration::ZERO,
        }
    }

    /// What is left of messages: entries and their number.
    fn take_in(assembly: &mut Assembly, mut append: Append) -> Result<(String, u64), OutOfOrder> {
        assembly.take_in(&mut append)?;
        Ok((String::from_utf8(append.entries.to_vec()).unwrap(), append.count))
    }

    #[test]
    fn the_last_part_brings_all_entries() {
        let mut assembly = Assembly::default();
        let mut check = |append, entries: &str, count| {
            assert_eq!(take_in(&mut assembly, append), Ok((entries.to_owned(), count)));
        };
        check(part(7, 2, "whole", 0), "whole", 2);
        check(part(9, 1, "a lar", 9), "", 0);
        check(part(9, 1, "ge en", 4), "", 0);
        check(part(9, 1, "try.", 0), "a large entry.", 1);
        check(part(10, 0, "", 0), "", 0);
    }

    #[test]
    fn what_is_no_part_of_it_is_refused() {
        let begun = || {
            let mut assembly = Assembly::default();
            take_in(&mut assembly, part(9, 1, "a lar", 9)).unwrap();
            assembly
        };
        let others = [
            part(10, 1, "ge en", 4),
            part(9, 2, "ge en", 4),
            part(9, 1, "ge en", 5),
            part(9, 1, "", 9),
            part(9, 0, "", 0),
            part(9, 1, "ge en", u64::MAX),
        ];
        for other in others {
            assert_eq!(take_in(&mut begun(), other), Err(OutOfOrder));
        }
        assert_eq!(take_in(&mut Assembly::default(), part(9, 1, "a", u64::MAX)), Err(OutOfOrder));
        assert_eq!(take_in(&mut Assembly::default(), part(9, 1, "a", ENTRIES_BYTES_MAX)), Err(OutOfOrder));
    }
}

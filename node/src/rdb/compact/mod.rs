//! Small collections as one string: the encodings that Valkey and Redis save, and those that Redis once saved.
//!
//! Each reader checks the whole layout while it walks: lengths, the number of elements, the end mark. They give
//! elements as [`Text`], an integer as its digits.

pub(super) mod intset;
pub(super) mod listpack;
pub(super) mod ziplist;
pub(super) mod zipmap;

use super::{RdbError, Text};

/// The last byte of a listpack, a ziplist and a zipmap.
const END: u8 = 0xff;

/// Two elements at a time: a field with its value, a member with its score.
pub(super) fn for_each_pair<'a>(
    mut elements: impl Iterator<Item = Result<Text<'a>, RdbError>>,
    mut visit: impl FnMut(Text<'a>, Text<'a>) -> Result<(), RdbError>,
) -> Result<(), RdbError> {
    while let Some(first) = elements.next() {
        let Some(second) = elements.next() else {
            return Err(RdbError::Corrupt("a compact collection of pairs has an odd number of elements"));
        };
        visit(first?, second?)?;
    }
    Ok(())
}

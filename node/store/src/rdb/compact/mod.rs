//! Small collections as one string: the encodings that Redis once saved. Those of today are the forms in which
//! Keyward has them in memory: [`crate::types::listpack`] and [`crate::types::set::intset`].
//!
//! Each reader checks the whole layout while it walks: lengths, the number of elements, the end mark. They give
//! elements as [`Text`], an integer as its digits.

pub(crate) mod ziplist;
pub(crate) mod zipmap;

use super::RdbError;

/// The last byte of a ziplist and a zipmap.
const END: u8 = 0xff;

/// Up to here comparing all with all is the fastest way to find out whether a name is there twice.
const FEW: usize = 16;

/// Two elements at a time: a field with its value, a member with its score.
pub(crate) fn for_each_pair<T>(
    mut elements: impl Iterator<Item = Result<T, RdbError>>,
    mut visit: impl FnMut(T, T) -> Result<(), RdbError>,
) -> Result<(), RdbError> {
    while let Some(first) = elements.next() {
        let Some(second) = elements.next() else { return Err(ODD) };
        visit(first?, second?)?;
    }
    Ok(())
}

pub(crate) const ODD: RdbError =
    RdbError::Corrupt("a compact collection of pairs has an odd number of elements");

/// Whether one of these names is there twice.
pub(crate) fn has_duplicates(mut names: Vec<&[u8]>) -> bool {
    if names.len() <= FEW {
        return names.iter().enumerate().any(|(i, name)| names[..i].contains(name));
    }
    names.sort_unstable();
    names.windows(2).any(|pair| pair[0] == pair[1])
}

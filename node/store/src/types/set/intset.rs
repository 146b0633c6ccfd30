//! A sorted array of integers in Valkey's own byte format: a set whose members are all integers.
//!
//! ```text
//! bytes of an integer u32 LE: 2, 4 or 8 | number of integers u32 LE | integers LE, ascending
//! ```
//!
//! The first integer that needs more bytes makes all of them wider; they never become narrower again.

use crate::types::buffer::Buffer;

const HEADER_LEN: usize = 8;
/// An intset without integers.
pub const EMPTY: [u8; HEADER_LEN] = [2, 0, 0, 0, 0, 0, 0, 0];

fn width_of(value: i64) -> usize {
    if i16::try_from(value).is_ok() {
        2
    } else if i32::try_from(value).is_ok() {
        4
    } else {
        8
    }
}

/// An intset for reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntsetRef<'a>(&'a [u8]);

impl<'a> IntsetRef<'a> {
    /// The bytes are known to be a well-formed intset.
    #[inline]
    pub fn trusted(bytes: &'a [u8]) -> Self {
        IntsetRef(bytes)
    }

    #[inline]
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    #[inline]
    fn width(self) -> usize {
        usize::from(self.0[0])
    }

    #[inline]
    pub fn len(self) -> usize {
        (self.0.len() - HEADER_LEN) / self.width()
    }

    #[inline]
    pub fn is_empty(self) -> bool {
        self.0.len() == HEADER_LEN
    }

    #[inline]
    fn at(self, index: usize) -> i64 {
        let width = self.width();
        let bytes = &self.0[HEADER_LEN + index * width..][..width];
        match *bytes {
            [a, b] => i16::from_le_bytes([a, b]).into(),
            [a, b, c, d] => i32::from_le_bytes([a, b, c, d]).into(),
            _ => i64::from_le_bytes(*bytes.first_chunk().expect("the third width is 8")),
        }
    }

    pub fn get(self, index: usize) -> Option<i64> {
        (index < self.len()).then(|| self.at(index))
    }

    /// In ascending order.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = i64> + ExactSizeIterator + 'a {
        (0..self.len()).map(move |index| self.at(index))
    }

    /// Where a value is, or else where it belongs.
    pub fn position(self, value: i64) -> Result<usize, usize> {
        let (mut start, mut end) = (0, self.len());
        while start < end {
            let middle = start.midpoint(end);
            match self.at(middle).cmp(&value) {
                std::cmp::Ordering::Less => start = middle + 1,
                std::cmp::Ordering::Equal => return Ok(middle),
                std::cmp::Ordering::Greater => end = middle,
            }
        }
        Err(start)
    }

    pub fn contains(self, value: i64) -> bool {
        self.position(value).is_ok()
    }
}

fn set_header(bytes: &mut [u8], width: usize) {
    let len = u32::try_from((bytes.len() - HEADER_LEN) / width).expect("an intset has limits");
    bytes[..4].copy_from_slice(&(width as u32).to_le_bytes());
    bytes[4..8].copy_from_slice(&len.to_le_bytes());
}

fn write(bytes: &mut [u8], index: usize, width: usize, value: i64) {
    bytes[HEADER_LEN + index * width..][..width].copy_from_slice(&value.to_le_bytes()[..width]);
}

/// Adds a value; whether it is new.
pub fn insert(buffer: &mut impl Buffer, value: i64) -> bool {
    let set = IntsetRef(buffer.bytes());
    let Err(index) = set.position(value) else { return false };
    let (old_width, width) = (set.width(), width_of(value).max(set.width()));
    if old_width == width {
        let bytes = buffer.replace_range(HEADER_LEN + index * width, 0, width);
        write(bytes, index, width, value);
        set_header(bytes, width);
        return true;
    }
    // What needs more room than the others is below or above all of them.
    let old: Vec<i64> = set.iter().collect();
    let bytes = buffer.replace_range(HEADER_LEN, old.len() * old_width, (old.len() + 1) * width);
    let values = old[..index].iter().chain([&value]).chain(&old[index..]);
    values.enumerate().for_each(|(i, value)| write(bytes, i, width, *value));
    set_header(bytes, width);
    true
}

/// Removes a value; whether it was there.
pub fn remove(buffer: &mut impl Buffer, value: i64) -> bool {
    let set = IntsetRef(buffer.bytes());
    let Ok(index) = set.position(value) else { return false };
    let width = set.width();
    let bytes = buffer.replace_range(HEADER_LEN + index * width, width, 0);
    set_header(bytes, width);
    true
}

/// An intset that is not a valid one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed intset")]
pub struct MalformedIntset;

/// An intset of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intset(Vec<u8>);

impl Default for Intset {
    fn default() -> Self {
        Intset(EMPTY.to_vec())
    }
}

impl Intset {
    /// Takes over bytes from outside.
    ///
    /// # Errors
    /// They are no well-formed intset: a width that there is not, a wrong number, integers not in ascending order.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, MalformedIntset> {
        let check = || {
            let width = u32::from_le_bytes(*bytes.first_chunk()?);
            let len = u32::from_le_bytes(*bytes.get(4..)?.first_chunk()?);
            let integers = bytes.get(HEADER_LEN..)?.len() as u64;
            let right = matches!(width, 2 | 4 | 8) && integers == u64::from(width) * u64::from(len);
            (right && IntsetRef(&bytes).iter().is_sorted_by(|a, b| a < b)).then_some(())
        };
        match check() {
            Some(()) => Ok(Intset(bytes)),
            None => Err(MalformedIntset),
        }
    }

    pub fn as_ref(&self) -> IntsetRef<'_> {
        IntsetRef(&self.0)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Adds a value; whether it is new.
    pub fn insert(&mut self, value: i64) -> bool {
        insert(&mut self.0, value)
    }

    /// Removes a value; whether it was there.
    pub fn remove(&mut self, value: i64) -> bool {
        remove(&mut self.0, value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};
    use std::collections::BTreeSet;

    #[test]
    fn the_bytes_are_valkeys() {
        let mut set = Intset::default();
        assert_eq!(set.as_bytes(), [2, 0, 0, 0, 0, 0, 0, 0]);
        assert!(set.insert(5) && set.insert(-1) && !set.insert(5));
        assert_eq!(set.as_bytes(), [2, 0, 0, 0, 2, 0, 0, 0, 0xff, 0xff, 5, 0]);
        assert!(set.insert(70_000));
        assert_eq!(set.as_bytes()[..8], [4, 0, 0, 0, 3, 0, 0, 0]);
        assert_eq!(set.as_bytes()[16..], [0x70, 0x11, 1, 0]);
        assert!(set.insert(i64::MIN) && set.remove(70_000));
        assert_eq!(set.as_bytes()[..8], [8, 0, 0, 0, 3, 0, 0, 0]);
        assert_eq!(set.as_ref().iter().collect::<Vec<_>>(), [i64::MIN, -1, 5]);
    }

    #[test]
    fn behaves_as_a_sorted_set_under_random_edits() {
        for seed in 0..20 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let (mut set, mut model) = (Intset::default(), BTreeSet::new());
            for step in 0..500 {
                let value = rng.random::<i64>() >> (63 - (step / 8) % 64 * u32::from(rng.random_bool(0.9)));
                if rng.random_range(0..3) == 0 {
                    assert_eq!(set.remove(value), model.remove(&value));
                } else {
                    assert_eq!(set.insert(value), model.insert(value));
                }
                assert_eq!(set.as_ref().contains(value), model.contains(&value));
                assert!(set.as_ref().iter().eq(model.iter().copied()));
                assert!(set.as_ref().iter().rev().eq(model.iter().rev().copied()));
                assert_eq!(Intset::from_bytes(set.as_bytes().to_vec()).as_ref(), Ok(&set));
            }
        }
    }

    #[test]
    fn damaged_bytes_are_refused() {
        for bad in [
            &[][..],
            &[2, 0, 0, 0, 0, 0, 0],
            &[3, 0, 0, 0, 0, 0, 0, 0],
            &[2, 0, 0, 0, 1, 0, 0, 0, 1],
            &[2, 0, 0, 0, 2, 0, 0, 0, 1, 0],
            &[2, 0, 0, 0, 2, 0, 0, 0, 2, 0, 1, 0],
            &[2, 0, 0, 0, 2, 0, 0, 0, 1, 0, 1, 0],
            &[8, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
            &[2, 1, 0, 0, 0, 0, 0, 0],
        ] {
            assert_eq!(Intset::from_bytes(bad.to_vec()), Err(MalformedIntset), "{bad:?}");
        }
    }
}

//! An element of a compact collection: bytes that lie in the collection, or an integer that is stored as one.
//!
//! Compact encodings keep integers in binary. Whoever reads an element wants its text, so an integer is written out
//! into the element itself and both look like a slice of bytes.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

/// Digits and sign of any 64-bit integer.
const DIGITS_MAX: usize = 20;

/// See the module documentation.
#[derive(Clone, Copy)]
pub struct Element<'a>(Text<'a>);

#[derive(Clone, Copy)]
enum Text<'a> {
    Bytes(&'a [u8]),
    Digits { text: [u8; DIGITS_MAX], len: u8 },
}

impl Deref for Element<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Text::Bytes(bytes) => bytes,
            Text::Digits { text, len } => &text[..usize::from(*len)],
        }
    }
}

impl<'a> From<&'a [u8]> for Element<'a> {
    #[inline]
    fn from(bytes: &'a [u8]) -> Self {
        Element(Text::Bytes(bytes))
    }
}

impl From<i64> for Element<'_> {
    #[inline]
    fn from(value: i64) -> Self {
        let mut buffer = itoa::Buffer::new();
        let digits = buffer.format(value).as_bytes();
        let mut text = [0; DIGITS_MAX];
        text[..digits.len()].copy_from_slice(digits);
        Element(Text::Digits { text, len: digits.len() as u8 })
    }
}

impl From<Element<'_>> for Box<[u8]> {
    fn from(element: Element<'_>) -> Self {
        (&*element).into()
    }
}

impl AsRef<[u8]> for Element<'_> {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Borrow<[u8]> for Element<'_> {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl PartialEq for Element<'_> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Element<'_> {}

impl PartialEq<[u8]> for Element<'_> {
    fn eq(&self, other: &[u8]) -> bool {
        **self == *other
    }
}

impl PartialEq<&[u8]> for Element<'_> {
    fn eq(&self, other: &&[u8]) -> bool {
        **self == **other
    }
}

impl<const N: usize> PartialEq<&[u8; N]> for Element<'_> {
    fn eq(&self, other: &&[u8; N]) -> bool {
        **self == other[..]
    }
}

impl Ord for Element<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

impl PartialOrd for Element<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for Element<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl fmt::Debug for Element<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self))
    }
}

//! Reading lengths and strings. Every length is checked against the bytes that are there before it is used.
//!
//! A length takes one byte (up to 63), two (up to 16383), five or nine. Where a string may stand, a first byte with its
//! two upper bits set means an encoding instead: an integer of 8, 16 or 32 bits, or LZF.

use std::ops::Deref;

use super::{ENCODED_INT8, ENCODED_INT16, ENCODED_INT32, ENCODED_LZF, LENGTH_32, LENGTH_64, RdbError, lzf};

/// What is left of the bytes being read.
#[derive(Debug, Clone)]
pub struct Input<'a>(&'a [u8]);

/// A string as it is in the input, or what its encoding stands for.
#[derive(Debug, Clone)]
pub enum Text<'a> {
    Slice(&'a [u8]),
    Number(Digits),
    Owned(Vec<u8>),
}

/// The digits of an integer, without an allocation.
#[derive(Debug, Clone, Copy)]
pub struct Digits {
    /// As long as `i64::MIN`.
    digits: [u8; 20],
    len: u8,
}

impl Digits {
    pub(super) fn new(value: i64) -> Self {
        let mut buffer = itoa::Buffer::new();
        let text = buffer.format(value).as_bytes();
        let mut digits = [0; 20];
        digits[..text.len()].copy_from_slice(text);
        Digits { digits, len: text.len() as u8 }
    }
}

impl Deref for Digits {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.digits[..usize::from(self.len)]
    }
}

impl Text<'_> {
    pub fn into_vec(self) -> Vec<u8> {
        match self {
            Text::Owned(bytes) => bytes,
            other => other.to_vec(),
        }
    }
}

impl Deref for Text<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Text::Slice(bytes) => bytes,
            Text::Number(digits) => digits,
            Text::Owned(bytes) => bytes,
        }
    }
}

/// What a length field says.
enum Length {
    Plain(u64),
    Encoded(u8),
}

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Input(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is left.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// Bytes that are left.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    #[inline]
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], RdbError> {
        let Some((taken, rest)) = self.0.split_at_checked(len) else { return Err(self.lacks(len as u64)) };
        self.0 = rest;
        Ok(taken)
    }

    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], RdbError> {
        let Some((taken, rest)) = self.0.split_first_chunk::<N>() else { return Err(self.lacks(N as u64)) };
        self.0 = rest;
        Ok(*taken)
    }

    #[inline]
    pub fn byte(&mut self) -> Result<u8, RdbError> {
        self.array().map(|[byte]| byte)
    }

    #[inline]
    fn any_length(&mut self) -> Result<Length, RdbError> {
        let first = self.byte()?;
        Ok(match first >> 6 {
            0 => Length::Plain(u64::from(first)),
            1 => Length::Plain(u64::from(first & 0x3f) << 8 | u64::from(self.byte()?)),
            3 => Length::Encoded(first & 0x3f),
            _ => match first {
                LENGTH_32 => Length::Plain(u64::from(u32::from_be_bytes(self.array()?))),
                LENGTH_64 => Length::Plain(u64::from_be_bytes(self.array()?)),
                _ => return Err(RdbError::Corrupt("a length has an unknown form")),
            },
        })
    }

    /// A number that is written as a length.
    pub fn number(&mut self) -> Result<u64, RdbError> {
        match self.any_length()? {
            Length::Plain(number) => Ok(number),
            Length::Encoded(_) => Err(RdbError::Corrupt("a string stands where a number belongs")),
        }
    }

    /// A number of elements. No element takes less than one byte, so a larger number than bytes are there is not
    /// believed, and nothing is allocated for it.
    pub fn count(&mut self) -> Result<usize, RdbError> {
        let count = self.number()?;
        usize::try_from(count).ok().filter(|count| *count <= self.len()).ok_or_else(|| self.lacks(count))
    }

    #[cold]
    fn lacks(&self, needed: u64) -> RdbError {
        RdbError::Truncated { missing: needed.saturating_sub(self.len() as u64) }
    }

    #[inline]
    fn bytes_of(&mut self, len: u64) -> Result<&'a [u8], RdbError> {
        match usize::try_from(len) {
            Ok(len) => self.take(len),
            Err(_) => Err(self.lacks(len)),
        }
    }

    #[inline]
    pub fn text(&mut self) -> Result<Text<'a>, RdbError> {
        let encoding = match self.any_length()? {
            Length::Plain(len) => return self.bytes_of(len).map(Text::Slice),
            Length::Encoded(encoding) => encoding,
        };
        Ok(match encoding {
            ENCODED_INT8 => Text::Number(Digits::new(i64::from(i8::from_le_bytes(self.array()?)))),
            ENCODED_INT16 => Text::Number(Digits::new(i64::from(i16::from_le_bytes(self.array()?)))),
            ENCODED_INT32 => Text::Number(Digits::new(i64::from(i32::from_le_bytes(self.array()?)))),
            ENCODED_LZF => {
                let (compressed_len, len) = (self.number()?, self.number()?);
                let compressed = self.bytes_of(compressed_len)?;
                Text::Owned(lzf::decompress(compressed, usize::try_from(len).unwrap_or(usize::MAX))?)
            }
            _ => return Err(RdbError::Corrupt("a string has an unknown encoding")),
        })
    }

    /// Passes over a string without decoding it.
    #[inline]
    pub fn skip_text(&mut self) -> Result<(), RdbError> {
        let len = match self.any_length()? {
            Length::Plain(len) => len,
            Length::Encoded(ENCODED_INT8) => 1,
            Length::Encoded(ENCODED_INT16) => 2,
            Length::Encoded(ENCODED_INT32) => 4,
            Length::Encoded(ENCODED_LZF) => {
                let compressed_len = self.number()?;
                self.number()?;
                compressed_len
            }
            Length::Encoded(_) => return Err(RdbError::Corrupt("a string has an unknown encoding")),
        };
        self.bytes_of(len).map(|_| ())
    }
}

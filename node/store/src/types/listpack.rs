//! A listpack: elements one behind the other in a single buffer, in Valkey's own byte format, so that a compact
//! collection is saved and loaded by copying bytes.
//!
//! ```text
//! total bytes u32 LE | number of elements u16 LE (65535: not known) | elements ... | 0xff
//! element: encoding and data | length of encoding and data, for walking backwards
//! ```
//!
//! An element that is the canonical text of a 64-bit integer is stored as an integer. Everything is a walk over the
//! buffer, which for few elements is as fast as anything and takes the least memory.
//!
//! Invariant: the bytes are well-formed. What comes from outside enters through [`Listpack::from_bytes`], which
//! checks every header, length, count and the terminator; all else are edits that keep it so.

use keyward_proto::resp::number::parse_i64;

use super::buffer::Buffer;
use super::element::Element;

const HEADER_LEN: usize = 6;
const END: u8 = 0xff;
const COUNT_UNKNOWN: u16 = u16::MAX;
/// A listpack without elements.
pub const EMPTY: [u8; HEADER_LEN + 1] = [7, 0, 0, 0, 0, 0, END];

/// An element as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored<'a> {
    Bytes(&'a [u8]),
    Integer(i64),
}

impl<'a> From<Stored<'a>> for Element<'a> {
    #[inline]
    fn from(stored: Stored<'a>) -> Self {
        match stored {
            Stored::Bytes(bytes) => bytes.into(),
            Stored::Integer(value) => value.into(),
        }
    }
}

// ---------------------------------------------------------------------- the format

/// Bytes that the backward length of an element takes whose encoding and data take `len`.
#[inline]
fn backward_len(len: usize) -> usize {
    match len {
        ..128 => 1,
        128..16_383 => 2,
        16_383..2_097_151 => 3,
        2_097_151..268_435_455 => 4,
        _ => 5,
    }
}

#[inline]
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    *bytes.first_chunk().expect("a listpack's elements are complete")
}

/// The element at `at`, and where the next one begins.
#[inline]
fn decode(bytes: &[u8], at: usize) -> (Stored<'_>, usize) {
    let rest = &bytes[at..];
    let string = |header: usize, len: usize| (Stored::Bytes(&rest[header..header + len]), header + len);
    let integer = |len: usize, value: i64| (Stored::Integer(value), len);
    let (element, len) = match rest[0] {
        first @ ..0x80 => integer(1, i64::from(first)),
        first @ 0x80..0xc0 => string(1, usize::from(first & 0x3f)),
        first @ 0xc0..0xe0 => {
            let value = u16::from_be_bytes([first << 3 | rest[1] >> 5, rest[1] << 3]);
            integer(2, i64::from(value.cast_signed() >> 3))
        }
        first @ 0xe0..0xf0 => string(2, usize::from(first & 0xf) << 8 | usize::from(rest[1])),
        0xf0 => string(5, u32::from_le_bytes(array(&rest[1..])) as usize),
        0xf1 => integer(3, i64::from(i16::from_le_bytes(array(&rest[1..])))),
        0xf2 => {
            let [a, b, c] = array(&rest[1..]);
            integer(4, i64::from(i32::from_le_bytes([0, a, b, c]) >> 8))
        }
        0xf3 => integer(5, i64::from(i32::from_le_bytes(array(&rest[1..])))),
        0xf4 => integer(9, i64::from_le_bytes(array(&rest[1..]))),
        _ => unreachable!("a listpack is well-formed"),
    };
    (element, at + len + backward_len(len))
}

/// Where the element before `at` begins.
#[inline]
fn previous(bytes: &[u8], at: usize) -> usize {
    let (mut len, mut shift, mut position) = (0, 0, at - 1);
    loop {
        let byte = bytes[position];
        len |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return position - len;
        }
        shift += 7;
        position -= 1;
    }
}

/// Checks the element at `at`; where the next one begins.
fn check_element(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = bytes.get(at..)?;
    let len = match *rest.first()? {
        ..0x80 => 1,
        first @ 0x80..0xc0 => 1 + usize::from(first & 0x3f),
        0xc0..0xe0 => 2,
        first @ 0xe0..0xf0 => 2 + (usize::from(first & 0xf) << 8 | usize::from(*rest.get(1)?)),
        0xf0 => usize::try_from(u32::from_le_bytes(*rest.get(1..)?.first_chunk()?)).ok()?.checked_add(5)?,
        0xf1 => 3,
        0xf2 => 4,
        0xf3 => 5,
        0xf4 => 9,
        _ => return None,
    };
    let mut backward = [0; 5];
    let backward = encode_backward(len, &mut backward);
    let end = len.checked_add(backward.len())?;
    (rest.get(len..end)? == backward).then_some(at + end)
}

/// The backward length: seven bits to a byte, the lowest last; all bytes but the first have the high bit set.
fn encode_backward(len: usize, buffer: &mut [u8; 5]) -> &[u8] {
    let count = backward_len(len);
    for (i, byte) in buffer[..count].iter_mut().rev().enumerate() {
        *byte = (len >> (7 * i)) as u8 & 0x7f | 0x80;
    }
    buffer[0] &= 0x7f;
    &buffer[..count]
}

/// An element about to be written: header and number, then the bytes of a string, then the backward length.
struct Encoded<'a> {
    head: [u8; 9],
    head_len: usize,
    bytes: &'a [u8],
}

impl<'a> Encoded<'a> {
    fn new(element: &'a [u8]) -> Self {
        match parse_i64(element) {
            Some(value) => Encoded::integer(value),
            None => Encoded::string(element),
        }
    }

    fn of(element: Stored<'a>) -> Self {
        match element {
            Stored::Bytes(bytes) => Encoded::new(bytes),
            Stored::Integer(value) => Encoded::integer(value),
        }
    }

    fn with_head(parts: &[&[u8]], bytes: &'a [u8]) -> Self {
        let (mut head, mut head_len) = ([0; 9], 0);
        for part in parts {
            head[head_len..head_len + part.len()].copy_from_slice(part);
            head_len += part.len();
        }
        Encoded { head, head_len, bytes }
    }

    fn integer(value: i64) -> Self {
        let bytes = value.to_le_bytes();
        match value {
            0..=127 => Self::with_head(&[&bytes[..1]], &[]),
            -4096..=4095 => Self::with_head(&[&[bytes[1] & 0x1f | 0xc0, bytes[0]]], &[]),
            -32_768..=32_767 => Self::with_head(&[&[0xf1], &bytes[..2]], &[]),
            -8_388_608..=8_388_607 => Self::with_head(&[&[0xf2], &bytes[..3]], &[]),
            -2_147_483_648..=2_147_483_647 => Self::with_head(&[&[0xf3], &bytes[..4]], &[]),
            _ => Self::with_head(&[&[0xf4], &bytes], &[]),
        }
    }

    fn string(element: &'a [u8]) -> Self {
        let len = u32::try_from(element.len()).expect("an element is shorter than 4 GiB").to_le_bytes();
        match element.len() {
            ..64 => Self::with_head(&[&[0x80 | len[0]]], element),
            64..4096 => Self::with_head(&[&[0xe0 | len[1], len[0]]], element),
            _ => Self::with_head(&[&[0xf0], &len], element),
        }
    }

    fn data_len(&self) -> usize {
        self.head_len + self.bytes.len()
    }

    fn len(&self) -> usize {
        self.data_len() + backward_len(self.data_len())
    }

    /// Writes it to the start of `target`; its length.
    fn write(&self, target: &mut [u8]) -> usize {
        let mut backward = [0; 5];
        let backward = encode_backward(self.data_len(), &mut backward);
        let (head, rest) = target.split_at_mut(self.head_len);
        let (bytes, rest) = rest.split_at_mut(self.bytes.len());
        head.copy_from_slice(&self.head[..self.head_len]);
        bytes.copy_from_slice(self.bytes);
        rest[..backward.len()].copy_from_slice(backward);
        self.len()
    }
}

/// Bytes that an element takes in a listpack.
pub fn encoded_len(element: &[u8]) -> usize {
    Encoded::new(element).len()
}

// ---------------------------------------------------------------------- reading

/// A listpack for reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListpackRef<'a>(&'a [u8]);

impl<'a> ListpackRef<'a> {
    /// The bytes are known to be a well-formed listpack.
    #[inline]
    pub fn trusted(bytes: &'a [u8]) -> Self {
        debug_assert!(bytes.len() > HEADER_LEN && bytes[bytes.len() - 1] == END);
        ListpackRef(bytes)
    }

    #[inline]
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// Offset of the terminator: where an element is appended.
    #[inline]
    pub fn end(self) -> usize {
        self.0.len() - 1
    }

    #[inline]
    pub fn len(self) -> usize {
        match u16::from_le_bytes([self.0[4], self.0[5]]) {
            COUNT_UNKNOWN => self.count(),
            count => usize::from(count),
        }
    }

    #[inline]
    pub fn is_empty(self) -> bool {
        self.0[HEADER_LEN] == END && self.end() == HEADER_LEN
    }

    /// Counts the elements one by one.
    fn count(self) -> usize {
        let (mut at, mut count) = (HEADER_LEN, 0);
        while at < self.end() {
            at = self.next(at);
            count += 1;
        }
        count
    }

    /// Offset of the element behind the one at `at`.
    #[inline]
    pub fn next(self, at: usize) -> usize {
        decode(self.0, at).1
    }

    #[inline]
    pub fn stored_at(self, at: usize) -> Stored<'a> {
        decode(self.0, at).0
    }

    #[inline]
    pub fn element_at(self, at: usize) -> Element<'a> {
        self.stored_at(at).into()
    }

    /// Offset of the element of this index; of the terminator for the length.
    pub fn offset(self, index: usize) -> usize {
        let len = self.len();
        debug_assert!(index <= len);
        if index <= len / 2 {
            (0..index).fold(HEADER_LEN, |at, _| self.next(at))
        } else {
            (index..len).fold(self.end(), |at, _| previous(self.0, at))
        }
    }

    pub fn get(self, index: usize) -> Option<Element<'a>> {
        (index < self.len()).then(|| self.element_at(self.offset(index)))
    }

    #[inline]
    pub fn iter(self) -> Iter<'a> {
        Iter { bytes: self.0, front: HEADER_LEN, back: self.end(), left: self.len() }
    }

    /// Offset of the element before the one at `at`, or before the terminator; there is one.
    #[inline]
    pub fn previous(self, at: usize) -> usize {
        previous(self.0, at)
    }

    /// Offset of the first element; of the terminator if there is none.
    #[inline]
    pub fn start(self) -> usize {
        HEADER_LEN
    }

    /// The elements of these indexes, which are at most the length.
    pub fn range(self, start: usize, end: usize) -> Iter<'a> {
        let (front, back) = (self.offset(start), self.offset(end));
        Iter { bytes: self.0, front, back, left: end.saturating_sub(start) }
    }

    /// Looks at every `stride`th element, from the first on, for one with these bytes: how many were before it, and
    /// its offset.
    #[inline]
    pub fn find(self, wanted: &[u8], stride: usize) -> Option<(usize, usize)> {
        let number = parse_i64(wanted);
        let (mut at, mut index) = (HEADER_LEN, 0);
        while at < self.end() {
            let (element, mut next) = decode(self.0, at);
            let equal = match element {
                Stored::Bytes(bytes) => bytes == wanted,
                Stored::Integer(value) => number == Some(value),
            };
            if equal {
                return Some((index, at));
            }
            for _ in 1..stride {
                next = self.next(next);
            }
            at = next;
            index += 1;
        }
        None
    }
}

impl ListpackRef<'_> {
    /// Offsets of all elements with these bytes.
    pub fn places_of(self, wanted: &[u8]) -> Vec<usize> {
        let number = parse_i64(wanted);
        let (mut at, mut places) = (HEADER_LEN, Vec::new());
        while at < self.end() {
            let (element, next) = decode(self.0, at);
            let equal = match element {
                Stored::Bytes(bytes) => bytes == wanted,
                Stored::Integer(value) => number == Some(value),
            };
            if equal {
                places.push(at);
            }
            at = next;
        }
        places
    }
}

/// Elements in order, from both ends.
#[derive(Debug, Clone)]
pub struct Iter<'a> {
    bytes: &'a [u8],
    front: usize,
    back: usize,
    left: usize,
}

impl<'a> Iter<'a> {
    /// The next element as it is stored.
    #[inline]
    pub fn next_stored(&mut self) -> Option<Stored<'a>> {
        self.left = self.left.checked_sub(1)?;
        let (element, next) = decode(self.bytes, self.front);
        self.front = next;
        Some(element)
    }

    /// The last element as it is stored.
    #[inline]
    pub fn next_back_stored(&mut self) -> Option<Stored<'a>> {
        self.left = self.left.checked_sub(1)?;
        self.back = previous(self.bytes, self.back);
        Some(decode(self.bytes, self.back).0)
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = Element<'a>;

    #[inline]
    fn next(&mut self) -> Option<Element<'a>> {
        self.next_stored().map(Into::into)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl DoubleEndedIterator for Iter<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        self.next_back_stored().map(Into::into)
    }
}

impl ExactSizeIterator for Iter<'_> {}

// ---------------------------------------------------------------------- editing

fn view(buffer: &impl Buffer) -> ListpackRef<'_> {
    ListpackRef::trusted(buffer.bytes())
}

/// Brings the header up to date after an edit that added and removed so many elements.
fn set_header(bytes: &mut [u8], added: usize, removed: usize) {
    let total = u32::try_from(bytes.len()).expect("a listpack is shorter than 4 GiB");
    bytes[..4].copy_from_slice(&total.to_le_bytes());
    let count = u16::from_le_bytes([bytes[4], bytes[5]]);
    if count != COUNT_UNKNOWN {
        let count = u16::try_from(usize::from(count) + added - removed).unwrap_or(COUNT_UNKNOWN);
        bytes[4..6].copy_from_slice(&count.to_le_bytes());
    }
}

/// Inserts elements before the one at an offset, in one move of what is behind.
pub fn insert<const N: usize>(buffer: &mut impl Buffer, at: usize, elements: [&[u8]; N]) {
    let encoded = elements.map(Encoded::new);
    let added = encoded.iter().map(Encoded::len).sum();
    let bytes = buffer.replace_range(at, 0, added);
    let mut position = at;
    for element in &encoded {
        position += element.write(&mut bytes[position..]);
    }
    set_header(bytes, N, 0);
}

pub fn push_back(buffer: &mut impl Buffer, element: &[u8]) {
    let end = view(buffer).end();
    insert(buffer, end, [element]);
}

pub fn push_front(buffer: &mut impl Buffer, element: &[u8]) {
    insert(buffer, HEADER_LEN, [element]);
}

/// Appends elements, in one move.
pub fn extend<'a>(buffer: &mut impl Buffer, elements: impl Iterator<Item = Stored<'a>> + Clone) {
    let at = view(buffer).end();
    let (count, added) =
        elements.clone().fold((0, 0), |(count, sum), element| (count + 1, sum + Encoded::of(element).len()));
    let bytes = buffer.replace_range(at, 0, added);
    let mut position = at;
    for element in elements {
        position += Encoded::of(element).write(&mut bytes[position..]);
    }
    set_header(bytes, count, 0);
}

/// Replaces the element at an offset by an integer.
pub fn replace_integer(buffer: &mut impl Buffer, at: usize, value: i64) {
    replace_encoded(buffer, at, &Encoded::integer(value));
}

/// Replaces the element at an offset.
pub fn replace(buffer: &mut impl Buffer, at: usize, element: &[u8]) {
    replace_encoded(buffer, at, &Encoded::new(element));
}

fn replace_encoded(buffer: &mut impl Buffer, at: usize, encoded: &Encoded<'_>) {
    let old_len = view(buffer).next(at) - at;
    let bytes = buffer.replace_range(at, old_len, encoded.len());
    encoded.write(&mut bytes[at..]);
    set_header(bytes, 0, 0);
}

/// Removes `count` elements from an offset on.
pub fn remove(buffer: &mut impl Buffer, at: usize, count: usize) {
    let list = view(buffer);
    let end = (0..count).fold(at, |at, _| list.next(at));
    let bytes = buffer.replace_range(at, end - at, 0);
    set_header(bytes, 0, count);
}

/// A listpack that is not a valid one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed listpack")]
pub struct MalformedListpack;

/// A listpack of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listpack(Vec<u8>);

impl Default for Listpack {
    fn default() -> Self {
        Listpack(EMPTY.to_vec())
    }
}

impl Listpack {
    /// Takes over bytes from outside.
    ///
    /// # Errors
    /// They are no well-formed listpack.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, MalformedListpack> {
        match Self::check(&bytes) {
            Some(()) => Ok(Listpack(bytes)),
            None => Err(MalformedListpack),
        }
    }

    fn check(bytes: &[u8]) -> Option<()> {
        let total = usize::try_from(u32::from_le_bytes(*bytes.first_chunk()?)).ok()?;
        let (end, before) = bytes.split_last()?;
        if total != bytes.len() || total <= HEADER_LEN || *end != END {
            return None;
        }
        let (mut at, mut count) = (HEADER_LEN, 0);
        while at < before.len() {
            at = check_element(before, at)?;
            count += 1;
        }
        let stated = u16::from_le_bytes([bytes[4], bytes[5]]);
        (stated == COUNT_UNKNOWN || usize::from(stated) == count).then_some(())
    }

    pub fn trusted(bytes: Vec<u8>) -> Self {
        debug_assert!(Self::check(&bytes).is_some());
        Listpack(bytes)
    }

    pub fn as_ref(&self) -> ListpackRef<'_> {
        ListpackRef(&self.0)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }

    pub fn len(&self) -> usize {
        self.as_ref().len()
    }

    pub fn is_empty(&self) -> bool {
        self.as_ref().is_empty()
    }

    pub fn iter(&self) -> Iter<'_> {
        self.as_ref().iter()
    }

    pub fn get(&self, index: usize) -> Option<Element<'_>> {
        self.as_ref().get(index)
    }

    /// The index of the first element with these bytes.
    pub fn find(&self, element: &[u8]) -> Option<usize> {
        self.as_ref().find(element, 1).map(|(index, _)| index)
    }

    pub fn push_back(&mut self, element: &[u8]) {
        push_back(&mut self.0, element);
    }

    pub fn push_front(&mut self, element: &[u8]) {
        push_front(&mut self.0, element);
    }

    /// Inserts an element before `index`, which is at most the length.
    pub fn insert(&mut self, index: usize, element: &[u8]) {
        let at = self.as_ref().offset(index);
        insert(&mut self.0, at, [element]);
    }

    /// Replaces the element at `index`, which is below the length.
    pub fn replace(&mut self, index: usize, element: &[u8]) {
        let at = self.as_ref().offset(index);
        replace(&mut self.0, at, element);
    }

    /// Removes `count` elements from `index` on; they must be there.
    pub fn remove(&mut self, index: usize, count: usize) {
        let at = self.as_ref().offset(index);
        remove(&mut self.0, at, count);
    }

    /// Moves the elements from `index` on into a listpack of their own.
    pub fn split_off(&mut self, index: usize) -> Listpack {
        let (at, count) = (self.as_ref().offset(index), self.len() - index);
        let mut right = EMPTY.to_vec();
        let moved = self.0.len() - 1 - at;
        let bytes = right.replace_range(HEADER_LEN, 0, moved);
        bytes[HEADER_LEN..HEADER_LEN + moved].copy_from_slice(&self.0[at..at + moved]);
        set_header(bytes, count, 0);
        remove(&mut self.0, at, count);
        Listpack(right)
    }

    /// Appends the elements of another listpack.
    pub fn append(&mut self, other: &Listpack) {
        let (at, count) = (self.as_ref().end(), other.len());
        let elements = &other.0[HEADER_LEN..other.0.len() - 1];
        let bytes = self.0.replace_range(at, 0, elements.len());
        bytes[at..at + elements.len()].copy_from_slice(elements);
        set_header(bytes, count, 0);
    }
}

#[cfg(test)]
mod tests;

//! What large collections store of an element: one pointer to one allocation that knows its own length.
//!
//! A `Box<[u8]>` takes 16 bytes in every place of a hash table, most of which are empty or could hold another
//! element; these take 8.
//!
//! ```text
//! ThinBytes   len u32 | bytes
//! Shared      references u32 | len u32 | score f64 or time i64 | bytes
//! FieldBytes  one of the two
//! ```
//!
//! Invariants, which every `unsafe` block here relies on:
//! 1. The pointer is to a live allocation of exactly the layout that `len` gives, with all of it initialized.
//! 2. A `ThinBytes` owns its allocation alone. A `Shared`'s is owned by as many of them as `references` says; it
//!    never changes but for that number, and the last one frees it.
//! 3. See [`FieldBytes`].

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use crate::table::Keyed;

/// Bytes in an allocation of their own.
pub struct ThinBytes(NonNull<u32>);

// SAFETY: it owns plain bytes alone (invariant 2).
unsafe impl Send for ThinBytes {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for ThinBytes {}

impl ThinBytes {
    fn layout(len: u32) -> Layout {
        Layout::from_size_align(size_of::<u32>() + len as usize, align_of::<u32>())
            .expect("an element is far below the address space")
    }

    /// The parts one behind the other. Panics if they are longer than `u32::MAX`: requests are limited far below.
    pub fn new<const N: usize>(parts: [&[u8]; N]) -> Self {
        let len = parts.iter().map(|part| part.len()).sum::<usize>();
        let len = u32::try_from(len).expect("an element is shorter than 4 GiB");
        let layout = Self::layout(len);
        // SAFETY: the layout is not empty; the pointer is checked; length and bytes fill the layout exactly.
        unsafe {
            let Some(pointer) = NonNull::new(alloc(layout).cast::<u32>()) else { handle_alloc_error(layout) };
            pointer.write(len);
            let mut target = pointer.add(1).cast::<u8>().as_ptr();
            for part in parts {
                std::ptr::copy_nonoverlapping(part.as_ptr(), target, part.len());
                target = target.add(part.len());
            }
            ThinBytes(pointer)
        }
    }
}

impl Deref for ThinBytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: invariant 1.
        unsafe { std::slice::from_raw_parts(self.0.add(1).cast().as_ptr(), self.0.read() as usize) }
    }
}

impl Drop for ThinBytes {
    fn drop(&mut self) {
        // SAFETY: invariants 1 and 2.
        unsafe { dealloc(self.0.cast().as_ptr(), Self::layout(self.0.read())) };
    }
}

impl Clone for ThinBytes {
    fn clone(&self) -> Self {
        ThinBytes::new([self])
    }
}

impl Keyed for ThinBytes {
    #[inline]
    fn key(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for ThinBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self))
    }
}

/// Bytes with a number, shared by who finds them by name and who keeps them in order. They never change: another
/// number is another allocation.
pub struct Shared<N: Copy>(NonNull<SharedHeader<N>>);

#[repr(C)]
struct SharedHeader<N> {
    references: AtomicU32,
    len: u32,
    number: N,
}

// SAFETY: what is shared never changes but for its atomic number of references (invariant 2).
unsafe impl<N: Copy + Send + Sync> Send for Shared<N> {}
// SAFETY: as above.
unsafe impl<N: Copy + Send + Sync> Sync for Shared<N> {}

impl<N: Copy> Shared<N> {
    fn layout(len: u32) -> Layout {
        Layout::from_size_align(size_of::<SharedHeader<N>>() + len as usize, align_of::<SharedHeader<N>>())
            .expect("an element is far below the address space")
    }

    /// The parts one behind the other. Panics if they are longer than `u32::MAX`: requests are limited far below.
    pub fn of_parts<const P: usize>(parts: [&[u8]; P], number: N) -> Self {
        let len = parts.iter().map(|part| part.len()).sum::<usize>();
        let len = u32::try_from(len).expect("an element is shorter than 4 GiB");
        let layout = Self::layout(len);
        // SAFETY: the layout is not empty; the pointer is checked; header and bytes fill the layout but for padding
        // within the header.
        unsafe {
            let Some(pointer) = NonNull::new(alloc(layout).cast::<SharedHeader<N>>()) else {
                handle_alloc_error(layout)
            };
            pointer.write(SharedHeader { references: AtomicU32::new(1), len, number });
            let mut target = pointer.add(1).cast::<u8>().as_ptr();
            for part in parts {
                std::ptr::copy_nonoverlapping(part.as_ptr(), target, part.len());
                target = target.add(part.len());
            }
            Shared(pointer)
        }
    }

    #[inline]
    fn header(&self) -> &SharedHeader<N> {
        // SAFETY: invariant 1.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: invariant 1.
        unsafe { std::slice::from_raw_parts(self.0.add(1).cast().as_ptr(), self.header().len as usize) }
    }

    #[inline]
    pub fn number(&self) -> N {
        self.header().number
    }
}

impl<N: Copy> Clone for Shared<N> {
    fn clone(&self) -> Self {
        // It is in one table and one tree, and for moments in a local variable: the number cannot overflow.
        self.header().references.fetch_add(1, Ordering::Relaxed);
        Shared(self.0)
    }
}

impl<N: Copy> Drop for Shared<N> {
    fn drop(&mut self) {
        if self.header().references.fetch_sub(1, Ordering::Release) != 1 {
            return;
        }
        // What others did with their references comes before the end.
        fence(Ordering::Acquire);
        // SAFETY: this was the last reference (invariant 2).
        unsafe { dealloc(self.0.cast().as_ptr(), Self::layout(self.header().len)) };
    }
}

/// A member of a large sorted set with its score.
pub type Member = Shared<f64>;

impl Member {
    pub fn new(name: &[u8], score: f64) -> Self {
        debug_assert!(!score.is_nan());
        Shared::of_parts([name], score)
    }

    #[inline]
    pub fn name(&self) -> &[u8] {
        self.bytes()
    }

    #[inline]
    pub fn score(&self) -> f64 {
        self.number()
    }
}

/// The bytes of a field and when it expires, in milliseconds since the Unix epoch.
pub type TimedBytes = Shared<i64>;

impl fmt::Debug for TimedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.number(), String::from_utf8_lossy(self.bytes()))
    }
}

/// The bytes of a field of a large hash: alone, or with a time. One pointer, whose lowest bit tells which of the two.
///
/// Invariant 3: without its lowest bit the pointer is that of a [`ThinBytes`], or of a [`TimedBytes`] if the bit is set,
/// which this owns. Both are aligned to more than one byte.
pub struct FieldBytes(NonNull<u8>);

const TIMED: usize = 1;

// SAFETY: it is one of two types that are Send and Sync (invariant 3).
unsafe impl Send for FieldBytes {}
// SAFETY: as above.
unsafe impl Sync for FieldBytes {}

impl From<ThinBytes> for FieldBytes {
    fn from(bytes: ThinBytes) -> Self {
        FieldBytes(ManuallyDrop::new(bytes).0.cast())
    }
}

impl From<TimedBytes> for FieldBytes {
    fn from(bytes: TimedBytes) -> Self {
        FieldBytes(ManuallyDrop::new(bytes).0.cast().map_addr(|address| address | TIMED))
    }
}

impl FieldBytes {
    #[inline]
    fn is_timed(&self) -> bool {
        self.0.addr().get() & TIMED != 0
    }

    /// Of a pointer with the bit set.
    #[inline]
    fn shared(&self) -> NonNull<SharedHeader<i64>> {
        let pointer = self.0.as_ptr().map_addr(|address| address & !TIMED);
        // SAFETY: invariant 3: it is the pointer of an allocation.
        unsafe { NonNull::new_unchecked(pointer.cast()) }
    }

    /// The bytes with their time, if they have one.
    pub fn timed(&self) -> Option<TimedBytes> {
        self.is_timed().then(|| TimedBytes::clone(&ManuallyDrop::new(Shared(self.shared()))))
    }

    #[inline]
    pub fn time(&self) -> Option<i64> {
        // SAFETY: invariants 1 and 3.
        self.is_timed().then(|| unsafe { self.shared().as_ref().number })
    }
}

impl Deref for FieldBytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: invariants 1 and 3: bytes follow the length, or the header that has it.
        unsafe {
            let (bytes, len): (NonNull<u8>, u32) = if self.is_timed() {
                let header = self.shared();
                (header.add(1).cast(), header.as_ref().len)
            } else {
                let len = self.0.cast::<u32>();
                (len.add(1).cast(), len.read())
            };
            std::slice::from_raw_parts(bytes.as_ptr(), len as usize)
        }
    }
}

impl Clone for FieldBytes {
    fn clone(&self) -> Self {
        match self.timed() {
            Some(timed) => timed.into(),
            None => ThinBytes::new([self]).into(),
        }
    }
}

impl Drop for FieldBytes {
    fn drop(&mut self) {
        if self.is_timed() {
            drop(Shared(self.shared()));
        } else {
            drop(ThinBytes(self.0.cast()));
        }
    }
}

impl fmt::Debug for FieldBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", String::from_utf8_lossy(self), self.time())
    }
}

impl Keyed for Member {
    #[inline]
    fn key(&self) -> &[u8] {
        self.name()
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.score(), String::from_utf8_lossy(self.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_the_parts() {
        for parts in [[&b""[..], b""], [b"a", b""], [b"abc", b"defgh"], [&[7; 300], b"x"]] {
            let bytes = ThinBytes::new(parts);
            assert_eq!(*bytes, *parts.concat());
            assert_eq!(*bytes.clone(), *bytes);
        }
        assert_eq!(size_of::<Option<ThinBytes>>(), 8);
    }

    #[test]
    fn a_member_lives_as_long_as_its_references() {
        let member = Member::new(b"name", 1.5);
        let other = member.clone();
        drop(member);
        assert_eq!((other.name(), other.score()), (&b"name"[..], 1.5));
        assert_eq!(Member::new(b"", f64::INFINITY).name(), b"");
        assert_eq!(size_of::<Option<Member>>(), 8);
    }

    #[test]
    fn bytes_of_a_field_are_alone_or_have_a_time() {
        let plain = FieldBytes::from(ThinBytes::new([b"ab", b"c"]));
        assert_eq!((&*plain, plain.time(), plain.timed().is_none()), (&b"abc"[..], None, true));
        assert_eq!(&*plain.clone(), b"abc");
        for time in [0, -1, i64::MAX, i64::MIN] {
            let timed = FieldBytes::from(TimedBytes::of_parts([b"ab", b"", b"c"], time));
            let (copy, shared) = (timed.clone(), timed.timed().unwrap());
            drop(timed);
            assert_eq!((&*copy, copy.time()), (&b"abc"[..], Some(time)));
            drop(copy);
            assert_eq!((shared.bytes(), shared.number()), (&b"abc"[..], time));
        }
        assert_eq!(size_of::<Option<FieldBytes>>(), 8);
    }
}

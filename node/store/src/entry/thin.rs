//! What large collections store of an element: one pointer to one allocation that knows its own length.
//!
//! A `Box<[u8]>` takes 16 bytes in every place of a hash table, most of which are empty or could hold another
//! element; these take 8.
//!
//! ```text
//! ThinBytes   len u32 | bytes
//! Member      references u32 | len u32 | score f64 | name
//! ```
//!
//! Invariants, which every `unsafe` block here relies on:
//! 1. The pointer is to a live allocation of exactly the layout that `len` gives, with all of it initialized.
//! 2. A `ThinBytes` owns its allocation alone. A `Member`'s is owned by as many `Member`s as `references` says; it
//!    never changes but for that number, and the last one frees it.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::fmt;
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

/// A member of a large sorted set with its score, shared by the table that finds it by name and the tree that keeps
/// it in order. It never changes: a new score is a new member.
pub struct Member(NonNull<MemberHeader>);

#[repr(C)]
struct MemberHeader {
    references: AtomicU32,
    len: u32,
    score: f64,
}

// SAFETY: members never change but for their atomic number of references (invariant 2).
unsafe impl Send for Member {}
// SAFETY: as above.
unsafe impl Sync for Member {}

impl Member {
    fn layout(len: u32) -> Layout {
        Layout::from_size_align(size_of::<MemberHeader>() + len as usize, align_of::<MemberHeader>())
            .expect("a name is far below the address space")
    }

    /// Panics if the name is longer than `u32::MAX`: requests are limited far below.
    pub fn new(name: &[u8], score: f64) -> Self {
        debug_assert!(!score.is_nan());
        let len = u32::try_from(name.len()).expect("a name is shorter than 4 GiB");
        let layout = Self::layout(len);
        // SAFETY: the layout is not empty; the pointer is checked; header and name fill the layout exactly.
        unsafe {
            let Some(pointer) = NonNull::new(alloc(layout).cast::<MemberHeader>()) else {
                handle_alloc_error(layout)
            };
            pointer.write(MemberHeader { references: AtomicU32::new(1), len, score });
            std::ptr::copy_nonoverlapping(name.as_ptr(), pointer.add(1).cast().as_ptr(), name.len());
            Member(pointer)
        }
    }

    #[inline]
    fn header(&self) -> &MemberHeader {
        // SAFETY: invariant 1.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    pub fn name(&self) -> &[u8] {
        // SAFETY: invariant 1.
        unsafe { std::slice::from_raw_parts(self.0.add(1).cast().as_ptr(), self.header().len as usize) }
    }

    #[inline]
    pub fn score(&self) -> f64 {
        self.header().score
    }
}

impl Clone for Member {
    fn clone(&self) -> Self {
        // A member is in one table and one tree, and for moments in a local variable: the number cannot overflow.
        self.header().references.fetch_add(1, Ordering::Relaxed);
        Member(self.0)
    }
}

impl Drop for Member {
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
}

//! A key with its value, expiry and access clock in one allocation: the only module with `unsafe` for layout.
//!
//! A lookup of a small string then touches the bucket and this allocation, nothing else, which is what decides the
//! speed of a store that is larger than the processor's caches. Layout, from the pointer on:
//!
//! ```text
//! Header { value, access, key_len, inline_len, flags }   32 bytes
//! expire_at (i64)                                         8 bytes, only with HAS_EXPIRE
//! key bytes                                               key_len
//! string bytes                                            inline_len, only while value is Inline
//! ```
//!
//! Invariants, which every `unsafe` block here relies on:
//! 1. `self.0` points to a live allocation of exactly `layout(header)` made by the global allocator, with an
//!    initialized `Header`; nobody else points to it.
//! 2. `key_len`, `inline_len` and `HAS_EXPIRE` describe that allocation; they change only where it is reallocated.
//! 3. All bytes behind the header are initialized before an `Entry` is handed out.

#![allow(unsafe_code, reason = "the one module that lays out entries in memory")]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error, realloc};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use super::types::{Hash, List, Set, SortedSet};

/// Strings up to this length live in the entry; longer ones in a buffer of their own.
pub const INLINE_LEN_MAX: usize = 1024;

const HAS_EXPIRE: u32 = 1;

/// A value that is not an inline string.
#[derive(Debug)]
pub enum Value {
    /// The bytes follow the key.
    Inline,
    /// A long or growing string.
    Raw(Box<Vec<u8>>),
    List(Box<List>),
    Set(Box<Set>),
    Hash(Box<Hash>),
    SortedSet(Box<SortedSet>),
}

/// What a key is created with.
#[derive(Debug)]
pub enum NewValue<'a> {
    Bytes(&'a [u8]),
    Value(Value),
}

impl From<List> for Value {
    fn from(v: List) -> Self {
        Value::List(Box::new(v))
    }
}
impl From<Set> for Value {
    fn from(v: Set) -> Self {
        Value::Set(Box::new(v))
    }
}
impl From<Hash> for Value {
    fn from(v: Hash) -> Self {
        Value::Hash(Box::new(v))
    }
}
impl From<SortedSet> for Value {
    fn from(v: SortedSet) -> Self {
        Value::SortedSet(Box::new(v))
    }
}

/// A borrowed value.
#[derive(Debug, Clone, Copy)]
pub enum ValueRef<'a> {
    String(&'a [u8]),
    List(&'a List),
    Set(&'a Set),
    Hash(&'a Hash),
    SortedSet(&'a SortedSet),
}

impl ValueRef<'_> {
    /// As TYPE reports it.
    pub fn type_name(&self) -> &'static str {
        match self {
            ValueRef::String(_) => "string",
            ValueRef::List(_) => "list",
            ValueRef::Set(_) => "set",
            ValueRef::Hash(_) => "hash",
            ValueRef::SortedSet(_) => "zset",
        }
    }

    /// The group of the commands for this type.
    pub fn group(&self) -> &'static str {
        match self {
            ValueRef::String(_) => "string",
            ValueRef::List(_) => "list",
            ValueRef::Set(_) => "set",
            ValueRef::Hash(_) => "hash",
            ValueRef::SortedSet(_) => "sorted-set",
        }
    }
}

/// A mutably borrowed value; strings are changed through [`Entry::set_bytes`] and [`Entry::raw_mut`].
#[derive(Debug)]
pub enum ValueMut<'a> {
    String,
    List(&'a mut List),
    Set(&'a mut Set),
    Hash(&'a mut Hash),
    SortedSet(&'a mut SortedSet),
}

#[repr(C)]
struct Header {
    value: Value,
    /// Seconds of the access clock, or LFU state. Atomic because reads share the entry.
    access: AtomicU32,
    key_len: u32,
    inline_len: u32,
    flags: u32,
}

const HEADER_LEN: usize = size_of::<Header>();

/// See the module documentation. As large as a pointer; `Option<Entry>` too.
pub struct Entry(NonNull<Header>);

// SAFETY: an Entry owns its allocation alone (invariant 1), and everything in it is Send and Sync.
unsafe impl Send for Entry {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Entry {}

fn layout(key_len: usize, inline_len: usize, flags: u32) -> Layout {
    let expire_len = if flags & HAS_EXPIRE != 0 { 8 } else { 0 };
    Layout::from_size_align(HEADER_LEN + expire_len + key_len + inline_len, align_of::<Header>())
        .expect("keys and inline strings are far below the address space")
}

impl Entry {
    /// Panics if the key is longer than `u32::MAX`: requests are limited far below.
    pub fn new(key: &[u8], value: NewValue<'_>, expire_at: Option<i64>, access: u32) -> Entry {
        let (value, inline): (Value, &[u8]) = match value {
            NewValue::Bytes(bytes) if bytes.len() <= INLINE_LEN_MAX => (Value::Inline, bytes),
            NewValue::Bytes(bytes) => (Value::Raw(Box::new(bytes.to_vec())), &[]),
            NewValue::Value(value) => {
                debug_assert!(!matches!(value, Value::Inline));
                (value, &[])
            }
        };
        let key_len = u32::try_from(key.len()).expect("a key is shorter than 4 GiB");
        let inline_len = u32::try_from(inline.len()).expect("at most INLINE_LEN_MAX");
        let flags = if expire_at.is_some() { HAS_EXPIRE } else { 0 };
        let layout = layout(key.len(), inline.len(), flags);
        // SAFETY: the layout is not empty; the pointer is checked; the header and all bytes behind it are
        // written before the Entry exists (invariants 1 to 3), each within the layout's size.
        unsafe {
            let pointer = alloc(layout);
            let Some(header) = NonNull::new(pointer.cast::<Header>()) else { handle_alloc_error(layout) };
            header.write(Header { value, access: AtomicU32::new(access), key_len, inline_len, flags });
            let mut at = pointer.add(HEADER_LEN);
            if let Some(expire_at) = expire_at {
                at.cast::<i64>().write_unaligned(expire_at);
                at = at.add(8);
            }
            std::ptr::copy_nonoverlapping(key.as_ptr(), at, key.len());
            std::ptr::copy_nonoverlapping(inline.as_ptr(), at.add(key.len()), inline.len());
            Entry(header)
        }
    }

    #[inline]
    fn header(&self) -> &Header {
        // SAFETY: invariant 1.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    fn header_mut(&mut self) -> &mut Header {
        // SAFETY: invariant 1, and `&mut self` is the only reference.
        unsafe { self.0.as_mut() }
    }

    #[inline]
    fn key_offset(&self) -> usize {
        HEADER_LEN + if self.header().flags & HAS_EXPIRE != 0 { 8 } else { 0 }
    }

    #[inline]
    fn tail(&self, offset: usize, len: usize) -> &[u8] {
        // SAFETY: callers pass ranges inside the allocation (invariant 2), initialized (invariant 3).
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast::<u8>().add(offset), len) }
    }

    #[inline]
    pub fn key(&self) -> &[u8] {
        self.tail(self.key_offset(), self.header().key_len as usize)
    }

    fn inline(&self) -> &[u8] {
        let header = self.header();
        self.tail(self.key_offset() + header.key_len as usize, header.inline_len as usize)
    }

    #[inline]
    pub fn value(&self) -> ValueRef<'_> {
        match &self.header().value {
            Value::Inline => ValueRef::String(self.inline()),
            Value::Raw(bytes) => ValueRef::String(bytes),
            Value::List(v) => ValueRef::List(v),
            Value::Set(v) => ValueRef::Set(v),
            Value::Hash(v) => ValueRef::Hash(v),
            Value::SortedSet(v) => ValueRef::SortedSet(v),
        }
    }

    pub fn value_mut(&mut self) -> ValueMut<'_> {
        match &mut self.header_mut().value {
            Value::Inline | Value::Raw(_) => ValueMut::String,
            Value::List(v) => ValueMut::List(v),
            Value::Set(v) => ValueMut::Set(v),
            Value::Hash(v) => ValueMut::Hash(v),
            Value::SortedSet(v) => ValueMut::SortedSet(v),
        }
    }

    /// Whether the string has a buffer of its own: it was long, or it was changed in place.
    pub fn is_raw(&self) -> bool {
        matches!(self.header().value, Value::Raw(_))
    }

    #[inline]
    pub fn access(&self) -> u32 {
        self.header().access.load(Ordering::Relaxed)
    }

    /// Notes an access. Within one second only the first one writes to memory.
    #[inline]
    pub fn set_access(&self, access: u32) {
        let cell = &self.header().access;
        if cell.load(Ordering::Relaxed) != access {
            cell.store(access, Ordering::Relaxed);
        }
    }

    /// Milliseconds since the Unix epoch.
    #[inline]
    pub fn expire_at(&self) -> Option<i64> {
        if self.header().flags & HAS_EXPIRE == 0 {
            return None;
        }
        // SAFETY: with HAS_EXPIRE, eight initialized bytes follow the header (invariants 2 and 3).
        Some(unsafe { self.0.as_ptr().cast::<u8>().add(HEADER_LEN).cast::<i64>().read_unaligned() })
    }

    pub fn set_expire_at(&mut self, expire_at: Option<i64>) {
        let had = self.header().flags & HAS_EXPIRE != 0;
        if had == expire_at.is_some() {
            if let Some(at) = expire_at {
                // SAFETY: as in `expire_at`, and `&mut self` is the only reference.
                unsafe { self.0.as_ptr().cast::<u8>().add(HEADER_LEN).cast::<i64>().write_unaligned(at) };
            }
            return;
        }
        let access = self.access();
        let value = std::mem::replace(&mut self.header_mut().value, Value::Inline);
        let new = match value {
            Value::Inline => Entry::new(self.key(), NewValue::Bytes(self.inline()), expire_at, access),
            value => Entry::new(self.key(), NewValue::Value(value), expire_at, access),
        };
        *self = new;
    }

    /// Makes the value this string; the expiry stays.
    pub fn set_bytes(&mut self, bytes: &[u8]) {
        if bytes.len() > INLINE_LEN_MAX {
            self.shrink_inline_to(0);
            self.header_mut().value = Value::Raw(Box::new(bytes.to_vec()));
            return;
        }
        self.header_mut().value = Value::Inline;
        self.shrink_inline_to(bytes.len());
        let offset = self.key_offset() + self.header().key_len as usize;
        // SAFETY: `shrink_inline_to` made the inline part exactly this long (invariant 2); `bytes` cannot overlap
        // an allocation that `&mut self` owns.
        unsafe {
            let at = self.0.as_ptr().cast::<u8>().add(offset);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len());
        }
    }

    /// The string as a buffer that may grow; it moves out of the entry. Panics if the value is no string.
    pub fn raw_mut(&mut self) -> &mut Vec<u8> {
        if matches!(self.header().value, Value::Inline) {
            let bytes = self.inline().to_vec();
            self.shrink_inline_to(0);
            self.header_mut().value = Value::Raw(Box::new(bytes));
        }
        match &mut self.header_mut().value {
            Value::Raw(bytes) => bytes,
            other => panic!("raw_mut on {other:?}"),
        }
    }

    /// Replaces the value by one that is not an inline string; the expiry stays.
    pub fn set_value(&mut self, value: NewValue<'_>) {
        match value {
            NewValue::Bytes(bytes) => self.set_bytes(bytes),
            NewValue::Value(value) => {
                self.shrink_inline_to(0);
                self.header_mut().value = value;
            }
        }
    }

    /// The same key and expiry are dropped, the value is moved out to live under another key.
    pub fn renamed(mut self, key: &[u8]) -> Entry {
        let (expire_at, access) = (self.expire_at(), self.access());
        match std::mem::replace(&mut self.header_mut().value, Value::Inline) {
            Value::Inline => Entry::new(key, NewValue::Bytes(self.inline()), expire_at, access),
            value => Entry::new(key, NewValue::Value(value), expire_at, access),
        }
    }

    /// Bytes of the allocation itself.
    pub fn allocation_len(&self) -> usize {
        let h = self.header();
        layout(h.key_len as usize, h.inline_len as usize, h.flags).size()
    }

    /// Address for a prefetch hint.
    pub fn address(&self) -> *const u8 {
        self.0.as_ptr().cast()
    }

    /// Reallocates so that the inline part has exactly `len` bytes (zeroed where it grew).
    fn shrink_inline_to(&mut self, len: usize) {
        let header = self.header();
        let (key_len, old_len, flags) = (header.key_len as usize, header.inline_len as usize, header.flags);
        if old_len == len {
            return;
        }
        let (old, new) = (layout(key_len, old_len, flags), layout(key_len, len, flags));
        // SAFETY: invariant 1 gives pointer and old layout; the new size is not zero; the grown part is zeroed,
        // and inline_len is set at once, so invariants 2 and 3 hold again.
        unsafe {
            let pointer = realloc(self.0.as_ptr().cast(), old, new.size());
            let Some(header) = NonNull::new(pointer.cast::<Header>()) else { handle_alloc_error(new) };
            self.0 = header;
            if len > old_len {
                std::ptr::write_bytes(pointer.add(old.size()), 0, len - old_len);
            }
        }
        self.header_mut().inline_len = u32::try_from(len).expect("at most INLINE_LEN_MAX");
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let header = self.header();
        let layout = layout(header.key_len as usize, header.inline_len as usize, header.flags);
        // SAFETY: invariant 1; the header is dropped once, and then the allocation is returned with its layout.
        unsafe {
            std::ptr::drop_in_place(self.0.as_ptr());
            dealloc(self.0.as_ptr().cast(), layout);
        }
    }
}

impl super::table::Keyed for Entry {
    #[inline]
    fn key(&self) -> &[u8] {
        Entry::key(self)
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", String::from_utf8_lossy(self.key()), self.value().type_name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(entry: &Entry) -> &[u8] {
        match entry.value() {
            ValueRef::String(s) => s,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_string_survives_every_change_of_layout() {
        let mut e = Entry::new(b"key", NewValue::Bytes(b"value"), None, 7);
        for (bytes, expire) in
            [(5, None), (5, Some(1)), (900, Some(2)), (0, None), (5000, Some(3)), (3, Some(3)), (1025, None)]
        {
            let bytes = vec![b'x'; bytes];
            e.set_bytes(&bytes);
            e.set_expire_at(expire);
            assert_eq!(
                (e.key(), string(&e), e.expire_at(), e.access()),
                (&b"key"[..], &bytes[..], expire, 7)
            );
        }
        e.set_bytes(b"abc");
        e.raw_mut().extend_from_slice(b"def");
        e.set_expire_at(Some(9));
        assert_eq!(string(&e), b"abcdef");
        let e = e.renamed(b"another key");
        assert_eq!((e.key(), string(&e), e.expire_at()), (&b"another key"[..], &b"abcdef"[..], Some(9)));
    }

    #[test]
    fn an_entry_is_a_pointer() {
        assert_eq!(size_of::<Option<Entry>>(), 8);
        assert_eq!(HEADER_LEN, 32);
    }
}

//! A key with its value, expiry and access clock in one allocation: the only module with `unsafe` for layout.
//!
//! A lookup of a small string then touches the bucket and this allocation, nothing else, which is what decides the
//! speed of a store that is larger than the processor's caches. Layout, from the pointer on:
//!
//! ```text
//! Header { access, key_len, inline_len, kind, flags }   12 bytes
//! address of the boxed value                             8 bytes, unless the kind is INLINE
//! expire_at (i64)                                        8 bytes, only with HAS_EXPIRE
//! key bytes                                              key_len
//! string bytes                                           inline_len, only of the kind INLINE
//! ```
//!
//! Invariants, which every `unsafe` block here relies on:
//! 1. `self.0` points to a live allocation of exactly `header.layout()` made by the global allocator, with an
//!    initialized `Header`; nobody else points to it.
//! 2. Lengths, `HAS_EXPIRE` and whether the kind is `INLINE` describe that allocation; they change only where it is
//!    reallocated.
//! 3. All bytes behind the header are initialized before an `Entry` is handed out.
//! 4. The address of a boxed value comes from `Box::into_raw` for the type that the kind names, and the entry owns
//!    that box. Of the kind `MOVED_OUT` it is owned no more; such an entry is only dropped.

#![allow(unsafe_code, reason = "the one module that lays out entries in memory")]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error, realloc};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use super::types::{Hash, List, Set, SortedSet};

/// Strings up to this length live in the entry; longer ones in a buffer of their own.
pub const INLINE_LEN_MAX: usize = 1024;

const HAS_EXPIRE: u8 = 1;

/// A value that is not an inline string.
#[derive(Debug)]
pub enum Value {
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

/// The string follows the key.
const INLINE: u8 = 0;
const RAW: u8 = 1;
const LIST: u8 = 2;
const SET: u8 = 3;
const HASH: u8 = 4;
const SORTED_SET: u8 = 5;
const MOVED_OUT: u8 = 6;

#[repr(C)]
struct Header {
    /// Seconds of the access clock, or LFU state. Atomic because reads share the entry.
    access: AtomicU32,
    key_len: u32,
    inline_len: u16,
    kind: u8,
    flags: u8,
}

const HEADER_LEN: usize = size_of::<Header>();
const ADDRESS_LEN: usize = size_of::<*mut u8>();

impl Header {
    #[inline]
    fn expire_offset(&self) -> usize {
        HEADER_LEN + if self.kind == INLINE { 0 } else { ADDRESS_LEN }
    }

    #[inline]
    fn key_offset(&self) -> usize {
        self.expire_offset() + if self.flags & HAS_EXPIRE == 0 { 0 } else { size_of::<i64>() }
    }

    #[inline]
    fn inline_offset(&self) -> usize {
        self.key_offset() + self.key_len as usize
    }

    fn layout(&self) -> Layout {
        let len = self.inline_offset() + usize::from(self.inline_len);
        Layout::from_size_align(len, align_of::<u64>())
            .expect("keys and inline strings are far below the address space")
    }
}

/// See the module documentation. As large as a pointer; `Option<Entry>` too.
pub struct Entry(NonNull<Header>);

// SAFETY: an Entry owns its allocation and its boxed value alone (invariants 1 and 4), and everything in it is Send
// and Sync.
unsafe impl Send for Entry {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Entry {}

impl Value {
    fn into_raw(self) -> (u8, *mut u8) {
        match self {
            Value::Raw(v) => (RAW, Box::into_raw(v).cast()),
            Value::List(v) => (LIST, Box::into_raw(v).cast()),
            Value::Set(v) => (SET, Box::into_raw(v).cast()),
            Value::Hash(v) => (HASH, Box::into_raw(v).cast()),
            Value::SortedSet(v) => (SORTED_SET, Box::into_raw(v).cast()),
        }
    }
}

impl Entry {
    /// Panics if the key is longer than `u32::MAX`: requests are limited far below.
    pub fn new(key: &[u8], value: NewValue<'_>, expire_at: Option<i64>, access: u32) -> Entry {
        let (inline, boxed): (&[u8], _) = match value {
            NewValue::Bytes(bytes) if bytes.len() <= INLINE_LEN_MAX => (bytes, None),
            NewValue::Bytes(bytes) => (&[], Some(Value::Raw(Box::new(bytes.to_vec())))),
            NewValue::Value(value) => (&[], Some(value)),
        };
        let key_len = u32::try_from(key.len()).expect("a key is shorter than 4 GiB");
        let inline_len = u16::try_from(inline.len()).expect("at most INLINE_LEN_MAX");
        let flags = if expire_at.is_some() { HAS_EXPIRE } else { 0 };
        let (kind, address) = boxed.map_or((INLINE, std::ptr::null_mut()), Value::into_raw);
        let header = Header { access: AtomicU32::new(access), key_len, inline_len, kind, flags };
        let layout = header.layout();
        // SAFETY: the layout is not empty; the pointer is checked; the header and all bytes behind it are
        // written before the Entry exists (invariants 1 to 4), each within the layout's size.
        unsafe {
            let pointer = alloc(layout);
            let Some(target) = NonNull::new(pointer.cast::<Header>()) else { handle_alloc_error(layout) };
            if kind != INLINE {
                pointer.add(HEADER_LEN).cast::<*mut u8>().write_unaligned(address);
            }
            if let Some(expire_at) = expire_at {
                pointer.add(header.expire_offset()).cast::<i64>().write_unaligned(expire_at);
            }
            std::ptr::copy_nonoverlapping(key.as_ptr(), pointer.add(header.key_offset()), key.len());
            std::ptr::copy_nonoverlapping(inline.as_ptr(), pointer.add(header.inline_offset()), inline.len());
            target.write(header);
            Entry(target)
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
    fn tail(&self, offset: usize, len: usize) -> &[u8] {
        // SAFETY: callers pass ranges inside the allocation (invariant 2), initialized (invariant 3).
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast::<u8>().add(offset), len) }
    }

    #[inline]
    pub fn key(&self) -> &[u8] {
        let header = self.header();
        self.tail(header.key_offset(), header.key_len as usize)
    }

    #[inline]
    fn inline(&self) -> &[u8] {
        let header = self.header();
        self.tail(header.inline_offset(), usize::from(header.inline_len))
    }

    /// Address of the boxed value. Not of the kind INLINE.
    #[inline]
    fn boxed(&self) -> *mut u8 {
        debug_assert_ne!(self.header().kind, INLINE);
        // SAFETY: of every other kind the address follows the header (invariants 2 and 3).
        unsafe { self.0.as_ptr().cast::<u8>().add(HEADER_LEN).cast::<*mut u8>().read_unaligned() }
    }

    #[inline]
    pub fn value(&self) -> ValueRef<'_> {
        // SAFETY: the kind names the type of the box that the entry owns (invariant 4); it lives as long as `&self`.
        unsafe {
            match self.header().kind {
                RAW => ValueRef::String(&*self.boxed().cast::<Vec<u8>>()),
                LIST => ValueRef::List(&*self.boxed().cast()),
                SET => ValueRef::Set(&*self.boxed().cast()),
                HASH => ValueRef::Hash(&*self.boxed().cast()),
                SORTED_SET => ValueRef::SortedSet(&*self.boxed().cast()),
                _ => ValueRef::String(self.inline()),
            }
        }
    }

    pub fn value_mut(&mut self) -> ValueMut<'_> {
        // SAFETY: as in `value`, and `&mut self` is the only reference.
        unsafe {
            match self.header().kind {
                LIST => ValueMut::List(&mut *self.boxed().cast()),
                SET => ValueMut::Set(&mut *self.boxed().cast()),
                HASH => ValueMut::Hash(&mut *self.boxed().cast()),
                SORTED_SET => ValueMut::SortedSet(&mut *self.boxed().cast()),
                _ => ValueMut::String,
            }
        }
    }

    /// The boxed value, owned; `None` of the kind INLINE. Afterwards the entry may only be dropped or replaced.
    fn move_out(&mut self) -> Option<Value> {
        let kind = self.header().kind;
        if kind == INLINE || kind == MOVED_OUT {
            return None;
        }
        let address = self.boxed();
        self.header_mut().kind = MOVED_OUT;
        // SAFETY: the kind named the type of the box (invariant 4), which nobody owns now.
        unsafe {
            Some(match kind {
                RAW => Value::Raw(Box::from_raw(address.cast())),
                LIST => Value::List(Box::from_raw(address.cast())),
                SET => Value::Set(Box::from_raw(address.cast())),
                HASH => Value::Hash(Box::from_raw(address.cast())),
                _ => Value::SortedSet(Box::from_raw(address.cast())),
            })
        }
    }

    /// Whether the string has a buffer of its own: it was long, or it was changed in place.
    pub fn is_raw(&self) -> bool {
        self.header().kind == RAW
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
        let header = self.header();
        if header.flags & HAS_EXPIRE == 0 {
            return None;
        }
        let offset = header.expire_offset();
        // SAFETY: with HAS_EXPIRE, eight initialized bytes are there (invariants 2 and 3).
        Some(unsafe { self.0.as_ptr().cast::<u8>().add(offset).cast::<i64>().read_unaligned() })
    }

    pub fn set_expire_at(&mut self, expire_at: Option<i64>) {
        let header = self.header();
        let had = header.flags & HAS_EXPIRE != 0;
        if had == expire_at.is_some() {
            let offset = header.expire_offset();
            if let Some(at) = expire_at {
                // SAFETY: as in `expire_at`, and `&mut self` is the only reference.
                unsafe { self.0.as_ptr().cast::<u8>().add(offset).cast::<i64>().write_unaligned(at) };
            }
            return;
        }
        let access = self.access();
        *self = match self.move_out() {
            None => Entry::new(self.key(), NewValue::Bytes(self.inline()), expire_at, access),
            Some(value) => Entry::new(self.key(), NewValue::Value(value), expire_at, access),
        };
    }

    /// Makes the value this string; the expiry stays.
    #[inline]
    pub fn set_bytes(&mut self, bytes: &[u8]) {
        let header = self.header();
        if header.kind != INLINE || bytes.len() > INLINE_LEN_MAX {
            *self = Entry::new(self.key(), NewValue::Bytes(bytes), self.expire_at(), self.access());
            return;
        }
        if usize::from(header.inline_len) != bytes.len() {
            self.resize_inline(bytes.len());
        }
        let offset = self.header().inline_offset();
        // SAFETY: the inline part is exactly this long (invariant 2); `bytes` cannot overlap an allocation that
        // `&mut self` owns.
        unsafe {
            let at = self.0.as_ptr().cast::<u8>().add(offset);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len());
        }
    }

    /// The string as a buffer that may grow; it moves out of the entry. Panics if the value is no string.
    pub fn raw_mut(&mut self) -> &mut Vec<u8> {
        if self.header().kind == INLINE {
            let bytes = self.inline().to_vec();
            self.set_value(NewValue::Value(Value::Raw(Box::new(bytes))));
        }
        assert_eq!(self.header().kind, RAW, "raw_mut on {self:?}");
        // SAFETY: the box of this kind is a `Vec<u8>` (invariant 4), and `&mut self` is the only reference.
        unsafe { &mut *self.boxed().cast() }
    }

    /// Replaces the value; the expiry stays.
    pub fn set_value(&mut self, value: NewValue<'_>) {
        match value {
            NewValue::Bytes(bytes) => self.set_bytes(bytes),
            value @ NewValue::Value(_) => {
                *self = Entry::new(self.key(), value, self.expire_at(), self.access());
            }
        }
    }

    /// The same key and expiry are dropped, the value is moved out to live under another key.
    pub fn renamed(mut self, key: &[u8]) -> Entry {
        let (expire_at, access) = (self.expire_at(), self.access());
        match self.move_out() {
            None => Entry::new(key, NewValue::Bytes(self.inline()), expire_at, access),
            Some(value) => Entry::new(key, NewValue::Value(value), expire_at, access),
        }
    }

    /// Bytes of the allocation itself.
    pub fn allocation_len(&self) -> usize {
        self.header().layout().size()
    }

    /// Address for a prefetch hint.
    pub fn address(&self) -> *const u8 {
        self.0.as_ptr().cast()
    }

    /// Reallocates so that the inline part has exactly `len` bytes (zeroed where it grew), at most INLINE_LEN_MAX.
    /// The kind is INLINE.
    fn resize_inline(&mut self, len: usize) {
        debug_assert!(self.header().kind == INLINE && len <= INLINE_LEN_MAX);
        let (old, old_len) = (self.header().layout(), usize::from(self.header().inline_len));
        let new = Layout::from_size_align(old.size() - old_len + len, old.align())
            .expect("keys and inline strings are far below the address space");
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
        self.header_mut().inline_len = u16::try_from(len).expect("at most INLINE_LEN_MAX");
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let layout = self.header().layout();
        drop(self.move_out());
        // SAFETY: invariant 1; nothing in the header needs dropping, and becoming MOVED_OUT does not change the layout.
        unsafe { dealloc(self.0.as_ptr().cast(), layout) };
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
    fn values_of_every_type_replace_one_another() {
        let new: [fn() -> NewValue<'static>; 7] = [
            || NewValue::Bytes(b"short"),
            || NewValue::Bytes(&[b'x'; 2000]),
            || NewValue::Value(List::default().into()),
            || NewValue::Value(Set::default().into()),
            || NewValue::Value(Hash::default().into()),
            || NewValue::Value(SortedSet::default().into()),
            || NewValue::Value(Value::Raw(Box::new(b"raw".to_vec()))),
        ];
        for (from, to) in (0..49).map(|i| (i / 7, i % 7)) {
            let mut e = Entry::new(b"key", new[from](), Some(1), 7);
            e.set_expire_at(None);
            e.set_value(new[to]());
            let expected = Entry::new(b"key", new[to](), None, 7);
            assert_eq!(format!("{:?}", e.value()), format!("{:?}", expected.value()));
            e.set_expire_at(Some(5));
            let e = e.renamed(b"k");
            assert_eq!(format!("{:?}", e.value()), format!("{:?}", expected.value()));
            assert_eq!((e.key(), e.expire_at(), e.access()), (&b"k"[..], Some(5), 7));
            assert_eq!(e.is_raw(), expected.is_raw());
        }
    }

    #[test]
    fn an_entry_is_a_pointer() {
        assert_eq!(size_of::<Option<Entry>>(), 8);
        assert_eq!(HEADER_LEN, 12);
    }
}

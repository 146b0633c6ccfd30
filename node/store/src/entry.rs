//! A key with its value, expiry and access clock in one allocation: with [`thin`] the only place with `unsafe` for
//! layout.
//!
//! A lookup of a small string then touches the bucket and this allocation, nothing else, which is what decides the
//! speed of a store that is larger than the processor's caches. Small collections (listpacks, intsets) lie in the
//! entry too, which saves an allocation with its rounding. Layout, from the pointer on:
//!
//! ```text
//! Header { access, key_len, tail_len, flags }   12 bytes
//! address of the boxed value                     8 bytes, unless the kind has a tail
//! expire_at (i64)                                8 bytes, only with HAS_EXPIRE
//! key bytes                                      key_len
//! tail: string, listpack or intset               tail_len, only of a kind with a tail
//! ```
//!
//! The size of the allocation is rounded up to the allocator's next size class, so that small changes of length need
//! no new allocation.
//!
//! Invariants, which every `unsafe` block here relies on:
//! 1. `self.0` points to a live allocation of exactly `header.layout()` made by the global allocator, with an
//!    initialized `Header`; nobody else points to it.
//! 2. Lengths, `HAS_EXPIRE` and whether the kind has a tail describe that allocation; they change only where its
//!    content is moved accordingly, and it is reallocated if its size class changes.
//! 3. All bytes behind the header up to `header.len()` are initialized before an `Entry` is handed out.
//! 4. The address of a boxed value comes from `Box::into_raw` for the type that the kind names, and the entry owns
//!    that box. Of the kind `MOVED_OUT` it is owned no more; such an entry is only dropped.

#![allow(unsafe_code, reason = "the one module that lays out entries in memory")]

pub mod thin;

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error, realloc};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use super::size_class::size_class;
use super::types::buffer::Buffer;
use super::types::hash::{ALWAYS, FieldTable, Since, VolatileTable};
use super::types::intset::{self, IntsetRef};
use super::types::listpack::{self, ListpackRef};
use super::types::quicklist::Quicklist;
use super::types::set::MemberTable;
use super::types::sorted_set::Skiplist;
use super::types::{Collection, HashRef, ListRef, SetRef, SortedSetRef, Stream};

/// Strings up to this length live in the entry; longer ones in a buffer of their own.
pub const INLINE_LEN_MAX: usize = 1024;
/// The longest tail that the header can describe. Collections leave their compact form long before.
const TAIL_LEN_MAX: usize = (1 << 24) - 1;

/// The lower half of the header's flags is the kind.
const KIND: u8 = 0x0f;
const HAS_EXPIRE: u8 = 1 << 4;
/// The string reads as an integer but is not one for OBJECT ENCODING.
const NOT_INTEGER: u8 = 1 << 5;
/// The bit in which an entry keeps its [`SnapshotMark`].
const SNAPSHOT_MARK: u8 = 1 << 7;

/// One of two values that entries carry. A snapshot begins by changing which of them is current: from then on the
/// entries with the other one are those that it has not saved yet. See [`super::snapshot`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SnapshotMark(u8);

impl SnapshotMark {
    pub fn other(self) -> SnapshotMark {
        SnapshotMark(self.0 ^ SNAPSHOT_MARK)
    }

    pub(super) fn from_bits(bits: u8) -> SnapshotMark {
        SnapshotMark(bits & SNAPSHOT_MARK)
    }

    pub(super) fn bits(self) -> u8 {
        self.0
    }
}

// Kinds with a tail.
const STRING: u8 = 0;
const LIST_LISTPACK: u8 = 1;
const SET_LISTPACK: u8 = 2;
const SET_INTSET: u8 = 3;
const HASH_LISTPACK: u8 = 4;
const SORTED_SET_LISTPACK: u8 = 5;
// Kinds with a boxed value.
const RAW: u8 = 6;
const QUICKLIST: u8 = 7;
const SET_TABLE: u8 = 8;
const HASH_TABLE: u8 = 9;
const SKIPLIST: u8 = 10;
const STREAM: u8 = 11;
const HASH_VOLATILE: u8 = 12;
const MOVED_OUT: u8 = 13;

/// Whether values of a kind lie in the entry.
#[inline]
fn has_tail(kind: u8) -> bool {
    kind < RAW
}

/// The type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueType {
    String,
    List,
    Set,
    Hash,
    SortedSet,
    Stream,
}

/// A compact form of a collection, kept in the entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compact {
    /// A list's listpack.
    List,
    /// A set's listpack.
    Set,
    Intset,
    /// A hash's listpack.
    Hash,
    /// A sorted set's listpack.
    SortedSet,
}

impl Compact {
    fn kind(self) -> u8 {
        match self {
            Compact::List => LIST_LISTPACK,
            Compact::Set => SET_LISTPACK,
            Compact::Intset => SET_INTSET,
            Compact::Hash => HASH_LISTPACK,
            Compact::SortedSet => SORTED_SET_LISTPACK,
        }
    }

    fn empty(self) -> &'static [u8] {
        if self == Compact::Intset { &intset::EMPTY } else { &listpack::EMPTY }
    }
}

/// What an entry can own in a box, each type under a kind of its own.
pub trait Boxable {
    #[doc(hidden)]
    const KIND: u8;
}
impl Boxable for Vec<u8> {
    const KIND: u8 = RAW;
}
impl Boxable for Quicklist {
    const KIND: u8 = QUICKLIST;
}
impl Boxable for MemberTable {
    const KIND: u8 = SET_TABLE;
}
impl Boxable for FieldTable {
    const KIND: u8 = HASH_TABLE;
}
impl Boxable for VolatileTable {
    const KIND: u8 = HASH_VOLATILE;
}
impl Boxable for Skiplist {
    const KIND: u8 = SKIPLIST;
}
impl Boxable for Stream {
    const KIND: u8 = STREAM;
}

/// A value that has no key yet: an entry whose key is empty.
#[derive(Debug)]
pub struct Value(Entry);

impl Value {
    /// A string in a buffer of its own, however short it is.
    pub fn raw(bytes: Vec<u8>) -> Value {
        Value::boxed(Box::new(bytes))
    }

    pub fn boxed<T: Boxable>(value: Box<T>) -> Value {
        Value(Entry::build(b"", Content::Boxed(T::KIND, Box::into_raw(value).cast()), None, 0))
    }

    /// The bytes are a well-formed listpack or intset with the elements that the form asks for, far shorter than
    /// 16 MiB.
    pub(super) fn compact(form: Compact, bytes: &[u8]) -> Value {
        Value(Entry::build(b"", Content::Tail(form.kind(), bytes), None, 0))
    }

    pub fn as_ref(&self) -> ValueRef<'_> {
        self.0.value()
    }

    pub(super) fn entry(&mut self) -> &mut Entry {
        &mut self.0
    }
}

/// What a key is created with.
#[derive(Debug)]
pub enum NewValue<'a> {
    Bytes(&'a [u8]),
    Value(Value),
    /// An empty collection.
    Empty(Compact),
    /// A collection in a compact form, well-formed and within the limits.
    Compact(Compact, &'a [u8]),
}

/// A borrowed value.
#[derive(Debug, Clone, Copy)]
pub enum ValueRef<'a> {
    String(&'a [u8]),
    List(ListRef<'a>),
    Set(SetRef<'a>),
    Hash(HashRef<'a>),
    SortedSet(SortedSetRef<'a>),
    Stream(&'a Stream),
}

impl ValueRef<'_> {
    /// As TYPE reports it.
    pub fn type_name(&self) -> &'static str {
        self.collection().map_or("string", Collection::type_name)
    }

    /// The group of the commands for this type.
    pub fn group(&self) -> &'static str {
        self.collection().map_or("string", Collection::group)
    }
}

#[repr(C)]
struct Header {
    /// Seconds of the access clock, or LFU state. Atomic because reads share the entry.
    access: AtomicU32,
    key_len: u32,
    tail_len: [u8; 3],
    flags: u8,
}

const HEADER_LEN: usize = size_of::<Header>();
const ADDRESS_LEN: usize = size_of::<*mut u8>();

impl Header {
    #[inline]
    fn kind(&self) -> u8 {
        self.flags & KIND
    }

    #[inline]
    fn expire_offset(&self) -> usize {
        HEADER_LEN + if has_tail(self.kind()) { 0 } else { ADDRESS_LEN }
    }

    #[inline]
    fn key_offset(&self) -> usize {
        self.expire_offset() + if self.flags & HAS_EXPIRE == 0 { 0 } else { size_of::<i64>() }
    }

    #[inline]
    fn tail_offset(&self) -> usize {
        self.key_offset() + self.key_len as usize
    }

    #[inline]
    fn tail_len(&self) -> usize {
        let [a, b, c] = self.tail_len;
        u32::from_le_bytes([a, b, c, 0]) as usize
    }

    #[inline]
    fn set_tail_len(&mut self, len: usize) {
        assert!(len <= TAIL_LEN_MAX, "collections leave their compact form long before");
        let [a, b, c, _] = (len as u32).to_le_bytes();
        self.tail_len = [a, b, c];
    }

    /// Bytes in use.
    #[inline]
    fn len(&self) -> usize {
        self.tail_offset() + self.tail_len()
    }

    #[inline]
    fn layout(&self) -> Layout {
        layout_for(self.len())
    }
}

#[inline]
fn layout_for(len: usize) -> Layout {
    Layout::from_size_align(size_class(len), align_of::<u64>())
        .expect("keys and tails are far below the address space")
}

/// What an entry is built with.
enum Content<'a> {
    Tail(u8, &'a [u8]),
    /// The address comes from `Box::into_raw` for the type of the kind; the new entry owns it.
    Boxed(u8, *mut u8),
}

/// See the module documentation. As large as a pointer; `Option<Entry>` too.
pub struct Entry(NonNull<Header>);

// SAFETY: an Entry owns its allocation and its boxed value alone (invariants 1 and 4), and everything in it is Send
// and Sync.
unsafe impl Send for Entry {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Entry {}

impl Entry {
    /// Panics if the key is longer than `u32::MAX`: requests are limited far below.
    pub fn new(key: &[u8], value: NewValue<'_>, expire_at: Option<i64>, access: u32) -> Entry {
        match value {
            NewValue::Bytes(bytes) if bytes.len() <= INLINE_LEN_MAX => {
                Entry::build(key, Content::Tail(STRING, bytes), expire_at, access)
            }
            NewValue::Bytes(bytes) => {
                let address = Box::into_raw(Box::new(bytes.to_vec()));
                Entry::build(key, Content::Boxed(RAW, address.cast()), expire_at, access)
            }
            NewValue::Value(Value(entry)) => entry.with(key, expire_at, access),
            NewValue::Empty(form) => {
                Entry::build(key, Content::Tail(form.kind(), form.empty()), expire_at, access)
            }
            NewValue::Compact(form, bytes) => {
                Entry::build(key, Content::Tail(form.kind(), bytes), expire_at, access)
            }
        }
    }

    fn build(key: &[u8], content: Content<'_>, expire_at: Option<i64>, access: u32) -> Entry {
        let (kind, tail, address): (_, &[u8], _) = match content {
            Content::Tail(kind, tail) => (kind, tail, None),
            Content::Boxed(kind, address) => (kind, &[], Some(address)),
        };
        debug_assert_eq!(has_tail(kind), address.is_none());
        let key_len = u32::try_from(key.len()).expect("a key is shorter than 4 GiB");
        let flags = kind | if expire_at.is_some() { HAS_EXPIRE } else { 0 };
        let mut header = Header { access: AtomicU32::new(access), key_len, tail_len: [0; 3], flags };
        header.set_tail_len(tail.len());
        let layout = header.layout();
        // SAFETY: the layout is not empty; the pointer is checked; the header and all bytes behind it are
        // written before the Entry exists (invariants 1 to 4), each within the layout's size.
        unsafe {
            let pointer = alloc(layout);
            let Some(target) = NonNull::new(pointer.cast::<Header>()) else { handle_alloc_error(layout) };
            if let Some(address) = address {
                pointer.add(HEADER_LEN).cast::<*mut u8>().write_unaligned(address);
            }
            if let Some(expire_at) = expire_at {
                pointer.add(header.expire_offset()).cast::<i64>().write_unaligned(expire_at);
            }
            std::ptr::copy_nonoverlapping(key.as_ptr(), pointer.add(header.key_offset()), key.len());
            std::ptr::copy_nonoverlapping(tail.as_ptr(), pointer.add(header.tail_offset()), tail.len());
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
    fn kind(&self) -> u8 {
        self.header().kind()
    }

    #[inline]
    fn part(&self, offset: usize, len: usize) -> &[u8] {
        // SAFETY: callers pass ranges inside the allocation (invariant 2), initialized (invariant 3).
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast::<u8>().add(offset), len) }
    }

    #[inline]
    pub fn key(&self) -> &[u8] {
        let header = self.header();
        self.part(header.key_offset(), header.key_len as usize)
    }

    #[inline]
    fn tail(&self) -> &[u8] {
        let header = self.header();
        self.part(header.tail_offset(), header.tail_len())
    }

    fn tail_mut(&mut self) -> &mut [u8] {
        let header = self.header();
        let (offset, len) = (header.tail_offset(), header.tail_len());
        // SAFETY: as in `part`, and `&mut self` is the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_ptr().cast::<u8>().add(offset), len) }
    }

    /// Address of the boxed value. Only of kinds without a tail.
    #[inline]
    fn boxed_address(&self) -> *mut u8 {
        debug_assert!(!has_tail(self.kind()));
        // SAFETY: of these kinds the address follows the header (invariants 2 and 3).
        unsafe { self.0.as_ptr().cast::<u8>().add(HEADER_LEN).cast::<*mut u8>().read_unaligned() }
    }

    /// The boxed value, if it is of this type.
    #[inline]
    pub(super) fn boxed<T: Boxable>(&self) -> Option<&T> {
        // SAFETY: the kind names the type of the box that the entry owns (invariant 4); it lives as long as `&self`.
        (self.kind() == T::KIND).then(|| unsafe { &*self.boxed_address().cast::<T>() })
    }

    /// As [`Entry::boxed`], for changing it.
    #[inline]
    pub(super) fn boxed_mut<T: Boxable>(&mut self) -> Option<&mut T> {
        // SAFETY: as in `boxed`, and `&mut self` is the only reference.
        (self.kind() == T::KIND).then(|| unsafe { &mut *self.boxed_address().cast::<T>() })
    }

    /// Gives up the boxed value; afterwards the entry may only be dropped or replaced.
    fn move_out(&mut self) -> *mut u8 {
        let address = self.boxed_address();
        let header = self.header_mut();
        header.flags = header.flags & !KIND | MOVED_OUT;
        address
    }

    #[inline]
    pub fn value(&self) -> ValueRef<'_> {
        fn boxed<T: Boxable>(entry: &Entry) -> &T {
            entry.boxed().expect("the kind was just compared")
        }
        match self.kind() {
            LIST_LISTPACK => ValueRef::List(ListRef::Listpack(ListpackRef::trusted(self.tail()))),
            SET_LISTPACK => ValueRef::Set(SetRef::Listpack(ListpackRef::trusted(self.tail()))),
            SET_INTSET => ValueRef::Set(SetRef::Intset(IntsetRef::trusted(self.tail()))),
            HASH_LISTPACK => ValueRef::Hash(HashRef::Listpack(ListpackRef::trusted(self.tail()))),
            SORTED_SET_LISTPACK => {
                ValueRef::SortedSet(SortedSetRef::Listpack(ListpackRef::trusted(self.tail())))
            }
            RAW => ValueRef::String(boxed::<Vec<u8>>(self)),
            QUICKLIST => ValueRef::List(ListRef::Quicklist(boxed(self))),
            SET_TABLE => ValueRef::Set(SetRef::Table(boxed(self))),
            HASH_TABLE => ValueRef::Hash(HashRef::Table(boxed(self))),
            HASH_VOLATILE => ValueRef::Hash(HashRef::Volatile(boxed(self), Since(ALWAYS))),
            SKIPLIST => ValueRef::SortedSet(SortedSetRef::Skiplist(boxed(self))),
            STREAM => ValueRef::Stream(boxed(self)),
            _ => ValueRef::String(self.tail()),
        }
    }

    pub fn value_type(&self) -> ValueType {
        match self.kind() {
            LIST_LISTPACK | QUICKLIST => ValueType::List,
            SET_LISTPACK | SET_INTSET | SET_TABLE => ValueType::Set,
            HASH_LISTPACK | HASH_TABLE | HASH_VOLATILE => ValueType::Hash,
            SORTED_SET_LISTPACK | SKIPLIST => ValueType::SortedSet,
            STREAM => ValueType::Stream,
            _ => ValueType::String,
        }
    }

    /// The fields of a large hash.
    #[inline]
    pub(super) fn fields(&self) -> Option<&FieldTable> {
        match self.boxed::<VolatileTable>() {
            Some(volatile) => Some(volatile.fields()),
            None => self.boxed(),
        }
    }

    /// As [`Entry::fields`], for changing it.
    pub(super) fn fields_mut(&mut self) -> Option<&mut FieldTable> {
        if self.kind() == HASH_VOLATILE {
            return self.boxed_mut::<VolatileTable>().map(VolatileTable::fields_mut);
        }
        self.boxed_mut()
    }

    /// The hash whose fields have times, if it is one.
    #[inline]
    pub(super) fn volatile(&self) -> Option<&VolatileTable> {
        self.boxed()
    }

    /// Its slot forgets it; whether it was counted among the keys whose fields have times.
    #[inline]
    pub(super) fn forget_volatile(&mut self) -> bool {
        self.boxed_mut::<VolatileTable>().is_some_and(VolatileTable::forget)
    }

    /// Its slot counts it if its fields have times: whether it did before, and the earliest time. A hash without times
    /// is a plain one then.
    pub(super) fn recount_volatile(&mut self) -> (bool, Option<i64>) {
        let Some(volatile) = self.boxed_mut::<VolatileTable>() else { return (false, None) };
        let recounted = (volatile.recount(), volatile.next_due());
        if recounted.1.is_none() {
            let fields = volatile.take_fields();
            self.set_boxed(Box::new(fields));
        }
        recounted
    }

    /// The compact collection in this form, for changing it.
    #[inline]
    pub(super) fn compact_mut(&mut self, form: Compact) -> Option<Tail<'_>> {
        (self.kind() == form.kind()).then_some(Tail(self))
    }

    /// Whether the value is a string with a buffer of its own: it was long, or it was changed in place.
    pub fn is_raw(&self) -> bool {
        self.kind() == RAW
    }

    /// Whether the string was not written as an integer, although it may read as one.
    pub fn is_not_integer(&self) -> bool {
        self.header().flags & NOT_INTEGER != 0
    }

    pub fn set_not_integer(&mut self) {
        self.header_mut().flags |= NOT_INTEGER;
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

    #[inline]
    pub fn mark(&self) -> SnapshotMark {
        SnapshotMark::from_bits(self.header().flags)
    }

    #[inline]
    pub fn set_mark(&mut self, mark: SnapshotMark) {
        let header = self.header_mut();
        header.flags = header.flags & !SNAPSHOT_MARK | mark.bits();
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
        let (key, access): (Box<[u8]>, _) = (self.key().into(), self.access());
        let mark = self.mark();
        let value = self.take();
        *self = value.with(&key, expire_at, access);
        self.set_mark(mark);
    }

    /// The value with its flags, under an empty key; this entry may only be dropped or replaced afterwards.
    fn take(&mut self) -> Entry {
        let kept = self.header().flags & NOT_INTEGER;
        let (kind, access) = (self.kind(), self.access());
        let mut taken = if has_tail(kind) {
            Entry::build(b"", Content::Tail(kind, self.tail()), None, access)
        } else {
            Entry::build(b"", Content::Boxed(kind, self.move_out()), None, access)
        };
        taken.header_mut().flags |= kept;
        taken
    }

    /// The value moves to an entry with this key.
    fn with(mut self, key: &[u8], expire_at: Option<i64>, access: u32) -> Entry {
        let kept = self.header().flags & NOT_INTEGER;
        let kind = self.kind();
        let mut entry = if has_tail(kind) {
            Entry::build(key, Content::Tail(kind, self.tail()), expire_at, access)
        } else {
            Entry::build(key, Content::Boxed(kind, self.move_out()), expire_at, access)
        };
        entry.header_mut().flags |= kept;
        entry
    }

    /// Makes the value this string; the expiry stays.
    #[inline]
    pub fn set_bytes(&mut self, bytes: &[u8]) {
        if self.kind() != STRING || bytes.len() > INLINE_LEN_MAX {
            return self.replace(NewValue::Bytes(bytes));
        }
        if self.header().tail_len() != bytes.len() {
            self.edit_tail(0, self.header().tail_len(), bytes.len());
        }
        self.header_mut().flags &= !NOT_INTEGER;
        self.tail_mut().copy_from_slice(bytes);
    }

    /// The string as a buffer that may grow; it moves out of the entry. Panics if the value is no string.
    pub fn raw_mut(&mut self) -> &mut Vec<u8> {
        if self.kind() == STRING {
            let bytes = self.tail().to_vec();
            self.set_value(NewValue::Value(Value::raw(bytes)));
        }
        self.boxed_mut().expect("the value is a string")
    }

    /// Replaces the value; the expiry stays.
    pub fn set_value(&mut self, value: NewValue<'_>) {
        match value {
            NewValue::Bytes(bytes) => self.set_bytes(bytes),
            NewValue::Value(_) | NewValue::Empty(_) | NewValue::Compact(..) => self.replace(value),
        }
    }

    /// Makes the value this compact collection; see [`Value::compact`].
    pub(super) fn set_compact(&mut self, form: Compact, bytes: &[u8]) {
        self.replace(NewValue::Value(Value::compact(form, bytes)));
    }

    pub(super) fn set_boxed<T: Boxable>(&mut self, value: Box<T>) {
        self.replace(NewValue::Value(Value::boxed(value)));
    }

    /// Makes a new allocation with this value; all else stays.
    fn replace(&mut self, value: NewValue<'_>) {
        let mark = self.mark();
        *self = Entry::new(self.key(), value, self.expire_at(), self.access());
        self.set_mark(mark);
    }

    /// The same key and expiry are dropped, the value is moved out to live under another key.
    pub fn renamed(self, key: &[u8]) -> Entry {
        let (expire_at, access) = (self.expire_at(), self.access());
        self.with(key, expire_at, access)
    }

    /// A copy of the value in the same representation.
    pub fn copied_value(&self) -> Value {
        fn copy<T: Boxable + Clone>(entry: &Entry) -> Value {
            Value::boxed(Box::new(entry.boxed::<T>().expect("the kind was just compared").clone()))
        }
        match self.kind() {
            RAW => copy::<Vec<u8>>(self),
            QUICKLIST => copy::<Quicklist>(self),
            SET_TABLE => copy::<MemberTable>(self),
            HASH_TABLE => copy::<FieldTable>(self),
            HASH_VOLATILE => copy::<VolatileTable>(self),
            SKIPLIST => copy::<Skiplist>(self),
            STREAM => copy::<Stream>(self),
            kind => {
                let mut entry = Entry::build(b"", Content::Tail(kind, self.tail()), None, 0);
                entry.header_mut().flags |= self.header().flags & NOT_INTEGER;
                Value(entry)
            }
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

    /// Replaces `removed` bytes of the tail at `at` by `added` bytes; what they are is left to chance, but they are
    /// initialized. The kind has a tail.
    fn edit_tail(&mut self, at: usize, removed: usize, added: usize) {
        let header = self.header();
        let (tail_offset, old_tail) = (header.tail_offset(), header.tail_len());
        assert!(has_tail(header.kind()) && at + removed <= old_tail);
        let new_tail = old_tail - removed + added;
        let (old, new) = (header.layout(), layout_for(tail_offset + new_tail));
        // SAFETY: invariant 1 gives pointer and old layout. The moves stay within the larger of the two layouts,
        // which the allocation has while they happen: it grows before and shrinks after them. What is new is zeroed,
        // and tail_len is set at once, so invariants 2 and 3 hold again.
        unsafe {
            if old.size() < new.size() {
                self.reallocate(old, new);
            }
            let tail = self.0.as_ptr().cast::<u8>().add(tail_offset);
            std::ptr::copy(tail.add(at + removed), tail.add(at + added), old_tail - at - removed);
            std::ptr::write_bytes(tail.add(at), 0, added);
            if new.size() < old.size() {
                self.reallocate(old, new);
            }
        }
        self.header_mut().set_tail_len(new_tail);
    }

    /// # Safety
    /// The allocation has the layout `old`; what is in use fits both. The caller restores invariant 1.
    unsafe fn reallocate(&mut self, old: Layout, new: Layout) {
        // SAFETY: as the caller promises; the new size is not zero.
        let pointer = unsafe { realloc(self.0.as_ptr().cast(), old, new.size()) };
        let Some(header) = NonNull::new(pointer.cast::<Header>()) else { handle_alloc_error(new) };
        self.0 = header;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let (layout, kind) = (self.header().layout(), self.kind());
        if !has_tail(kind) {
            let address = self.boxed_address();
            // SAFETY: the kind names the type of the box (invariant 4), which nobody uses any more.
            unsafe {
                match kind {
                    RAW => drop(Box::from_raw(address.cast::<Vec<u8>>())),
                    QUICKLIST => drop(Box::from_raw(address.cast::<Quicklist>())),
                    SET_TABLE => drop(Box::from_raw(address.cast::<MemberTable>())),
                    HASH_TABLE => drop(Box::from_raw(address.cast::<FieldTable>())),
                    HASH_VOLATILE => drop(Box::from_raw(address.cast::<VolatileTable>())),
                    SKIPLIST => drop(Box::from_raw(address.cast::<Skiplist>())),
                    STREAM => drop(Box::from_raw(address.cast::<Stream>())),
                    _ => debug_assert_eq!(kind, MOVED_OUT),
                }
            }
        }
        // SAFETY: invariant 1; nothing in the header needs dropping.
        unsafe { dealloc(self.0.as_ptr().cast(), layout) };
    }
}

/// The tail of an entry, edited in place.
#[derive(Debug)]
pub struct Tail<'a>(&'a mut Entry);

impl Buffer for Tail<'_> {
    fn bytes(&self) -> &[u8] {
        self.0.tail()
    }

    fn replace_range(&mut self, at: usize, removed: usize, added: usize) -> &mut [u8] {
        self.0.edit_tail(at, removed, added);
        self.0.tail_mut()
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
mod tests;

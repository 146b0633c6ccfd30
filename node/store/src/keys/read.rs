//! Reading: an expired key is hidden from every access.

use super::{Keys, Mode, WrongType};
use crate::access::next_random;
use crate::entry::{Entry, ValueRef};
use crate::events::{Event, EventClass};
use crate::rdb::record::Access;

impl Keys<'_> {
    /// The entry of a key, unless it has expired. Several may be borrowed at once.
    #[inline]
    pub fn get(&self, key: &[u8]) -> Option<&Entry> {
        let entry = self.state(key).table(self.db)?.get(self.key_hash(key), key)?;
        if self.expiration().has_expired(entry.expire_at()) {
            if self.mode == Mode::Primary {
                self.expired.borrow_mut().push((self.db, key.into()));
            }
            return None;
        }
        Some(entry)
    }

    /// As [`Keys::get`], counted in `keyspace_hits` and `keyspace_misses`: for commands that only read.
    #[inline]
    pub fn read(&self, key: &[u8]) -> Option<&Entry> {
        let entry = self.peek(key)?;
        if !self.no_touch {
            self.touch(entry);
        }
        Some(entry)
    }

    /// As [`Keys::read`], for commands that look at a key without using it: its access clock stays.
    #[inline]
    pub fn peek(&self, key: &[u8]) -> Option<&Entry> {
        let entry = self.get(key);
        let counter = if entry.is_some() { &self.hits } else { &self.misses };
        counter.set(counter.get() + 1);
        if entry.is_none() && self.notify.contains(EventClass::KeyMiss) {
            let (class, event) = (EventClass::KeyMiss, "keymiss");
            self.events.borrow_mut().push(Event { class, event, db: self.db, key: key.into() });
        }
        entry
    }

    /// Notes that a key is used.
    #[inline]
    pub fn touch(&self, entry: &Entry) {
        if self.clock.is_lfu() {
            entry.set_access(self.clock.touched(entry.access(), next_random(&self.random_state)));
        } else {
            entry.set_access(self.access);
        }
    }

    pub fn exists(&self, key: &[u8]) -> bool {
        self.get(key).is_some()
    }

    /// The entry of a key, expired or not.
    pub fn stored(&self, key: &[u8]) -> Option<&Entry> {
        self.state(key).table(self.db)?.get(self.key_hash(key), key)
    }

    /// The access clock of a key that comes from elsewhere; that of a key used now if nothing is known.
    pub fn access_of(&self, access: Option<Access>) -> u32 {
        match access {
            Some(Access::IdleSeconds(seconds)) if !self.clock.is_lfu() => {
                self.clock.from_idle_seconds(seconds)
            }
            Some(Access::Frequency(counter)) if self.clock.is_lfu() => self.clock.from_frequency(counter),
            Some(_) | None => self.access,
        }
    }

    /// The string at a key. `Err` if it holds another type. Counted as a hit or a miss, as the other typed reads.
    #[inline]
    pub fn string(&self, key: &[u8]) -> Result<Option<&[u8]>, WrongType> {
        match self.read(key).map(Entry::value) {
            None => Ok(None),
            Some(ValueRef::String(v)) => Ok(Some(v)),
            Some(_) => Err(WrongType),
        }
    }

    /// The value at a key, as `of` knows it. Counted as a hit or a miss.
    ///
    /// # Errors
    /// It is of another type.
    #[inline]
    pub(crate) fn typed<'s, T>(
        &'s self,
        key: &[u8],
        of: impl FnOnce(ValueRef<'s>) -> Option<T>,
    ) -> Result<Option<T>, WrongType> {
        match self.read(key).map(Entry::value) {
            None => Ok(None),
            Some(value) => of(value).map(Some).ok_or(WrongType),
        }
    }
}

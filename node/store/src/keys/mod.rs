//! What a command sees of the keyspace while it holds the locks of its slots, and where it leaves its effects.
//!
//! Expiry: an expired key is hidden from every access. On a primary it is also deleted, with an effect: at once if
//! the access is a write, at the end of the command if it was a read. A replica only hides; while it applies
//! effects, expiry does not exist (replaying reads no clock).
//!
//! A write command that changed something calls [`Keys::modified`] for each key and [`Keys::propagate`] or
//! [`Keys::propagate_as`] for each effect. An effect touches keys of one slot only.
//!
//! By concern: `settings`, `locks`, `read`, `write`, `expiry`, `effects`, `walk`; what a single type needs is in that type's folder.

mod effects;
mod expiry;
mod locks;
mod noted;
mod read;
mod settings;
#[cfg(test)]
mod tests;
mod walk;
mod write;

use std::cell::{Cell, RefCell};

use bytes::BytesMut;
use keyward_proto::ids::LogIndex;
use keyward_proto::slot::Slot;
use keyward_proto::time::{Monotonic, UnixMillis};
use parking_lot::MutexGuard;

use crate::access::AccessClock;
use crate::counts::Pending;
use crate::effects::{ENTRY_BYTES_MAX, EffectBuffer};
use crate::entry::SnapshotMark;
use crate::events::{Event, EventClasses};
use crate::lazyfree::LazyFree;
use crate::slots::{Keyspace, SlotState};
use crate::table::hash_of;
use crate::tracking::Changes;
use crate::types::Limits;
use crate::{DbIndex, DbKey};
use expiry::Expiration;
pub use expiry::{Expiry, ExpiryWalk};
use locks::Held;
use noted::NotedKeys;
pub use settings::{KeySettings, Logging, Now};
pub use walk::Step;

/// On whose behalf the keyspace is accessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A client of a primary.
    Primary,
    /// A client of a replica: it reads, and expired keys stay.
    Replica,
    /// Effects from a log: no expiry, no effects.
    Apply,
}

/// See the module documentation.
#[derive(Debug)]
pub struct Keys<'a> {
    space: &'a Keyspace,
    held: Held<'a>,
    /// Empty; their memory serves the next command with several slots.
    spare_slots: Vec<Slot>,
    spare_states: Vec<(Slot, MutexGuard<'a, SlotState>)>,
    pub db: DbIndex,
    /// Milliseconds since the Unix epoch, the same throughout a command.
    pub now: i64,
    /// The access field of keys that are created, and without an LFU policy of keys that are used.
    pub access: u32,
    clock: AccessClock,
    /// For LFU counters.
    random_state: Cell<u32>,
    /// The name of the running command for effects, if the client knows it by another.
    pub command: Option<&'static str>,
    /// CLIENT NO-TOUCH: reads leave the access clock of a key alone.
    pub no_touch: bool,
    /// Up to where collections are compact.
    pub(crate) limits: Limits,
    mode: Mode,
    /// The current one: an entry that has the other is saved for the running snapshot before it changes. It changes
    /// only while the world is stopped, so it holds for a batch.
    mark: SnapshotMark,
    logging: Logging,
    effects: EffectBuffer,
    /// [`ENTRY_BYTES_MAX`], unless a test has other wishes.
    entry_bytes_max: usize,
    encoded: BytesMut,
    /// Number of modifications by the running command (or transaction).
    dirty: u64,
    expired: RefCell<Vec<DbKey>>,
    /// Hashes that may have got or lost fields with times: their slots are told before they are given back.
    volatile: RefCell<NotedKeys>,
    /// Large values, to be dropped without locks.
    lazyfree: Vec<LazyFree>,
    ready: Vec<DbKey>,
    /// What clients are to be told that keep values themselves.
    changes: Changes,
    notify: EventClasses,
    events: RefCell<Vec<Event>>,
    hits: Cell<u64>,
    misses: Cell<u64>,
    expired_count: u64,
    expired_fields: u64,
    /// Largest index of the last writes to slots that the running command walked over.
    walked: LogIndex,
    /// The running command has read what depends on all that was written.
    counted: bool,
    /// What the running command has changed in the keyspace's counts.
    pending: Pending,
    /// Address, length and hash of the running command's key, computed before. The key lies in the receive buffer,
    /// which outlives this: no other key has its address.
    known: (usize, usize, u64),
}

/// What commands have met.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeyCounts {
    pub hits: u64,
    pub misses: u64,
    pub expired_keys: u64,
    /// Of hashes.
    pub expired_fields: u64,
}

/// The key holds a value of another type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key holds another type of value")]
pub struct WrongType;

impl<'a> Keys<'a> {
    /// For clients of a primary, and for what it does by itself.
    pub fn primary(space: &'a Keyspace, settings: &KeySettings, now: Now, logging: Logging) -> Self {
        Keys::new(space, Mode::Primary, settings, now, logging)
    }

    /// For clients of a replica.
    pub fn replica(space: &'a Keyspace, settings: &KeySettings, now: Now) -> Self {
        Keys::new(space, Mode::Replica, settings, now, Logging::Off)
    }

    /// For what comes from a log, a file or another node: it is stored as it comes, without effects or events.
    pub fn apply(space: &'a Keyspace, settings: &KeySettings, now: Monotonic) -> Self {
        let now = Now { wall: UnixMillis(0), monotonic: now };
        let settings = KeySettings { events: EventClasses::default(), ..*settings };
        Keys::new(space, Mode::Apply, &settings, now, Logging::Off)
    }

    fn new(space: &'a Keyspace, mode: Mode, settings: &KeySettings, now: Now, logging: Logging) -> Self {
        let clock = settings.access_clock(now.monotonic);
        Keys {
            space,
            held: Held::None,
            spare_slots: Vec::new(),
            spare_states: Vec::new(),
            db: 0,
            now: now.wall.0,
            access: clock.of_new_key(),
            clock,
            random_state: Cell::new(0),
            command: None,
            no_touch: false,
            limits: settings.limits,
            mode,
            mark: space.cow.mark(),
            logging,
            effects: EffectBuffer::default(),
            entry_bytes_max: ENTRY_BYTES_MAX,
            encoded: BytesMut::new(),
            dirty: 0,
            expired: RefCell::default(),
            volatile: RefCell::default(),
            lazyfree: Vec::new(),
            ready: Vec::new(),
            changes: Changes::default(),
            notify: settings.events,
            events: RefCell::default(),
            hits: Cell::new(0),
            misses: Cell::new(0),
            expired_count: 0,
            expired_fields: 0,
            walked: LogIndex::ZERO,
            counted: false,
            pending: Pending::default(),
            known: (0, 0, 0),
        }
    }

    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The keyspace, for those who hold no lock.
    pub fn space(&self) -> &'a Keyspace {
        self.space
    }

    /// Lets other settings hold from here on.
    pub fn reconfigure(&mut self, settings: &KeySettings, now: Monotonic) {
        self.clock = settings.access_clock(now);
        self.access = self.clock.of_new_key();
        self.limits = settings.limits;
        self.notify = settings.events;
    }

    /// Up to where collections are compact.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether effects are kept for the write log.
    #[inline]
    pub fn is_logging(&self) -> bool {
        self.logging == Logging::On
    }

    pub fn set_logging(&mut self, logging: Logging) {
        self.logging = logging;
    }

    /// By which access fields are read and written.
    pub fn access_clock(&self) -> AccessClock {
        self.clock
    }

    /// For LFU counters.
    pub fn seed_random(&mut self, seed: u32) {
        self.random_state.set(seed);
    }

    /// Tells the hash of a key of the batch's receive buffer, so that it is not computed again.
    #[inline]
    pub fn set_known_hash(&mut self, key: &[u8], hash: u64) {
        debug_assert_eq!(hash, hash_of(key));
        self.known = (key.as_ptr().addr(), key.len(), hash);
    }

    #[inline]
    fn key_hash(&self, key: &[u8]) -> u64 {
        let (address, len, hash) = self.known;
        if key.as_ptr().addr() == address && key.len() == len { hash } else { hash_of(key) }
    }

    /// What has expired, in this mode and at this moment.
    #[inline]
    fn expiration(&self) -> Expiration {
        Expiration { mode: self.mode, now: self.now }
    }

    /// What was counted since the last call.
    pub fn take_counts(&mut self) -> KeyCounts {
        KeyCounts {
            hits: self.hits.take(),
            misses: self.misses.take(),
            expired_keys: std::mem::take(&mut self.expired_count),
            expired_fields: std::mem::take(&mut self.expired_fields),
        }
    }

    pub fn take_dirty(&mut self) -> u64 {
        std::mem::take(&mut self.dirty)
    }

    pub fn dirty(&self) -> u64 {
        self.dirty
    }
}

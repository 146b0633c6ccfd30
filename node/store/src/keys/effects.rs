//! What a command leaves behind for the write log, and for whoever listens to keyspace events.

use keyward_proto::entry::effects;
use keyward_proto::ids::LogIndex;
use keyward_proto::resp::Args;
use keyward_proto::resp::reply::write_command;
use keyward_proto::slot::Slot;

use super::{Held, Keys, Mode};
use crate::DbIndex;
use crate::effects::{EffectBuffer, Original, Place, TooLong};
use crate::entry::ValueRef;
use crate::events::{Event, EventClass};
use crate::rebuild::rebuild_as;

impl Keys<'_> {
    /// Runs `append` with the finished command's effects, if it has any, and remembers the index that it returns
    /// in every slot that is locked and written.
    #[inline]
    pub fn commit_effects(&mut self, append: impl FnOnce(&mut EffectBuffer) -> LogIndex) -> Option<LogIndex> {
        if self.effects.is_empty() {
            return None;
        }
        if let Held::One(_, state) = &mut self.held {
            state.last_write = append(&mut self.effects);
            self.effects.clear();
            return Some(state.last_write);
        }
        let mut whole = false;
        let effects = effects(self.effects.as_payload());
        let mut written: Vec<Slot> = effects
            .filter_map(|e| {
                whole |= e.slot.is_none();
                e.slot
            })
            .collect();
        written.sort_unstable();
        written.dedup();
        let index = append(&mut self.effects);
        if let Held::Many(states) = &mut self.held {
            for (slot, state) in states {
                if whole || written.binary_search(slot).is_ok() {
                    state.last_write = index;
                }
            }
        }
        self.effects.clear();
        Some(index)
    }

    /// Largest index of the last writes to the locked slots: what a read of them depends on.
    #[inline]
    pub fn last_write(&self) -> LogIndex {
        let held = match &self.held {
            Held::None => LogIndex::ZERO,
            Held::One(_, state) => state.last_write,
            Held::Many(states) => states.iter().map(|(_, s)| s.last_write).max().unwrap_or_default(),
        };
        held.max(self.walked)
    }

    /// Marks the locked slots as written at this index.
    pub fn set_last_write(&mut self, index: LogIndex) {
        match &mut self.held {
            Held::None => {}
            Held::One(_, state) => state.last_write = index,
            Held::Many(states) => states.iter_mut().for_each(|(_, s)| s.last_write = index),
        }
    }

    /// Whether the running command has read a count of keys, which depends on all that was written before.
    pub fn take_counted(&mut self) -> bool {
        std::mem::take(&mut self.counted)
    }

    /// The request itself is an effect on the slot of `key`.
    #[inline]
    pub fn propagate(&mut self, key: &[u8], args: Args<'_>) {
        if !self.is_logging() {
            return;
        }
        // What the command saw as expired must not be there either when its effect is applied.
        self.finish();
        if let Some(name) = self.command {
            let args: Vec<&[u8]> = std::iter::once(name.as_bytes()).chain(args.iter().skip(1)).collect();
            return self.propagate_as(key, &args);
        }
        let slot = self.slot_of(key);
        match args.raw() {
            Some(raw) => self.effects.push(Some(slot), self.db, raw),
            None => {
                let args: Vec<&[u8]> = args.iter().collect();
                self.propagate_as(key, &args);
            }
        }
    }

    /// A command with the same effect as the request, deterministic and on the slot of `key` only.
    #[inline]
    pub fn propagate_as(&mut self, key: &[u8], command: &[&[u8]]) {
        if !self.is_logging() {
            return;
        }
        self.finish();
        let slot = self.slot_of(key);
        self.encoded.clear();
        write_command(&mut self.encoded, command);
        self.effects.push(Some(slot), self.db, &self.encoded);
    }

    /// The effects that put a value under `key` in the current database: called before anything has changed.
    ///
    /// # Errors
    /// They would be too long for the write log.
    pub fn propagate_value(
        &mut self,
        key: &[u8],
        place: Place,
        value: ValueRef<'_>,
        expire_at: Option<i64>,
    ) -> Result<(), TooLong> {
        if !self.is_logging() {
            return Ok(());
        }
        self.finish();
        let (slot, db) = (self.slot_of(key), self.db);
        self.effects.push_value(slot, db, key, place, self.entry_bytes_max, |emit| {
            rebuild_as(key, value, expire_at, emit);
        })
    }

    /// As [`Keys::propagate_value`], with the value and the expiry of another key.
    ///
    /// # Errors
    /// They would be too long for the write log.
    pub fn propagate_copy(
        &mut self,
        source: &[u8],
        key: &[u8],
        (source_db, db): (DbIndex, DbIndex),
        place: Place,
        original: Original,
    ) -> Result<(), TooLong> {
        if !self.is_logging() {
            return Ok(());
        }
        self.finish();
        let mut effects = std::mem::take(&mut self.effects);
        let (len, slot) = (effects.len(), self.slot_of(key));
        if original == Original::Moves {
            self.encoded.clear();
            write_command(&mut self.encoded, &[b"DEL", source]);
            effects.push(Some(self.slot_of(source)), source_db, &self.encoded);
        }
        let pushed = match self.get(source) {
            Some(entry) => effects.push_value(slot, db, key, place, self.entry_bytes_max, |emit| {
                rebuild_as(key, entry.value(), entry.expire_at(), emit);
            }),
            None => Ok(()),
        };
        if pushed.is_err() && original == Original::Moves {
            effects.truncate(len);
        }
        self.effects = effects;
        pushed
    }

    /// An effect on what belongs to a slot and is no key; the slot is locked.
    pub fn propagate_on(&mut self, slot: Slot, command: &[&[u8]]) {
        if self.is_logging() {
            self.encoded.clear();
            write_command(&mut self.encoded, command);
            self.effects.push(Some(slot), self.db, &self.encoded);
        }
        self.dirty += 1;
    }

    /// An effect on the whole keyspace; the world is stopped.
    pub fn propagate_whole(&mut self, command: &[&[u8]]) {
        if self.is_logging() {
            self.encoded.clear();
            write_command(&mut self.encoded, command);
            self.effects.push(None, self.db, &self.encoded);
        }
        self.dirty += 1;
    }

    /// Checks, before anything has changed, that effects of about so many bytes may still be added.
    ///
    /// # Errors
    /// They would be too long for the write log.
    #[inline]
    pub fn check_entry(&self, effect_bytes: impl FnOnce() -> usize) -> Result<(), TooLong> {
        match self.entry_room() {
            Some(room) if room < effect_bytes() => Err(TooLong),
            Some(_) | None => Ok(()),
        }
    }

    /// How many bytes of effects may still be added; `None`: nobody reads the log.
    #[inline]
    pub fn entry_room(&self) -> Option<usize> {
        self.is_logging().then(|| self.entry_bytes_max.saturating_sub(self.effects.len()))
    }

    /// A keyspace event, published after the command if `notify-keyspace-events` asks for it.
    #[inline]
    pub fn notify(&mut self, class: EventClass, event: &'static str, key: &[u8]) {
        if self.mode != Mode::Apply && self.notify.contains(class) {
            self.events.get_mut().push(Event { class, event, db: self.db, key: key.into() });
        }
    }

    #[inline]
    pub fn has_events(&mut self) -> bool {
        !self.events.get_mut().is_empty()
    }

    /// How many there are.
    pub fn events_len(&mut self) -> usize {
        self.events.get_mut().len()
    }

    /// Keyspace events of the finished command.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(self.events.get_mut())
    }
}

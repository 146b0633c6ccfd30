//! ACL LOG: what was refused last. The same refusal again within a minute counts in its entry.

use std::collections::VecDeque;

use super::Denied;

/// Refusals that are so far apart are told apart, milliseconds.
const TOGETHER_MS: i64 = 60_000;
/// Among so many of the last entries it is looked for the same one.
const LOOKED_AT: usize = 10;

/// What was missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    Authentication,
    Denied(Denied),
}

impl Reason {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Reason::Authentication => "auth",
            Reason::Denied(Denied::Command) => "command",
            Reason::Denied(Denied::Key(_)) => "key",
            Reason::Denied(Denied::Channel(_)) => "channel",
            Reason::Denied(Denied::Database(_)) => "database",
        }
    }
}

/// In what a request was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Context {
    TopLevel,
    Multi,
    Script,
}

impl Context {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Context::TopLevel => "toplevel",
            Context::Multi => "multi",
            Context::Script => "lua",
        }
    }
}

/// One refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: &'static str,
    pub(crate) context: Context,
    /// The command, key, channel or database.
    pub(crate) object: Vec<u8>,
    pub(crate) username: Vec<u8>,
    /// As in CLIENT LIST.
    pub(crate) client: Vec<u8>,
}

impl Refusal {
    fn is_same(&self, other: &Refusal) -> bool {
        self.reason == other.reason
            && self.context == other.context
            && self.object == other.object
            && self.username == other.username
    }
}

/// An entry: the last of some refusals that are the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) refusal: Refusal,
    pub(crate) count: u64,
    pub(crate) id: u64,
    /// Unix time, milliseconds.
    pub(crate) created_at: i64,
    pub(crate) updated_at: i64,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// The latest first.
    entries: VecDeque<Entry>,
    next_id: u64,
}

impl Log {
    /// At most `len_max` entries are kept.
    pub(crate) fn add(&mut self, refusal: Refusal, now: i64, len_max: usize) {
        let is_same =
            |entry: &Entry| now - entry.updated_at <= TOGETHER_MS && entry.refusal.is_same(&refusal);
        let same = self.entries.iter().take(LOOKED_AT).position(is_same);
        let entry = match same.and_then(|at| self.entries.remove(at)) {
            Some(entry) => Entry { refusal, count: entry.count + 1, updated_at: now, ..entry },
            None => {
                let id = self.next_id;
                self.next_id += 1;
                Entry { refusal, count: 1, id, created_at: now, updated_at: now }
            }
        };
        self.entries.push_front(entry);
        self.entries.truncate(len_max);
    }

    /// The latest first.
    pub(crate) fn latest(&self, count: usize) -> impl ExactSizeIterator<Item = &Entry> {
        self.entries.iter().take(count)
    }

    pub(crate) fn reset(&mut self) {
        self.entries.clear();
    }
}

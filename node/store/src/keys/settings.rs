//! What the keyspace takes from the configuration and from the clocks.
//!
//! There are no [`Keys`](super::Keys) without them: a value has the form that the configuration asks for on whatever
//! way it comes, from a client, a log, a file or another node.

use keyward_proto::time::{Monotonic, UnixMillis};

use crate::access::{AccessClock, Lfu};
use crate::events::EventClasses;
use crate::types::Limits;

/// The default is what the configuration begins with, and for tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeySettings {
    /// Up to where collections are compact.
    pub limits: Limits,
    /// The parameters of the access counters; `None`: times are noted, no frequencies.
    pub lfu: Option<Lfu>,
    /// Which keyspace events are wanted.
    pub events: EventClasses,
}

/// When something is executed, by both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For expiry.
    pub wall: UnixMillis,
    /// For the access clock.
    pub monotonic: Monotonic,
}

/// Whether somebody reads the write log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logging {
    On,
    Off,
}

impl KeySettings {
    pub(super) fn access_clock(&self, now: Monotonic) -> AccessClock {
        AccessClock::new(now, self.lfu)
    }
}

impl Now {
    #[cfg(test)]
    pub(crate) fn at(unix_millis: i64) -> Now {
        Now { wall: UnixMillis(unix_millis), monotonic: Monotonic::ZERO }
    }
}

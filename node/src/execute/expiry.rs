//! Active expiry: keys whose time has passed are deleted even if nobody asks for them, with their effects.
//!
//! Each slot knows before when none of its keys expires, so most slots cost a look. Where keys are due, the slot is
//! walked in steps that hold its lock for some tens of microseconds. One call of [`Executor::expire_cycle`] works for a
//! bounded time and goes on where it stopped when it is called again; as long as it says that more is due, it is
//! called again soon. A replica expires nothing by itself.

use std::sync::Arc;
use std::time::Duration;

use keyward_proto::slot::{SLOT_COUNT, Slot};
use keyward_proto::time::Monotonic;
use keyward_store::keys::{ExpiryWalk, Keys};

use super::Executor;
use super::batch::{Progress, logging};

/// Entries that are looked at under one lock.
const STEP_LEN: usize = 64;
/// Slots that are looked at between two looks at the clocks.
const BETWEEN_LOOKS: u16 = 256;

/// Where the walk over the slots is.
#[derive(Debug, Default)]
pub(super) struct Expirer {
    /// Slots that are left of this round; zero: the next call begins a round.
    left: u16,
    /// The walk through a slot that is not finished.
    walk: Option<(Slot, ExpiryWalk)>,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpiryCycle {
    /// The round through all slots is complete.
    Complete,
    /// Its time was up.
    MoreDue,
}

impl Executor {
    /// Deletes expired keys for at most about `time_max`.
    pub fn expire_cycle(&mut self, time_max: Duration) -> ExpiryCycle {
        self.refresh();
        let started = self.clock.monotonic();
        let found = self.expire_until(started, time_max);
        let elapsed = self.clock.monotonic().since(started).as_nanos();
        self.stats.expire_nanos.add(u64::try_from(elapsed).unwrap_or(u64::MAX));
        if found == ExpiryCycle::MoreDue {
            self.stats.expire_time_cap_reached.add(1);
        }
        found
    }

    fn expire_until(&mut self, started: Monotonic, time_max: Duration) -> ExpiryCycle {
        let server = Arc::clone(&self.server);
        if let Some((slot, walk)) = self.expirer.walk.take()
            && self.expire_in_slot(slot, walk, started, time_max) == ExpiryCycle::MoreDue
        {
            return ExpiryCycle::MoreDue;
        }
        if self.expirer.left == 0 {
            self.expirer.left = SLOT_COUNT;
        }
        let mut now = self.clock.unix_millis().0;
        while let Some(slot) = self.expirer.left.checked_sub(1).and_then(Slot::new) {
            self.expirer.left -= 1;
            // Most slots have nothing to expire: for them, no more than this look.
            let next = server.keyspace.lock(slot).next_expiry;
            if next != 0
                && next < now
                && self.expire_in_slot(slot, ExpiryWalk::default(), started, time_max) == ExpiryCycle::MoreDue
            {
                return ExpiryCycle::MoreDue;
            }
            if self.expirer.left % BETWEEN_LOOKS == BETWEEN_LOOKS - 1 {
                if time_max <= self.clock.monotonic().since(started) {
                    return ExpiryCycle::MoreDue;
                }
                now = self.clock.unix_millis().0;
            }
        }
        ExpiryCycle::Complete
    }

    fn expire_in_slot(
        &mut self,
        slot: Slot,
        mut walk: ExpiryWalk,
        started: Monotonic,
        time_max: Duration,
    ) -> ExpiryCycle {
        let server = Arc::clone(&self.server);
        let gate = &server.shared.gate;
        loop {
            let batch = self.safepoint.lock_arc();
            if !self.acts_by_itself() {
                // As if it had not begun.
                server.keyspace.lock(slot).next_expiry = 1;
                return ExpiryCycle::Complete;
            }
            let mut keys = Keys::primary(&server.keyspace, &self.settings.keys, self.now(), logging(gate));
            keys.lock_one(slot);
            let next = keys.expire_step(walk, STEP_LEN);
            let index = self.commit_own(&mut keys);
            self.free(&mut keys);
            self.serve_ready(&mut keys, &mut Progress::new(self.moment.generation));
            drop(batch);
            self.stats.expired_keys.add(keys.take_counts().2);
            if index.is_some() {
                server.shared.notify_appended();
            }
            match next {
                None => return ExpiryCycle::Complete,
                Some(next) => walk = next,
            }
            if time_max <= self.clock.monotonic().since(started) {
                self.expirer.walk = Some((slot, walk));
                return ExpiryCycle::MoreDue;
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "keys expire by the clock of a real node")]
mod tests {
    use super::*;
    use crate::clock;
    use crate::testing::TestNode;

    #[test]
    fn a_large_slot_is_expired_step_by_step() {
        let mut node = TestNode::replicated();
        for i in 0..1000 {
            node.run(&format!("SET {{t}}{i} v PX {}", if i % 10 == 0 { 100_000 } else { 1 }));
        }
        node.run("SET other v PX 1");
        node.run("SET {t}forever v");
        std::thread::sleep(Duration::from_millis(5));
        let mut calls = 0;
        while node.executor.expire_cycle(Duration::ZERO) == ExpiryCycle::MoreDue {
            calls += 1;
            // A key that gets an expiry in a slot that is being walked is not forgotten.
            if calls == 10 {
                node.run("SET {t}late v PX 1");
            }
            assert!(calls < 100_000);
        }
        assert!(10 < calls);
        std::thread::sleep(Duration::from_millis(5));
        while node.executor.expire_cycle(Duration::from_secs(1)) == ExpiryCycle::MoreDue {}
        assert_eq!(node.run("DBSIZE"), ":101\r\n");
        let deleted = node.effects().iter().filter(|e| e.starts_with("DEL ")).count();
        assert_eq!(deleted, 902);
        assert_eq!(node.executor.stats.expired_keys.get(), 902);
        let next = node.executor.server().keyspace.lock(Slot::of(b"{t}")).next_expiry;
        assert!(clock::unix_millis().0 < next && next != i64::MAX);
    }
}

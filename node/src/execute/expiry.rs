//! Active expiry: keys and fields of hashes whose time has passed are deleted even if nobody asks for them, with their
//! effects.
//!
//! Each slot knows before when none of its keys and fields expires, so most slots cost a look. Where some are due, the
//! slot is walked in steps that hold its lock for some tens of microseconds. One call of [`Executor::expire_cycle`]
//! works for a bounded time and goes on where it stopped when it is called again; as long as it says that more is due,
//! it is called again soon. A replica expires nothing by itself.

use std::sync::Arc;
use std::time::Duration;

use keyward_proto::slot::{SLOT_COUNT, Slot};
use keyward_proto::time::Monotonic;
use keyward_replication::reply::ReplyCondition;
use keyward_store::keys::{ExpiryWalk, Keys};
use keyward_store::tracking::Changes;
use rand::Rng;

use super::Executor;
use super::progress::{Progress, logging};
use crate::tracking::Cause;

/// Entries that are looked at under one lock, and fields that are deleted.
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

    /// `tracking-table-max-keys`: clients are told of keys that they have read as if these had changed.
    pub fn limit_tracked_keys(&mut self) {
        self.refresh();
        let server = Arc::clone(&self.server);
        let (counts, max) = (&server.keyspace.tracking, self.settings.tracking_keys_max);
        if max == 0 || counts.keys() <= max {
            return;
        }
        let mut changes = Changes::default();
        let batch = self.safepoint.lock_arc();
        let first = self.rng.random_range(0..SLOT_COUNT);
        for slot in (first..SLOT_COUNT).chain(0..first).filter_map(Slot::new) {
            if counts.keys() <= max {
                break;
            }
            let mut state = server.keyspace.lock(slot);
            while max < counts.keys()
                && let Some(changed) = state.take_read_key(counts)
            {
                changes.keys.push(changed);
            }
        }
        drop(batch);
        server.tell_changes(&changes, Cause { client: None, condition: ReplyCondition::default() });
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
            let counts = keys.take_counts();
            self.stats.expired_keys.add(counts.expired_keys);
            self.stats.expired_fields.add(counts.expired_fields);
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
    use keyward_replication::gate::GateState;

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

    fn expire_all(node: &mut TestNode) {
        std::thread::sleep(Duration::from_millis(5));
        while node.executor.expire_cycle(Duration::from_secs(1)) == ExpiryCycle::MoreDue {}
    }

    #[test]
    fn a_large_hash_is_expired_step_by_step() {
        let mut node = TestNode::replicated();
        for i in 0..1000 {
            let time = if i % 10 == 0 { 100_000 + i } else { 1 + i % 3 };
            node.run(&format!("HSETEX {{t}}h PX {time} FIELDS 1 f{i} v"));
            node.run(&format!("HSETEX {{t}}{i} PX {time} FIELDS 1 f v"));
        }
        node.run("HSET {t}h forever v");
        node.effects();
        std::thread::sleep(Duration::from_millis(5));
        let mut calls = 0;
        while node.executor.expire_cycle(Duration::ZERO) == ExpiryCycle::MoreDue {
            calls += 1;
            if calls == 10 {
                node.run("HSETEX {t}h PX 1 FIELDS 1 late v");
            }
            assert!(calls < 100_000);
        }
        assert!(10 < calls);
        expire_all(&mut node);
        assert_eq!(node.run("HLEN {t}h"), ":101\r\n");
        assert_eq!(node.run("DBSIZE"), ":101\r\n");
        assert_eq!(node.executor.stats.expired_fields.get(), 1801);
        assert!(
            node.run("INFO keyspace")
                .contains("db0:keys=101,expires=0,avg_ttl=0,keys_with_volatile_items=101")
        );
        let effects = node.effects();
        let deletions = effects.iter().filter(|e| e.starts_with("HDEL ")).map(|e| e.split(' ').count() - 2);
        let deletions: Vec<usize> = deletions.collect();
        assert_eq!(deletions.iter().sum::<usize>(), 1801);
        assert!(deletions.iter().all(|fields| *fields <= STEP_LEN));
        let next = node.executor.server().keyspace.lock(Slot::of(b"{t}")).next_expiry;
        assert!(clock::unix_millis().0 < next && next != i64::MAX);
    }

    #[test]
    fn hashes_with_times_are_counted() {
        let mut node = TestNode::new();
        for (requests, count) in [
            (&["HSET h a 1 b 2", "HEXPIRE h 100 FIELDS 1 a"][..], Some(1)),
            (&["HPERSIST h FIELDS 1 a"], Some(0)),
            (&["HSETEX h EX 100 FIELDS 1 a 1", "HSET h a 1"], Some(0)),
            (&["HGETEX h EX 100 FIELDS 1 a", "HDEL h a"], Some(0)),
            (&["HSETEX h EX 100 FIELDS 1 a 1", "COPY h g", "RENAME h i"], Some(2)),
            (&["SET g x", "GETDEL g"], Some(1)),
            (&["SET i x"], Some(0)),
            (
                &[
                    "MULTI",
                    "HSETEX h EX 100 FIELDS 1 a 1",
                    "HSETEX g EX 100 FIELDS 1 a 1",
                    "SWAPDB 0 1",
                    "EXEC",
                ],
                None,
            ),
            (&["SWAPDB 0 1"], Some(2)),
            (&["MULTI", "HSETEX j EX 100 FIELDS 1 a 1", "RENAME j k", "MOVE k 1", "DEL h", "EXEC"], Some(1)),
            (&["MULTI", "HSETEX j EX 100 FIELDS 1 a 1", "FLUSHDB", "SET a 1", "EXEC"], Some(0)),
        ] {
            requests.iter().for_each(|request| drop(node.run(request)));
            let info = node.run("INFO keyspace");
            let found = info.split("db0:").nth(1).and_then(|db| db.split(['=', '\r']).nth(4));
            assert_eq!(found, count.map(|n: usize| n.to_string()).as_deref(), "{requests:?}: {info}");
        }
    }

    /// A hash that has got its times within a transaction that exchanges databases.
    #[test]
    fn what_changed_places_expires() {
        let mut node = TestNode::new();
        for request in ["MULTI", "HSETEX h PX 1 FIELDS 1 a 1", "SWAPDB 0 1", "EXEC", "SELECT 1"] {
            node.run(request);
        }
        expire_all(&mut node);
        assert_eq!(node.run("EXISTS h"), ":0\r\n");
    }

    #[test]
    fn a_replica_deletes_no_field() {
        let mut node = TestNode::replicated();
        node.run("HSETEX h PX 1 FIELDS 1 a 1");
        node.publish(GateState::Replica, 0);
        expire_all(&mut node);
        assert_eq!((node.run("HLEN h"), node.run("HGET h a")), (":1\r\n".into(), "$-1\r\n".into()));
    }
}

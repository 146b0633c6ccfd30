//! `maxmemory`: the thread whose command needs memory evicts keys until there is room, or until its time is up.
//!
//! It runs before the command, when no slot is locked, and locks one slot at a time. Threads that evict at the same
//! time share one figure of the memory in use, which each brings up to date after every key, so that together they
//! evict no more than is needed. A replica evicts nothing by itself: evictions come to it as effects.
//!
//! Differs from Valkey: commands that need no memory evict nothing; a node that is above the limit without such
//! commands (a lower `maxmemory`, output buffers) evicts from time to time instead, see [`Executor::evict_cycle`].

use std::sync::Arc;
use std::time::Duration;

use keyward_proto::time::Monotonic;
use keyward_replication::gate::GateState;
use keyward_store::Keyspace;
use keyward_store::access::AccessClock;
use keyward_store::eviction::{Eligible, Order, Policy, Pool, SharedWeights, Weights, fill_pool, score};
use keyward_store::keys::Keys;

use super::Executor;
use super::progress::{Progress, logging};
use crate::process;

/// Keys that are evicted between two looks at the clock.
const BETWEEN_LOOKS: u32 = 16;
/// Draws without a result after which the slots' counts are taken to be out of date.
const MISSES_MAX: u32 = 8;
/// Counts are good for so long.
const COUNTS_AGE_MAX: Duration = Duration::from_secs(1);
/// Counts that found nothing are good for so long: a new key may be the first that may be evicted.
const EMPTY_AGE_MAX: Duration = Duration::from_millis(10);

/// What a thread keeps between evictions.
#[derive(Debug, Default)]
pub(super) struct Evictor {
    policy: Policy,
    pool: Pool,
    weights: Option<Arc<Weights>>,
    counted_at: Monotonic,
}

impl Evictor {
    /// The counts by which slots are drawn, at most `age_max` old.
    fn weights(
        &mut self,
        shared: &SharedWeights,
        space: &Keyspace,
        now: Monotonic,
        eligible: Eligible,
        age_max: Duration,
    ) -> Arc<Weights> {
        if let Some(weights) = &self.weights
            && now.since(self.counted_at) < age_max
        {
            return Arc::clone(weights);
        }
        self.weights = None;
        let (counted_at, weights) = shared.get(space, eligible, now, age_max);
        self.counted_at = counted_at;
        self.weights = Some(Arc::clone(&weights));
        weights
    }
}

/// How an attempt to get below the limit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eviction {
    Done,
    /// Its time was up.
    Running,
    /// There is nothing that may be evicted.
    Nothing,
}

/// Whether commands that need memory may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    Left,
    Exhausted,
}

impl Executor {
    /// Whether a command that needs memory may run. No slot is locked.
    fn evict_if_needed(&mut self, keys: &mut Keys<'_>, progress: &mut Progress) -> bool {
        process::note_memory(&self.server.memory);
        if self.server.memory.counted() <= self.maxmemory || self.moment.state != GateState::Primary {
            return true;
        }
        let db = keys.db;
        let ended = self.evict(keys, progress, self.settings.eviction_time_max);
        keys.db = db;
        ended != Eviction::Nothing
    }

    /// The room for commands that need memory, after what is evicted for them. No slot is locked.
    pub(super) fn make_room(&mut self, keys: &mut Keys<'_>, progress: &mut Progress) -> Room {
        if self.maxmemory == 0 || self.evict_if_needed(keys, progress) { Room::Left } else { Room::Exhausted }
    }

    fn evict(
        &mut self,
        keys: &mut Keys<'_>,
        progress: &mut Progress,
        time_max: Option<Duration>,
    ) -> Eviction {
        let policy = self.settings.maxmemory_policy;
        let Some(rules) = policy.order() else { return Eviction::Nothing };
        if self.evictor.policy != policy {
            self.evictor = Evictor { policy, ..Evictor::default() };
        }
        let clock = keys.access_clock();
        let server = Arc::clone(&self.server);
        let started = self.clock.monotonic();
        let (mut rounds, mut misses, mut recounted) = (0, 0, false);
        let shared = &server.eviction_weights;
        let mut weights = self.evictor.weights(shared, keys.space(), started, rules.0, COUNTS_AGE_MAX);
        while self.maxmemory < server.memory.counted() {
            if weights.is_empty() || misses == MISSES_MAX {
                if recounted {
                    return if weights.is_empty() { Eviction::Nothing } else { Eviction::Running };
                }
                let age_max = if weights.is_empty() { EMPTY_AGE_MAX } else { Duration::ZERO };
                weights = self.evictor.weights(shared, keys.space(), started, rules.0, age_max);
                (misses, recounted) = (0, true);
                continue;
            }
            if self.evict_one(keys, progress, &weights, rules, &clock) {
                misses = 0;
            } else {
                misses += 1;
            }
            process::note_memory_exactly(&server.memory);
            rounds += 1;
            if rounds % BETWEEN_LOOKS == 0
                && time_max.is_some_and(|max| max <= self.clock.monotonic().since(started))
            {
                return Eviction::Running;
            }
        }
        Eviction::Done
    }

    /// Evicts the best of some keys; false if none was found.
    fn evict_one(
        &mut self,
        keys: &mut Keys<'_>,
        progress: &mut Progress,
        weights: &Weights,
        rules: (Eligible, Order),
        clock: &AccessClock,
    ) -> bool {
        let samples = if rules.1 == Order::Random { 1 } else { self.settings.maxmemory_samples };
        fill_pool(keys.space(), weights, rules, samples, clock, &mut self.rng, &mut self.evictor.pool);
        while let Some(candidate) = self.evictor.pool.take() {
            let runs = &self.server.scripts.runs;
            if !keys.lock_one_unless(candidate.slot, || runs.is_busy()) {
                continue;
            }
            keys.db = candidate.db;
            let still_good = keys.stored(&candidate.key).is_some_and(|entry| {
                let eligible = rules.0 == Eligible::All || entry.expire_at().is_some();
                eligible && candidate.score <= score(entry, rules.1, clock)
            });
            if !still_good {
                keys.unlock();
                continue;
            }
            keys.evict(&candidate.key);
            progress.appended |= self.commit_own(keys).is_some();
            self.free(keys);
            self.stats.evicted_keys.add(1);
            return true;
        }
        false
    }

    /// Evicts without a command that needs memory, for at most `time_max`.
    pub fn evict_cycle(&mut self, time_max: Duration) -> Eviction {
        self.refresh();
        let server = Arc::clone(&self.server);
        process::begin_noting_memory();
        if self.maxmemory == 0 || server.memory.counted() <= self.maxmemory {
            return Eviction::Done;
        }
        let _batch = self.safepoint.lock_arc();
        let gate = &server.shared.gate;
        if !self.acts_by_itself() {
            return Eviction::Done;
        }
        let mut keys = Keys::primary(&server.keyspace, &self.settings.keys, self.now(), logging(gate));
        let mut progress = Progress::new(self.moment.generation);
        let ended = self.evict(&mut keys, &mut progress, Some(time_max));
        self.serve_ready(&mut keys, &mut progress);
        if progress.appended {
            server.shared.notify_appended();
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Eviction;
    use crate::testing::{TestNode, check_on};

    const OOM: &str = "-OOM command not allowed when used memory > 'maxmemory'.\r\n";

    /// A node with a limit and this policy that finds more memory in use than allowed, whatever it evicts: tests do
    /// not run on the allocator that counts.
    fn short_of_memory(mut node: TestNode, policy: &str) -> TestNode {
        node.run(&format!("CONFIG SET maxmemory 1000 maxmemory-policy {policy}"));
        let memory = &node.executor.server().memory;
        memory.correct(memory.figure(), 2000, 0);
        node
    }

    #[test]
    fn commands_that_need_memory_are_refused() {
        let mut node = TestNode::new();
        node.run("RPUSH l a b");
        check_on(
            &mut short_of_memory(node, "noeviction"),
            &[
                ("SET k v", OOM),
                ("LPOP l", "$1\r\na\r\n"),
                ("DEL l", ":1\r\n"),
                ("MULTI", "+OK\r\n"),
                ("GET k", "+QUEUED\r\n"),
                ("SET k v", OOM),
                ("EXEC", "-EXECABORT Transaction discarded because of previous errors.\r\n"),
                ("CONFIG SET maxmemory 0", "+OK\r\n"),
                ("MULTI", "+OK\r\n"),
                ("SET k v", "+QUEUED\r\n"),
            ],
        );
    }

    /// In a transaction, too, where they could use more memory than is allowed.
    #[test]
    fn what_scripts_call_is_refused() {
        let mut node = short_of_memory(TestNode::new(), "noeviction");
        let script = "EVAL \"return redis.call('SET', KEYS[1], 'v')\" 1 k";
        let refused = |reply: &str| {
            let start = "-OOM command not allowed when used memory > 'maxmemory'. script: on @user_script:";
            assert!(reply.contains(start), "{reply}");
        };
        refused(&node.run(script));
        check_on(&mut node, &[("MULTI", "+OK\r\n"), (script, "+QUEUED\r\n")]);
        refused(&node.run("EXEC"));
        check_on(&mut node, &[("EXISTS k", ":0\r\n"), ("CONFIG SET maxmemory 0", "+OK\r\n")]);
        assert_eq!(node.run(script), "+OK\r\n");
    }

    /// What a script says of itself is known before it is queued.
    #[test]
    fn a_script_with_flags_is_refused_when_it_is_queued() {
        let mut node = short_of_memory(TestNode::new(), "noeviction");
        check_on(
            &mut node,
            &[
                ("MULTI", "+OK\r\n"),
                (r##"EVAL "#!lua flags=allow-oom\nreturn 1" 0"##, "+QUEUED\r\n"),
                (r##"EVAL "#!lua flags=no-writes\nreturn 1" 0"##, "+QUEUED\r\n"),
                (r##"EVAL "return 1" 0"##, "+QUEUED\r\n"),
                ("EVALSHA nosuch 0", "+QUEUED\r\n"),
                ("FCALL nosuch 0", "+QUEUED\r\n"),
                (r##"EVAL "#!lua\nreturn 1" 0"##, OOM),
                ("EXEC", "-EXECABORT Transaction discarded because of previous errors.\r\n"),
            ],
        );
    }

    #[test]
    fn a_queued_transaction_is_refused_as_a_whole() {
        let mut node = TestNode::new();
        check_on(&mut node, &[("MULTI", "+OK\r\n"), ("SET k v", "+QUEUED\r\n")]);
        let mut other = node.another_client();
        other.run("CONFIG SET maxmemory 1");
        node.executor.server().memory.correct(0, 2000, 0);
        let aborted = format!("-EXECABORT Transaction discarded because of: {}", &OOM[1..]);
        assert_eq!(node.run("EXEC"), aborted);
        assert_eq!(node.run("EXISTS k"), ":0\r\n");
    }

    #[test]
    fn evictions_are_effects() {
        let mut node = TestNode::replicated();
        node.run("SET a 1");
        node.run("SET b 2 PX 1000000");
        node.effects();
        let mut node = short_of_memory(node, "volatile-lru");
        check_on(&mut node, &[("SET c 3", OOM), ("DBSIZE", ":1\r\n")]);
        assert_eq!(node.effects(), ["UNLINK b"]);
        let mut node = short_of_memory(node, "allkeys-random");
        check_on(&mut node, &[("GET a", "$1\r\n1\r\n"), ("SET c 3", OOM), ("DBSIZE", ":0\r\n")]);
        assert_eq!(node.effects(), ["UNLINK a"]);
        let evicted = node.executor.server().stats.sum(|t| &t.evicted_keys);
        assert_eq!(evicted, 2);
    }

    #[test]
    fn a_key_that_was_used_more_often_stays() {
        let mut node = TestNode::new();
        node.run("CONFIG SET maxmemory-policy allkeys-lfu lfu-log-factor 0 lfu-decay-time 0");
        for i in 0..20 {
            node.run(&format!("SET {{t}}{i} x"));
            (0..i).for_each(|_| drop(node.run(&format!("GET {{t}}{i}"))));
        }
        assert_eq!(
            (node.run("OBJECT FREQ {t}0"), node.run("OBJECT FREQ {t}19")),
            (":5\r\n".into(), ":24\r\n".into())
        );
        node.run("CONFIG SET maxmemory-samples 64");
        let mut node = short_of_memory(node, "allkeys-lfu");
        // It stops at the first look at the clock.
        assert_eq!(node.executor.evict_cycle(Duration::ZERO), Eviction::Running);
        let left: Vec<String> = (0..20)
            .map(|i| format!("{{t}}{i}"))
            .filter(|k| node.run(&format!("EXISTS {k}")) == ":1\r\n")
            .collect();
        assert_eq!(left, ["{t}16", "{t}17", "{t}18", "{t}19"]);
    }
}

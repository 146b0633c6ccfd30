//! Gray failures: a node that is alive and holds clients up.
//!
//! It answers beacons and its leases are good, but what clients wait for does not get on: its disk hangs, or takes most
//! of a second for each batch. Silence does not give it away, nor whether *anything* moves. So the end of the log is
//! marked, and again when the mark is reached ([`Account`]). Who takes too long to get there holds clients up from then
//! on; that time is added up, and paid back more slowly while the node keeps up. The primary keeps such an account of
//! each member, and of itself: its own disk.
//!
//! Who comes to `lag_patience` gives way, a member by being removed, the primary by handing over; but only
//! - if the others keep up far better ([`worst`]): where all are slow, it is nobody's fault, and slow is better than
//!   nothing;
//! - if they are enough for `min-in-sync`, too;
//! - for a hand-off, if the sentinels have answered a moment ago: until its outcome is known nothing is served.
//!
//! It keeps away for a while ([`Bar`]), longer each time, and until it has kept up again: it would hold everybody up
//! anew. A matter of liveness alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use keyward_proto::ids::{Incarnation, LogIndex, NodeId};
use keyward_proto::mutation::{self, Mutation};
use keyward_proto::time::Monotonic;

use super::config::{Config, ReplicationAck};
use super::local::Local;
use super::messages::{Action, HandoffToken};
use super::primary::{Phase, Primary};
use super::stall_detector::StallDetector;
use crate::log::WriteLog;

/// Who keeps up gets so much to its disk in a second at least: what is slow because it is large is nobody's fault.
const BYTES_PER_SECOND: u64 = 10 << 20;
/// What was added up is paid back in so many times the time.
const PAY_BACK: u32 = 4;
/// For so long a node keeps away at first; doubles up to [`BAR_MAX`], and begins anew after as long without a reason.
const BAR_FIRST: Duration = Duration::from_secs(5);
const BAR_MAX: Duration = Duration::from_secs(300);
/// Between two attempts to hand over: each holds up reads.
const HANDOFF_PAUSE: Duration = Duration::from_secs(5);

/// For how long a node keeps away.
#[derive(Debug, Default)]
pub(crate) struct Bar {
    times: u32,
    until: Monotonic,
}

impl Bar {
    fn put_up(&mut self, now: Monotonic) {
        if !self.is_remembered(now) {
            self.times = 0;
        }
        self.until = now + BAR_FIRST.saturating_mul(1 << self.times.min(8)).min(BAR_MAX);
        self.times += 1;
    }

    fn is_remembered(&self, now: Monotonic) -> bool {
        0 < self.times && now.since(self.until) < BAR_MAX
    }

    pub(crate) fn is_up(&self, now: Monotonic) -> bool {
        now < self.until && !mutation::is_on(Mutation::LaggardComesBack)
    }
}

/// For how long a node has held clients up, lately.
#[derive(Debug)]
struct Account {
    incarnation: Incarnation,
    mark: LogIndex,
    marked_at: Monotonic,
    /// How long it may take to get there.
    allowed: Duration,
    /// What is added up at most: a member may become far worse than another one, who has left comes back soon.
    most: Duration,
    seen_at: Monotonic,
    held_up: Duration,
    /// That it gives way was told a moment ago.
    is_told: bool,
    bar: Bar,
}

impl Account {
    fn new(now: Monotonic, incarnation: Incarnation) -> Account {
        Account {
            incarnation,
            mark: LogIndex::ZERO,
            marked_at: now,
            allowed: Duration::ZERO,
            most: Duration::MAX,
            seen_at: now,
            held_up: Duration::ZERO,
            is_told: false,
            bar: Bar::default(),
        }
    }

    /// It has the log up to `has`.
    fn observe(
        &mut self,
        now: Monotonic,
        config: &Config,
        stalls: &StallDetector,
        has: LogIndex,
        log: &WriteLog,
    ) {
        // A stall of this very process is nobody's fault.
        let time = now.since(self.seen_at).min(config.beacon_interval() * 2);
        self.seen_at = now;
        if self.mark <= has && config.beacon_interval() <= now.since(self.marked_at) {
            let for_bytes = Duration::from_millis(log.bytes_after(has) * 1000 / BYTES_PER_SECOND);
            (self.mark, self.marked_at, self.allowed) =
                (log.last().index, now, config.slow_after() + for_bytes);
        }
        let is_late = has < self.mark && self.allowed <= stalls.silence(self.marked_at, now);
        self.held_up = match is_late {
            true => (self.held_up + time).min(self.most),
            false => self.held_up.saturating_sub(time / PAY_BACK),
        };
        self.is_told &= config.lag_patience() / 2 < self.held_up;
    }

    fn keeps_up(&self, now: Monotonic) -> bool {
        self.held_up.is_zero() && !self.bar.is_up(now) || mutation::is_on(Mutation::LaggardComesBack)
    }
}

/// Of so many nodes, by how long each has held clients up, descending, how many should give way so that at least
/// `needed` are left: the fewest who are due and all far worse than any of the others. Where the others are slow, too,
/// it takes twice as long to say so: who happens to look worse changes from one batch to the next.
fn worst(held_up: &[Duration], needed: usize, patience: Duration) -> usize {
    let is_worse = |n: &usize| {
        let (last, next) = (held_up[n - 1], held_up[*n]);
        let is_far_worse = next * 4 <= last || patience * 2 <= last && next * 2 <= last;
        patience <= last && (is_far_worse || mutation::is_on(Mutation::SlowestIsToBlame))
    };
    let most = held_up.len().saturating_sub(needed.max(1));
    if mutation::is_on(Mutation::LaggardsStay) { 0 } else { (1..=most).find(is_worse).unwrap_or(0) }
}

/// What a primary knows of its members and of itself.
#[derive(Debug)]
pub(crate) struct Lagging {
    accounts: BTreeMap<NodeId, Account>,
    seen_at: Monotonic,
    handoff_after: Monotonic,
}

impl Lagging {
    pub(crate) fn new(now: Monotonic) -> Lagging {
        Lagging { accounts: BTreeMap::new(), seen_at: now, handoff_after: now }
    }

    /// It holds nobody up, and was not removed for that a moment ago.
    pub(crate) fn keeps_up(&self, node: &NodeId, now: Monotonic) -> bool {
        self.accounts.get(node).is_none_or(|account| account.keeps_up(now))
    }
}

impl Primary {
    pub(super) fn settle_lagging(
        &mut self,
        now: Monotonic,
        local: &mut Local,
        log: &WriteLog,
        out: &mut Vec<Action>,
    ) {
        // Not with each acknowledgement, of which there are many.
        let is_due = local.config.beacon_interval() / 2 <= now.since(self.lagging.seen_at);
        if !is_due || local.config.replication_ack == ReplicationAck::Async {
            return;
        }
        self.lagging.seen_at = now;
        let members = self.progress.in_sync().iter();
        let silent = members.filter(|node| self.suspicion(node, now, local).is_some()).cloned().collect();
        self.observe_all(now, local, log, &silent);
        let laggards = self.laggards(&silent, local);
        for node in &laggards {
            if let Some(account) = self.lagging.accounts.get_mut(node)
                && !std::mem::replace(&mut account.is_told, true)
            {
                out.push(Action::HoldsUp(node.clone(), account.held_up));
            }
        }
        if laggards == [local.me.clone()] {
            self.give_way(now, local, out);
        }
    }

    fn observe_all(&mut self, now: Monotonic, local: &Local, log: &WriteLog, silent: &BTreeSet<NodeId>) {
        let Primary { lagging: Lagging { accounts, .. }, progress, restarted, .. } = self;
        let members = || progress.in_sync().difference(restarted);
        accounts.retain(|node, account| {
            let patience = local.config.lag_patience();
            let is_member = *node == local.me || members().any(|member| member == node);
            if !is_member && account.is_told {
                account.bar.put_up(now);
                (account.held_up, account.is_told) = (Duration::ZERO, false);
            }
            account.most = if is_member { patience * 4 } else { patience / 2 };
            let is_known = local.incarnation_of(node) == Some(account.incarnation);
            is_known && (is_member || account.bar.is_remembered(now))
        });
        for node in members().chain([&local.me]) {
            let Some(incarnation) = local.incarnation_of(node) else { continue };
            accounts.entry(node.clone()).or_insert_with(|| Account::new(now, incarnation));
        }
        for (node, account) in accounts {
            if silent.contains(node) {
                // It is removed for that, and may be well when it is heard again.
                (account.seen_at, account.marked_at) = (now, now);
                continue;
            }
            let has = if *node == local.me { local.held(log) } else { progress.held(node) };
            account.observe(now, &local.config, &local.stalls, has, log);
        }
    }

    /// Who gives way, if it were without `leaving`.
    fn laggards(&self, leaving: &BTreeSet<NodeId>, local: &Local) -> Vec<NodeId> {
        let patience = local.config.lag_patience();
        let accounts = &self.lagging.accounts;
        if !matches!(self.phase, Phase::Serving) || accounts.values().all(|a| a.held_up < patience) {
            return Vec::new();
        }
        let members = self.progress.in_sync().difference(&self.restarted).filter(|n| !leaving.contains(*n));
        let held_up = |node: &NodeId| accounts.get(node).map_or(Duration::ZERO, |a| a.held_up);
        let mut nodes: Vec<(Duration, &NodeId)> =
            members.chain([&local.me]).map(|node| (held_up(node), node)).collect();
        nodes.sort_by(|a, b| b.cmp(a));
        let held_up: Vec<Duration> = nodes.iter().map(|(held_up, _)| *held_up).collect();
        let count = worst(&held_up, self.minimum(local), patience);
        nodes.into_iter().take(count).map(|(_, node)| node.clone()).collect()
    }

    /// Members that are to be removed beside those that are `silent`.
    pub(super) fn lagging_members(&self, silent: &BTreeSet<NodeId>, local: &Local) -> Vec<NodeId> {
        let laggards = self.laggards(silent, local).into_iter();
        laggards.filter(|node| *node != local.me).collect()
    }

    /// Hands over because of this node's disk.
    fn give_way(&mut self, now: Monotonic, local: &mut Local, out: &mut Vec<Action>) {
        if now < self.lagging.handoff_after || !self.is_confirmed(now, local) {
            return;
        }
        self.lagging.handoff_after = now + HANDOFF_PAUSE;
        if self.handoff_target(now, local, None).is_some() {
            local.bar.put_up(now);
            self.on_handoff_requested(now, local, HandoffToken::OWN, None, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use keyward_proto::ids::Term;

    use super::*;

    fn at(ms: u64) -> Monotonic {
        Monotonic::from_nanos(ms * 1_000_000)
    }

    fn seconds(tenths: &[u64]) -> Vec<Duration> {
        tenths.iter().map(|n| Duration::from_millis(n * 100)).collect()
    }

    struct Watch {
        account: Account,
        stalls: StallDetector,
        config: Config,
        log: WriteLog,
        ms: u64,
    }

    impl Watch {
        fn new() -> Watch {
            let (account, config) = (Account::new(at(0), Incarnation::ZERO), Config::default());
            let (stall, settling) = config.stall();
            let stalls = StallDetector::new(stall, settling, at(0));
            Watch { account, stalls, config, log: WriteLog::new(1 << 30), ms: 0 }
        }

        /// Ten milliseconds later it has all but so many entries.
        fn observe(&mut self, lacks: u64) {
            self.ms += 10;
            self.stalls.tick(at(self.ms));
            let has = LogIndex::new(self.log.last().index.get() - lacks);
            self.account.observe(at(self.ms), &self.config, &self.stalls, has, &self.log);
        }

        fn is_due(&self) -> bool {
            self.config.lag_patience() <= self.account.held_up
        }
    }

    /// One write after the other, each of which takes a node so long; after how many milliseconds it is due.
    fn due_after(write: u64, pause: u64) -> Option<u64> {
        let mut watch = Watch::new();
        (0..9_000).find_map(|_| {
            let within = watch.ms % (write + pause);
            if within == 0 {
                watch.log.append(Term::new(1), b"entry");
            }
            watch.observe(u64::from(within < write));
            watch.is_due().then_some(watch.ms)
        })
    }

    #[test]
    fn who_hangs_or_crawls_is_found_and_who_stumbles_is_not() {
        assert!(due_after(100_000, 0).is_some_and(|ms| (2250..=2300).contains(&ms)), "it hangs");
        assert!(due_after(800, 10).is_some_and(|ms| ms < 4000), "each takes 0.8 s");
        assert!(due_after(600, 10).is_some_and(|ms| ms < 6000));
        assert_eq!(due_after(240, 10), None, "slow as it is, it keeps up");
        assert_eq!(due_after(900, 10_000), None, "it stumbles now and then");
    }

    #[test]
    fn a_large_entry_may_take_its_time() {
        let mut watch = Watch::new();
        watch.log.append(Term::new(1), &vec![0; 60 << 20]);
        (0..800).for_each(|_| watch.observe(1));
        assert!(!watch.is_due(), "60 MB in 8 s");
        (0..100).for_each(|_| watch.observe(1));
        assert!(watch.is_due());
    }

    #[test]
    fn who_gives_way_is_far_worse_than_who_is_left() {
        let patience = Duration::from_secs(2);
        let worst = |tenths: &[u64], needed| worst(&seconds(tenths), needed, patience);
        assert_eq!(worst(&[21, 0, 0], 2), 1);
        assert_eq!(worst(&[19, 0, 0], 2), 0, "it has some time");
        assert_eq!(worst(&[25, 21, 20], 2), 0, "all are slow");
        assert_eq!(worst(&[30, 29, 0], 2), 0, "one alone is not enough");
        assert_eq!(worst(&[30, 29, 0, 0, 0], 3), 2);
        assert_eq!(worst(&[50, 24, 0], 2), 1, "one hangs and one crawls");
        assert_eq!(worst(&[38, 18, 0], 2), 0, "not clear yet");
        assert_eq!(worst(&[21, 0], 1), 1);
        assert_eq!(worst(&[21, 0], 2), 0);
        assert_eq!(worst(&[21], 1) + worst(&[21], 0) + worst(&[], 0), 0, "slow is better than nothing");
    }

    #[test]
    fn the_bar_is_up_for_longer_each_time() {
        let mut bar = Bar::default();
        let mut now = 1_000_000;
        for expected in [5, 10, 20, 40, 80, 160, 300, 300] {
            bar.put_up(at(now));
            assert_eq!(bar.until.since(at(now)), Duration::from_secs(expected));
            now += expected * 1000 + 1000;
        }
        bar.put_up(at(now + 310_000));
        assert!(bar.is_up(at(now + 314_000)) && !bar.is_up(at(now + 316_000)), "it was well for long enough");
    }

    #[test]
    fn a_stall_of_ones_own_is_nobodys_fault() {
        let mut watch = Watch::new();
        watch.log.append(Term::new(1), b"entry");
        watch.observe(1);
        watch.ms += 50_000;
        watch.observe(1);
        assert!(watch.account.held_up < Duration::from_millis(100));
    }
}

//! What a sentinel shows over HTTP (`--metrics-port`): the shards as it knows them, its group, and whether a failover would
//! be decided. Any sentinel shows all of it; of what only the leader looks at, the others show what they last heard.

use std::sync::Arc;

use keyward_net::observe::{Histogram, Observed, Page, Word, flag, float, label};
use keyward_proto::topology::Topology;

use crate::rules::health::Health;
use crate::rules::timeline::{BOUNDS_MICROS, Tally};
use crate::shell::sentinel::Sentinel;

/// A sentinel as it is seen from outside.
pub(crate) struct Metrics(pub(crate) Arc<Sentinel>);

impl Observed for Metrics {
    fn page(&self) -> Page {
        let mut page = Page::default();
        let version = label("version", env!("CARGO_PKG_VERSION"));
        page.gauges("build_info", "The version of the program; always 1", [(version, 1.0)]);
        group_figures(&self.0, &mut page);
        let topology = self.0.current();
        shard_figures(&topology, &mut page);
        node_figures(&topology, &self.0.health.lock(), &mut page);
        change_figures(self.0.timeline.lock().tally(), &mut page);
        page
    }

    /// It may still be starting; Raft that has stopped soon ends the process.
    fn health(&self) -> Word {
        let metrics = self.0.metrics();
        match metrics.as_ref().and_then(|metrics| metrics.running_state.as_ref().err()) {
            Some(fatal) => Err(format!("Raft has stopped: {fatal}")),
            None => Ok("ok".to_owned()),
        }
    }

    fn flight(&self) -> Option<String> {
        self.0.flight.recordings.text("asked")
    }

    fn readiness(&self) -> Word {
        let sentinel = &self.0;
        sentinel.raft().map_err(|status| status.message().to_owned())?;
        match sentinel.leader() {
            Some(leader) if leader == sentinel.id() => Ok("ready: it leads the sentinels".to_owned()),
            Some(leader) => Ok(format!("ready: {} leads the sentinels", sentinel.name_of(leader))),
            None => Err("no leader: is a majority of the sentinels running?".to_owned()),
        }
    }
}

fn group_figures(sentinel: &Sentinel, page: &mut Page) {
    let Some(metrics) = sentinel.metrics() else { return };
    page.gauge("raft_is_leader", "1: this sentinel leads the group", flag(sentinel.is_leader()));
    page.gauge("raft_has_leader", "1: the group has a leader", flag(sentinel.leader().is_some()));
    page.gauge("raft_term", "Of the sentinels; it rises with each election", float(metrics.current_term));
    let last = metrics.last_log_index.unwrap_or_default();
    let applied = metrics.last_applied.map_or(0, |id| id.index);
    page.gauge("raft_last_index", "The last entry of Raft's log", float(last));
    page.gauge("raft_applied_index", "The last entry that is applied", float(applied));
    let health = sentinel.health.lock();
    let answers = |id| id == sentinel.id() || health.sentinels.get(&id).is_some_and(|other| other.answers);
    let voters = metrics.membership_config.membership().voter_ids();
    let up: Vec<_> = voters.map(|id| (label("sentinel", sentinel.name_of(id)), flag(answers(id)))).collect();
    page.gauge("sentinels", "Sentinels that vote", float(up.len() as u64));
    page.gauges("sentinel_up", "1: it answers", up);
}

fn shard_figures(topology: &Topology, page: &mut Page) {
    page.gauge("topology_version", "Rises with each change of the topology", float(topology.version));
    let of_each = |figure: &dyn Fn(&keyward_proto::topology::Shard) -> f64| {
        let each: Vec<_> = topology
            .shards
            .values()
            .map(|shard| (label("shard", topology.shard_name(&shard.id)), figure(shard)))
            .collect();
        each
    };
    page.gauges("shard_has_primary", "1: it has one", of_each(&|shard| flag(shard.primary.is_some())));
    page.gauges(
        "shard_term",
        "Rises with each change of the primary: failovers and hand-offs",
        of_each(&|shard| float(shard.term.get())),
    );
    page.gauges(
        "shard_nodes",
        "Its nodes",
        of_each(&|shard| float(topology.members(&shard.id).count() as u64)),
    );
    page.gauges(
        "shard_in_sync_nodes",
        "Its in-sync set",
        of_each(&|shard| float(shard.in_sync.len() as u64)),
    );
    let slots = |shard: &keyward_proto::topology::Shard| -> u64 {
        shard.slots.iter().map(|range| range.iter().count() as u64).sum()
    };
    page.gauges("shard_slots", "Slots that it serves", of_each(&|shard| float(slots(shard))));
}

fn node_figures(topology: &Topology, health: &Health, page: &mut Page) {
    let up = topology.nodes.values().map(|node| {
        let shard = node.shard.as_ref().map_or_else(|| "none".to_owned(), |id| topology.shard_name(id));
        let is_primary = topology.shard_of(&node.id).is_some_and(|s| s.primary.as_ref() == Some(&node.id));
        let role = match (&node.shard, is_primary) {
            (None, _) => "spare",
            (Some(_), true) => "primary",
            (Some(_), false) => "replica",
        };
        let labels =
            vec![("node", topology.node_name(&node.id)), ("shard", shard), ("role", role.to_owned())];
        (labels, flag(!health.is_down(&node.id)))
    });
    page.gauges("node_up", "1: it answers the sentinels", up.collect::<Vec<_>>());
}

/// Of changes that this sentinel has led: the sum over all sentinels is how many there were.
fn change_figures(tally: &Tally, page: &mut Page) {
    let led = tally.led().map(|(kind, count)| (label("kind", kind.word()), float(count)));
    page.counters("primary_changes", "Changes of a shard's primary that this sentinel has led", led);
    let bounds: Vec<f64> = BOUNDS_MICROS.iter().map(|micros| float(*micros) / 1e6).collect();
    let times = tally.times().map(|(kind, phase, times)| {
        let labels = vec![("kind", kind.word().to_owned()), ("phase", phase.word().to_owned())];
        let (counts, sum) = (times.counts.to_vec(), float(times.sum_micros) / 1e6);
        (labels, Histogram { bounds: bounds.clone(), counts, sum })
    });
    page.histograms("primary_change_seconds", "Time of each phase of these changes", times);
}

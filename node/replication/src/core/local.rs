//! What a node knows whatever its role is: itself, the topology, its keyspace and its promises.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use keyward_proto::ids::{Incarnation, LogIndex, NodeId, Position, ShardId, Term};
use keyward_proto::mutation::{self, Mutation};
use keyward_proto::time::Monotonic;
use keyward_proto::topology::{Shard, Topology};

use super::clock_watch::ClockWatch;
use super::config::{Config, ReplicationAck};
use super::lagging::Bar;
use super::lease::LeaseGiver;
use super::messages::{Action, QuiesceId, RequestId, UplinkId};
use super::stall_detector::StallDetector;
use crate::log::WriteLog;

/// Which part of the log the keyspace contains.
#[derive(Debug)]
pub(crate) struct Keyspace {
    /// Up to here the applier has reported.
    pub(crate) applied: LogIndex,
    /// Up to here the applier was told to go, or commands have executed. Never truncated.
    pub(crate) target: LogIndex,
    /// Counts the clearings, so that a late report about an earlier content is recognized.
    pub(crate) epoch: u64,
    /// The content is not a prefix of any history: a full sync has begun and not ended.
    pub(crate) needs_full_sync: bool,
    /// An entry could not be applied: this process neither leads nor follows any more.
    pub(crate) is_broken: bool,
}

impl Keyspace {
    /// Entries up to `index` are to be applied.
    pub(crate) fn apply_up_to(&mut self, index: LogIndex, out: &mut Vec<Action>) {
        if index > self.target {
            let after = std::mem::replace(&mut self.target, index);
            out.push(Action::ApplyUpTo { after, index });
        }
    }

    /// Commands executed and appended entries up to `index` themselves.
    pub(crate) fn executed(&mut self, index: LogIndex) {
        self.applied = self.applied.max(index);
        self.target = self.target.max(index);
    }

    pub(crate) fn clear(&mut self, out: &mut Vec<Action>) {
        self.epoch += 1;
        self.applied = LogIndex::ZERO;
        self.target = LogIndex::ZERO;
        self.needs_full_sync = true;
        out.push(Action::ClearKeyspace { epoch: self.epoch });
    }
}

/// Owned by the node core, lent to its role.
#[derive(Debug)]
pub(crate) struct Local {
    pub(crate) config: Config,
    pub(crate) me: NodeId,
    pub(crate) incarnation: Incarnation,
    pub(crate) topology: Arc<Topology>,
    pub(crate) shard: Option<ShardId>,
    /// The highest term of the shard that this node has heard of. Never falls while the shard is the same.
    pub(crate) term: Term,
    /// What this node knows to be committed. Never falls, except in a full sync.
    pub(crate) commit: LogIndex,
    pub(crate) keyspace: Keyspace,
    pub(crate) giver: LeaseGiver,
    pub(crate) stalls: StallDetector,
    pub(crate) clocks: ClockWatch,
    /// Grows whenever what clients were told or wait for may be of another history from now on: a term ends in which
    /// this node was the primary, or a full sync replaces what it holds.
    pub(crate) generation: u64,
    /// What was committed when the last generation ended.
    pub(crate) ended_commit: LogIndex,
    /// Terms in which this node was the primary, and which are over.
    pub(crate) ended_terms: u64,
    /// Since this node has handed over because of its disk.
    pub(crate) bar: Bar,
    /// [`Action::Quiesce`] that are not answered: an I/O thread may still be appending to an ended term.
    pub(crate) quiescing: BTreeSet<QuiesceId>,
    next_quiesce: u64,
    next_request: u64,
    next_uplink: u64,
}

impl Local {
    pub(crate) fn new(config: Config, me: NodeId, incarnation: Incarnation, now: Monotonic) -> Self {
        let (stall, settling) = config.stall();
        Local {
            giver: LeaseGiver::new(now),
            stalls: StallDetector::new(stall, settling, now),
            clocks: ClockWatch::new(config.clock_tolerance()),
            config,
            me,
            incarnation,
            topology: Arc::new(Topology::default()),
            shard: None,
            term: Term::ZERO,
            commit: LogIndex::ZERO,
            keyspace: Keyspace {
                applied: LogIndex::ZERO,
                target: LogIndex::ZERO,
                epoch: 0,
                needs_full_sync: false,
                is_broken: false,
            },
            generation: 0,
            ended_commit: LogIndex::ZERO,
            ended_terms: 0,
            bar: Bar::default(),
            quiescing: BTreeSet::new(),
            next_quiesce: 1,
            next_request: 1,
            next_uplink: 1,
        }
    }

    pub(crate) fn shard(&self) -> Option<&Shard> {
        self.topology.shards.get(self.shard.as_ref()?)
    }

    /// The incarnation of a node as the sentinels know it.
    pub(crate) fn incarnation_of(&self, node: &NodeId) -> Option<Incarnation> {
        self.topology.nodes.get(node).map(|n| n.incarnation)
    }

    /// Until when no primary is supported but those of `from` and later terms of this shard.
    pub(crate) fn promised_until(&self, from: Term) -> Monotonic {
        self.giver.promised_until(from, self.longest_lease())
    }

    /// Of all nodes of this shard.
    pub(crate) fn longest_lease(&self) -> Duration {
        let registered = self.shard.iter().flat_map(|shard| self.topology.members(shard));
        let leases = registered.filter_map(|node| node.detection.lease());
        leases.chain([self.config.lease]).max().unwrap_or_default()
    }

    /// How many nodes have to be in sync for writes: what an operator has set for all, or this node's setting.
    pub(crate) fn min_in_sync(&self) -> usize {
        let default = || self.shard.as_ref().map_or(0, |shard| self.topology.default_min_in_sync(shard));
        let of_all = self.topology.min_in_sync.and_then(|nodes| usize::try_from(nodes).ok());
        of_all.or(self.config.min_in_sync).unwrap_or_else(default)
    }

    /// With fewer members nothing is committed: what the sentinels are told.
    pub(crate) fn commit_minimum(&self) -> u32 {
        match self.config.replication_ack {
            ReplicationAck::InSync => u32::try_from(self.min_in_sync()).unwrap_or(u32::MAX),
            ReplicationAck::Async => 0,
        }
    }

    /// Whether this node, which has handed over because of its disk, leaves the set to the others. Not if they are too few.
    pub(crate) fn keeps_away(&self, now: Monotonic) -> bool {
        let Some(shard) = self.shard().filter(|_| self.bar.is_up(now)) else { return false };
        let others = shard.in_sync.difference(&shard.restarted).filter(|node| **node != self.me).count();
        self.minimum(shard.absent.min_in_sync) <= others
    }

    /// With fewer members nothing is committed: this node's number, or the one that the sentinels know, if that is larger.
    pub(crate) fn minimum(&self, known: Option<u32>) -> usize {
        let known = usize::try_from(known.unwrap_or(0)).unwrap_or(usize::MAX);
        known.max(self.min_in_sync())
    }

    /// What this node itself holds of the log.
    pub(crate) fn held(&self, log: &WriteLog) -> LogIndex {
        if mutation::is_on(Mutation::AcknowledgeBeforeDurable) {
            return log.last().index;
        }
        log.last().index.min(log.durable())
    }

    /// Nothing beyond this may be lost by a truncation.
    pub(crate) fn untruncatable(&self) -> LogIndex {
        self.keyspace.applied.max(self.keyspace.target).max(self.commit)
    }

    /// Whether the keyspace holds what may never have been committed: commands of a term that is over have executed it,
    /// and no stream has shown since that it is in the shard's history.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.commit < self.keyspace.applied.max(self.keyspace.target)
            && !mutation::is_on(Mutation::ReplicaReadsNotGated)
    }

    /// From now on nothing of the old generation is told beyond `commit`.
    pub(crate) fn end_generation(&mut self, commit: LogIndex) {
        self.generation += 1;
        self.ended_commit = commit;
    }

    /// The position of an index that the log knows the term of.
    pub(crate) fn position(log: &WriteLog, index: LogIndex) -> Option<Position> {
        log.term_at(index).map(|term| Position { term, index })
    }

    pub(crate) fn quiesce(&mut self, out: &mut Vec<Action>) -> QuiesceId {
        self.next_quiesce += 1;
        let id = QuiesceId(self.next_quiesce);
        out.push(Action::Quiesce(id));
        id
    }

    /// No role is entered before the I/O threads have left the one that has ended.
    pub(crate) fn quiesce_ended_term(&mut self, out: &mut Vec<Action>) {
        let id = self.quiesce(out);
        self.quiescing.insert(id);
    }

    pub(crate) fn request_id(&mut self) -> RequestId {
        self.next_request += 1;
        RequestId(self.next_request)
    }

    pub(crate) fn uplink_id(&mut self) -> UplinkId {
        self.next_uplink += 1;
        UplinkId(self.next_uplink)
    }
}

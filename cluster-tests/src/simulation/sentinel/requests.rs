//! What nodes and operators ask of a sentinel; as `keyward_sentinel::control` does it.

use std::collections::BTreeMap;
use std::sync::Arc;

use keyward_node::replication::messages::{Outcome as Answered, Request, RequestId};
use keyward_proto::ids::{Incarnation, NodeId, Position, Term};
use keyward_proto::topology::Shard;
use keyward_sentinel::failover;
use keyward_sentinel::failover::removal::{Contact, Removal};
use keyward_sentinel::failover::{Trigger, removal};
use keyward_sentinel::topology::{InSyncChange, TopologyCommand};

use super::{ANSWER_LIMIT, Call, Purpose};
use crate::simulation::messages::Message;
use crate::simulation::story::tell;
use crate::simulation::world::{Happening, World};
use crate::simulation::{network, register};

/// As in `keyward_sentinel::control::failover`.
#[derive(Debug)]
pub(super) struct PendingRemoval {
    origin: Call,
    request: Request,
    primary: NodeId,
    pub(super) contacts: BTreeMap<NodeId, Contact>,
}

impl PendingRemoval {
    pub(super) fn waits_for(&self, node: &NodeId) -> bool {
        !self.contacts.contains_key(node)
    }
}

/// A change that was committed but whose answer was lost is asked for again; as in `keyward_sentinel::control`.
fn is_carried_out(shard: &Shard, term: Term, version: u64, change: &InSyncChange) -> bool {
    shard.term == term
        && shard.in_sync_version == version + 1
        && match change {
            InSyncChange::Remove(nodes) => nodes.is_disjoint(&shard.in_sync),
            InSyncChange::Add { node, .. } => shard.in_sync.contains(node) && !shard.restarted.contains(node),
        }
}

impl World {
    pub(in crate::simulation) fn register_asked(
        &mut self,
        sentinel: usize,
        node: usize,
        run: u64,
        last: Position,
        follows: Incarnation,
    ) {
        if self.sentinels[sentinel].is_up {
            let command = register::registration(node, &self.machines[node].id, run, last, follows);
            self.propose(sentinel, command, Purpose::Registration { node, run });
        }
    }

    pub(in crate::simulation) fn asked(
        &mut self,
        sentinel: usize,
        node: usize,
        run: u64,
        id: RequestId,
        request: Request,
        challenge: u64,
    ) {
        let origin = (node, run, id);
        if !self.sentinels[sentinel].is_up {
            let message = Message::Answered { run, id, outcome: Answered::Unknown, topology: None };
            return self.send_message(network::sentinel(sentinel), node, message);
        }
        self.sentinels[sentinel].calls.push(origin);
        let me = self.machines[node].id.clone();
        let view = Arc::clone(&self.sentinels[sentinel].view);
        let (shard, term, version, change) = match request.clone() {
            Request::Remove { shard, term, version, nodes } => {
                (shard, term, version, InSyncChange::Remove(nodes))
            }
            Request::Add { shard, term, version, node, incarnation } => {
                (shard, term, version, InSyncChange::Add { node, incarnation })
            }
            Request::Failover { term, .. } => {
                let trigger = Trigger::Complaint { reporter: me };
                self.sentinels[sentinel].waiting.push_back((term, trigger, Some(origin)));
                return self.next_failover(sentinel);
            }
            Request::Handoff { shard, term, version, target, last } => {
                let known = &view.shards[&shard];
                if known.term == term.next()
                    && known.primary.as_ref() == Some(&target)
                    && known.handoff_position == last
                {
                    return self.answer(sentinel, origin, Answered::Accepted);
                }
                let handoff =
                    failover::Handoff { shard, primary: me, term, target, last, in_sync_version: version };
                match failover::hand_off(&view, &handoff) {
                    Ok(change) => {
                        let command = TopologyCommand::ReplacePrimary(change);
                        self.propose(sentinel, command, Purpose::Change { node, run, id });
                    }
                    Err(refusal) => self.answer(sentinel, origin, Answered::Refused(refusal.to_string())),
                }
                return;
            }
        };
        if is_carried_out(&view.shards[&shard], term, version, &change) {
            return self.answer(sentinel, origin, Answered::Accepted);
        }
        if let InSyncChange::Remove(nodes) = &change {
            let clock = self.sentinels[sentinel].clock.read(self.now);
            if !removal::is_met(challenge, clock) {
                let challenge = removal::challenge(clock);
                let message = Message::Challenge { node, run, id, request, challenge };
                return self.send_message(network::sentinel(sentinel), node, message);
            }
            let known = view.shards[&shard].term == term;
            let questions: Vec<NodeId> = if known {
                Removal::new(&view, &view.shards[&shard], nodes).questions().into_iter().cloned().collect()
            } else {
                Vec::new()
            };
            if !questions.is_empty() {
                return self.begin_removal(sentinel, origin, request, me, questions);
            }
        }
        let command =
            TopologyCommand::ChangeInSync { shard, primary: me, term, in_sync_version: version, change };
        self.propose(sentinel, command, Purpose::Change { node, run, id });
    }

    /// Those who are to be removed are asked first.
    fn begin_removal(
        &mut self,
        sentinel: usize,
        origin: Call,
        request: Request,
        primary: NodeId,
        questions: Vec<NodeId>,
    ) {
        let s = &mut self.sentinels[sentinel];
        s.next_task += 1;
        let (run, task) = (s.run, s.next_task);
        s.removals.insert(task, PendingRemoval { origin, request, primary, contacts: BTreeMap::new() });
        self.ask_nodes(sentinel, task, &questions);
        self.at(ANSWER_LIMIT, Happening::RemovalDue { sentinel, run, task });
    }

    /// Whoever answers in time has been heard.
    pub(in crate::simulation) fn removal_due(&mut self, sentinel: usize, run: u64, task: u64) {
        let s = &mut self.sentinels[sentinel];
        let Some(pending) = s.removals.remove(&task).filter(|_| s.run == run) else { return };
        let view = Arc::clone(&s.view);
        let PendingRemoval { origin, request, primary, contacts } = pending;
        let Request::Remove { shard, term, version, nodes } = request else { return };
        if let Some(reason) = Removal::new(&view, &view.shards[&shard], &nodes).objection(&contacts) {
            tell!("sentinel {sentinel} refuses a removal: {reason}");
            return self.answer(sentinel, origin, Answered::Refused(reason));
        }
        let change = InSyncChange::Remove(nodes);
        let command =
            TopologyCommand::ChangeInSync { shard, primary, term, in_sync_version: version, change };
        let (node, run, id) = origin;
        self.propose(sentinel, command, Purpose::Change { node, run, id });
    }

    /// An operator's demand (CLUSTER FAILOVER FORCE), passed on by a replica.
    pub(in crate::simulation) fn demanded(&mut self, sentinel: usize, reporter: NodeId) {
        let s = &mut self.sentinels[sentinel];
        if s.is_up {
            let term = s.view.shards.values().next().expect("the only shard").term;
            s.waiting.push_back((term, Trigger::Force { reporter }, None));
            self.next_failover(sentinel);
        }
    }
}

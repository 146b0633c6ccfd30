//! What nodes and operators ask of a sentinel; as `keyward_sentinel::shell::control` does it.

use std::sync::Arc;

use keyward_proto::ids::{Incarnation, NodeId, Position, ShardId};
use keyward_proto::topology::Topology;
use keyward_replication::core::messages::{Outcome as Answered, Request, RequestId};
use keyward_sentinel::rules::coordinator;
use keyward_sentinel::rules::failover::{Handoff, Trigger};
use keyward_sentinel::rules::in_sync::{InSyncRequest, Verdict};
use keyward_sentinel::rules::inquiry::{self, ANSWER_LIMIT, Inquiry, other_sentinels};
use keyward_sentinel::rules::topology::InSyncChange;

use super::{Call, Purpose, raft_id};
use crate::simulation::messages::{Asking, Message};
use crate::simulation::node::Machine;
use crate::simulation::story::tell;
use crate::simulation::world::World;
use crate::simulation::{network, register};

/// Those who are to be removed are asked first.
#[derive(Debug)]
pub(super) struct PendingRemoval {
    call: Call,
    request: InSyncRequest,
    /// As it was when the request was judged.
    view: Arc<Topology>,
    pub(super) inquiry: Inquiry,
}

impl World {
    pub(in crate::simulation) fn register_asked(
        &mut self,
        sentinel: usize,
        node: usize,
        run: u64,
        last: Position,
        log_shard: Option<ShardId>,
        follows: Incarnation,
    ) {
        if self.sentinels[sentinel].is_up {
            let Machine { id, detection, .. } = &self.machines[node];
            let command = register::registration(node, id, run, last, log_shard, follows, *detection);
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
        let call = (node, run, id);
        if !self.sentinels[sentinel].is_up {
            let message = Message::Answered { run, id, outcome: Answered::Unknown, topology: None };
            return self.send_message(network::sentinel(sentinel), node, message);
        }
        self.sentinels[sentinel].calls.push(call);
        let primary = self.machines[node].id.clone();
        let request = match request {
            Request::Failover { shard, term, .. } => {
                let trigger = Trigger::Complaint { reporter: primary };
                let request = coordinator::Request::Failover { shard, term, trigger };
                return self.request_primary(sentinel, request, Some(call));
            }
            Request::Handoff { shard, term, version, target, last } => {
                let handoff = Handoff { shard, primary, term, target, last, in_sync_version: version };
                let request = coordinator::Request::Handoff(handoff);
                return self.request_primary(sentinel, request, Some(call));
            }
            Request::Remove { shard, term, version, nodes, committed } => {
                let change = InSyncChange::Remove(nodes);
                InSyncRequest { shard, primary, term, version, change, committed, challenge }
            }
            Request::Minimum { shard, term, version, nodes } => {
                let (change, committed) = (InSyncChange::Minimum(nodes), Position::ZERO);
                InSyncRequest { shard, primary, term, version, change, committed, challenge }
            }
            Request::Add { shard, term, version, node, incarnation } => {
                let (change, committed) = (InSyncChange::Add { node, incarnation }, Position::ZERO);
                InSyncRequest { shard, primary, term, version, change, committed, challenge }
            }
        };
        self.change_in_sync(sentinel, call, request);
    }

    fn change_in_sync(&mut self, sentinel: usize, call: Call, request: InSyncRequest) {
        let s = &self.sentinels[sentinel];
        let (clock, view) = (s.clock.read(self.now), Arc::clone(&s.view));
        match request.judge(clock, &view) {
            Verdict::CarriedOut => self.answer(sentinel, call, Answered::Accepted),
            Verdict::Challenge(challenge) => {
                let (node, run, id) = call;
                let message = Message::Challenge { run, id, challenge };
                self.send_message(network::sentinel(sentinel), node, message);
            }
            Verdict::Ask(nodes) => {
                let (mut inquiry, mut questions) = (Inquiry::default(), Vec::new());
                let others = other_sentinels(&view, raft_id(sentinel));
                inquiry.begin(clock, ANSWER_LIMIT, nodes, others, &mut questions);
                let s = &mut self.sentinels[sentinel];
                s.next_removal += 1;
                let id = s.next_removal;
                let view = Arc::clone(&view);
                s.removals.insert(id, PendingRemoval { call, request, view, inquiry });
                questions.into_iter().for_each(|q| self.put(sentinel, Asking::Removal(id), q));
                self.wake_sentinel(sentinel);
            }
            Verdict::Propose => self.propose_change(sentinel, call, &request),
        }
    }

    fn propose_change(&mut self, sentinel: usize, (node, run, id): Call, request: &InSyncRequest) {
        self.propose(sentinel, request.command(), Purpose::Change { node, run, id });
    }

    pub(super) fn removal_step(&mut self, sentinel: usize, id: u64, event: inquiry::Event) {
        let (now, s, mut questions) = (self.now, &mut self.sentinels[sentinel], Vec::new());
        let clock = s.clock.read(now);
        let Some(pending) = s.removals.get_mut(&id) else { return };
        pending.inquiry.step(clock, event, &mut questions);
        let is_complete = pending.inquiry.next_deadline().is_none();
        questions.into_iter().for_each(|q| self.put(sentinel, Asking::Removal(id), q));
        if !is_complete {
            return self.wake_sentinel(sentinel);
        }
        let removed = self.sentinels[sentinel].removals.remove(&id);
        let PendingRemoval { call, request, view, inquiry } = removed.expect("it was there just now");
        if let Some(reason) = request.objection(&view, inquiry.answers()) {
            tell!("sentinel {sentinel} refuses a removal: {reason}");
            return self.refuse(sentinel, call, reason);
        }
        self.propose_change(sentinel, call, &request);
    }

    /// An operator's demand (CLUSTER FAILOVER FORCE), passed on by a replica.
    pub(in crate::simulation) fn demanded(&mut self, sentinel: usize, reporter: NodeId) {
        let s = &mut self.sentinels[sentinel];
        let shard = s.view.shards.values().next().filter(|_| s.is_up);
        if let Some(shard) = shard {
            let (shard, term, trigger) = (shard.id.clone(), shard.term, Trigger::Force { reporter });
            self.request_primary(sentinel, coordinator::Request::Failover { shard, term, trigger }, None);
        }
    }
}

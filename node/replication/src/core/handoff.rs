//! A planned change of primary: let the commands end that run, hold new ones, let the target get everything, give the
//! role away.
//!
//! A command may take seconds, and whoever comes after it must not wait for that long: the gate is closed only when all
//! have ended that ran at the request, and opened again if one that began in between takes long, too.
//!
//! Invariants:
//! - from the first attempt of the `Handoff` request until its outcome is *known*, this node executes nothing, reads
//!   included: the target serves at once when the sentinels have committed it;
//! - the target holds everything. All of it is committed, unless it is this node's own disk that lags, or too few members
//!   are left: a member never counts for more than it holds, so what that disk lacks is left to the target to commit;
//! - it serves again only if no attempt can still take effect: the only attempt was refused, or the in-sync set, whose
//!   version every attempt is compared with, has changed and the target is no electable member any more.

use keyward_proto::ids::{NodeId, Term};
use keyward_proto::mutation::{self, Mutation};
use keyward_proto::time::Monotonic;

use super::local::Local;
use super::membership::retry_after;
use super::messages::{Action, HandoffError, HandoffToken, Outcome, QuiesceId, Request, RequestId};
use super::primary::{LinkPhase, Phase, Primary};
use crate::log::WriteLog;

/// Refusals that leave the outcome open after which the target is removed from the in-sync set, to settle it.
const REFUSALS_MAX: u32 = 3;

#[derive(Debug)]
pub(crate) struct Handoff {
    token: HandoffToken,
    /// The one that somebody named.
    wanted: Option<NodeId>,
    target: NodeId,
    /// No longer for commands that run.
    commands_until: Monotonic,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// This node serves, until the commands have ended that ran at the request.
    AwaitingCommands { quiesce: QuiesceId },
    /// Nothing new is executed; I/O threads may still be inside a command.
    Quiescing { quiesce: QuiesceId, until: Monotonic },
    /// The target does not hold everything, or something is not committed.
    Draining { deadline: Monotonic },
    /// The sentinels were asked.
    Proposed { attempts: u32, refusals: u32, in_flight: Option<RequestId>, retry_at: Monotonic },
}

impl Handoff {
    pub(crate) fn token(&self) -> HandoffToken {
        self.token
    }

    pub(crate) fn target(&self) -> &NodeId {
        &self.target
    }

    pub(crate) fn is_awaiting_commands(&self) -> bool {
        matches!(self.stage, Stage::AwaitingCommands { .. })
    }

    /// No I/O thread is inside a command.
    pub(crate) fn is_quiet(&self) -> bool {
        matches!(self.stage, Stage::Draining { .. } | Stage::Proposed { .. })
    }

    pub(crate) fn next_deadline(&self) -> Monotonic {
        match self.stage {
            Stage::AwaitingCommands { .. } => self.commands_until,
            Stage::Quiescing { until, .. } => until,
            Stage::Draining { deadline } => deadline,
            Stage::Proposed { retry_at, .. } => retry_at,
        }
    }
}

impl Primary {
    pub(super) fn on_handoff_requested(
        &mut self,
        now: Monotonic,
        local: &mut Local,
        token: HandoffToken,
        target: Option<NodeId>,
        out: &mut Vec<Action>,
    ) {
        let refusal = match &self.phase {
            Phase::Recovering { .. } => Some(HandoffError::NotPrimary),
            Phase::HandingOff(_) => Some(HandoffError::Busy),
            Phase::Serving => None,
        };
        if let Some(error) = refusal {
            out.push(Action::HandoffEnded(token, Err(error)));
            return;
        }
        let wanted = target;
        let Some(target) = self.handoff_target(now, local, wanted.as_ref()) else {
            out.push(Action::HandoffEnded(token, Err(HandoffError::NoTarget)));
            return;
        };
        let commands_until = now + local.config.handoff_timeout;
        let stage = Stage::AwaitingCommands { quiesce: local.quiesce(out) };
        self.phase = Phase::HandingOff(Handoff { token, wanted, target, commands_until, stage });
    }

    /// The wanted node, else the one that is furthest, then the one with the lowest priority number.
    pub(super) fn handoff_target(
        &self,
        now: Monotonic,
        local: &Local,
        wanted: Option<&NodeId>,
    ) -> Option<NodeId> {
        let fit = self.links.values().filter(|l| {
            l.phase == LinkPhase::Streaming
                && l.consistent
                && self.progress.in_sync().contains(&l.node)
                && !self.restarted.contains(&l.node)
                && now < self.holder.until(&l.node)
                && wanted.is_none_or(|w| *w == l.node)
        });
        let priority = |id: &NodeId| local.topology.nodes.get(id).map_or(0, |n| n.replica_priority);
        // Priority 0 is Valkey's "never", unless an operator names the node.
        fit.filter(|l| wanted.is_some() || priority(&l.node) > 0)
            .max_by(|a, b| {
                let by_priority = priority(&b.node).cmp(&priority(&a.node));
                a.held.cmp(&b.held).then(by_priority).then_with(|| b.node.cmp(&a.node))
            })
            .map(|l| l.node.clone())
    }

    pub(super) fn on_quiesced(
        &mut self,
        now: Monotonic,
        local: &mut Local,
        id: QuiesceId,
        out: &mut Vec<Action>,
    ) {
        let Phase::HandingOff(handoff) = &mut self.phase else { return };
        match handoff.stage {
            Stage::AwaitingCommands { quiesce } if quiesce == id => self.close_gate(now, local, out),
            Stage::Quiescing { quiesce, .. } if quiesce == id => {
                handoff.stage = Stage::Draining { deadline: now + local.config.handoff_timeout };
            }
            // Of a hand-off that has ended.
            Stage::AwaitingCommands { .. }
            | Stage::Quiescing { .. }
            | Stage::Draining { .. }
            | Stage::Proposed { .. } => {}
        }
    }

    /// The set may have changed while commands ran.
    fn close_gate(&mut self, now: Monotonic, local: &mut Local, out: &mut Vec<Action>) {
        let Phase::HandingOff(Handoff { wanted, .. }) = &self.phase else { return };
        let Some(target) = self.handoff_target(now, local, wanted.as_ref()) else {
            self.resume(Err(HandoffError::NoTarget), out);
            return;
        };
        let until = now + local.config.handoff_pause();
        let stage = if mutation::is_on(Mutation::HandoffBesideCommands) {
            Stage::Draining { deadline: now + local.config.handoff_timeout }
        } else {
            Stage::Quiescing { quiesce: local.quiesce(out), until }
        };
        if let Phase::HandingOff(handoff) = &mut self.phase {
            (handoff.target, handoff.stage) = (target, stage);
        }
    }

    pub(super) fn on_handoff_answered(
        &mut self,
        now: Monotonic,
        id: RequestId,
        outcome: &Outcome,
        out: &mut Vec<Action>,
    ) {
        let Phase::HandingOff(Handoff { stage, .. }) = &mut self.phase else { return };
        let Stage::Proposed { attempts, refusals, in_flight, retry_at } = stage else { return };
        if *in_flight != Some(id) {
            return;
        }
        *in_flight = None;
        *retry_at = now + retry_after(*attempts);
        match outcome {
            Outcome::Refused(reason) if *attempts == 1 => {
                let reason = reason.clone();
                self.resume(Err(HandoffError::Refused(reason)), out);
            }
            Outcome::Refused(_) => *refusals += 1,
            Outcome::Accepted | Outcome::Unknown => {}
        }
    }

    /// The same term goes on.
    fn resume(&mut self, result: Result<(), HandoffError>, out: &mut Vec<Action>) {
        if let Phase::HandingOff(handoff) = std::mem::replace(&mut self.phase, Phase::Serving) {
            out.push(Action::HandoffEnded(handoff.token, result));
        }
    }

    pub(super) fn settle_handoff(
        &mut self,
        now: Monotonic,
        local: &mut Local,
        log: &WriteLog,
        out: &mut Vec<Action>,
    ) {
        let Phase::HandingOff(handoff) = &mut self.phase else { return };
        let target = handoff.target.clone();
        let may_lead = self.progress.in_sync().contains(&target) && !self.restarted.contains(&target);
        match &handoff.stage {
            Stage::AwaitingCommands { .. } if handoff.commands_until <= now => {
                self.resume(Err(HandoffError::LongCommand), out);
            }
            Stage::AwaitingCommands { .. } => {}
            // Nobody was asked yet: clients go on beside the command.
            Stage::Quiescing { quiesce, until } if *until <= now => {
                handoff.stage = Stage::AwaitingCommands { quiesce: *quiesce };
            }
            Stage::Quiescing { .. } => {}
            Stage::Draining { .. } if !may_lead => self.resume(Err(HandoffError::NoTarget), out),
            Stage::Draining { deadline } if *deadline <= now => self.resume(Err(HandoffError::Timeout), out),
            Stage::Draining { deadline } => {
                let last = log.last().index;
                let waited = now.since(*deadline - local.config.handoff_timeout);
                // Waited for as long as a replica would be.
                let own_disk_lags = local.held(log) < last && local.config.suspect_after() <= waited;
                let others_hold = self.progress.counted().all(|n| self.progress.held(n) == last);
                let ready = self.progress.held(&target) == last
                    && (self.progress.commit() == last
                        || (own_disk_lags || self.progress.is_short()) && others_hold)
                    && self.proposal.as_ref().is_none_or(|p| p.added().is_none());
                if ready {
                    self.ask_for_handoff(0, 0, now, local, log, out);
                }
            }
            Stage::Proposed { .. } if !may_lead => self.resume(Err(HandoffError::NoTarget), out),
            Stage::Proposed { attempts, refusals, in_flight: None, retry_at } if *retry_at <= now => {
                let (attempts, refusals) = (*attempts, *refusals);
                self.ask_for_handoff(attempts, refusals, now, local, log, out);
            }
            Stage::Proposed { .. } => {}
        }
    }

    fn ask_for_handoff(
        &mut self,
        attempts: u32,
        refusals: u32,
        now: Monotonic,
        local: &mut Local,
        log: &WriteLog,
        out: &mut Vec<Action>,
    ) {
        let (Phase::HandingOff(handoff), Some(shard)) = (&mut self.phase, local.shard.clone()) else {
            return;
        };
        assert_eq!(
            self.progress.held(&handoff.target),
            log.last().index,
            "a primary gives its role away only with everything"
        );
        assert!(log.last().term == self.term && self.term > Term::ZERO);
        let id = local.request_id();
        let retry_at = now + retry_after(attempts);
        handoff.stage = Stage::Proposed { attempts: attempts + 1, refusals, in_flight: Some(id), retry_at };
        let target = handoff.target.clone();
        out.push(Action::Ask(
            id,
            Request::Handoff {
                shard,
                term: self.term,
                version: self.in_sync_version,
                target,
                last: log.last(),
            },
        ));
    }

    /// A hand-off whose outcome stays open is settled by removing its target.
    pub(super) fn handoff_gave_up_on(&self, node: &NodeId) -> bool {
        match &self.phase {
            Phase::HandingOff(Handoff { target, stage: Stage::Proposed { refusals, .. }, .. }) => {
                *refusals >= REFUSALS_MAX && target == node
            }
            Phase::HandingOff(_) | Phase::Serving | Phase::Recovering { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use keyward_proto::ids::{Incarnation, LogIndex, Position, ShardId};
    use keyward_proto::topology::{Node, Shard, Topology};

    use super::super::config::Config;
    use super::super::messages::{Ack, Hello, LinkId};
    use super::*;

    fn at(ms: u64) -> Monotonic {
        Monotonic::from_nanos(ms * 1_000_000)
    }

    fn id(n: u8) -> NodeId {
        NodeId::from_random([n; 20])
    }

    /// Nodes 1, the primary of term 1, and 2 are in sync.
    fn topology() -> Topology {
        let shard = ShardId::from_random([9; 20]);
        let node =
            |n| Node { incarnation: Incarnation::new(1), shard: Some(shard.clone()), ..Node::new(id(n)) };
        let mut topology = Topology { version: 1, ..Topology::default() };
        topology.nodes = [1, 2].map(|n| (id(n), node(n))).into();
        let shard = Shard {
            id: shard,
            slots: Vec::new(),
            term: Term::new(1),
            primary: Some(id(1)),
            in_sync: [id(1), id(2)].into(),
            restarted: Default::default(),
            in_sync_version: 1,
            previous_primary_gone: true,
            predecessor_gone: true,
            handoff_position: Position::ZERO,
            absent: Default::default(),
        };
        topology.shards.insert(shard.id.clone(), shard);
        topology
    }

    /// It used to count for what its disk did not have, so that this was committed with the target alone.
    #[test]
    fn a_primary_whose_disk_lags_hands_over_without_counting_for_more_than_it_holds() {
        let topology = topology();
        let shard = topology.shards.values().next().unwrap().clone();
        let mut local = Local::new(Config::default(), id(1), Incarnation::new(1), at(0));
        local.topology = Arc::new(topology);
        local.shard = Some(shard.id.clone());
        local.term = shard.term;
        let (mut log, mut out) = (WriteLog::new(1 << 20), Vec::new());
        log.attach_disk();
        let mut primary = Primary::start(at(0), &mut local, &mut log, &shard, &mut out);
        local.keyspace.applied = log.last().index;
        primary.settle(at(0), &mut local, &mut log, &mut out);
        let hello = Hello {
            takes_parts: true,
            node: id(2),
            incarnation: Incarnation::new(1),
            shard: shard.id.clone(),
            term: shard.term,
            last: Position::ZERO,
            applied: LogIndex::ZERO,
            terms: Vec::new(),
            needs_full_sync: false,
            resume: None,
        };
        primary.on_hello(at(0), &local, &log, LinkId(1), &hello, &mut out);
        let last = log.append(shard.term, b"on no disk");
        let acknowledge = |primary: &mut Primary, local: &Local, ms| {
            let ack = Ack {
                term: shard.term,
                held: last,
                sent_at: at(ms),
                applied: LogIndex::ZERO,
                consistent: true,
                lease: Duration::ZERO,
            };
            primary.on_ack(at(ms), local, &log, LinkId(1), &ack, &mut Vec::new());
        };
        acknowledge(&mut primary, &local, 10);
        acknowledge(&mut primary, &local, 190);
        primary.on_handoff_requested(at(190), &mut local, HandoffToken(1), None, &mut out);
        for _ in ["those that run", "those that began in between"] {
            let Some(Action::Quiesce(id)) = out.pop() else { panic!("it waits for commands: {out:?}") };
            primary.on_quiesced(at(190), &mut local, id, &mut out);
        }
        let asks = |out: &[Action]| out.iter().any(|a| matches!(a, Action::Ask(_, Request::Handoff { .. })));
        primary.settle(at(200), &mut local, &mut log, &mut out);
        assert!(!asks(&out), "its disk is given some time");
        let patience = local.config.suspect_after() + Duration::from_millis(1);
        primary.settle(at(190) + patience, &mut local, &mut log, &mut out);
        assert!(asks(&out));
        assert_eq!(primary.progress.commit(), LogIndex::ZERO, "nothing is committed that its disk lacks");
    }
}

//! The core of a node's replication: which role it has, and what follows from each event.
//!
//! The role comes from the topology alone. A node steps down when the topology says so, whatever others say of terms; but it
//! becomes primary or replica of a term only when the topology names its primary.
//!
//! Invariants:
//! - the term never falls, and no term is entered twice;
//! - leaving a term in which this node was primary closes the gate, ends its generation and quiesces the I/O threads
//!   before anything else is done with the log: no entry of an ended term is appended to a later history;
//! - the gate is open only in [`Phase::Serving`] with every I/O thread's earlier command finished.

use std::sync::Arc;
use std::time::Duration;

use keyward_proto::ids::{Incarnation, LogIndex, NodeId, Position, Term};
use keyward_proto::mutation::{self, Mutation};
use keyward_proto::time::Monotonic;
use keyward_proto::topology::{Shard, Topology};

use super::clock_watch::Clocks;
use super::config::Config;
use super::local::Local;
use super::messages::{Action, Event, HandoffError, LinkId, QuiesceId};
use super::primary::{LinkPhase, Phase, Primary};
use super::replica::Replica;
use crate::gate::{GateState, GateView};
use crate::log::WriteLog;

#[derive(Debug)]
enum Role {
    /// No shard, no primary, or the outcome of a change is awaited.
    Idle,
    Primary(Box<Primary>),
    Replica(Box<Replica>),
}

/// What a status shows of a replica's stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkStatus {
    pub node: NodeId,
    pub held: LogIndex,
    pub applied: LogIndex,
    pub in_sync: bool,
    pub full_sync: bool,
    pub opened_at: Monotonic,
    /// When the last message left that the replica has answered.
    pub heard_at: Monotonic,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoleStatus {
    None,
    Primary {
        links: Vec<LinkStatus>,
        /// Members whose lease is held.
        leases: Vec<NodeId>,
    },
    Replica {
        primary: NodeId,
        linked: bool,
        /// When the stream was opened that is there.
        opened_at: Option<Monotonic>,
        full_sync: bool,
        /// Slots and bytes of a running full sync that have arrived.
        full_sync_progress: Option<(usize, u64)>,
        silence: Duration,
        /// It misses the primary's messages, or the primary its acknowledgements.
        cut_off: bool,
    },
}

/// For INFO, ROLE, CLUSTER and what a sentinel asks before it decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub role: RoleStatus,
    pub term: Term,
    pub last: Position,
    pub commit: LogIndex,
    pub applied: LogIndex,
    /// The keyspace is a prefix of the shard's history.
    pub consistent: bool,
    pub topology_version: u64,
}

/// Sentinels that know nothing of the shard for so long have lost what they knew.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(2);

/// See the module's documentation.
#[derive(Debug)]
pub struct NodeCore {
    local: Local,
    role: Role,
    forgotten: Forgotten,
}

/// Sentinels without this node's shard: since when no other was heard, and whether that was told.
#[derive(Debug, Default)]
struct Forgotten {
    since: Option<Monotonic>,
    is_told: bool,
}

impl NodeCore {
    /// `log` may hold what the disk remembers. The keyspace contains it up to `applied`; what follows may never have
    /// been committed.
    pub fn new(
        config: Config,
        me: NodeId,
        incarnation: Incarnation,
        log: &WriteLog,
        applied: LogIndex,
        now: Monotonic,
    ) -> Self {
        assert!(applied <= log.last().index, "the keyspace contains more than the log");
        let mut local = Local::new(config, me, incarnation, now);
        local.keyspace.executed(applied);
        // What was applied had been committed, or nobody else has a say in it; but not all that a base contains.
        local.commit = log.noted_commit().map_or(applied, |noted| noted.min(applied));
        NodeCore { local, role: Role::Idle, forgotten: Forgotten::default() }
    }

    /// Both clocks, read together, before each step. If one of them has stood still or was set, no lease counts that rests
    /// on a beacon from before; the answer is by how much they have moved apart.
    pub fn read_clocks(&mut self, clocks: Clocks) -> Option<Duration> {
        let apart = self.local.clocks.read(clocks)?;
        let Role::Primary(primary) = &mut self.role else { return None };
        if !mutation::is_on(Mutation::HaltedClockTrusted) {
            primary.holder.forget_before(clocks.monotonic);
        }
        Some(apart)
    }

    pub fn step(&mut self, now: Monotonic, event: Event, log: &mut WriteLog, out: &mut Vec<Action>) {
        self.local.stalls.tick(now);
        if let Role::Primary(primary) = &mut self.role {
            primary.absorb_auto_commits(&self.local, log);
        }
        let is_tick = matches!(event, Event::Tick);
        self.handle(now, event, log, out);
        match &mut self.role {
            Role::Idle => {}
            Role::Primary(primary) => {
                primary.settle(now, &mut self.local, log, out);
                if primary.gives_replies_up(now, &self.local, log) {
                    // Their entries may be committed yet: nobody knows.
                    self.local.end_generation(primary.progress.commit());
                }
            }
            Role::Replica(replica) => replica.settle(now, &mut self.local, log, out),
        }
        log.release(self.local.commit.min(self.applied(log)));
        if self.forgotten.since.is_some_and(|since| FORGOTTEN_AFTER <= now.since(since))
            && !std::mem::replace(&mut self.forgotten.is_told, true)
        {
            out.push(Action::Forgotten);
        }
        if is_tick {
            self.check_invariants(log);
        }
    }

    fn handle(&mut self, now: Monotonic, event: Event, log: &mut WriteLog, out: &mut Vec<Action>) {
        match event {
            Event::Tick => {}
            Event::TopologyChanged(topology) => self.on_topology(now, topology, log, out),
            Event::RequestAnswered(id, outcome) => match &mut self.role {
                Role::Idle => {}
                Role::Primary(primary) => {
                    primary.on_proposal_answered(now, id, &outcome);
                    primary.on_handoff_answered(now, id, &outcome, out);
                }
                Role::Replica(replica) => replica.on_answer(now, &self.local, id, &outcome),
            },
            Event::Quiesced(id) => self.on_quiesced(now, id, log, out),
            Event::Applied { epoch, index } => {
                let keyspace = &mut self.local.keyspace;
                if keyspace.epoch == epoch {
                    assert!(index <= keyspace.target, "applied {index} beyond {}", keyspace.target);
                    keyspace.applied = keyspace.applied.max(index);
                }
            }
            Event::ApplyFailed => {
                self.local.keyspace.is_broken = true;
                self.local.keyspace.needs_full_sync = true;
                self.leave_role(log, out);
            }
            Event::DurableAdvanced => {
                if let Role::Replica(replica) = &mut self.role {
                    replica.on_durable(now, &mut self.local, log, out);
                }
            }
            Event::HandoffRequested(token, target) => match &mut self.role {
                Role::Primary(primary) => {
                    primary.on_handoff_requested(now, &mut self.local, token, target, out)
                }
                Role::Idle | Role::Replica(_) => {
                    out.push(Action::HandoffEnded(token, Err(HandoffError::NotPrimary)));
                }
            },
            Event::HelloReceived(link, hello) => match &mut self.role {
                Role::Primary(primary) => primary.on_hello(now, &self.local, log, link, &hello, out),
                Role::Idle | Role::Replica(_) => {
                    out.push(Action::Reject { link, term: self.local.term, reason: "not a primary" });
                }
            },
            Event::AckReceived(link, ack) => {
                if let Role::Primary(primary) = &mut self.role {
                    primary.on_ack(now, &self.local, log, link, &ack, out);
                }
            }
            Event::LinkClosed(link) => {
                if let Role::Primary(primary) = &mut self.role {
                    primary.on_link_closed(link);
                }
            }
            Event::StartReceived(id, start) => {
                if let Role::Replica(replica) = &mut self.role {
                    replica.on_start(now, &mut self.local, log, id, &start, out);
                }
            }
            Event::AppendReceived(id, append) => {
                if let Role::Replica(replica) = &mut self.role {
                    replica.on_append(now, &mut self.local, log, id, append, out);
                }
            }
            Event::ChunkReceived(id, chunk) => {
                if let Role::Replica(replica) = &mut self.role {
                    replica.on_chunk(now, &mut self.local, log, id, chunk, out);
                }
            }
            Event::UplinkHeldUp(id) => {
                if let Role::Replica(replica) = &mut self.role {
                    replica.on_held_up(now, id);
                }
            }
            Event::RejectReceived(id) => {
                if let Role::Replica(replica) = &mut self.role {
                    replica.on_reject(now, id, out);
                }
            }
            Event::UplinkClosed(id, why) => {
                if let Role::Replica(replica) = &mut self.role {
                    replica.on_uplink_closed(now, id, why);
                }
            }
        }
    }

    fn on_topology(
        &mut self,
        now: Monotonic,
        topology: Arc<Topology>,
        log: &mut WriteLog,
        out: &mut Vec<Action>,
    ) {
        let history = self.local.topology.history;
        if history != 0 && history != topology.history {
            return self.on_other_history(now, topology, log, out);
        }
        self.forgotten = Forgotten::default();
        if topology.version <= self.local.topology.version {
            return;
        }
        match topology.nodes.get(&self.local.me).map(|n| n.incarnation) {
            Some(incarnation) if incarnation > self.local.incarnation => {
                out.push(Action::Superseded);
                self.local.topology = topology;
                self.leave_role(log, out);
                return;
            }
            // From before this process registered.
            Some(incarnation) if incarnation < self.local.incarnation => return,
            Some(_) | None => {}
        }
        let shard = topology.shard_of(&self.local.me).map(|s| s.id.clone());
        self.local.topology = topology;
        if self.local.shard != shard {
            self.change_shard(shard, log, out);
        }
        let term = self.local.shard().map_or(Term::ZERO, |s| s.term);
        self.hear_of_term(term, log, out);
        self.assign_role(now, log, out);
    }

    /// The sentinels have begun anew, so their versions and incarnations say nothing to this process. While they do not
    /// know the shard it goes on with the topology that it has. If they go on with the shard in a later term, they do it
    /// with what nodes held when they registered anew, and this process has not. A sentinel that has just started, or has
    /// not heard yet of the forming of shards, looks the same: so it is not told at once.
    fn on_other_history(
        &mut self,
        now: Monotonic,
        topology: Arc<Topology>,
        log: &mut WriteLog,
        out: &mut Vec<Action>,
    ) {
        let shard = self.local.shard.as_ref().and_then(|id| topology.shards.get(id));
        let is_left_behind = shard.is_some_and(|shard| self.local.term < shard.term);
        if is_left_behind {
            out.push(Action::LeftBehind);
            self.local.topology = topology;
            // Whoever has registered under this node's ID is another process.
            self.local.incarnation = Incarnation::ZERO;
            self.leave_role(log, out);
        } else {
            self.forgotten.since.get_or_insert(now);
        }
    }

    /// What this node holds belongs to the history of another shard. If it comes from before this process, it is what
    /// a shard that is formed anew begins with, all of it: what was not noted as committed may have been acknowledged,
    /// and who could tell is not there. A member of any other shard gets a full sync, since no term is common.
    fn change_shard(
        &mut self,
        shard: Option<keyward_proto::ids::ShardId>,
        log: &mut WriteLog,
        out: &mut Vec<Action>,
    ) {
        let moved = self.local.shard.is_some();
        self.leave_role(log, out);
        let is_foreign = shard.is_some() && log.shard().is_some_and(|known| Some(known) != shard.as_ref());
        self.local.shard = shard;
        if moved {
            // The log says whose it is until a full sync has replaced it.
            self.local.term = Term::ZERO;
            self.local.keyspace.needs_full_sync = true;
            return;
        }
        if is_foreign {
            log.disown(self.local.keyspace.applied);
        }
        if self.local.shard.is_some() {
            log.set_shard(self.local.shard.clone());
        }
    }

    /// Somebody knows of `term`: whatever role this node has in an earlier one is over.
    /// Terms come with the topology alone: what another node says of them ends nothing.
    fn hear_of_term(&mut self, term: Term, log: &WriteLog, out: &mut Vec<Action>) {
        if term > self.local.term {
            self.leave_role(log, out);
            self.local.term = term;
        }
    }

    fn leave_role(&mut self, log: &WriteLog, out: &mut Vec<Action>) {
        match std::mem::replace(&mut self.role, Role::Idle) {
            Role::Idle => {}
            Role::Replica(replica) => replica.stop(out),
            Role::Primary(primary) => self.end_term(&primary, log, out),
        }
    }

    fn end_term(&mut self, primary: &Primary, log: &WriteLog, out: &mut Vec<Action>) {
        let commit = primary.progress.commit();
        self.local.end_generation(commit);
        self.local.ended_terms += 1;
        self.local.commit = self.local.commit.max(commit);
        match &primary.phase {
            Phase::Recovering { .. } => {}
            Phase::Serving => {
                self.local.keyspace.executed(log.last().index);
                self.local.quiesce_ended_term(out);
            }
            Phase::HandingOff(handoff) => {
                self.local.keyspace.executed(log.last().index);
                if !handoff.is_quiet() {
                    self.local.quiesce_ended_term(out);
                }
                let new_primary = self.local.shard().and_then(|s| s.primary.as_ref());
                let accepted = new_primary == Some(handoff.target());
                out.push(Action::HandoffEnded(
                    handoff.token(),
                    accepted.then_some(()).ok_or(HandoffError::Superseded),
                ));
            }
        }
        out.extend(primary.links.keys().map(|id| Action::CloseLink(*id)));
    }

    fn on_quiesced(&mut self, now: Monotonic, id: QuiesceId, log: &mut WriteLog, out: &mut Vec<Action>) {
        if let Role::Primary(primary) = &mut self.role {
            primary.on_quiesced(now, &mut self.local, id, out);
        } else if self.local.quiescing.remove(&id) && self.local.quiescing.is_empty() {
            // What was appended until now was executed, too.
            self.local.keyspace.executed(log.last().index);
            self.assign_role(now, log, out);
        }
    }

    /// Takes the role that the topology gives, once the I/O threads have finished with an earlier one.
    fn assign_role(&mut self, now: Monotonic, log: &mut WriteLog, out: &mut Vec<Action>) {
        let Some(shard) = self.local.shard().cloned() else {
            self.leave_role(log, out);
            return;
        };
        let is_left_behind = self.local.incarnation == Incarnation::ZERO;
        if shard.term < self.local.term || is_left_behind || self.local.keyspace.is_broken {
            return;
        }
        match (&mut self.role, &shard.primary) {
            (Role::Primary(primary), Some(id)) if *id == self.local.me => {
                primary.on_topology(now, &self.local, &shard, out)
            }
            (Role::Replica(replica), Some(id)) if id == replica.primary() => {
                replica.on_topology(now, &self.local)
            }
            (Role::Idle, Some(_)) => self.enter_role(now, &shard, log, out),
            (Role::Idle, None) => {}
            (Role::Primary(_) | Role::Replica(_), _) => {
                self.leave_role(log, out);
                self.enter_role(now, &shard, log, out);
            }
        }
    }

    fn enter_role(&mut self, now: Monotonic, shard: &Shard, log: &mut WriteLog, out: &mut Vec<Action>) {
        let Some(primary) = shard.primary.clone().filter(|_| self.local.quiescing.is_empty()) else { return };
        if primary != self.local.me {
            self.role = Role::Replica(Box::new(Replica::start(now, &self.local, primary)));
        } else if log.last().term < shard.term && !self.local.keyspace.needs_full_sync {
            self.role = Role::Primary(Box::new(Primary::start(now, &mut self.local, log, shard, out)));
        }
        // Else this node has left that term before (a term is not entered twice), or it has nothing to serve.
    }

    fn applied(&self, log: &WriteLog) -> LogIndex {
        match &self.role {
            Role::Primary(primary) if !matches!(primary.phase, Phase::Recovering { .. }) => log.last().index,
            Role::Primary(_) | Role::Replica(_) | Role::Idle => self.local.keyspace.applied,
        }
    }

    /// What the gate has to show after a step.
    pub fn view(&self, log: &WriteLog) -> GateView {
        let state = match &self.role {
            Role::Primary(primary) if primary.serves() => GateState::Primary,
            Role::Primary(_) => GateState::Holding,
            Role::Replica(_) if self.local.keyspace.needs_full_sync => GateState::Loading,
            Role::Replica(_) if self.local.is_in_doubt() => GateState::InDoubt,
            Role::Replica(_) => GateState::Replica,
            Role::Idle => self.idle_state(),
        };
        let mut view = GateView {
            state,
            term: self.local.term,
            commit: self.local.commit,
            lease_until: Monotonic::ZERO,
            writable: false,
            generation: self.local.generation,
            ended_commit: self.local.ended_commit,
            ended_terms: self.local.ended_terms,
            auto_commit: false,
            sending_term: Term::ZERO,
        };
        if let Role::Primary(primary) = &self.role {
            debug_assert!(primary.progress.commit() <= log.last().index);
            view.lease_until = primary.lease_until();
            view.writable = primary.is_writable(&self.local);
            view.auto_commit = primary.progress.auto_commits();
            view.sending_term = primary.term;
        }
        view
    }

    /// What its messages to replicas ask for.
    pub fn lease(&self) -> Duration {
        match &self.role {
            Role::Primary(primary) => primary.holder.lease(),
            Role::Idle | Role::Replica(_) => self.local.config.lease,
        }
    }

    fn idle_state(&self) -> GateState {
        let changing = |s: &Shard| s.term < self.local.term || s.primary.is_some();
        if self.local.topology.version == 0 {
            GateState::Loading
        } else if self.local.keyspace.is_broken {
            GateState::NoPrimary
        } else if !self.local.quiescing.is_empty() || self.local.shard().is_some_and(changing) {
            GateState::Undecided
        } else if self.local.shard.is_some() && self.local.keyspace.needs_full_sync {
            GateState::Loading
        } else if self.local.is_in_doubt() {
            GateState::InDoubt
        } else {
            GateState::NoPrimary
        }
    }

    /// When the next [`Event::Tick`] is due, at the latest.
    pub fn next_deadline(&self, now: Monotonic) -> Monotonic {
        let tick = self.local.stalls.ticked_at() + self.local.config.beacon_interval();
        let deadline = match &self.role {
            Role::Idle => None,
            Role::Primary(primary) => primary.next_deadline(now),
            Role::Replica(replica) => replica.next_deadline(now, &self.local),
        };
        deadline.map_or(tick, |d| d.min(tick))
    }

    pub fn topology(&self) -> &Arc<Topology> {
        &self.local.topology
    }

    /// The keyspace is a prefix of the shard's history.
    pub fn is_consistent(&self) -> bool {
        !self.local.keyspace.needs_full_sync
    }

    /// Slots and bytes of a running full sync that have arrived.
    pub fn full_sync_progress(&self) -> Option<(usize, u64)> {
        match &self.role {
            Role::Replica(replica) => replica.full_sync_progress(),
            Role::Idle | Role::Primary(_) => None,
        }
    }

    pub fn status(&self, now: Monotonic, log: &WriteLog) -> Status {
        let role = match &self.role {
            Role::Idle => RoleStatus::None,
            Role::Replica(replica) => RoleStatus::Replica {
                primary: replica.primary().clone(),
                linked: replica.is_linked(),
                opened_at: replica.opened_at(),
                full_sync: replica.in_full_sync(),
                full_sync_progress: replica.full_sync_progress(),
                silence: replica.silence(now),
                cut_off: replica.is_cut_off(now, &self.local),
            },
            Role::Primary(primary) => RoleStatus::Primary {
                links: link_statuses(primary),
                leases: primary
                    .progress
                    .counted()
                    .filter(|n| now < primary.holder.until(n))
                    .cloned()
                    .collect(),
            },
        };
        Status {
            role,
            term: self.local.term,
            last: log.last(),
            commit: self.local.commit,
            applied: self.applied(log),
            consistent: !self.local.keyspace.needs_full_sync,
            topology_version: self.local.topology.version,
        }
    }

    /// What each replica holds, for WAIT.
    pub fn held_by_replicas(&self) -> impl Iterator<Item = (LinkId, LogIndex)> {
        let links = match &self.role {
            Role::Primary(primary) => Some(&primary.links),
            Role::Idle | Role::Replica(_) => None,
        };
        links.into_iter().flatten().map(|(id, l)| (*id, l.held))
    }

    /// Panics if the node contradicts itself: better a failover than a wrong primary. Called at every tick, and after
    /// every step in the simulation.
    pub fn check_invariants(&self, log: &WriteLog) {
        let local = &self.local;
        match &self.role {
            Role::Idle => {}
            Role::Primary(primary) => {
                assert_eq!(primary.term, local.term, "a primary of an ended term");
                primary.check_invariants(local, log);
            }
            Role::Replica(replica) => {
                assert_eq!(replica.term(), local.term, "a replica of an ended term");
                replica.check_invariants(local, log);
            }
        }
        assert!(
            local.quiescing.is_empty() || matches!(self.role, Role::Idle),
            "a role is entered before the I/O threads have left"
        );
        assert!(local.keyspace.applied <= local.keyspace.target.max(log.last().index));
    }
}

fn link_statuses(primary: &Primary) -> Vec<LinkStatus> {
    let links = primary.links.values().map(|link| LinkStatus {
        node: link.node.clone(),
        held: link.held,
        applied: link.applied,
        in_sync: primary.progress.in_sync().contains(&link.node) && !primary.restarted.contains(&link.node),
        full_sync: link.phase != LinkPhase::Streaming,
        opened_at: link.opened_at,
        heard_at: primary.holder.acknowledged(&link.node).unwrap_or_default().max(link.opened_at),
    });
    links.collect()
}

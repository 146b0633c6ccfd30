//! The rules of a failover: who asks, what the shard's nodes answer, who becomes primary.
//!
//! Any member of the in-sync set that has not restarted holds every committed entry, so whichever of them is
//! chosen is safe; the rest is preference. So does a node that is *eligible*, but it gives the primary no lease: it is
//! chosen only if that one is known to be gone, and nobody of the set answers. If all who held everything have
//! restarted, the furthest of all the shard's nodes goes on. What matters more is the old primary. It is *gone* when a
//! later process of its node has registered: then nobody has to wait for its leases. A refused connection says that
//! somebody answers for its address, and saves waiting for silence; only with `fast-failover trusted` it is a death.
//! Silence proves nothing. In both cases the new primary sits the leases out, by its own clock: the sentinels measure
//! none.
//!
//! A shard's change is compared with its term when it is applied, so a decision taken on old answers is harmless.
//!
//! [`super::coordinator`] is the course of a failover: who is asked, how long, and how often.
//!
//! Architecture invariant: no clock, no socket.

#[cfg(test)]
pub(crate) mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use keyward_proto::ids::{Incarnation, NodeId, Position, ShardId, Term};
use keyward_proto::mutation::{self, Mutation};
use keyward_proto::topology::{FastFailover, Node, Shard, Topology};

use crate::rules::topology::absent;
use crate::rules::topology::{PrimaryChange, Refusal, Witness, all_restarted, no_holder_left};

/// Who wants another primary, and how much they want it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trigger {
    /// A replica has heard nothing for the grace, or its connection was refused.
    Complaint { reporter: NodeId },
    /// CLUSTER FAILOVER FORCE: the replica itself, even if the primary is well.
    Force { reporter: NodeId },
    /// CLUSTER FAILOVER TAKEOVER: the replica itself, even if it is not in sync.
    Takeover { reporter: NodeId },
    /// The shard has no primary, or the watchdog found nobody listening at its address.
    Watchdog,
    /// An operator wants it, and the primary could not be asked to hand over.
    Operator { target: Option<NodeId> },
}

impl Trigger {
    /// For the log: why there should be another primary.
    pub fn reason(&self, topology: &Topology) -> String {
        match self {
            Trigger::Complaint { reporter } => format!("{} has lost it", topology.node_name(reporter)),
            Trigger::Force { reporter } => format!("{} was told to FORCE it", topology.node_name(reporter)),
            Trigger::Takeover { reporter } => {
                format!("{} was told to TAKEOVER", topology.node_name(reporter))
            }
            Trigger::Watchdog => "there is none, or nobody listens at its address".into(),
            Trigger::Operator { .. } => "an operator asked for it".into(),
        }
    }

    /// For the log: what is wanted, and why.
    pub(crate) fn asked(&self, topology: &Topology, shard: &ShardId) -> String {
        format!("{} is to have another primary: {}", topology.shard_name(shard), self.reason(topology))
    }

    pub fn reporter(&self) -> Option<&NodeId> {
        match self {
            Trigger::Complaint { reporter }
            | Trigger::Force { reporter }
            | Trigger::Takeover { reporter } => Some(reporter),
            Trigger::Watchdog | Trigger::Operator { .. } => None,
        }
    }
}

/// What became of a question to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Nobody listens at its address.
    Refused,
    /// No answer in time.
    Silent,
    Status(NodeState),
}

impl Answer {
    /// Why nothing more can be asked of the process that was meant.
    pub(crate) fn why_not_used(&self) -> &'static str {
        match self {
            Answer::Refused => "nobody listens there",
            Answer::Silent => "no answer in time",
            Answer::Status(_) => "it has restarted",
        }
    }
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeState {
    pub incarnation: Incarnation,
    pub role: Role,
    pub term: Term,
    pub last: Position,
    /// Its keyspace is whole.
    pub usable: bool,
    /// A primary: whose leases it holds.
    pub leases: BTreeSet<NodeId>,
    /// A replica: it has lost contact with its primary.
    pub cut_off: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Primary,
    Replica,
    None,
}

/// Answers so far; a node that is not in here has not been heard of yet.
pub type Answers = BTreeMap<NodeId, Answer>;

/// One failover to be decided.
#[derive(Debug, Clone)]
pub struct Case<'a> {
    pub topology: &'a Topology,
    pub shard: &'a Shard,
    pub trigger: &'a Trigger,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Replace(PrimaryChange),
    /// The primary is well: whoever complained is the one with the problem.
    Keep {
        reason: String,
    },
    /// There is nobody to choose yet.
    Wait {
        reason: String,
    },
}

/// What is known of the old primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PrimaryHealth {
    /// It cannot serve any more.
    Gone,
    /// Somebody answers for its address that nobody listens there: silence need not be waited for.
    Refused,
    Unknown,
    Answers,
}

impl<'a> Case<'a> {
    /// Checks a request before anybody is asked.
    ///
    /// # Errors
    /// A [`Refusal`] when the request is about another term or its sender has no say in this shard.
    pub fn open(
        topology: &'a Topology,
        shard: &ShardId,
        term: Term,
        trigger: &'a Trigger,
    ) -> Result<Case<'a>, Refusal> {
        let shard = topology.shards.get(shard).ok_or_else(|| Refusal::UnknownShard(shard.clone()))?;
        if shard.term != term {
            return Err(Refusal::StaleTerm { current: shard.term });
        }
        if let Some(reporter) = trigger.reporter() {
            let node = topology.nodes.get(reporter).ok_or_else(|| Refusal::UnknownNode(reporter.clone()))?;
            if node.shard.as_ref() != Some(&shard.id) {
                return Err(Refusal::NotAMember(reporter.clone()));
            }
            if shard.primary.as_ref() == Some(reporter) {
                return Err(Refusal::AlreadyPrimary(reporter.clone()));
            }
        }
        if let Trigger::Force { reporter } = trigger {
            if !shard.in_sync.contains(reporter) {
                return Err(Refusal::NotInSync(reporter.clone()));
            }
            if shard.restarted.contains(reporter) && !all_restarted(shard) {
                return Err(Refusal::Restarted(reporter.clone()));
            }
        }
        Ok(Case { topology, shard, trigger })
    }

    /// Whom to ask: the in-sync set, which contains the primary, and who is eligible; all of the shard's nodes if nobody
    /// of these holds everything any more.
    pub fn questions(&self) -> impl Iterator<Item = &'a Node> {
        let (topology, shard) = (self.topology, self.shard);
        let asks_all = no_holder_left(shard) || mutation::is_on(Mutation::PromoteOutsideInSync);
        let is_asked = move |id: &NodeId| shard.in_sync.contains(id) || shard.absent.eligible.contains(id);
        topology.members(&shard.id).filter(move |node| asks_all || is_asked(&node.id))
    }

    /// Whom the rules forbid to choose: [`Mutation::PromoteOutsideInSync`].
    fn outsiders(&self) -> impl Iterator<Item = &'a Node> + use<'a> {
        let (topology, shard) = (self.topology, self.shard);
        let all = mutation::is_on(Mutation::PromoteOutsideInSync).then(|| topology.members(&shard.id));
        all.into_iter().flatten().filter(|node| !shard.in_sync.contains(&node.id))
    }

    /// Nothing that is still to come could make the decision a different one.
    pub fn is_complete(&self, answers: &Answers) -> bool {
        self.questions().all(|node| answers.contains_key(&node.id))
    }

    /// The decision is safe now; waiting longer could only find a candidate that is further.
    pub(crate) fn is_decidable(&self, answers: &Answers) -> bool {
        let primary_known =
            matches!(self.primary_health(answers), PrimaryHealth::Gone | PrimaryHealth::Refused);
        let candidate = self.candidate(answers).or_else(|| self.eligible(answers));
        primary_known && (candidate.is_some() || self.is_complete(answers))
    }

    /// The decision on what has been answered. A node without an answer counts as alive but unheard: it stays in
    /// the in-sync set, and the new primary removes it if it does not follow.
    pub fn decide(&self, answers: &Answers) -> Decision {
        match self.trigger {
            Trigger::Takeover { reporter } => {
                let change = self.change(reporter, BTreeSet::from([reporter.clone()]), answers);
                return Decision::Replace(PrimaryChange { takeover: true, ..change });
            }
            Trigger::Force { .. } | Trigger::Operator { .. } => {}
            Trigger::Complaint { reporter } => {
                if let Some(reason) = self.primary_is_heard(Some(reporter), answers) {
                    return Decision::Keep { reason };
                }
            }
            Trigger::Watchdog => {
                if let Some(reason) = self.primary_may_be_well(answers) {
                    return Decision::Keep { reason };
                }
            }
        }
        if no_holder_left(self.shard) {
            return self.continue_without_holders(answers);
        }
        let alone = |node: &NodeId| self.change(node, BTreeSet::from([node.clone()]), answers);
        match (self.candidate(answers), self.eligible(answers)) {
            (Some(node), _) => {
                Decision::Replace(self.change(node, self.next_in_sync(node, answers), answers))
            }
            (None, Some(node)) => Decision::Replace(alone(node)),
            (None, None) => Decision::Wait { reason: waits_for(self.topology, self.shard, answers) },
        }
    }

    fn primary_health(&self, answers: &Answers) -> PrimaryHealth {
        let Some(primary) = &self.shard.primary else { return PrimaryHealth::Gone };
        match answers.get(primary) {
            Some(Answer::Refused) => self.refusal(),
            // Whoever has a later incarnation has registered since, whatever this sentinel has applied.
            Some(Answer::Status(state)) => match self.topology.nodes.get(primary).map(|n| n.incarnation) {
                Some(known) if known == state.incarnation => PrimaryHealth::Answers,
                Some(known) if known < state.incarnation => PrimaryHealth::Gone,
                Some(_) | None => self.refusal(),
            },
            Some(Answer::Silent) if mutation::is_on(Mutation::SilenceIsDeath) => PrimaryHealth::Gone,
            Some(Answer::Silent) | None => PrimaryHealth::Unknown,
        }
    }

    /// Who is at the address is not the process that is meant, or nobody is, or somebody on the way says so.
    fn refusal(&self) -> PrimaryHealth {
        match self.topology.fast_failover() {
            FastFailover::Trusted => PrimaryHealth::Gone,
            FastFailover::Yes if mutation::is_on(Mutation::RefusalIsDeath) => PrimaryHealth::Gone,
            FastFailover::Yes => PrimaryHealth::Refused,
            FastFailover::No => PrimaryHealth::Unknown,
        }
    }

    /// Nobody has complained: why the primary should stay, if it should.
    fn primary_may_be_well(&self, answers: &Answers) -> Option<String> {
        match self.primary_health(answers) {
            PrimaryHealth::Gone => None,
            PrimaryHealth::Unknown | PrimaryHealth::Answers => Some("the primary's process is alive".into()),
            PrimaryHealth::Refused => {
                let hears = |id: &&NodeId| match answers.get(*id) {
                    Some(Answer::Status(state)) => {
                        state.role == Role::Replica && state.term == self.shard.term && !state.cut_off
                    }
                    Some(Answer::Refused | Answer::Silent) | None => false,
                };
                let heard_by = self.shard.in_sync.iter().find(hears);
                heard_by.map(|id| format!("connections to the primary are refused, but node {id} hears it"))
            }
        }
    }

    fn is_current(&self, id: &NodeId, state: &NodeState) -> bool {
        self.topology.nodes.get(id).is_some_and(|n| n.incarnation == state.incarnation)
    }

    /// Why the primary should stay, if it should.
    fn primary_is_heard(&self, reporter: Option<&NodeId>, answers: &Answers) -> Option<String> {
        let primary = self.shard.primary.as_ref()?;
        let Some(Answer::Status(state)) = answers.get(primary) else { return None };
        if !self.is_current(primary, state) || state.role != Role::Primary || state.term != self.shard.term {
            return None;
        }
        if let Some(reporter) = reporter {
            if state.leases.contains(reporter) {
                return Some("the primary answers and still hears the node that complains".into());
            }
            if !self.shard.in_sync.contains(reporter) || self.shard.restarted.contains(reporter) {
                return Some("the primary answers, and the node that complains is not in sync".into());
            }
        }
        let is_other = |id: &&NodeId| *id != primary && Some(*id) != reporter;
        let heard_by = self.shard.in_sync.iter().filter(is_other).find(|id| state.leases.contains(*id));
        heard_by.map(|other| format!("the primary answers and node {other} still hears it"))
    }

    /// The best in-sync member that answered.
    fn candidate(&self, answers: &Answers) -> Option<&'a NodeId> {
        let members = self.shard.in_sync.iter().chain(self.outsiders().map(|node| &node.id));
        self.best_of(members.filter(|id| !self.shard.restarted.contains(*id)), answers)
    }

    /// The best eligible node that answered, if nobody serves that it gives no lease.
    fn eligible(&self, answers: &Answers) -> Option<&'a NodeId> {
        let is_gone = self.shard.primary.is_none() || self.primary_health(answers) == PrimaryHealth::Gone;
        let eligible = is_gone.then_some(&self.shard.absent.eligible);
        self.best_of(eligible.into_iter().flatten(), answers)
    }

    /// Furthest log, then priority, then the zone of the old primary.
    fn best_of(&self, ids: impl Iterator<Item = &'a NodeId>, answers: &Answers) -> Option<&'a NodeId> {
        // Also who forces it has to answer: its process may have ended since, with what it held.
        let (wanted, is_forced) = match self.trigger {
            Trigger::Force { reporter } => (Some(reporter), true),
            Trigger::Operator { target } => (target.as_ref(), false),
            Trigger::Complaint { .. } | Trigger::Takeover { .. } | Trigger::Watchdog => (None, false),
        };
        let zone = self.shard.primary.as_ref().and_then(|id| self.topology.nodes.get(id)).map(|n| &n.zone);
        ids.filter(|id| self.shard.primary.as_ref() != Some(*id))
            .filter(|id| wanted.is_none_or(|wanted| wanted == *id))
            .filter_map(|id| {
                let node = self.topology.nodes.get(id)?;
                let Some(Answer::Status(state)) = answers.get(id) else { return None };
                let may_lead = is_forced || node.replica_priority != 0;
                let electable = self.is_current(id, state) && state.usable && may_lead;
                let rank =
                    (state.last, Reverse(node.replica_priority), Some(&node.zone) == zone, Reverse(id));
                electable.then_some((rank, id))
            })
            .max_by_key(|(rank, _)| *rank)
            .map(|(_, id)| id)
    }

    /// Members that are neither restarted nor known to be down; the old primary never, for it may not know yet.
    fn next_in_sync(&self, node: &NodeId, answers: &Answers) -> BTreeSet<NodeId> {
        let stays = |id: &&NodeId| {
            if *id == node {
                return true;
            }
            if self.shard.primary.as_ref() == Some(*id) || self.shard.restarted.contains(*id) {
                return false;
            }
            match answers.get(*id) {
                Some(Answer::Refused | Answer::Silent) => false,
                Some(Answer::Status(state)) => self.is_current(id, state) && state.usable,
                None => true,
            }
        };
        self.shard.in_sync.iter().filter(stays).chain([node]).cloned().collect()
    }

    fn change(&self, node: &NodeId, in_sync: BTreeSet<NodeId>, answers: &Answers) -> PrimaryChange {
        let gone = self.primary_health(answers) == PrimaryHealth::Gone;
        PrimaryChange {
            shard: self.shard.id.clone(),
            expected_term: self.shard.term,
            node: node.clone(),
            in_sync,
            // Those before it may still hold leases, unless it has served itself.
            previous_primary_gone: gone && self.shard.previous_primary_gone,
            predecessor_gone: gone,
            handoff_position: Position::ZERO,
            expected_in_sync_version: None,
            takeover: false,
            witnesses: BTreeMap::new(),
        }
    }

    /// The furthest of all goes on, if it answers: of equals a member of the set, for it need not wait for leases.
    fn continue_without_holders(&self, answers: &Answers) -> Decision {
        let witnesses = witnesses(self.topology, self.shard, answers);
        let known = || absent::known(self.topology, self.shard, |id| witnesses.get(id).copied());
        let most = known().map(|(_, held)| held).max().unwrap_or_default();
        let answers_now = |id: &NodeId| match answers.get(id) {
            Some(Answer::Status(state)) => self.is_current(id, state) && state.usable,
            Some(Answer::Refused | Answer::Silent) | None => false,
        };
        let any = mutation::is_on(Mutation::AnyoneLeadsAfterRestart);
        let furthest = known()
            .filter(|(id, held)| (any || *held == most) && answers_now(id))
            .map(|(id, _)| id)
            .max_by_key(|id| (self.shard.in_sync.contains(*id), Reverse(*id)));
        match furthest {
            Some(node) => {
                let change = self.change(node, BTreeSet::from([node.clone()]), answers);
                Decision::Replace(PrimaryChange { witnesses, ..change })
            }
            None => Decision::Wait { reason: waits_for(self.topology, self.shard, answers) },
        }
    }
}

/// What the nodes outside the in-sync set have answered.
fn witnesses(topology: &Topology, shard: &Shard, answers: &Answers) -> BTreeMap<NodeId, Witness> {
    let outside = topology.members(&shard.id).filter(|node| !shard.in_sync.contains(&node.id));
    let witness = |node: &Node| match answers.get(&node.id) {
        Some(Answer::Status(state)) => {
            let held = if state.usable { state.last } else { Position::ZERO };
            Some((node.id.clone(), Witness { incarnation: state.incarnation, held }))
        }
        Some(Answer::Refused | Answer::Silent) | None => None,
    };
    outside.filter_map(witness).collect()
}

/// Why nobody may lead a shard: who would have to come back, or what goes on without. One line, nodes by their IDs.
pub(crate) fn waits_for(topology: &Topology, shard: &Shard, answers: &Answers) -> String {
    let why_not = |id: &NodeId| match answers.get(id) {
        Some(Answer::Refused) => format!("{id}, which is down"),
        Some(Answer::Silent) | None => format!("{id}, which does not answer"),
        Some(Answer::Status(state))
            if topology.nodes.get(id).is_none_or(|n| n.incarnation != state.incarnation) =>
        {
            format!("{id}, which is restarting")
        }
        Some(Answer::Status(_)) => format!("{id}, which is not ready"),
    };
    if no_holder_left(shard) {
        let witnesses = witnesses(topology, shard, answers);
        let known = || absent::known(topology, shard, |id| witnesses.get(id).copied());
        let most = known().map(|(_, held)| held).max().unwrap_or_default();
        let furthest = known().filter(|(_, held)| *held == most).map(|(id, _)| why_not(id));
        let others = known().filter(|(id, held)| *held < most && answers.get(*id).is_some());
        let rest = match others.max_by_key(|(_, held)| *held) {
            Some((id, held)) => {
                format!("node {id} goes on with what it holds, up to {held} instead of {most}")
            }
            None => format!("any other node goes on without what was written up to {most}"),
        };
        return format!(
            "every member of the in-sync set has restarted, and the shard waits for node {}; after CLUSTER FAILOVER \
             TAKEOVER {rest}",
            furthest.collect::<Vec<_>>().join(", or ")
        );
    }
    let is_primary = |id: &NodeId| shard.primary.as_ref() == Some(id);
    let holders = || shard.whole_members().chain(&shard.absent.eligible);
    let others: Vec<String> = holders().filter(|id| !is_primary(id)).map(why_not).collect();
    if others.is_empty() || shard.whole_members().all(is_primary) && shard.primary.is_some() {
        let primary = shard.primary.as_ref().map_or(String::new(), |id| format!(" {}", why_not(id)));
        return format!(
            "no other node is in sync: the shard waits for its primary{primary}; after CLUSTER FAILOVER TAKEOVER \
             another one goes on, without the writes that only the primary may have acknowledged"
        );
    }
    format!(
        "the shard waits for a node that holds everything: {}; after CLUSTER FAILOVER TAKEOVER another one goes on, \
         without the writes that it lacks",
        others.join(", or ")
    )
}

/// A stopped primary's request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handoff {
    pub shard: ShardId,
    pub primary: NodeId,
    pub term: Term,
    pub target: NodeId,
    /// The primary's last position, which the target holds.
    pub last: Position,
    pub in_sync_version: u64,
}

impl Handoff {
    /// A hand-off that was committed but whose answer was lost is asked for again.
    pub(crate) fn is_carried_out(&self, topology: &Topology) -> bool {
        topology.shards.get(&self.shard).is_some_and(|shard| {
            shard.term == self.term.next()
                && shard.primary.as_ref() == Some(&self.target)
                && shard.handoff_position == self.last
        })
    }
}

/// A stopped primary gives its role to a replica that holds everything.
///
/// # Errors
/// A [`Refusal`] when the sender is not the primary of this term, or the target not in sync.
pub fn hand_off(topology: &Topology, handoff: &Handoff) -> Result<PrimaryChange, Refusal> {
    let Handoff { shard, primary, term, target, last, in_sync_version } = handoff;
    let shard = topology.shards.get(shard).ok_or_else(|| Refusal::UnknownShard(shard.clone()))?;
    if shard.term != *term {
        return Err(Refusal::StaleTerm { current: shard.term });
    }
    if shard.in_sync_version != *in_sync_version {
        return Err(Refusal::StaleInSync { current: shard.in_sync_version });
    }
    if shard.primary.as_ref() != Some(primary) {
        return Err(Refusal::NotThePrimary(primary.clone()));
    }
    if !shard.in_sync.contains(target) {
        return Err(Refusal::NotInSync(target.clone()));
    }
    if shard.restarted.contains(target) {
        return Err(Refusal::Restarted(target.clone()));
    }
    Ok(PrimaryChange {
        shard: shard.id.clone(),
        expected_term: *term,
        node: target.clone(),
        in_sync: shard.in_sync.difference(&shard.restarted).cloned().collect(),
        // It has stopped, and it had begun to serve: so it had waited until all earlier leases had ended.
        previous_primary_gone: true,
        predecessor_gone: true,
        handoff_position: *last,
        expected_in_sync_version: Some(*in_sync_version),
        takeover: false,
        witnesses: BTreeMap::new(),
    })
}

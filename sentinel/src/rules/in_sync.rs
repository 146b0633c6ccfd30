//! A primary's request to change its in-sync set: what has to be settled before it is proposed.
//!
//! Whether it takes effect is decided when it is applied, by the shard's term and the set's version. Before that, a
//! request that is only a repetition is answered, and a removal has to pass the checks of [`super::removal`].
//!
//! Architecture invariant: no clock, no socket; the shell is [`crate::shell::control`].

use keyward_proto::ids::{NodeId, Position, ShardId, Term};
use keyward_proto::time::Monotonic;
use keyward_proto::topology::{Node, Shard, Topology};

use super::failover::{Answer, Answers};
use super::removal::{self, Contact, Removal};
use super::topology::{InSyncChange, Outcome, Refusal, TopologyCommand};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InSyncRequest {
    pub shard: ShardId,
    pub primary: NodeId,
    pub term: Term,
    pub version: u64,
    pub change: InSyncChange,
    /// The last entry that the primary knows to be committed.
    pub committed: Position,
    /// The number that the primary was sent; zero if none yet.
    pub challenge: u64,
}

/// What to do about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// It was committed before, though its answer was lost.
    CarriedOut,
    /// Nothing is done: the primary has to send this number back.
    Challenge(u64),
    /// These are asked; then [`InSyncRequest::objection`] has the word.
    Ask(Vec<&'a Node>),
    Propose,
}

impl InSyncRequest {
    pub fn judge<'a>(&self, now: Monotonic, topology: &'a Topology) -> Verdict<'a> {
        if topology.shards.get(&self.shard).is_some_and(|shard| self.is_carried_out(shard)) {
            return Verdict::CarriedOut;
        }
        if !matches!(self.change, InSyncChange::Remove(_)) {
            return Verdict::Propose;
        }
        if !removal::is_met(self.challenge, now) {
            return Verdict::Challenge(removal::challenge(now));
        }
        let questions = self.removal(topology).map(|removal| removal.questions()).unwrap_or_default();
        let nodes: Vec<&Node> = questions.into_iter().filter_map(|id| topology.nodes.get(id)).collect();
        if nodes.is_empty() { Verdict::Propose } else { Verdict::Ask(nodes) }
    }

    /// A change that was committed but whose answer was lost is asked for again.
    fn is_carried_out(&self, shard: &Shard) -> bool {
        shard.term == self.term
            && shard.in_sync_version == self.version + 1
            && match &self.change {
                InSyncChange::Remove(nodes) => nodes.is_disjoint(&shard.in_sync),
                InSyncChange::Minimum(nodes) => shard.absent.min_in_sync == Some(*nodes),
                InSyncChange::Add { node, .. } => {
                    shard.in_sync.contains(node) && !shard.restarted.contains(node)
                }
            }
    }

    /// In another term nobody needs to be asked: it will be refused.
    fn removal<'a>(&'a self, topology: &'a Topology) -> Option<Removal<'a>> {
        let InSyncChange::Remove(nodes) = &self.change else { return None };
        let shard = topology.shards.get(&self.shard).filter(|shard| shard.term == self.term)?;
        Some(Removal::new(topology, shard, nodes))
    }

    /// Why the members that are to be removed should stay, by what they answer. `topology` is that of [`Self::judge`].
    pub fn objection(&self, topology: &Topology, answers: &Answers) -> Option<String> {
        let contact = |(id, answer): (&NodeId, &Answer)| match answer {
            Answer::Status(state) => {
                let is_current = topology.nodes.get(id).is_some_and(|n| n.incarnation == state.incarnation);
                let contact = Contact { usable: state.usable && is_current, cut_off: state.cut_off };
                Some((id.clone(), contact))
            }
            Answer::Refused | Answer::Silent => None,
        };
        self.removal(topology)?.objection(&answers.iter().filter_map(contact).collect())
    }

    /// For the log: why the set stays as it is.
    pub(crate) fn kept(&self, topology: &Topology, reason: &str) -> String {
        format!(
            "the in-sync set of {} stays as it is, not {}: {}",
            topology.shard_name(&self.shard),
            self.change.describe(topology),
            topology.with_names(reason)
        )
    }

    /// For the log: what became of the proposal.
    pub(crate) fn told(
        &self,
        before: &Topology,
        after: &Topology,
        result: &Result<Outcome, Refusal>,
    ) -> String {
        let (name, change) = (before.shard_name(&self.shard), self.change.describe(before));
        match result {
            Ok(_) => {
                let in_sync = after.shards.get(&self.shard).into_iter().flat_map(|s| &s.in_sync);
                format!("{name} goes on {change}; in sync: {}", after.node_names(in_sync))
            }
            Err(refusal) => {
                format!("{name} does not go on {change}: {}", before.with_names(&refusal.to_string()))
            }
        }
    }

    pub fn command(&self) -> TopologyCommand {
        TopologyCommand::ChangeInSync {
            shard: self.shard.clone(),
            primary: self.primary.clone(),
            term: self.term,
            in_sync_version: self.version,
            change: self.change.clone(),
            committed: self.committed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::failover::tests::{id, topology};

    #[test]
    fn a_change_of_the_set_is_told_by_names() {
        let mut before = topology();
        for n in 1..=3 {
            before.nodes.get_mut(&id(n)).unwrap().port = 7000 + u16::from(n);
        }
        let shard = before.shards.values().next().unwrap().clone();
        let mut after = before.clone();
        after.shards.get_mut(&shard.id).unwrap().in_sync.remove(&id(3));
        let request = InSyncRequest {
            shard: shard.id,
            primary: id(1),
            term: shard.term,
            version: shard.in_sync_version,
            change: InSyncChange::Remove([id(3)].into()),
            committed: Default::default(),
            challenge: 0,
        };
        assert_eq!(
            request.told(&before, &after, &Ok(Outcome::Changed)),
            "mymaster goes on without 127.0.0.1:7003; in sync: 127.0.0.1:7001 127.0.0.1:7002"
        );
        assert_eq!(
            request.told(&before, &before, &Err(Refusal::NotInSync(id(3)))),
            "mymaster does not go on without 127.0.0.1:7003: node 127.0.0.1:7003 is not in the in-sync set"
        );
        assert_eq!(
            request.kept(&before, &format!("{} is well", id(3))),
            "the in-sync set of mymaster stays as it is, not without 127.0.0.1:7003: 127.0.0.1:7003 is well"
        );
    }
}

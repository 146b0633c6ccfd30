//! How a sentinel comes into its group: it founds it, is taken in, or waits.
//!
//! A sentinel's Raft ID is a number that is drawn when its directory is made, and gone with it. So nobody can come back
//! under an ID whose votes and entries it has forgotten, no two have the same one, and none is used again. What is left
//! to decide is when a group is founded, which means that its members are written down for the first time:
//!
//! - Only the first of `--initial` founds it, so that there are never two foundations side by side.
//! - It does so when *all* the others answer and none of them holds anything of a group. A majority is not enough: these
//!   may be the ones that have lost their disks, while who does not answer holds what was committed. Whoever is still
//!   starting does not answer.
//!
//! Whoever holds nothing and hears of a group asks its leader to be taken in, in the place of whoever had its name
//! before. Whoever holds something of a group and is no member of it any more was replaced, and stays out.
//!
//! Architecture invariant: no clock, no socket, no randomness; the shell is [`crate::shell::bootstrap`].

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use keyward_proto::topology::names::host_port;

use super::topology::RaftId;
use crate::config::Founder;

/// Drawn IDs begin here; smaller ones were positions in `--initial` once. They end where JSON's numbers do.
const DRAWN: std::ops::Range<RaftId> = 1 << 32..1 << 53;

/// The ID that a number drawn at random stands for.
pub(crate) fn raft_id(drawn: u64) -> RaftId {
    DRAWN.start + drawn % (DRAWN.end - DRAWN.start)
}

/// What a member is to Raft: its name, and where it was when it became one.
pub(crate) fn member(name: &str, address: &str) -> String {
    format!("{name}={address}")
}

/// The other way round. A member of a group that was founded by an older program has no name.
pub(crate) fn name_and_address(member: &str) -> (Option<&str>, &str) {
    match member.split_once('=') {
        Some((name, address)) => (Some(name), address),
        None => (None, member),
    }
}

/// Where a member is now: `--initial` is newer than what Raft has.
pub(crate) fn address(member: &str, founders: &[Founder]) -> String {
    let (name, address) = name_and_address(member);
    let listed = founders.iter().find(|f| Some(f.name.as_str()) == name);
    listed.map_or_else(|| address.to_owned(), |f| host_port(&f.host, f.bus_port))
}

/// What a sentinel has of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holds {
    Nothing,
    Group,
}

/// What another sentinel says of itself. One that does not answer, or is still starting, says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Presence {
    pub id: RaftId,
    pub holds: Holds,
}

/// What this sentinel is in the group that its log is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It holds nothing of any.
    Outside,
    Learner,
    Voter,
    /// It is no member any more.
    Replaced,
}

/// The members of a group as Raft has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Members {
    pub voters: Vec<RaftId>,
    /// All of them; see [`member`].
    pub nodes: BTreeMap<RaftId, String>,
}

impl Members {
    pub(crate) fn standing(&self, me: RaftId, holds: Holds) -> Standing {
        match holds {
            _ if self.voters.contains(&me) => Standing::Voter,
            _ if self.nodes.contains_key(&me) => Standing::Learner,
            Holds::Group if !self.nodes.is_empty() => Standing::Replaced,
            Holds::Group | Holds::Nothing => Standing::Outside,
        }
    }
}

/// What a sentinel does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// With these as members.
    Found(BTreeMap<RaftId, String>),
    /// Asks the leader, through any of these sentinels.
    Join { through: Vec<String> },
    /// For the log: what for.
    Wait(String),
    /// It votes.
    Done,
}

/// A sentinel that is not a voter yet, or does not know.
#[derive(Debug)]
pub(crate) struct Newcomer<'a> {
    pub name: &'a str,
    pub id: RaftId,
    /// `--initial`.
    pub founders: &'a [Founder],
}

impl Newcomer<'_> {
    /// `answers` are those of the others, by their names.
    pub(crate) fn step(&self, standing: Standing, answers: &BTreeMap<String, Presence>) -> Step {
        let holders =
            || answers.iter().filter(|(_, a)| a.holds == Holds::Group).map(|(name, _)| name.clone());
        let through: Vec<String> = holders().collect();
        match standing {
            Standing::Voter => Step::Done,
            Standing::Replaced => {
                Step::Wait("another sentinel has taken this one's place: it needs an empty directory".into())
            }
            Standing::Learner | Standing::Outside if !through.is_empty() => Step::Join { through },
            Standing::Learner => Step::Wait("no other sentinel answers".into()),
            Standing::Outside => self.found(answers),
        }
    }

    /// Nobody who answers holds anything.
    fn found(&self, answers: &BTreeMap<String, Presence>) -> Step {
        let first = self.founders.first().map_or("", |f| f.name.as_str());
        if first != self.name {
            return Step::Wait(format!("{first}, the first of --initial, founds the group"));
        }
        let mut members = BTreeMap::new();
        let mut missing = Vec::new();
        for founder in self.founders {
            let known = answers.get(&founder.name).map(|a| a.id);
            match known.or((founder.name == self.name).then_some(self.id)) {
                Some(id) => {
                    let address = host_port(&founder.host, founder.bus_port);
                    members.insert(id, member(&founder.name, &address));
                }
                None => missing.push(founder.name.as_str()),
            }
        }
        if !missing.is_empty() {
            return Step::Wait(format!(
                "the group is founded when all of --initial have answered; there is nothing yet of {}",
                missing.join(" ")
            ));
        }
        if members.len() < self.founders.len() {
            return Step::Wait("two sentinels have one ID: is a directory a copy of another?".into());
        }
        Step::Found(members)
    }
}

/// What the leader does about one that wants to be taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It votes already.
    Member,
    /// It gets the log first.
    Learn,
    /// It votes from now on, in the place of those that had its name.
    Vote { voters: Vec<RaftId>, replaced: Vec<RaftId> },
}

/// `names` has those of members that Raft has no names of.
pub(crate) fn admit(
    members: &Members,
    names: &BTreeMap<RaftId, String>,
    id: RaftId,
    name: &str,
) -> Result<Admission, String> {
    let name_of = |id: &RaftId, node: &str| {
        let own = name_and_address(node).0.map(str::to_owned);
        own.or_else(|| names.get(id).cloned()).unwrap_or_default()
    };
    if !DRAWN.contains(&id) {
        return Err("a sentinel of an older version cannot be taken in: it has no ID of its own".into());
    }
    match members.nodes.get(&id) {
        Some(node) if name_of(&id, node) != name => {
            Err(format!("{} has this ID: is the directory a copy of its?", name_of(&id, node)))
        }
        Some(_) if members.voters.contains(&id) => Ok(Admission::Member),
        None => Ok(Admission::Learn),
        Some(_) => {
            let is_replaced =
                |(other, node): &(&RaftId, &String)| **other != id && name_of(other, node) == name;
            let replaced: Vec<RaftId> = members.nodes.iter().filter(is_replaced).map(|(id, _)| *id).collect();
            let stay = members.voters.iter().copied().filter(|voter| !replaced.contains(voter));
            Ok(Admission::Vote { voters: stay.chain([id]).collect(), replaced })
        }
    }
}

//! The topology's state machine: how a committed Raft entry changes who serves what.
//!
//! Every command is validated here, when it is applied, against the topology of that moment: whoever proposed it
//! may have been wrong, slow or one of two. What must hold (ARCHITECTURE.md, "The invariants"):
//! - a shard's term grows by one with each primary, and only by compare-and-set;
//! - the next in-sync set is a subset of the present one plus at most one node that has caught up;
//! - a restarted node is not electable and is not counted until its primary has removed it and taken it in again,
//!   unless nobody is left who holds everything: then the one that holds most goes on (`absent.rs`).
//!
//! - [`command`]: the commands and the refusals
//! - [`absent`]: nodes outside the in-sync set
//!
//! Architecture invariant: no clock, no socket, no randomness; two sentinels that apply the same entries agree.

pub(crate) mod absent;
pub mod command;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use keyward_proto::ids::{Incarnation, NodeId, Position, ShardId, Term};
use keyward_proto::mutation::{self, Mutation};
use keyward_proto::topology::{Absent, LoadingNode, Node, SentinelAddress, Shard, Topology};

use super::{formation, registration};
pub(crate) use absent::no_holder_left;
pub use command::{
    Batch, Consent, InSyncChange, NewShard, Outcome, PrimaryChange, Refusal, Registration, TopologyCommand,
    Witness,
};

/// A sentinel in the Raft group. Never reused: see [`super::founding`].
pub type RaftId = u64;

/// Applies a committed entry: the commands one after another, so that a later one sees what an earlier one changed.
/// One result per command, in their order; see [`apply`].
pub fn apply_batch(topology: &mut Topology, raft_index: u64, batch: Batch) -> Vec<Result<Outcome, Refusal>> {
    let results =
        batch.commands.into_iter().map(|command| carry_out(topology, raft_index, command)).collect();
    topology.check_invariants();
    results
}

/// Applies one committed command. `raft_index` becomes the topology's version if anything changes.
///
/// # Errors
/// A [`Refusal`]; nothing has changed then.
pub fn apply(topology: &mut Topology, raft_index: u64, command: TopologyCommand) -> Result<Outcome, Refusal> {
    let result = carry_out(topology, raft_index, command);
    topology.check_invariants();
    result
}

fn carry_out(topology: &mut Topology, raft_index: u64, command: TopologyCommand) -> Result<Outcome, Refusal> {
    let outcome = match command {
        TopologyCommand::RegisterNode(registration) => register(topology, raft_index, registration),
        TopologyCommand::AnnounceLoading { node, host, port } => {
            announce_loading(topology, node, LoadingNode { host, port })
        }
        TopologyCommand::FormShards { shards, consent, history } => {
            form_shards(topology, shards, consent, history)
        }
        TopologyCommand::AssignNode { node, shard } => assign(topology, &node, &shard),
        TopologyCommand::ChangeInSync { shard, primary, term, in_sync_version, change, committed } => {
            change_in_sync(topology, &shard, &primary, term, in_sync_version, change, committed)
        }
        TopologyCommand::ReplacePrimary(change) => {
            replace_primary(topology, change).map(|()| Outcome::Changed)
        }
        TopologyCommand::ForgetNode { node } => forget(topology, &node),
        TopologyCommand::AnnounceSentinel { id, address } => Ok(announce(topology, id, address)),
        TopologyCommand::SetSentinels { sentinels } => {
            let is_known = topology.sentinels == sentinels;
            topology.sentinels = sentinels;
            Ok(if is_known { Outcome::Unchanged } else { Outcome::Changed })
        }
        TopologyCommand::SetShape { shape } => {
            if shape.shards == 0 || shape.primary_name.is_empty() {
                return Err(Refusal::Invalid("a shape has at least one shard, and a name".into()));
            }
            let is_known = topology.shape == shape;
            topology.shape = shape;
            Ok(if is_known { Outcome::Unchanged } else { Outcome::Changed })
        }
        TopologyCommand::SetMinInSync { nodes } => set_min_in_sync(topology, nodes),
    }?;
    match &outcome {
        Outcome::Unchanged => {}
        Outcome::Changed | Outcome::Registered { .. } => topology.version = raft_index,
    }
    Ok(outcome)
}

/// Who is eligible does not change by it: that goes by the number that a shard's primary has told since (the larger of
/// the two binds it), and by each change of that number.
fn set_min_in_sync(topology: &mut Topology, nodes: Option<u32>) -> Result<Outcome, Refusal> {
    let most = u32::try_from(topology.shape.nodes_per_shard()).unwrap_or(u32::MAX);
    if nodes.is_some_and(|nodes| !(1..=most).contains(&nodes)) {
        return Err(Refusal::Invalid(format!(
            "min-in-sync is 1 to {most}, as many as a shard should have nodes, or 0 for what each node is set to"
        )));
    }
    let is_known = std::mem::replace(&mut topology.min_in_sync, nodes) == nodes;
    Ok(if is_known { Outcome::Unchanged } else { Outcome::Changed })
}

/// A sentinel takes the place of the one that had its name.
fn announce(topology: &mut Topology, id: RaftId, address: SentinelAddress) -> Outcome {
    let before = topology.sentinels.clone();
    topology.sentinels.retain(|other, known| *other == id || known.name != address.name);
    topology.sentinels.insert(id, address);
    if topology.sentinels == before { Outcome::Unchanged } else { Outcome::Changed }
}

fn shard_mut<'a>(topology: &'a mut Topology, id: &ShardId) -> Result<&'a mut Shard, Refusal> {
    topology.shards.get_mut(id).ok_or_else(|| Refusal::UnknownShard(id.clone()))
}

fn node<'a>(topology: &'a Topology, id: &NodeId) -> Result<&'a Node, Refusal> {
    topology.nodes.get(id).ok_or_else(|| Refusal::UnknownNode(id.clone()))
}

/// More than any cluster has: what is kept of those that come and go is bounded.
const NODES_MAX: usize = 20_000;

fn check_room(len: usize) -> Result<(), Refusal> {
    let words = || format!("{NODES_MAX} nodes are registered: forget those that are gone (remove-node)");
    if len < NODES_MAX { Ok(()) } else { Err(Refusal::Invalid(words())) }
}

fn register(topology: &mut Topology, raft_index: u64, new: Registration) -> Result<Outcome, Refusal> {
    let known = topology.nodes.get(&new.id);
    if known.is_none() {
        check_room(topology.nodes.len())?;
    }
    let same_start = known.filter(|n| n.start_nonce == new.start_nonce);
    if let Some(known) = known
        && same_start.is_none()
        && known.incarnation != new.follows
        && !mutation::is_on(Mutation::LateRegistrationCounts)
    {
        return Err(Refusal::StaleIncarnation { current: known.incarnation });
    }
    if let Some(disagreement) = registration::disagreement(topology, &new) {
        return Err(Refusal::Disagrees(disagreement));
    }
    let later = known.map_or(Incarnation::ZERO, |n| n.incarnation.next()).max(Incarnation::new(raft_index));
    let incarnation = same_start.map_or(later, |n| n.incarnation);
    let is_new_start = same_start.is_none();
    let shard_id = known.and_then(|n| n.shard.clone());
    // What is of another history says nothing of how much of its shard's it has.
    let is_of_shard = match (&shard_id, &new.holding) {
        (Some(shard), Some(holding)) => holding.shard.as_ref() == Some(shard),
        (None, _) | (_, None) => true,
    };
    let last = if is_of_shard { new.last } else { Position::ZERO };
    let registered_last = same_start.map_or(last, |n| n.registered_last);
    let holding = same_start.map_or(new.holding, |n| n.holding.clone());
    let node = Node {
        id: new.id.clone(),
        incarnation,
        start_nonce: new.start_nonce,
        host: new.host,
        port: new.port,
        bus_port: new.bus_port,
        tls_port: new.tls_port,
        hostname: new.hostname,
        zone: new.zone,
        replica_priority: new.replica_priority,
        shard: shard_id.clone(),
        cluster_enabled: new.cluster_enabled,
        program_version: new.program_version,
        registered_last,
        detection: new.detection,
        holding,
        databases: new.databases,
    };
    topology.loading.remove(&new.id);
    topology.nodes.insert(new.id.clone(), node);
    if is_new_start && let Some(shard) = shard_id.and_then(|id| topology.shards.get_mut(&id)) {
        if !shard.in_sync.contains(&new.id) {
            absent::note_restart(&mut shard.absent, &new.id, new.last);
        } else if !mutation::is_on(Mutation::RestartedStaysInSync) {
            shard.restarted.insert(new.id.clone());
        }
        if shard.primary.as_ref() == Some(&new.id) {
            shard.primary = None;
        }
    }
    Ok(Outcome::Registered { incarnation })
}

/// Members of a shard are not waited for: they lead nothing before they have registered.
fn announce_loading(topology: &mut Topology, id: NodeId, node: LoadingNode) -> Result<Outcome, Refusal> {
    if topology.shard_of(&id).is_some() {
        return Ok(Outcome::Unchanged);
    }
    if !topology.loading.contains_key(&id) {
        check_room(topology.loading.len())?;
    }
    let known = topology.loading.insert(id, node.clone());
    Ok(if known == Some(node) { Outcome::Unchanged } else { Outcome::Changed })
}

fn form_shards(
    topology: &mut Topology,
    shards: Vec<NewShard>,
    consent: Consent,
    history: u64,
) -> Result<Outcome, Refusal> {
    if !topology.shards.is_empty() {
        return Err(Refusal::ShardsExist);
    }
    if shards.is_empty() {
        return Err(Refusal::EmptyChange);
    }
    let primaries: BTreeSet<&NodeId> = shards.iter().map(|s| &s.primary).collect();
    let ids: BTreeSet<&ShardId> = shards.iter().map(|s| &s.id).collect();
    if primaries.len() != shards.len() || ids.len() != shards.len() {
        return Err(Refusal::Invalid("two shards share a name or a primary".into()));
    }
    let mut slots: Vec<_> = shards.iter().flat_map(|s| s.slots.iter().copied()).collect();
    slots.sort_unstable();
    let disjoint = slots.windows(2).all(|pair| match pair {
        [a, b] => a.last < b.first,
        _ => true,
    });
    if !disjoint || slots.iter().any(|range| range.last < range.first) {
        return Err(Refusal::Invalid("two shards share a slot".into()));
    }
    for shard in &shards {
        if node(topology, &shard.primary)?.shard.is_some() {
            return Err(Refusal::AlreadyAssigned(shard.primary.clone()));
        }
    }
    formation::check(topology, &shards, consent)?;
    topology.history = history;
    for shard in shards {
        if let Some(node) = topology.nodes.get_mut(&shard.primary) {
            node.shard = Some(shard.id.clone());
        }
        let formed = Shard {
            id: shard.id.clone(),
            slots: shard.slots,
            term: shard.term,
            primary: Some(shard.primary.clone()),
            in_sync: BTreeSet::from([shard.primary]),
            restarted: BTreeSet::new(),
            in_sync_version: 1,
            // A process that still serves an earlier history may hold leases.
            previous_primary_gone: consent == Consent::None,
            predecessor_gone: consent == Consent::None,
            handoff_position: Position::ZERO,
            absent: Absent::default(),
        };
        topology.shards.insert(shard.id, formed);
    }
    Ok(Outcome::Changed)
}

fn assign(topology: &mut Topology, id: &NodeId, shard: &ShardId) -> Result<Outcome, Refusal> {
    shard_mut(topology, shard)?;
    let spare = node(topology, id)?;
    if spare.shard.is_some() {
        return Err(Refusal::AlreadyAssigned(id.clone()));
    }
    if !formation::may_join(topology, spare, shard) {
        return Err(Refusal::HoldsOther(id.clone()));
    }
    let node = topology.nodes.get_mut(id).ok_or_else(|| Refusal::UnknownNode(id.clone()))?;
    node.shard = Some(shard.clone());
    Ok(Outcome::Changed)
}

fn change_in_sync(
    topology: &mut Topology,
    shard_id: &ShardId,
    primary: &NodeId,
    term: Term,
    in_sync_version: u64,
    change: InSyncChange,
    committed: Position,
) -> Result<Outcome, Refusal> {
    let shard = topology.shards.get(shard_id).ok_or_else(|| Refusal::UnknownShard(shard_id.clone()))?;
    if shard.term != term {
        return Err(Refusal::StaleTerm { current: shard.term });
    }
    if shard.primary.as_ref() != Some(primary) {
        return Err(Refusal::NotThePrimary(primary.clone()));
    }
    if shard.in_sync_version != in_sync_version {
        return Err(Refusal::StaleInSync { current: shard.in_sync_version });
    }
    match &change {
        InSyncChange::Remove(nodes) => {
            if nodes.is_empty() {
                return Err(Refusal::EmptyChange);
            }
            if nodes.contains(primary) {
                return Err(Refusal::PrimaryCannotLeave);
            }
            let is_stranger =
                |id: &&NodeId| !shard.in_sync.contains(*id) && !shard.absent.eligible.contains(*id);
            if let Some(stranger) = nodes.iter().find(is_stranger) {
                return Err(Refusal::NotInSync(stranger.clone()));
            }
        }
        InSyncChange::Minimum(nodes) if shard.absent.min_in_sync == Some(*nodes) => {
            return Ok(Outcome::Unchanged);
        }
        InSyncChange::Minimum(_) => {}
        InSyncChange::Add { node: id, incarnation } => {
            let node = node(topology, id)?;
            if node.shard.as_ref() != Some(shard_id) {
                return Err(Refusal::NotAMember(id.clone()));
            }
            if shard.restarted.contains(id) {
                return Err(Refusal::Restarted(id.clone()));
            }
            if shard.in_sync.contains(id) {
                return Err(Refusal::AlreadyInSync(id.clone()));
            }
            if node.incarnation != *incarnation {
                return Err(Refusal::StaleIncarnation { current: node.incarnation });
            }
        }
    }
    let registered = registered(topology, shard);
    let shard = shard_mut(topology, shard_id)?;
    shard.absent.committed = shard.absent.committed.max(committed);
    match change {
        InSyncChange::Remove(nodes) => {
            shard.absent.eligible.retain(|id| !nodes.contains(id));
            let (left, stay) = shard.in_sync.iter().cloned().partition(|id| nodes.contains(id));
            let left: BTreeSet<NodeId> = left;
            shard.in_sync = stay;
            shard.restarted.retain(|id| !nodes.contains(id));
            absent::note_left(shard, left.iter(), &registered);
        }
        InSyncChange::Minimum(nodes) => shard.absent.min_in_sync = Some(nodes),
        InSyncChange::Add { node, .. } => {
            shard.absent.eligible.remove(&node);
            shard.in_sync.insert(node);
            // A primary adds members only while it serves, and it serves only when all earlier leases have ended.
            (shard.previous_primary_gone, shard.predecessor_gone) = (true, true);
        }
    }
    shard.in_sync_version += 1;
    absent::settle(shard);
    Ok(Outcome::Changed)
}

/// What the members that have restarted came back with.
fn registered(topology: &Topology, shard: &Shard) -> BTreeMap<NodeId, Position> {
    let held = |id: &NodeId| Some((id.clone(), topology.nodes.get(id)?.registered_last));
    shard.restarted.iter().filter_map(held).collect()
}

fn replace_primary(topology: &mut Topology, change: PrimaryChange) -> Result<(), Refusal> {
    validate_replacement(topology, &change)?;
    let registered = topology.shards.get(&change.shard).map(|shard| registered(topology, shard));
    let shard = shard_mut(topology, &change.shard)?;
    let next = shard.term.next();
    assert!(shard.term < next, "terms only grow");
    // Of another history than that of holders nobody else can hold all.
    let ends_history = change.takeover || no_holder_left(shard);
    shard.absent.gave_no_lease = ends_history && !shard.in_sync.contains(&change.node);
    shard.absent.eligible.remove(&change.node);
    let left = std::mem::replace(&mut shard.in_sync, change.in_sync);
    shard.restarted.clear();
    let left: BTreeSet<NodeId> = left.difference(&shard.in_sync).cloned().collect();
    absent::note_left(shard, left.iter(), &registered.unwrap_or_default());
    if ends_history {
        shard.absent.eligible.clear();
    }
    shard.term = next;
    shard.primary = Some(change.node);
    shard.in_sync_version += 1;
    absent::settle(shard);
    shard.previous_primary_gone = change.previous_primary_gone;
    shard.predecessor_gone = change.predecessor_gone;
    shard.handoff_position = change.handoff_position;
    Ok(())
}

fn validate_replacement(topology: &Topology, change: &PrimaryChange) -> Result<(), Refusal> {
    let shard =
        topology.shards.get(&change.shard).ok_or_else(|| Refusal::UnknownShard(change.shard.clone()))?;
    let candidate = node(topology, &change.node)?;
    if shard.term != change.expected_term && !mutation::is_on(Mutation::StaleTermAccepted) {
        return Err(Refusal::StaleTerm { current: shard.term });
    }
    if change.expected_in_sync_version.is_some_and(|expected| expected != shard.in_sync_version) {
        return Err(Refusal::StaleInSync { current: shard.in_sync_version });
    }
    if candidate.shard.as_ref() != Some(&change.shard) {
        return Err(Refusal::NotAMember(change.node.clone()));
    }
    if shard.primary.as_ref() == Some(&change.node) {
        return Err(Refusal::AlreadyPrimary(change.node.clone()));
    }
    let alone = change.in_sync.len() == 1 && change.in_sync.contains(&change.node);
    if change.takeover {
        return if alone { Ok(()) } else { Err(Refusal::NotASubset) };
    }
    if shard.absent.eligible.contains(&change.node) || no_holder_left(shard) {
        if !alone {
            return Err(Refusal::NotASubset);
        }
        if no_holder_left(shard) {
            return absent::validate_furthest(topology, shard, change);
        }
        let is_gone = shard.primary.is_none() || change.predecessor_gone;
        return if is_gone { Ok(()) } else { Err(Refusal::PrimaryMayServe(change.node.clone())) };
    }
    if !mutation::is_on(Mutation::PromoteOutsideInSync) {
        if !shard.in_sync.contains(&change.node) {
            return Err(Refusal::NotInSync(change.node.clone()));
        }
        if !change.in_sync.contains(&change.node) || !change.in_sync.is_subset(&shard.in_sync) {
            return Err(Refusal::NotASubset);
        }
    }
    match change.in_sync.intersection(&shard.restarted).next() {
        Some(restarted) => Err(Refusal::Restarted(restarted.clone())),
        None => Ok(()),
    }
}

/// Every member has lost its memory since it was in sync, and is back.
pub(crate) fn all_restarted(shard: &Shard) -> bool {
    shard.primary.is_none() && shard.restarted == shard.in_sync
}

fn forget(topology: &mut Topology, id: &NodeId) -> Result<Outcome, Refusal> {
    let was_loading = topology.loading.remove(id).is_some();
    if was_loading && !topology.nodes.contains_key(id) {
        return Ok(Outcome::Changed);
    }
    let shard_id = node(topology, id)?.shard.clone();
    if let Some(shard) = shard_id.and_then(|id| topology.shards.get_mut(&id)) {
        if shard.primary.as_ref() == Some(id) {
            return Err(Refusal::StillPrimary(id.clone()));
        }
        let is_holder = shard.in_sync.contains(id) || shard.absent.eligible.contains(id);
        if is_holder && shard.primary.is_none() {
            return Err(Refusal::LastCandidate(id.clone()));
        }
        if shard.in_sync.remove(id) {
            shard.restarted.remove(id);
            shard.in_sync_version += 1;
        }
        shard.absent.eligible.remove(id);
        shard.absent.stood_at.remove(id);
    }
    topology.nodes.remove(id);
    Ok(Outcome::Changed)
}

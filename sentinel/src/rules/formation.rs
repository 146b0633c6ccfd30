//! Which nodes the first shards form around, and which may join a shard: by what they hold.
//!
//! Sentinels that know no shard may be new, or may have lost what they knew; only what the nodes hold tells. A node that
//! joins a shard gives up what it has for what the primary has, so nobody may do that on the word of an empty one:
//! - a node that holds data leads the slots of its keys;
//! - whoever has said that it loads data is waited for, since it registers last ([`Topology::loading`]);
//! - where the data leaves a choice (several nodes have some, or it is the log of a shard) the operator decides:
//!   [`adopt`]. A log of a shard may be short of what nodes have that are not there yet;
//! - what is adopted stays the shard that it was: under its ID, in a later term. So the nodes that have its log go on
//!   with it, and the tails that were not known to be committed are kept;
//! - a node that holds anything else joins no shard.
//!
//! Every formation is checked by [`check`] when it is applied.
//!
//! Architecture invariant: no clock, no socket.

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use keyward_proto::ids::{NodeId, Position, ShardId, Term};
use keyward_proto::mutation::{self, Mutation};
use keyward_proto::topology::{LoadingNode, Node, SlotRange, Topology};
use serde::{Deserialize, Serialize};

use super::topology::{Consent, NewShard, Refusal, TopologyCommand};

/// An adopted shard goes on some terms later, fewer than these.
const TERMS_SKIPPED: u64 = 1 << 20;

/// Whether nodes may still be on their way that should have a say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrivals {
    /// The first shards form when all nodes of the wanted shape are there.
    Expected,
    /// They form of what is there.
    Over,
}

/// Why no shards form, although there may be nodes for them. IDs are those of nodes, and become names in logs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Obstacle {
    Loading(BTreeMap<NodeId, LoadingNode>),
    /// The log of a shard.
    Unknown(ShardId, BTreeSet<NodeId>),
    /// Data for the same slots.
    Different(BTreeSet<NodeId>),
    /// Keys in slots that are of several shards.
    Spread(NodeId, SlotRange),
    /// Nobody holds anything.
    NothingToAdopt,
    TooFew {
        wanted: usize,
    },
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names =
            |nodes: &BTreeSet<NodeId>| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        match self {
            Obstacle::Loading(nodes) => {
                let named = nodes.iter().map(|(id, n)| format!("{}:{} ({:.8})", n.host, n.port, id.as_str()));
                let named = named.collect::<Vec<_>>().join(" ");
                write!(
                    f,
                    "{named} holds data and loads it: it is waited for (`keyward-sentinel remove-node` goes on without)"
                )
            }
            Obstacle::Unknown(shard, nodes) => write!(
                f,
                "{} has the write log of a shard, {:.8}, that these sentinels do not know: they are new, or have lost \
                 their directories. When all nodes of the cluster are there, `keyward-sentinel adopt` goes on with what \
                 is furthest",
                names(nodes),
                shard.as_str()
            ),
            Obstacle::Different(nodes) => write!(
                f,
                "{} hold different data for the same slots: `keyward-sentinel adopt` goes on with what is furthest, or \
                 empty the data folders of those that are not wanted",
                names(nodes)
            ),
            Obstacle::Spread(node, slots) => write!(
                f,
                "{node} has keys in the slots {} to {}, which are to belong to several shards: import it with --shards 1",
                slots.first, slots.last
            ),
            Obstacle::NothingToAdopt => f.write_str("no node holds data: the shards form without being told"),
            Obstacle::TooFew { wanted } => write!(f, "there are not enough nodes for {wanted} shards"),
        }
    }
}

/// What a node without a shard holds.
#[derive(Debug, Clone, Copy)]
struct Holder<'a> {
    node: &'a Node,
    last: Position,
    shard: Option<&'a ShardId>,
    slots: Option<SlotRange>,
}

impl Holder<'_> {
    fn fits(&self, range: SlotRange) -> bool {
        self.slots.is_none_or(|slots| range.covers(slots))
    }
}

fn spares(topology: &Topology) -> Vec<&Node> {
    let mut spares: Vec<&Node> = topology.nodes.values().filter(|n| n.shard.is_none()).collect();
    spares.sort_by_key(|n| n.incarnation);
    spares
}

fn holder(node: &Node) -> Option<Holder<'_>> {
    if node.registered_last == Position::ZERO || mutation::is_on(Mutation::FirstComerLeads) {
        return None;
    }
    let holding = node.holding.as_ref();
    Some(Holder {
        node,
        last: node.registered_last,
        shard: holding.and_then(|h| h.shard.as_ref()),
        slots: holding.and_then(|h| h.slots),
    })
}

fn holders(topology: &Topology) -> Vec<Holder<'_>> {
    spares(topology).into_iter().filter_map(holder).collect()
}

/// Why the first shards cannot form without the operator.
pub fn obstacle(topology: &Topology) -> Option<Obstacle> {
    lead(topology).err()
}

/// For each range of slots the node that has to lead it, if one holds data.
fn lead(topology: &Topology) -> Result<Vec<(SlotRange, Option<&Node>)>, Obstacle> {
    loaded(topology)?;
    let holders = holders(topology);
    if let Some(shard) = holders.iter().find_map(|h| h.shard) {
        let nodes = holders.iter().filter(|h| h.shard.is_some()).map(|h| h.node.id.clone()).collect();
        return Err(Obstacle::Unknown(shard.clone(), nodes));
    }
    let mut led = ranges(topology);
    for holder in in_order_of_choice(holders) {
        let free = led.iter_mut().find(|(range, leader)| leader.is_none() && holder.fits(*range));
        if let Some((_, leader)) = free {
            *leader = Some(holder.node);
            continue;
        }
        let slots = holder.slots.filter(|_| !led.iter().any(|(range, _)| holder.fits(*range)));
        if let Some(slots) = slots {
            return Err(Obstacle::Spread(holder.node.id.clone(), slots));
        }
        let others = led.iter().filter(|(range, _)| holder.fits(*range)).filter_map(|(_, leader)| *leader);
        let nodes = others.chain([holder.node]).map(|n| n.id.clone()).collect();
        return Err(Obstacle::Different(nodes));
    }
    Ok(led)
}

fn loaded(topology: &Topology) -> Result<(), Obstacle> {
    if topology.loading.is_empty() || mutation::is_on(Mutation::FirstComerLeads) {
        return Ok(());
    }
    Err(Obstacle::Loading(topology.loading.clone()))
}

fn ranges(topology: &Topology) -> Vec<(SlotRange, Option<&Node>)> {
    Topology::even_ranges(topology.shape.shards).into_iter().map(|range| (range, None)).collect()
}

/// Those that fit anywhere last.
fn in_order_of_choice(mut holders: Vec<Holder<'_>>) -> Vec<Holder<'_>> {
    holders.sort_by_key(|h| (h.slots.is_none(), Reverse(h.last)));
    holders
}

/// The first shards, around the nodes that hold data; where there is none, those that registered first lead.
pub fn form(
    topology: &Topology,
    arrivals: Arrivals,
    mut new_shard_id: impl FnMut() -> ShardId,
) -> Option<TopologyCommand> {
    let led = lead(topology).ok()?;
    let wanted = led.len().saturating_mul(topology.shape.nodes_per_shard());
    if arrivals == Arrivals::Expected && spares(topology).len() < wanted {
        return None;
    }
    let history = history(&new_shard_id());
    let mut empty = spares(topology).into_iter().filter(|n| holder(n).is_none());
    let shards = led.into_iter().map(|(range, leader)| {
        let primary = leader.or_else(|| empty.next())?.id.clone();
        Some(NewShard { id: new_shard_id(), slots: vec![range], primary, term: Term::new(1) })
    });
    let shards = shards.collect::<Option<Vec<NewShard>>>()?;
    Some(TopologyCommand::FormShards { shards, consent: Consent::None, history })
}

/// What an operator has asked for: shards of what the nodes hold, each around the node that has most of it. Of data for
/// the same slots the furthest wins, and who holds the other stays out.
///
/// # Errors
/// Why not.
pub fn adopt(
    topology: &Topology,
    mut new_shard_id: impl FnMut() -> ShardId,
) -> Result<TopologyCommand, Refusal> {
    if !topology.shards.is_empty() {
        return Err(Refusal::ShardsExist);
    }
    loaded(topology).map_err(Refusal::Formation)?;
    let all = holders(topology);
    if all.is_empty() {
        return Err(Refusal::Formation(Obstacle::NothingToAdopt));
    }
    // Of nodes with one shard's log only the furthest may lead.
    let candidates = all.iter().filter(|h| furthest(&all, h).is_none()).copied().collect();
    let mut led: Vec<(SlotRange, Option<Holder<'_>>)> =
        ranges(topology).into_iter().map(|(range, _)| (range, None)).collect();
    for candidate in in_order_of_choice(candidates) {
        if let Some(slots) = candidate.slots
            && !led.iter().any(|(range, _)| range.covers(slots))
        {
            return Err(Refusal::Formation(Obstacle::Spread(candidate.node.id.clone(), slots)));
        }
        let free = led.iter_mut().find(|(range, leader)| leader.is_none() && candidate.fits(*range));
        if let Some((_, leader)) = free {
            *leader = Some(candidate);
        }
    }
    let wanted = led.len();
    let history = history(&new_shard_id());
    let mut empty = spares(topology).into_iter().filter(|n| holder(n).is_none());
    let shards = led.into_iter().map(|(range, leader)| {
        let primary = leader.map(|h| h.node).or_else(|| empty.next())?.id.clone();
        let id = leader.and_then(|h| h.shard.cloned()).unwrap_or_else(&mut new_shard_id);
        let term = leader.map_or(Term::ZERO.next(), |h| unseen_after(h.last.term, history));
        Some(NewShard { id, slots: vec![range], primary, term })
    });
    let shards = shards.collect::<Option<Vec<NewShard>>>();
    let shards = shards.ok_or(Refusal::Formation(Obstacle::TooFew { wanted }))?;
    Ok(TopologyCommand::FormShards { shards, consent: Consent::Operator, history })
}

/// The next term may have begun once already, and have ended with all that it wrote: in no log that is left, but perhaps
/// in one that comes back. No two histories may have an entry of the same term and index, so it is not the next.
fn unseen_after(last: Term, history: u64) -> Term {
    Term::new(last.next().get() + history % TERMS_SKIPPED)
}

/// Who has more of the same shard's log; of equals the one whose ID comes first counts as further.
fn furthest<'a>(all: &[Holder<'a>], holder: &Holder<'_>) -> Option<Holder<'a>> {
    let rank = |h: &Holder<'_>| (h.last, Reverse(h.node.id.clone()));
    let is_further = |h: &Holder<'_>| {
        if mutation::is_on(Mutation::AnyLogIsAdopted) {
            return rank(h) < rank(holder);
        }
        rank(h) > rank(holder)
    };
    holder.shard?;
    all.iter().filter(|h| h.shard == holder.shard).find(|h| is_further(h)).copied()
}

fn history(random: &ShardId) -> u64 {
    let digits = random.as_str().get(..16).unwrap_or_default();
    u64::from_str_radix(digits, 16).unwrap_or_default().max(1)
}

/// Whether shards may form like that, of the nodes that are registered now.
///
/// # Errors
/// Somebody holds data who would have to give it up.
pub(super) fn check(topology: &Topology, shards: &[NewShard], consent: Consent) -> Result<(), Refusal> {
    let all = holders(topology);
    for shard in shards {
        let leader = all.iter().find(|h| h.node.id == shard.primary);
        let own = leader.and_then(|h| h.shard);
        if own == Some(&shard.id) && leader.is_some_and(|h| shard.term <= h.last.term) {
            return Err(Refusal::Invalid("a shard would go on in a term that its log has seen".into()));
        }
        if consent == Consent::Operator && own.is_some_and(|own| *own != shard.id) {
            return Err(Refusal::Invalid("a shard that is adopted keeps its name".into()));
        }
        if all.iter().any(|h| h.shard == Some(&shard.id)) && own != Some(&shard.id) {
            return Err(Refusal::HoldsOther(shard.primary.clone()));
        }
        if leader.is_some_and(|h| furthest(&all, h).is_some()) {
            return Err(Refusal::NotTheFurthest(shard.primary.clone()));
        }
    }
    match consent {
        Consent::Operator => loaded(topology).map_err(Refusal::Formation),
        Consent::None => {
            obstacle(topology).map_or(Ok(()), |obstacle| Err(Refusal::Formation(obstacle)))?;
            let leads = |h: &Holder<'_>| {
                let own = shards.iter().filter(|s| s.primary == h.node.id).flat_map(|s| &s.slots);
                own.into_iter().any(|range| h.fits(*range))
            };
            match all.iter().find(|h| !leads(h)) {
                Some(ignored) => Err(Refusal::HoldsOther(ignored.node.id.clone())),
                None => Ok(()),
            }
        }
    }
}

/// Whether a node may become a member of a shard: it holds nothing, or that shard's log.
pub(super) fn may_join(topology: &Topology, node: &Node, shard: &ShardId) -> bool {
    // Programs that are older do not say what it is; those of the cluster that they come from have none of it either.
    let Some(holder) = holder(node).filter(|_| node.holding.is_some()) else { return true };
    holder.shard == Some(shard) && topology.shards.contains_key(shard)
}

/// Nodes without a shard that may not join any, as they hold something else: for the log and for people.
pub fn held_back(topology: &Topology) -> Vec<(NodeId, String)> {
    if topology.shards.is_empty() {
        return Vec::new();
    }
    let is_held_back = |h: &Holder<'_>| topology.shards.keys().all(|s| !may_join(topology, h.node, s));
    let told = holders(topology).into_iter().filter(is_held_back).map(|h| {
        let what = match h.shard {
            Some(shard) => format!("the write log of another shard, {:.8}", shard.as_str()),
            None => "data that is not of this cluster".to_owned(),
        };
        let text = format!(
            "{} holds {what}, up to {}, and joins no shard, which would replace it: empty its data folder to let it join",
            h.node.id, h.last
        );
        (h.node.id.clone(), text)
    });
    told.collect()
}

//! A model of the sentinels: one value that changes atomically, by the rules that the real ones enforce.

use std::sync::Arc;

use keyward_proto::ids::{Incarnation, NodeId, Position, ShardId, Term};
use keyward_proto::topology::{Node, Shard, Topology};

use crate::replication::messages::{Outcome, Request};

/// What a node said when it was asked before a failover.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) node: NodeId,
    pub(super) incarnation: Incarnation,
    pub(super) last: Position,
}

#[derive(Debug)]
pub(super) struct Register {
    pub(super) topology: Topology,
    shard: ShardId,
}

impl Register {
    pub(super) fn new(nodes: &[NodeId]) -> Self {
        let id = ShardId::from_random([7; 20]);
        let mut topology = Topology { version: 1, ..Topology::default() };
        for node in nodes {
            let node = Node {
                id: node.clone(),
                incarnation: Incarnation::new(1),
                start_nonce: 0,
                host: String::new(),
                port: 0,
                bus_port: 0,
                hostname: String::new(),
                zone: String::new(),
                replica_priority: 100,
                shard: Some(id.clone()),
                cluster_enabled: true,
                program_version: String::new(),
                registered_last: Position::ZERO,
            };
            topology.nodes.insert(node.id.clone(), node);
        }
        let shard = Shard {
            id: id.clone(),
            slots: Vec::new(),
            term: Term::new(1),
            primary: nodes.first().cloned(),
            in_sync: nodes.first().cloned().into_iter().collect(),
            restarted: Default::default(),
            in_sync_version: 1,
            previous_primary_gone: true,
            handoff_position: Position::ZERO,
        };
        topology.shards.insert(id.clone(), shard);
        Register { topology, shard: id }
    }

    pub(super) fn snapshot(&self) -> Arc<Topology> {
        Arc::new(self.topology.clone())
    }

    pub(super) fn shard(&self) -> &Shard {
        &self.topology.shards[&self.shard]
    }

    fn change(&mut self, change: impl FnOnce(&mut Shard)) {
        change(self.topology.shards.get_mut(&self.shard).expect("the only shard"));
        self.topology.version += 1;
        self.topology.check_invariants();
    }

    /// A process of `node` has started.
    pub(super) fn register(&mut self, node: &NodeId) -> Incarnation {
        let entry = self.topology.nodes.get_mut(node).expect("a node of this world");
        entry.incarnation = entry.incarnation.next();
        let incarnation = entry.incarnation;
        self.change(|shard| {
            if shard.primary.as_ref() == Some(node) {
                shard.primary = None;
            }
            if shard.in_sync.contains(node) {
                shard.restarted.insert(node.clone());
            }
        });
        incarnation
    }

    pub(super) fn change_in_sync(&mut self, from: &NodeId, request: &Request) -> Outcome {
        let shard = self.shard();
        let current = |term: Term, version: u64| {
            shard.term == term && shard.in_sync_version == version && shard.primary.as_ref() == Some(from)
        };
        match request {
            Request::Remove { term, version, nodes, .. } => {
                if !current(*term, *version) || nodes.contains(from) {
                    return Outcome::Refused("stale".into());
                }
                let nodes = nodes.clone();
                self.change(|shard| {
                    shard.in_sync.retain(|n| !nodes.contains(n));
                    shard.restarted.retain(|n| !nodes.contains(n));
                    shard.in_sync_version += 1;
                });
            }
            Request::Add { term, version, node, incarnation, .. } => {
                let fits = self.topology.nodes.get(node).is_some_and(|n| n.incarnation == *incarnation);
                if !current(*term, *version) || !fits || shard.in_sync.contains(node) {
                    return Outcome::Refused("stale".into());
                }
                self.change(|shard| {
                    shard.in_sync.insert(node.clone());
                    shard.in_sync_version += 1;
                });
            }
            Request::Handoff { term, version, target, .. } => {
                if !current(*term, *version)
                    || !shard.in_sync.contains(target)
                    || shard.restarted.contains(target)
                {
                    return Outcome::Refused("stale".into());
                }
                self.change(|shard| {
                    shard.term = shard.term.next();
                    shard.primary = Some(target.clone());
                    shard.previous_primary_gone = true;
                    shard.in_sync_version += 1;
                });
            }
            Request::Failover { .. } => unreachable!("decided in two steps"),
        }
        Outcome::Accepted
    }

    /// The primary still answers: the complaining replica goes.
    pub(super) fn remove_complainer(&mut self, node: &NodeId, term: Term) {
        let shard = self.shard();
        if shard.term == term && shard.primary.as_ref() != Some(node) && shard.in_sync.contains(node) {
            self.change(|shard| {
                shard.in_sync.remove(node);
                shard.restarted.remove(node);
                shard.in_sync_version += 1;
            });
        }
    }

    /// Picks the furthest candidate. Validated against the value as it is now, not as it was when they were asked.
    pub(super) fn replace_primary(
        &mut self,
        term: Term,
        candidates: &[Candidate],
        primary_gone: bool,
    ) -> bool {
        let shard = self.shard();
        let all_restarted = shard.in_sync.is_subset(&shard.restarted);
        let fit = |c: &&Candidate| {
            let electable =
                shard.in_sync.contains(&c.node) && (all_restarted || !shard.restarted.contains(&c.node));
            electable && self.topology.nodes[&c.node].incarnation == c.incarnation
        };
        let fits: Vec<&Candidate> = candidates.iter().filter(fit).collect();
        if shard.term != term || (all_restarted && fits.len() < shard.in_sync.len()) {
            return false;
        }
        let Some(best) = fits.iter().max_by_key(|c| (c.last, c.node.clone())) else { return false };
        let winner = best.node.clone();
        let members = if all_restarted {
            [winner.clone()].into()
        } else {
            fits.iter().map(|c| c.node.clone()).collect()
        };
        self.change(|shard| {
            shard.term = shard.term.next();
            shard.in_sync = members;
            shard.restarted.clear();
            shard.primary = Some(winner);
            shard.previous_primary_gone = primary_gone;
            shard.in_sync_version += 1;
        });
        true
    }
}

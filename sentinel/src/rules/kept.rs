//! Which open connection may be used again: that of a node's address and of the start of its process that the topology
//! has, taken out by whoever uses it and given back when it has served.

use std::collections::BTreeMap;

use keyward_proto::ids::{Incarnation, NodeId};
use keyward_proto::topology::{Node, Topology};

/// What a connection leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    host: String,
    bus_port: u16,
    incarnation: Incarnation,
}

impl Place {
    fn of(node: &Node) -> Self {
        Place { host: node.host.clone(), bus_port: node.bus_port, incarnation: node.incarnation }
    }
}

/// Idle connections, one a node.
#[derive(Debug)]
pub(crate) struct Kept<C>(BTreeMap<NodeId, (Place, C)>);

impl<C> Default for Kept<C> {
    fn default() -> Self {
        Kept(BTreeMap::new())
    }
}

impl<C> Kept<C> {
    /// The connection to this node, if it leads to where the node is now.
    pub(crate) fn take(&mut self, node: &Node) -> Option<C> {
        let (place, connection) = self.0.remove(&node.id)?;
        (place == Place::of(node)).then_some(connection)
    }

    pub(crate) fn keep(&mut self, node: &Node, connection: C) {
        self.0.insert(node.id.clone(), (Place::of(node), connection));
    }

    /// Drops those of nodes that have left or moved.
    pub(crate) fn follow(&mut self, topology: &Topology) {
        self.0.retain(|id, (place, _)| topology.nodes.get(id).is_some_and(|node| *place == Place::of(node)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::failover::tests::{id, topology};

    #[test]
    fn a_connection_serves_one_at_a_time_and_only_its_process() {
        let (mut topology, mut kept) = (topology(), Kept::default());
        let node = topology.nodes[&id(1)].clone();
        kept.keep(&node, "a");
        assert_eq!((kept.take(&node), kept.take(&node)), (Some("a"), None));
        let moves: [fn(&mut Node); 3] = [
            |node| node.host = "elsewhere".into(),
            |node| node.bus_port += 1,
            |node| node.incarnation = node.incarnation.next(),
        ];
        for change in moves {
            let mut moved = node.clone();
            change(&mut moved);
            kept.keep(&node, "b");
            assert_eq!(kept.take(&moved), None);
            kept.keep(&node, "c");
            kept.follow(&topology);
            topology.nodes.insert(moved.id.clone(), moved);
            kept.follow(&topology);
            assert_eq!(kept.take(&node), None);
            topology.nodes.insert(node.id.clone(), node.clone());
        }
    }
}

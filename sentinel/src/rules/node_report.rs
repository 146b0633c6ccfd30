//! What a node answers when it is asked how it is.

use keyward_proto::ids::{Incarnation, NodeId, Term};
use keyward_proto::rpc;
use keyward_proto::topology::Node;

use super::failover::{Answer, NodeState, Role};

/// What a node answered, in the words of the wire too: for the Sentinel API and `status`.
#[derive(Debug, Clone)]
pub struct Report {
    pub answer: Answer,
    pub status: Option<rpc::NodeStatus>,
}

impl Report {
    pub(crate) fn without_status(answer: Answer) -> Self {
        Report { answer, status: None }
    }

    /// The start of its process that we know has answered.
    pub fn is_of(&self, node: &Node) -> bool {
        matches!(&self.answer, Answer::Status(state) if state.incarnation == node.incarnation)
    }

    /// Another node at the address counts as nobody there: its process is not the one that we know.
    pub fn of(expected: &NodeId, status: rpc::NodeStatus) -> Report {
        if status.node_id != expected.as_str() {
            return Report::without_status(Answer::Refused);
        }
        let role = match status.role.as_str() {
            "primary" => Role::Primary,
            "replica" => Role::Replica,
            _ => Role::None,
        };
        let state = NodeState {
            incarnation: Incarnation::new(status.incarnation),
            role,
            term: Term::new(status.term),
            last: status.last.unwrap_or_default().into(),
            usable: !status.loading && (status.consistent || role != Role::Replica),
            leases: status.leases.iter().filter_map(|id| NodeId::parse(id)).collect(),
            cut_off: status.cut_off,
        };
        Report { answer: Answer::Status(state), status: Some(status) }
    }
}

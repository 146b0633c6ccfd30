//! Who may call what. Checked by the path of a call, before its message is decoded; what a message says of its sender is
//! checked against [`Peer::speaks_for`].

use std::fmt;

use crate::ids::NodeId;

/// Bytes of a name, at most.
pub const NAME_BYTES_MAX: usize = 64;

/// What a process is to the others; the numbers are those of the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Node = 1,
    Sentinel = 2,
    /// A person, by `keyward-sentinel COMMAND`.
    Operator = 3,
}

impl Role {
    pub(super) fn from_number(number: u8) -> Option<Role> {
        [Role::Node, Role::Sentinel, Role::Operator].into_iter().find(|role| *role as u8 == number)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Node => "a node",
            Role::Sentinel => "a sentinel",
            Role::Operator => "an operator",
        })
    }
}

/// Who a process says that it is, with a proof that it belongs to the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    role: Role,
    name: String,
}

impl Identity {
    /// A node's name is its ID. `None`: the name is none that this role has.
    pub fn new(role: Role, name: &str) -> Option<Identity> {
        let fits = match role {
            Role::Node => NodeId::parse(name).is_some(),
            Role::Sentinel => {
                !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control)
            }
            Role::Operator => name.is_empty(),
        };
        fits.then(|| Identity { role, name: name.to_owned() })
    }

    pub fn node(id: &NodeId) -> Identity {
        Identity { role: Role::Node, name: id.to_string() }
    }

    pub fn operator() -> Identity {
        Identity { role: Role::Operator, name: String::new() }
    }

    /// Whether a certificate with these URIs lets its owner be this one. `keyward:node`, `keyward:sentinel` and
    /// `keyward:operator` name a role, `keyward:node:ID` and `keyward:sentinel:NAME` one process. A certificate that says
    /// nothing of the kind binds nothing.
    pub fn is_named_by(&self, uris: &[String]) -> bool {
        let mut named = uris.iter().filter_map(|uri| uri.strip_prefix("keyward:")).peekable();
        let role = match self.role {
            Role::Node => "node",
            Role::Sentinel => "sentinel",
            Role::Operator => "operator",
        };
        let fits = |named: &str| match named.split_once(':') {
            Some((of_role, name)) => of_role == role && name == self.name,
            None => named == role,
        };
        named.peek().is_none() || named.any(fits)
    }

    pub fn role(&self) -> Role {
        self.role
    }

    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// There is no secret, and it is on this machine.
    Local,
    Proven(Identity),
}

/// A call, or something in it, that is not for this peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("{0} may not call {1}")]
    Call(Role, String),
    #[error("unknown: {0}")]
    Unknown(String),
    #[error("{said} is asked in the name of {claimed}, over a connection of {peer}")]
    Name { said: &'static str, claimed: String, peer: String },
}

use Role::{Node, Operator, Sentinel};

/// Every call of `keyward.proto`, and who may make it. A sentinel passes on to the leader what it was asked.
const CALLS: &[(&str, &[Role])] = &[
    ("/keyward.v1.Replication/Follow", &[Node]),
    ("/keyward.v1.NodeControl/Status", &[Node, Sentinel, Operator]),
    ("/keyward.v1.NodeControl/Publish", &[Node]),
    ("/keyward.v1.NodeControl/StartHandoff", &[Node, Sentinel]),
    ("/keyward.v1.Control/Register", &[Node, Sentinel]),
    ("/keyward.v1.Control/AnnounceLoading", &[Node, Sentinel]),
    ("/keyward.v1.Control/WatchTopology", &[Node]),
    ("/keyward.v1.Control/ReportStatus", &[Node]),
    ("/keyward.v1.Control/ChangeInSync", &[Node, Sentinel]),
    ("/keyward.v1.Control/RequestFailover", &[Node, Sentinel]),
    ("/keyward.v1.Control/Handoff", &[Node, Sentinel]),
    ("/keyward.v1.Control/Admin", &[Sentinel, Operator]),
    ("/keyward.v1.Control/AskNode", &[Sentinel]),
    ("/keyward.v1.Raft/AppendEntries", &[Sentinel]),
    ("/keyward.v1.Raft/Vote", &[Sentinel]),
    ("/keyward.v1.Raft/InstallSnapshot", &[Sentinel]),
];

impl Peer {
    /// Whether it may call the method of this path.
    ///
    /// # Errors
    /// It may not.
    pub fn may_call(&self, path: &str) -> Result<(), Denied> {
        let Peer::Proven(identity) = self else { return Ok(()) };
        match CALLS.iter().find(|(call, _)| *call == path) {
            None => Err(Denied::Unknown(path.chars().filter(|c| !c.is_control()).take(100).collect())),
            Some((_, roles)) if roles.contains(&identity.role) => Ok(()),
            Some((call, _)) => {
                let method = call.trim_start_matches("/keyward.v1.").replace('/', ".");
                Err(Denied::Call(identity.role, method))
            }
        }
    }

    /// Whether it may say that `node` does or wants something (`said`): the node itself, and sentinels, which pass it on.
    ///
    /// # Errors
    /// It is another node.
    pub fn speaks_for(&self, node: &str, said: &'static str) -> Result<(), Denied> {
        match self {
            Peer::Proven(identity) if identity.role == Node && identity.name != node => Err(Denied::Name {
                said,
                claimed: node.chars().filter(char::is_ascii_graphic).take(NAME_BYTES_MAX).collect(),
                peer: identity.name.clone(),
            }),
            Peer::Proven(_) | Peer::Local => Ok(()),
        }
    }

    /// Whether it is one of the sentinels, or as good as one.
    pub fn is_sentinel(&self) -> bool {
        match self {
            Peer::Local => true,
            Peer::Proven(identity) => identity.role == Sentinel,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "0123456789012345678901234567890123456789";
    const OTHER: &str = "9876543210987654321098765432109876543210";

    fn peer(role: Role, name: &str) -> Peer {
        Peer::Proven(Identity::new(role, name).unwrap())
    }

    #[test]
    fn every_call_of_the_protocol_has_its_roles() {
        let (mut service, mut calls) = ("", Vec::new());
        for line in include_str!("../../proto/keyward.proto").lines().map(str::trim) {
            if let Some(rest) = line.strip_prefix("service ") {
                service = rest.trim_end_matches(" {");
            } else if let Some((method, _)) = line.strip_prefix("rpc ").and_then(|rest| rest.split_once('('))
            {
                calls.push(format!("/keyward.v1.{service}/{method}"));
            }
        }
        let listed: Vec<&str> = CALLS.iter().map(|(call, _)| *call).collect();
        assert_eq!(listed, calls);
    }

    #[test]
    fn roles_do_what_is_theirs() {
        let node = peer(Node, ONE);
        assert_eq!(node.may_call("/keyward.v1.Replication/Follow"), Ok(()));
        let words = node.may_call("/keyward.v1.Raft/Vote").unwrap_err().to_string();
        assert_eq!(words, "a node may not call Raft.Vote");
        assert!(peer(Operator, "").may_call("/keyward.v1.Replication/Follow").is_err());
        assert!(peer(Sentinel, "s1").may_call("/keyward.v1.NodeControl/Publish").is_err());
        assert!(node.may_call("/keyward.v1.Raft/vote").is_err());
        assert_eq!(node.may_call("/\n").unwrap_err().to_string(), "unknown: /");
        assert_eq!(Peer::Local.may_call("/keyward.v1.Raft/Vote"), Ok(()));
    }

    #[test]
    fn a_node_speaks_for_itself() {
        assert_eq!(peer(Node, ONE).speaks_for(ONE, "registration"), Ok(()));
        let words = peer(Node, ONE).speaks_for(OTHER, "registration").unwrap_err().to_string();
        let told = format!("registration is asked in the name of {OTHER}, over a connection of {ONE}");
        assert_eq!(words, told);
        assert_eq!(peer(Sentinel, "s1").speaks_for(OTHER, "registration"), Ok(()));
        assert_eq!(Peer::Local.speaks_for(OTHER, "registration"), Ok(()));
    }

    #[test]
    fn a_certificate_binds_what_it_names() {
        let names = |uris: &[&str], identity: &Identity| {
            identity.is_named_by(&uris.iter().map(|uri| (*uri).to_owned()).collect::<Vec<_>>())
        };
        let node = Identity::new(Node, ONE).unwrap();
        let (this, other) = (format!("keyward:node:{ONE}"), format!("keyward:node:{OTHER}"));
        for uris in [
            &[][..],
            &["spiffe://x/y"],
            &["keyward:node"],
            &[&this],
            &[&other, &this],
            &["keyward:operator", "keyward:node"],
        ] {
            assert!(names(uris, &node), "{uris:?}");
        }
        for uris in [
            &["keyward:sentinel"][..],
            &[&other],
            &["keyward:"],
            &["keyward:nodes"],
            &["x", "keyward:operator"],
        ] {
            assert!(!names(uris, &node), "{uris:?}");
        }
        assert!(names(&["keyward:sentinel:s1"], &Identity::new(Sentinel, "s1").unwrap()));
        assert!(!names(&["keyward:sentinel:s1"], &Identity::new(Sentinel, "s2").unwrap()));
        assert!(names(&["keyward:operator"], &Identity::operator()));
    }

    #[test]
    fn names_are_what_their_role_has() {
        assert!(Identity::new(Node, "short").is_none());
        assert!(Identity::new(Sentinel, "").is_none());
        assert!(Identity::new(Sentinel, "a\nb").is_none());
        assert!(Identity::new(Sentinel, &"x".repeat(65)).is_none());
        assert!(Identity::new(Operator, "root").is_none());
        assert_eq!(Identity::new(Operator, ""), Some(Identity::operator()));
    }
}

//! What operators and other sentinels ask for, and the words in which they are answered.
//!
//! Architecture invariant: no clock, no socket; the shells are [`crate::shell::control::admin`], where a sentinel does
//! it, and [`crate::shell::cli`], where the program asks one.

use std::fmt;

use keyward_proto::ids::{NodeId, ShardId};
use keyward_proto::peer::Trouble;
use keyward_proto::rpc;
use keyward_proto::rpc::admin_reply::Outcome;
use keyward_proto::rpc::admin_request::Command;
use keyward_proto::topology::names::host_port;
use keyward_proto::topology::{SentinelAddress, Shard, Topology};

use super::founding::{Holds, Members, Presence};
use super::lookup::{find_node, find_shard};
use super::timeline::Change;
use super::topology::{RaftId, Refusal, TopologyCommand};

pub(crate) fn request(command: Command) -> rpc::AdminRequest {
    rpc::AdminRequest { command: Some(command) }
}

pub(crate) fn reply(outcome: Outcome) -> rpc::AdminReply {
    rpc::AdminReply { outcome: Some(outcome) }
}

/// One line, whatever became of it.
pub(crate) fn line(result: Result<String, String>) -> rpc::AdminReply {
    reply(match result {
        Ok(text) => Outcome::Done(text),
        Err(reason) => Outcome::Refused(reason),
    })
}

/// What became of a command that changes the topology.
pub(crate) fn changed(topology: &Topology, result: Result<(), Refusal>) -> rpc::AdminReply {
    line(result.map(|()| "OK".into()).map_err(|refusal| topology.with_names(&refusal.to_string())))
}

/// What a command that has nothing more to say has done, or why it did not.
///
/// # Errors
/// The reason, in one line.
pub(crate) fn done(reply: rpc::AdminReply) -> Result<String, String> {
    match reply.outcome {
        Some(Outcome::Done(text)) => Ok(text),
        Some(Outcome::Refused(reason)) => Err(reason),
        Some(Outcome::Identity(_) | Outcome::Status(_) | Outcome::Timeline(_)) | None => {
            Err("the answer is not understood".into())
        }
    }
}

/// What this sentinel says of itself.
pub(crate) fn identity(name: &str, sentinel_id: RaftId, holds: Holds, timeline_mark: u64) -> rpc::AdminReply {
    let (name, holds_group) = (name.to_owned(), holds == Holds::Group);
    reply(Outcome::Identity(rpc::SentinelIdentity { name, sentinel_id, holds_group, timeline_mark }))
}

/// What a sentinel remembers of changes of primaries.
pub(crate) fn timeline(changes: &[Change]) -> rpc::AdminReply {
    let body = serde_json::to_vec(changes).expect("plain values are valid JSON");
    reply(Outcome::Timeline(body.into()))
}

/// By which the changes that a sentinel remembers differ from those of others; `None` of an older program.
pub(crate) fn timeline_mark(reply: &rpc::AdminReply) -> Option<u64> {
    match &reply.outcome {
        Some(Outcome::Identity(identity)) => Some(identity.timeline_mark).filter(|mark| *mark != 0),
        _ => None,
    }
}

/// What another one remembers; nothing if it said something else.
pub(crate) fn remembered(reply: &rpc::AdminReply) -> Vec<Change> {
    match &reply.outcome {
        Some(Outcome::Timeline(body)) => serde_json::from_slice(body).unwrap_or_default(),
        _ => Vec::new(),
    }
}

/// What another one has said of itself; `None` if it said something else.
pub(crate) fn presence(reply: rpc::AdminReply) -> Option<Presence> {
    let Some(Outcome::Identity(identity)) = reply.outcome else { return None };
    let rpc::SentinelIdentity { sentinel_id: id, holds_group, .. } = identity;
    let holds = if holds_group || id == 0 { Holds::Group } else { Holds::Nothing };
    Some(Presence { id, holds })
}

/// A sentinel tells where it is reached.
pub(crate) fn announce(sentinel_id: RaftId, address: SentinelAddress) -> Command {
    let SentinelAddress { name, host, port, bus_port, tls_port } = address;
    let [port, bus_port, tls_port] = [port, bus_port, tls_port].map(u32::from);
    Command::Announce(rpc::AnnounceCommand { sentinel_id, name, host, port, bus_port, tls_port })
}

/// # Errors
/// What is wrong with it, in one line.
pub(crate) fn announced(
    command: &rpc::AnnounceCommand,
    members: &Members,
) -> Result<TopologyCommand, String> {
    if !members.nodes.contains_key(&command.sentinel_id) {
        return Err("it is no member of the group (any more)".into());
    }
    let port =
        |number| u16::try_from(number).map_err(|_| "the port of a sentinel is beyond 65535".to_owned());
    let address = SentinelAddress {
        name: command.name.clone(),
        host: command.host.clone(),
        port: port(command.port)?,
        bus_port: port(command.bus_port)?,
        tls_port: port(command.tls_port)?,
    };
    Ok(TopologyCommand::AnnounceSentinel { id: command.sentinel_id, address })
}

/// Which shard an operator means, and which node should lead it.
///
/// # Errors
/// What is wrong with it, in one line.
pub(crate) fn meant<'a>(
    topology: &'a Topology,
    command: &rpc::FailoverCommand,
) -> Result<(&'a Shard, Option<&'a NodeId>), String> {
    let shard = find_shard(topology, &command.shard)?;
    let target = Some(&command.target).filter(|target| !target.is_empty());
    let node = target.map(|text| find_node(topology, text)).transpose()?;
    Ok((shard, node.map(|n| &n.id)))
}

/// The answer to an operator who asked for another primary; `after` is the topology by then.
pub(crate) fn failed_over(after: &Topology, shard: &ShardId, result: Result<(), String>) -> rpc::AdminReply {
    let primary = after.shards.get(shard).and_then(|s| s.primary.as_ref()).and_then(|id| after.nodes.get(id));
    let address = primary.map(|n| format!("{} at {}", n.id, host_port(&n.host, n.port)));
    let address = address.unwrap_or_else(|| "not known yet".into());
    line(result.map(|()| format!("OK, the primary is {address}")).map_err(|r| after.with_names(&r)))
}

/// Why a sentinel did not do what the program was told to ask of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It was not reached, so nothing was done: another one may be asked.
    NotReached {
        address: String,
        trouble: Trouble,
    },
    /// It is unknown what was done.
    Broken {
        address: String,
        trouble: Trouble,
    },
    Refused(String),
}

impl Failure {
    /// The connection was there, and then the call failed.
    pub(crate) fn of_call(address: &str, trouble: Trouble) -> Failure {
        let address = address.to_owned();
        match trouble {
            Trouble::Says(words) => Failure::Refused(words),
            Trouble::Wrong(_) | Trouble::IsNode => Failure::NotReached { address, trouble },
            _ => Failure::Broken { address, trouble },
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::NotReached { address, trouble } | Failure::Broken { address, trouble } => {
                write!(f, "can't reach a sentinel at {address}: {trouble}")
            }
            Failure::Refused(reason) => f.write_str(reason),
        }
    }
}

/// What sentinels that were asked in turn have said: the first that is reached does it, or not.
#[derive(Debug, Default)]
pub(crate) struct Tried {
    failures: Vec<String>,
}

impl Tried {
    /// `None`: the next one is asked.
    pub(crate) fn step(
        &mut self,
        answer: Result<rpc::AdminReply, Failure>,
    ) -> Option<Result<String, String>> {
        match answer {
            Ok(reply) => Some(done(reply)),
            Err(failure) => {
                self.failures.push(failure.to_string());
                let is_open = matches!(failure, Failure::NotReached { .. });
                (!is_open).then(|| Err(self.failures.join("\n")))
            }
        }
    }

    /// Nobody is left to ask.
    pub(crate) fn end(self) -> Result<String, String> {
        Err(self.failures.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use keyward_proto::peer::Speaks;

    use super::*;
    use crate::rules::failover::tests::{id, topology};

    #[test]
    fn what_is_announced_is_what_is_applied() {
        let address =
            SentinelAddress { name: "a".into(), host: "h".into(), port: 1, bus_port: 2, tls_port: 3 };
        let Command::Announce(mut command) = announce(7, address.clone()) else { panic!() };
        let members = Members { voters: vec![7], nodes: [(7, "a=h:2".to_owned())].into() };
        let replaced = announced(&command, &Members::default());
        assert_eq!(replaced, Err("it is no member of the group (any more)".into()));
        assert_eq!(announced(&command, &members), Ok(TopologyCommand::AnnounceSentinel { id: 7, address }));
        command.bus_port = 65536;
        assert_eq!(announced(&command, &members), Err("the port of a sentinel is beyond 65535".into()));
    }

    #[test]
    fn who_says_no_id_counts_as_holding_something() {
        for (id, holds, expected) in [
            (5, Holds::Group, Holds::Group),
            (5, Holds::Nothing, Holds::Nothing),
            (0, Holds::Nothing, Holds::Group),
        ] {
            assert_eq!(presence(identity("a", id, holds, 0)), Some(Presence { id, holds: expected }));
        }
        assert_eq!(presence(line(Ok("OK".into()))), None);
    }

    #[test]
    fn an_operator_names_shards_and_nodes() {
        let mut topology = topology();
        topology.nodes.get_mut(&id(2)).unwrap().port = 7002;
        let shard = topology.shards.values().next().unwrap();
        let ask = |shard: &str, target: &str| {
            meant(&topology, &rpc::FailoverCommand { shard: shard.into(), target: target.into() })
        };
        assert_eq!(ask("mymaster", ""), Ok((shard, None)));
        assert_eq!(ask(shard.id.as_str(), "127.0.0.1:7002"), Ok((shard, Some(&id(2)))));
        assert_eq!(ask("mymaster", "127.0.0.1:7000"), Err("several nodes match 127.0.0.1:7000".into()));
        assert_eq!(ask("x", ""), Err("there is no shard x".into()));
        assert_eq!(ask("mymaster", "x"), Err("there is no node x".into()));
    }

    #[test]
    fn an_operator_is_told_who_leads_or_why_not() {
        let mut topology = topology();
        let shard = topology.shards.keys().next().unwrap().clone();
        let told = |topology: &Topology, result| done(failed_over(topology, &shard, result));
        let led = format!("OK, the primary is {} at 127.0.0.1:7000", id(1));
        assert_eq!(told(&topology, Ok(())), Ok(led));
        let reason = format!("{} is down", id(2));
        assert_eq!(told(&topology, Err(reason)), Err("127.0.0.1:7000 is down".into()));
        topology.shards.get_mut(&shard).unwrap().primary = None;
        assert_eq!(told(&topology, Ok(())), Ok("OK, the primary is not known yet".into()));
        let stale = Refusal::UnknownNode(id(1));
        assert_eq!(done(changed(&topology, Err(stale))), Err("node 127.0.0.1:7000 is not registered".into()));
        assert_eq!(done(changed(&topology, Ok(()))), Ok("OK".into()));
        assert_eq!(
            done(reply(Outcome::Status(Default::default()))),
            Err("the answer is not understood".into())
        );
    }

    #[test]
    fn the_next_sentinel_is_asked_only_if_nothing_can_have_been_done() {
        let silent = || Trouble::Silent;
        let refused = || Failure::NotReached { address: "a:1".into(), trouble: Trouble::Refused };
        let mut tried = Tried::default();
        assert_eq!(tried.step(Err(refused())), None);
        assert_eq!(tried.step(Ok(line(Ok("OK".into())))), Some(Ok("OK".into())));
        let first = "can't reach a sentinel at a:1: nobody listens there (connection refused)";
        let second = "can't reach a sentinel at b:1: no answer";
        let mut tried = Tried::default();
        assert_eq!(tried.step(Err(refused())), None);
        let broken = tried.step(Err(Failure::of_call("b:1", silent())));
        assert_eq!(broken, Some(Err(format!("{first}\n{second}"))));
        assert_eq!(Failure::of_call("a", Trouble::Says("no".into())), Failure::Refused("no".into()));
        let wrong = Failure::of_call("a", Trouble::Wrong(Speaks::Resp));
        assert!(matches!(wrong, Failure::NotReached { .. }));
        let mut tried = Tried::default();
        assert_eq!(tried.step(Err(refused())), None);
        assert_eq!(tried.end(), Err(first.into()));
    }
}

//! What nodes send, as the rules understand it: what is no ID or no port is refused here.

use std::collections::BTreeSet;

use keyward_proto::format;
use keyward_proto::ids::{Incarnation, NodeId, ShardId, Term};
use keyward_proto::rpc;
use keyward_proto::slot::Slot;
use keyward_proto::topology::{Detection, FastFailover, Holding, SlotRange};
use tonic::Status;

use crate::rules::failover::{Handoff, Trigger};
use crate::rules::in_sync::InSyncRequest;
use crate::rules::topology::{InSyncChange, Outcome, Refusal, Registration, TopologyCommand};

pub(super) fn node_id(text: &str) -> Result<NodeId, Status> {
    NodeId::parse(text).ok_or_else(|| Status::invalid_argument(format!("`{text}` is not a node ID")))
}

pub(super) fn shard_id(text: &str) -> Result<ShardId, Status> {
    ShardId::parse(text).ok_or_else(|| Status::invalid_argument(format!("`{text}` is not a shard ID")))
}

pub(super) fn port(number: u32) -> Result<u16, Status> {
    u16::try_from(number).map_err(|_| Status::invalid_argument(format!("{number} is not a port")))
}

pub(super) fn registration(request: &rpc::RegisterRequest) -> Result<Registration, Status> {
    format::agree(request.format).map_err(|foreign| Status::failed_precondition(foreign.to_string()))?;
    for (what, text) in [
        ("host", &request.host),
        ("host name", &request.hostname),
        ("zone", &request.zone),
        ("version", &request.version),
    ] {
        check_text(what, text)?;
    }
    Ok(Registration {
        id: node_id(&request.node_id)?,
        start_nonce: request.start_nonce,
        host: request.host.clone(),
        port: port(request.port)?,
        bus_port: port(request.bus_port)?,
        tls_port: port(request.tls_port)?,
        hostname: request.hostname.clone(),
        zone: request.zone.clone(),
        replica_priority: request.replica_priority,
        cluster_enabled: request.cluster_enabled,
        program_version: request.version.clone(),
        last: request.last.unwrap_or_default().into(),
        follows: Incarnation::new(request.known_incarnation),
        detection: detection(request),
        holding: request.holding.as_ref().map(holding).transpose()?,
        databases: u16::try_from(request.databases).ok().filter(|number| *number > 0),
        absent: BTreeSet::new(),
    })
}

/// As long as the longest name that DNS has.
const TEXT_BYTES_MAX: usize = 255;

/// What a node says of itself is kept, and shown in lines of logs and lists.
fn check_text(what: &str, text: &str) -> Result<(), Status> {
    if TEXT_BYTES_MAX < text.len() || text.chars().any(char::is_control) {
        let words = format!("the {what} has control characters in it, or more than {TEXT_BYTES_MAX} bytes");
        return Err(Status::invalid_argument(words));
    }
    Ok(())
}

pub(super) fn loading(request: &rpc::LoadingRequest) -> Result<TopologyCommand, Status> {
    check_text("host", &request.host)?;
    let (node, port) = (node_id(&request.node_id)?, port(request.port)?);
    Ok(TopologyCommand::AnnounceLoading { node, host: request.host.clone(), port })
}

fn holding(holding: &rpc::Holding) -> Result<Holding, Status> {
    let shard = Some(&holding.shard_id).filter(|id| !id.is_empty()).map(|id| shard_id(id)).transpose()?;
    let slots = holding.slots.as_ref().map(|span| {
        let [first, last] =
            [span.first, span.last].map(|number| u16::try_from(number).ok().and_then(Slot::new));
        first.zip(last).map(|(first, last)| SlotRange { first, last })
    });
    let slots = match slots {
        Some(None) => return Err(Status::invalid_argument("there is no such slot")),
        Some(Some(range)) if range.last < range.first => {
            return Err(Status::invalid_argument("a range of slots ends before it begins"));
        }
        Some(found) => found,
        None => None,
    };
    Ok(Holding { shard, slots })
}

/// A program that says nothing of it takes a refusal for no proof of death.
fn detection(request: &rpc::RegisterRequest) -> Detection {
    let fast_failover = match request.fast_failover() {
        rpc::FastFailover::No => FastFailover::No,
        rpc::FastFailover::Unspecified | rpc::FastFailover::Yes => FastFailover::Yes,
        rpc::FastFailover::Trusted => FastFailover::Trusted,
    };
    Detection { lease_millis: request.lease_millis, fast_failover }
}

/// What became of a registration.
pub(super) enum Registered {
    As(Incarnation),
    /// Nothing was done: the node is registered in another incarnation than the request says.
    Otherwise(Incarnation),
}

pub(super) fn registered(outcome: Result<Outcome, Refusal>) -> Result<Registered, Status> {
    match outcome {
        Ok(Outcome::Registered { incarnation }) => Ok(Registered::As(incarnation)),
        Ok(Outcome::Changed | Outcome::Unchanged) => Ok(Registered::As(Incarnation::ZERO)),
        Err(Refusal::StaleIncarnation { current }) => Ok(Registered::Otherwise(current)),
        Err(refusal) => Err(Status::failed_precondition(refusal.to_string())),
    }
}

pub(super) fn trigger(request: &rpc::FailoverRequest) -> Result<Trigger, Status> {
    let reporter = node_id(&request.reporter)?;
    Ok(match (request.takeover, request.force) {
        (true, _) => Trigger::Takeover { reporter },
        (false, true) => Trigger::Force { reporter },
        (false, false) => Trigger::Complaint { reporter },
    })
}

pub(super) fn handoff(request: &rpc::HandoffRequest) -> Result<Handoff, Status> {
    Ok(Handoff {
        shard: shard_id(&request.shard_id)?,
        primary: node_id(&request.primary)?,
        term: Term::new(request.term),
        target: node_id(&request.target)?,
        last: request.last.unwrap_or_default().into(),
        in_sync_version: request.in_sync_version,
    })
}

pub(super) fn in_sync_request(message: &rpc::ChangeInSyncRequest) -> Result<InSyncRequest, Status> {
    let change = if let Some(minimum) = message.minimum {
        InSyncChange::Minimum(minimum.nodes)
    } else if message.add.is_empty() {
        let nodes: Result<BTreeSet<NodeId>, Status> = message.remove.iter().map(|id| node_id(id)).collect();
        InSyncChange::Remove(nodes?)
    } else if message.remove.is_empty() {
        let incarnation = Incarnation::new(message.add_incarnation);
        InSyncChange::Add { node: node_id(&message.add)?, incarnation }
    } else {
        return Err(Status::invalid_argument("a change either removes nodes or adds one"));
    };
    Ok(InSyncRequest {
        shard: shard_id(&message.shard_id)?,
        primary: node_id(&message.primary)?,
        term: Term::new(message.term),
        version: message.in_sync_version,
        change,
        committed: message.committed.unwrap_or_default().into(),
        challenge: message.challenge,
    })
}

#[cfg(test)]
mod tests {
    use keyward_proto::format::FORMAT;
    use keyward_proto::ids::Position;
    use keyward_proto::rpc::Message;

    use super::*;

    #[test]
    fn a_node_of_the_format_before_registers_and_one_that_is_too_new_is_told_why_not() {
        let bytes = include_bytes!("../../../../proto/testdata/format_2/register_request.bin");
        let request = rpc::RegisterRequest::decode(&bytes[..]).unwrap();
        let Registration { host, port, last, .. } = registration(&request).unwrap();
        assert_eq!((host.as_str(), port, last), ("10.0.0.1", 6379, Position::new(3, 9)));
        let status = registration(&rpc::RegisterRequest { format: FORMAT + 2, ..request }).unwrap_err();
        assert!(status.message().contains("it is of format 5"), "{status}");
    }
}

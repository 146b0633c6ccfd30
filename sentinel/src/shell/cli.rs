//! The operator's subcommands: one question to a sentinel, one answer on the terminal.
#![allow(clippy::disallowed_methods, reason = "shell: asks over the network")]

mod watch;

use std::time::Duration;

use futures::future::join_all;
use keyward_net::bus::{Bus, refusal};
use keyward_net::reach::trouble;
use keyward_proto::bus::Identity;
use keyward_proto::peer::Trouble;
use keyward_proto::rpc;
use keyward_proto::rpc::admin_reply::Outcome;
use keyward_proto::rpc::admin_request;
use keyward_proto::rpc::control_client::ControlClient;
use keyward_proto::rpc::node_control_client::NodeControlClient;
use tokio::time::timeout;
use tonic::transport::Channel;

use crate::config::{Command, NamedAddress, Target};
use crate::rules::admin::{self, Failure, Tried};
use crate::rules::status::{Asked, Form, Names, Printed, ShardStatus, Shown, StatusReport};
use crate::shell::backup;
use crate::shell::channel::{self, endpoint};
use crate::shell::control::ADMIN_LIMIT;

/// A sentinel without a leader looks for one before it answers by itself.
const STATUS_LIMIT: Duration = Duration::from_secs(5);
const NODE_LIMIT: Duration = Duration::from_millis(1000);

/// Runs a subcommand.
///
/// # Errors
/// What went wrong, a line for each address that was asked.
pub async fn execute(command: Command) -> Result<Printed, String> {
    let done = |text| Printed { text, exit_code: 0 };
    match command {
        Command::Status { target, nodes, watch: true, .. } => watch::status(&target, &nodes).await,
        Command::Status { target, nodes, json, .. } => {
            show_status(&target, &nodes, if json { Form::Json } else { Form::Table }).await
        }
        Command::Failover { shard, to, target } => {
            let command = rpc::FailoverCommand { shard, target: to.unwrap_or_default() };
            ask(&target, admin_request::Command::Failover(command)).await.map(done)
        }
        Command::Adopt { target } => {
            ask(&target, admin_request::Command::Adopt(rpc::AdoptCommand {})).await.map(done)
        }
        Command::MinInSync { nodes, target } => {
            let command = rpc::MinInSyncCommand { nodes };
            ask(&target, admin_request::Command::MinInSync(command)).await.map(done)
        }
        Command::Backup { to, keep, access, target } => {
            let shards = shards(&target).await?;
            backup::save(&shards, (&to, keep), (&access, &target)).await.map(done)
        }
        Command::Restore { from, replace, access, target } => {
            let existing = if replace { backup::Existing::Replaced } else { backup::Existing::None };
            let shards = shards(&target).await?;
            backup::restore(&shards, (&from, existing), (&access, &target)).await.map(done)
        }
        Command::RemoveNode { node, target } => {
            let command = rpc::RemoveNodeCommand { node };
            ask(&target, admin_request::Command::RemoveNode(command)).await.map(done)
        }
    }
}

/// The shards, as a sentinel has them.
async fn shards(target: &Target) -> Result<Vec<ShardStatus>, String> {
    let bus = operator(target)?;
    let mut failures = Vec::new();
    match ask_for_status(&bus, target, rpc::StatusCommand::default(), &mut failures).await {
        Some(body) => serde_json::from_str::<StatusReport>(&body)
            .map(|report| report.shards)
            .map_err(|error| format!("a report that is not understood: {error}")),
        None => Err(failures.join("\n")),
    }
}

async fn show_status(target: &Target, nodes: &[NamedAddress], form: Form) -> Result<Printed, String> {
    let bus = operator(target)?;
    let names = names(nodes);
    let mut shown = Shown { sentinels: &target.sentinel, failures: Vec::new(), names, form };
    let command = rpc::StatusCommand::default();
    match ask_for_status(&bus, target, command, &mut shown.failures).await {
        Some(body) => shown.report(body),
        None => shown.nodes(&ask_nodes(&bus, nodes).await),
    }
}

fn names(nodes: &[NamedAddress]) -> Names {
    nodes.iter().filter_map(|n| Some((n.address.clone(), n.name.clone()?))).collect()
}

/// Of the first sentinel that answers, as it came.
async fn ask_for_status(
    bus: &Bus,
    target: &Target,
    command: rpc::StatusCommand,
    failures: &mut Vec<String>,
) -> Option<String> {
    for address in &target.sentinel {
        let command = admin_request::Command::Status(command);
        match ask_one(bus, address, command, STATUS_LIMIT).await.and_then(status_of) {
            Ok(body) => return Some(body),
            Err(failure) => failures.push(failure.to_string()),
        }
    }
    None
}

async fn ask_nodes(bus: &Bus, nodes: &[NamedAddress]) -> Vec<Asked> {
    join_all(nodes.iter().map(|node| ask_node(bus, node))).await
}

async fn ask_node(bus: &Bus, node: &NamedAddress) -> Asked {
    let address = &node.address;
    let asked = async {
        let channel = connect(bus, address).await?;
        let reply = NodeControlClient::new(channel).status(rpc::StatusRequest::default()).await;
        match reply {
            Ok(reply) => Ok(reply.into_inner()),
            Err(status) => Err(trouble(bus, address, Some(&status)).await),
        }
    };
    let answer = timeout(NODE_LIMIT, asked).await.unwrap_or(Err(Trouble::Silent));
    Asked { name: node.name.clone(), bus_address: address.clone(), answer }
}

async fn connect(bus: &Bus, address: &str) -> Result<Channel, Trouble> {
    let endpoint = endpoint(address).ok_or(Trouble::NotAnAddress)?;
    match bus.connect(&endpoint).await {
        Ok(channel) => Ok(channel),
        Err(error) => match refusal(&error) {
            Some(words) => Err(Trouble::Says(words)),
            None => Err(trouble(bus, address, None).await),
        },
    }
}

/// This person's part in it.
fn operator(target: &Target) -> Result<Bus, String> {
    channel::bus(Identity::operator(), &target.bus, &target.tls).map_err(|error| error.to_string())
}

/// The first sentinel that is reached does it, or not.
async fn ask(target: &Target, command: admin_request::Command) -> Result<String, String> {
    let bus = operator(target)?;
    let mut tried = Tried::default();
    for address in &target.sentinel {
        let limit = ADMIN_LIMIT + Duration::from_secs(1);
        if let Some(result) = tried.step(ask_one(&bus, address, command.clone(), limit).await) {
            return result;
        }
    }
    tried.end()
}

async fn ask_one(
    bus: &Bus,
    address: &str,
    command: admin_request::Command,
    limit: Duration,
) -> Result<rpc::AdminReply, Failure> {
    let not_reached = |trouble| Failure::NotReached { address: address.to_owned(), trouble };
    let channel = connect(bus, address).await.map_err(not_reached)?;
    match timeout(limit, ControlClient::new(channel).admin(admin::request(command))).await {
        Ok(Ok(reply)) => Ok(reply.into_inner()),
        Ok(Err(status)) => Err(Failure::of_call(address, trouble(bus, address, Some(&status)).await)),
        Err(_) => Err(Failure::of_call(address, Trouble::Silent)),
    }
}

/// The report as it came, to be shown as it is.
fn status_of(reply: rpc::AdminReply) -> Result<String, Failure> {
    match reply.outcome {
        Some(Outcome::Status(body)) => Ok(String::from_utf8_lossy(&body).into_owned()),
        _ => Err(Failure::Refused(admin::done(reply).unwrap_or_else(|reason| reason))),
    }
}

//! The operator's subcommands: one question to a sentinel, one answer on the terminal.
#![allow(clippy::disallowed_methods, reason = "shell: asks over the network")]

use std::time::Duration;

use futures::future::join_all;
use keyward_net::reach::trouble;
use keyward_proto::peer::Trouble;
use keyward_proto::rpc;
use keyward_proto::rpc::admin_reply::Outcome;
use keyward_proto::rpc::admin_request;
use keyward_proto::rpc::control_client::ControlClient;
use keyward_proto::rpc::node_control_client::NodeControlClient;
use tokio::time::timeout;
use tonic::transport::Channel;

use crate::config::{Command, NamedAddress, Target};
use crate::rules::status::{self, Asked, Names, StatusReport, from_nodes, verdict};
use crate::shell::channel::endpoint;
use crate::shell::control::ADMIN_LIMIT;
use crate::shell::control::admin;

/// A sentinel without a leader looks for one before it answers by itself.
const STATUS_LIMIT: Duration = Duration::from_secs(5);
const NODE_LIMIT: Duration = Duration::from_millis(1000);

/// What is printed, and how the program ends.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub text: String,
    pub exit_code: u8,
}

/// Runs a subcommand.
///
/// # Errors
/// What went wrong, a line for each address that was asked.
pub async fn execute(command: Command) -> Result<Answer, String> {
    let done = |text| Answer { text, exit_code: 0 };
    match command {
        Command::Status { target, nodes, json } => show_status(&target, &nodes, json).await,
        Command::Failover { shard, to, target } => {
            let command = rpc::FailoverCommand { shard, target: to.unwrap_or_default() };
            ask(&target, admin_request::Command::Failover(command)).await.map(done)
        }
        Command::RemoveNode { node, target } => {
            let command = rpc::RemoveNodeCommand { node };
            ask(&target, admin_request::Command::RemoveNode(command)).await.map(done)
        }
    }
}

async fn show_status(target: &Target, nodes: &[NamedAddress], json: bool) -> Result<Answer, String> {
    let mut failures = Vec::new();
    let mut body = None;
    for address in &target.sentinel {
        let command = admin_request::Command::Status(rpc::StatusCommand {});
        match ask_one(address, command, STATUS_LIMIT).await.and_then(status_of) {
            Ok(report) => {
                body = Some(report);
                break;
            }
            Err(failure) => failures.push(failure.to_string()),
        }
    }
    let report: StatusReport = match &body {
        Some(body) => serde_json::from_str(body).map_err(|e| format!("the answer is not understood: {e}"))?,
        None => {
            let asked = join_all(nodes.iter().map(ask_node)).await;
            if !asked.iter().any(|a| a.answer.is_ok()) {
                failures.extend(asked.iter().filter_map(|a| {
                    let trouble = a.answer.as_ref().err()?;
                    let name = a.name.as_ref().map(|name| format!("{name} ")).unwrap_or_default();
                    Some(format!("can't reach the node {name}at {}: {}", a.bus_address, of_node(trouble)))
                }));
                return Err(failures.join("\n"));
            }
            from_nodes(&target.sentinel, &asked)
        }
    };
    let named = nodes.iter().filter_map(|n| Some((n.address.clone(), n.name.clone()?)));
    let names: Names = named.collect();
    let exit_code = verdict(&report.problems(&names)) as u8;
    let text = match (json, body) {
        (true, Some(body)) => body,
        (true, None) => serde_json::to_string(&report).map_err(|e| e.to_string())?,
        (false, _) => {
            let said: String = failures.iter().map(|line| format!("{line}\n")).collect();
            let gap = if said.is_empty() { "" } else { "\n" };
            format!("{said}{gap}{}", status::table(&report, &names))
        }
    };
    Ok(Answer { text, exit_code })
}

/// The words of [`Trouble`] are those for sentinels.
fn of_node(trouble: &Trouble) -> String {
    match trouble {
        Trouble::Wrong(_) => "that is not the bus port of a node".into(),
        other => other.to_string(),
    }
}

async fn ask_node(node: &NamedAddress) -> Asked {
    let address = &node.address;
    let asked = async {
        let channel = connect(address).await?;
        let reply = NodeControlClient::new(channel).status(rpc::StatusRequest::default()).await;
        match reply {
            Ok(reply) => Ok(reply.into_inner()),
            Err(status) => Err(trouble(address, Some(&status)).await),
        }
    };
    let answer = timeout(NODE_LIMIT, asked).await.unwrap_or(Err(Trouble::Silent));
    Asked { name: node.name.clone(), bus_address: address.clone(), answer }
}

async fn connect(address: &str) -> Result<Channel, Trouble> {
    let endpoint = endpoint(address).ok_or(Trouble::NotAnAddress)?;
    match endpoint.connect().await {
        Ok(channel) => Ok(channel),
        Err(_) => Err(trouble(address, None).await),
    }
}

/// Why a sentinel did not do what was asked.
enum Failure {
    /// It was not reached, so nothing was done.
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

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::NotReached { address, trouble } | Failure::Broken { address, trouble } => {
                write!(f, "can't reach a sentinel at {address}: {trouble}")
            }
            Failure::Refused(reason) => f.write_str(reason),
        }
    }
}

/// The first sentinel that is reached does it, or not.
async fn ask(target: &Target, command: admin_request::Command) -> Result<String, String> {
    let mut failures = Vec::new();
    for address in &target.sentinel {
        let limit = ADMIN_LIMIT + Duration::from_secs(1);
        match ask_one(address, command.clone(), limit).await {
            Ok(reply) => return admin::done(reply),
            Err(failure @ Failure::NotReached { .. }) => failures.push(failure.to_string()),
            Err(failure) => {
                failures.push(failure.to_string());
                break;
            }
        }
    }
    Err(failures.join("\n"))
}

async fn ask_one(
    address: &str,
    command: admin_request::Command,
    limit: Duration,
) -> Result<rpc::AdminReply, Failure> {
    let not_reached = |trouble| Failure::NotReached { address: address.to_owned(), trouble };
    let channel = connect(address).await.map_err(not_reached)?;
    match timeout(limit, ControlClient::new(channel).admin(admin::request(command))).await {
        Ok(Ok(reply)) => Ok(reply.into_inner()),
        Ok(Err(status)) => {
            let trouble = trouble(address, Some(&status)).await;
            Err(match trouble {
                Trouble::Says(words) => Failure::Refused(words),
                Trouble::Wrong(_) | Trouble::IsNode => not_reached(trouble),
                _ => Failure::Broken { address: address.to_owned(), trouble },
            })
        }
        Err(_) => Err(Failure::Broken { address: address.to_owned(), trouble: Trouble::Silent }),
    }
}

/// The report as it came, to be shown as it is.
fn status_of(reply: rpc::AdminReply) -> Result<String, Failure> {
    match reply.outcome {
        Some(Outcome::Status(body)) => Ok(String::from_utf8_lossy(&body).into_owned()),
        _ => Err(Failure::Refused(admin::done(reply).unwrap_or_else(|reason| reason))),
    }
}

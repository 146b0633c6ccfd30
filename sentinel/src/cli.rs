//! The operator's subcommands: one question to a sentinel, one answer on the terminal.
#![allow(clippy::disallowed_methods, reason = "shell: asks over the network")]

use std::fmt::Write;
use std::time::Duration;

use keyward_proto::rpc;
use keyward_proto::rpc::control_client::ControlClient;
use tokio::time::timeout;

use crate::channel::{endpoint, is_refused};
use crate::config::{Command, Target};
use crate::control::admin::{CLI_LIMIT, NodeStatus, StatusReport};

/// Runs a subcommand; the text to print, or one line that says what went wrong.
///
/// # Errors
/// One line.
pub async fn execute(command: Command) -> Result<String, String> {
    match command {
        Command::Status { target, json } => {
            let body = ask(&target, "status", Vec::new()).await?;
            if json {
                return Ok(body);
            }
            let report =
                serde_json::from_str(&body).map_err(|e| format!("the answer is not understood: {e}"))?;
            Ok(table(&report))
        }
        Command::Failover { shard, to, target } => {
            ask(&target, "failover", std::iter::once(shard).chain(to).collect()).await
        }
        Command::RemoveNode { node, target } => ask(&target, "remove-node", vec![node]).await,
    }
}

async fn ask(target: &Target, command: &str, arguments: Vec<String>) -> Result<String, String> {
    let address = &target.sentinel;
    let endpoint = endpoint(address).ok_or_else(|| format!("`{address}` is not host:bus-port"))?;
    let channel = endpoint.connect().await.map_err(|e| {
        let reason = if is_refused(&e) { "connection refused".into() } else { e.to_string() };
        format!("cannot reach a sentinel at {address}: {reason}")
    })?;
    let request = rpc::AdminRequest { command: command.into(), arguments };
    let limit = CLI_LIMIT + Duration::from_secs(1);
    let reply = timeout(limit, ControlClient::new(channel).admin(request)).await;
    let reply = reply.map_err(|_| format!("the sentinel at {address} did not answer in time"))?;
    let reply = reply.map_err(|status| status.message().to_owned())?.into_inner();
    let body = String::from_utf8_lossy(&reply.body).into_owned();
    if reply.ok { Ok(body) } else { Err(body) }
}

/// The report for people.
pub fn table(report: &StatusReport) -> String {
    let mut out = String::new();
    let mut rows = vec![["SENTINEL", "ID", "ADDRESS", "BUS", "STATE"].map(String::from).to_vec()];
    for s in &report.sentinels {
        let state = match (s.leader, s.up) {
            (true, _) => "leader",
            (false, true) => "up",
            (false, false) => "down",
        };
        rows.push(vec![
            s.name.clone(),
            s.id.to_string(),
            s.address.clone(),
            s.bus_address.clone(),
            state.into(),
        ]);
    }
    write_rows(&mut out, &rows);
    for shard in &report.shards {
        let slots = shard.slots.join(" ");
        let none = if shard.primary.is_none() { ", NO PRIMARY" } else { "" };
        let line =
            format!("\nshard {} ({}), slots {slots}, term {}{none}\n", shard.name, shard.id, shard.term);
        out.push_str(&line);
        write_nodes(&mut out, &shard.nodes);
    }
    if !report.spares.is_empty() {
        out.push_str("\nspare nodes\n");
        write_nodes(&mut out, &report.spares);
    }
    if report.shards.is_empty() {
        out.push_str("\nno shards yet: they form as soon as there is a node for each\n");
    }
    out
}

fn write_nodes(out: &mut String, nodes: &[NodeStatus]) {
    let header = ["NODE", "ADDRESS", "ROLE", "STATE", "IN-SYNC", "LAST", "LAG", "KEYS", "ZONE"];
    let mut rows = vec![header.map(String::from).to_vec()];
    for node in nodes {
        let in_sync = match (node.in_sync, node.restarted) {
            (true, true) => "restarted",
            (true, false) => "yes",
            (false, _) => "no",
        };
        rows.push(vec![
            node.id.get(..8).unwrap_or(&node.id).to_owned(),
            node.address.clone(),
            node.role.clone(),
            node.state.clone(),
            in_sync.into(),
            node.last.clone(),
            node.lag.map(|lag| lag.to_string()).unwrap_or_else(|| "-".into()),
            node.keys.to_string(),
            node.zone.clone(),
        ]);
    }
    write_rows(out, &rows);
}

fn write_rows(out: &mut String, rows: &[Vec<String>]) {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().filter_map(|r| r.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            write!(line, "{cell:width$}  ").expect("writing to a String cannot fail");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
}

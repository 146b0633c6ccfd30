//! INFO of a sentinel: the fields that clients and exporters look for.

use std::fmt::Write;

use bytes::Bytes;
use keyward_proto::{REDIS_VERSION, VALKEY_VERSION};

use super::command::lower;
use super::instances::View;
use crate::rules::events::sentinel_run_id;

/// The wanted sections, all of them by default.
pub(super) fn info(view: &View<'_>, sections: &[Bytes]) -> String {
    let sections: Vec<String> = sections.iter().map(|s| lower(s)).collect();
    let wanted = |name: &str| {
        let all = ["default", "all", "everything"];
        sections.is_empty() || sections.iter().any(|s| s == name || all.contains(&s.as_str()))
    };
    let mut parts = Vec::new();
    if wanted("server") {
        let uptime = view.now.since(view.started).as_secs();
        parts.push(format!(
            "# Server\r\nredis_version:{REDIS_VERSION}\r\nserver_name:valkey\r\nvalkey_version:{VALKEY_VERSION}\r\n\
             keyward_version:{}\r\nserver_mode:sentinel\r\nprocess_id:{}\r\nrun_id:{}\r\ntcp_port:{}\r\n\
             uptime_in_seconds:{uptime}\r\nuptime_in_days:{}\r\n",
            env!("CARGO_PKG_VERSION"),
            view.process_id,
            sentinel_run_id(view.own_id, view.own_name),
            view.port,
            uptime / 86400,
        ));
    }
    if wanted("clients") {
        parts.push(format!("# Clients\r\nconnected_clients:{}\r\n", view.connections));
    }
    if wanted("stats") {
        parts.push(format!(
            "# Stats\r\ntotal_connections_received:{}\r\ntotal_commands_processed:{}\r\n",
            view.connections_total, view.commands_total
        ));
    }
    if wanted("sentinel") {
        parts.push(sentinel_section(view));
    }
    parts.join("\r\n")
}

fn sentinel_section(view: &View<'_>) -> String {
    let all = view.monitored();
    let mut text = format!(
        "# Sentinel\r\nsentinel_masters:{}\r\nsentinel_tilt:0\r\nsentinel_tilt_since_seconds:-1\r\n\
         sentinel_total_tilt:0\r\nsentinel_running_scripts:0\r\nsentinel_scripts_queue_length:0\r\n\
         sentinel_simulate_failure_flags:0\r\n",
        all.len()
    );
    for (index, monitored) in all.iter().enumerate() {
        let Some(node) = view.primary_of(monitored.shard) else { continue };
        let is_down = monitored.shard.primary.is_none() || view.health.is_down(&node.id);
        write!(
            text,
            "master{index}:name={},status={},address={}:{},slaves={},sentinels={}\r\n",
            monitored.name,
            if is_down { "odown" } else { "ok" },
            view.host(node),
            view.port(node),
            view.replicas_of(monitored.shard).len(),
            view.others().count() + 1,
        )
        .expect("writing to a String cannot fail");
    }
    text
}

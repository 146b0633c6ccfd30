//! Sections Replication and Cluster.
//!
//! Offsets are log indexes, and the length of the backlog is a number of them: entries, not bytes. Only what is set in
//! bytes is shown in bytes, `repl_backlog_size` and what of it is in use, `repl_backlog_bytes`. The replication ID
//! stands for the history, so it changes with the term.

use keyward_proto::slot::SLOT_COUNT;
use keyward_replication::core::node_core::RoleStatus;
use keyward_replication::gate::GateState;

use super::Lines;
use crate::admin::ServerContext;
use crate::routing;

pub(super) fn replication(ctx: &mut ServerContext<'_, '_>, lines: &mut Lines) {
    let server = ctx.server;
    let (settings, routing) = (server.settings(), server.routing());
    let gate = &server.shared.gate;
    let (last, first, backlog_bytes) = {
        let log = server.shared.log.lock();
        (log.last().index.get(), log.first_index().get(), log.bytes())
    };
    let state = gate.state();
    let is_primary = matches!(state, GateState::Primary | GateState::Holding);
    lines.field("role", if is_primary { "master" } else { "slave" });
    if !is_primary {
        let primary = routing.my_primary();
        let link = link_of(ctx);
        let up = state == GateState::Replica && primary.is_some() && link.is_up;
        lines.fields(&[
            ("master_host", &primary.map_or_else(String::new, |n| routing::host(n, &settings))),
            ("master_port", &primary.map_or(0, |n| n.port)),
            ("master_link_status", &if up { "up" } else { "down" }),
            ("master_last_io_seconds_ago", &if link.is_up { link.silence_seconds } else { -1 }),
            ("master_sync_in_progress", &u8::from(state == GateState::Loading)),
        ]);
        if !link.is_up {
            lines.field("master_link_down_since_seconds", link.silence_seconds);
        }
        full_sync(ctx, lines);
        if let Some(reason) = server.shared.apply_failure.get() {
            lines.field("replica_apply_error", reason.replace(['\r', '\n'], " "));
        }
        lines.fields(&[
            ("slave_read_repl_offset", &last),
            ("slave_repl_offset", &last),
            ("slave_priority", &settings.replica_priority),
            ("slave_read_only", &1),
            ("replica_announced", &1),
        ]);
    }
    let replicas = if is_primary { server.replicas(&routing) } else { Vec::new() };
    lines.field("connected_slaves", replicas.len());
    for (number, replica) in replicas.iter().enumerate() {
        let state = if replica.in_sync { "online" } else { "wait_bgsave" };
        let host = routing::host(replica.node, &settings);
        lines.field(
            &format!("slave{number}"),
            format_args!(
                "ip={host},port={},state={state},offset={},lag={},type=main-channel",
                replica.node.port, replica.held, replica.lag_seconds
            ),
        );
    }
    let history = if gate.is_standalone() {
        server.run_id.clone()
    } else {
        let shard = routing.my_shard().map_or_else(String::new, |s| s.id.to_string());
        let hexadecimal: String = shard.chars().filter(char::is_ascii_hexdigit).collect();
        format!("{hexadecimal:0<24.24}{:016x}", gate.term().get())
    };
    lines.fields(&[
        ("replicas_waiting_psync", &0),
        (
            "master_failover_state",
            &if state == GateState::Holding { "failover-in-progress" } else { "no-failover" },
        ),
        ("master_replid", &history),
        ("master_replid2", &"0".repeat(40)),
        ("master_repl_offset", &last),
        ("second_repl_offset", &-1),
        ("repl_backlog_active", &u8::from(!gate.is_standalone())),
        ("repl_backlog_size", &settings.backlog_len_bytes),
        ("repl_backlog_first_byte_offset", &if gate.is_standalone() { 0 } else { first }),
        ("repl_backlog_histlen", &if gate.is_standalone() { 0 } else { (last + 1).saturating_sub(first) }),
        ("repl_backlog_bytes", &backlog_bytes),
    ]);
}

/// The stream to the primary.
struct Link {
    is_up: bool,
    /// Since the primary was last heard; -1: never.
    silence_seconds: i64,
}

fn link_of(ctx: &ServerContext<'_, '_>) -> Link {
    let status = ctx.server.replication.get().map(|r| r.status());
    match status.as_ref().map(|s| &s.role) {
        Some(RoleStatus::Replica { linked, silence, .. }) => {
            Link { is_up: *linked, silence_seconds: i64::try_from(silence.as_secs()).unwrap_or(i64::MAX) }
        }
        Some(RoleStatus::Primary { .. } | RoleStatus::None) | None => {
            Link { is_up: false, silence_seconds: -1 }
        }
    }
}

/// A running full sync: its size is not known before its end, so the share is that of the slots.
fn full_sync(ctx: &ServerContext<'_, '_>, lines: &mut Lines) {
    let status = ctx.server.replication.get().map(|r| r.status());
    let Some(RoleStatus::Replica { full_sync_progress: Some((slots, bytes)), silence, .. }) =
        status.as_ref().map(|s| &s.role)
    else {
        return;
    };
    #[allow(clippy::cast_precision_loss, reason = "two digits are shown")]
    let percent = *slots as f64 * 100.0 / f64::from(SLOT_COUNT);
    lines.fields(&[
        ("master_sync_total_bytes", &0),
        ("master_sync_read_bytes", bytes),
        ("master_sync_left_bytes", &0),
        ("master_sync_perc", &format_args!("{percent:.2}")),
        ("master_sync_last_io_seconds_ago", &silence.as_secs()),
    ]);
}

pub(super) fn cluster(ctx: &mut ServerContext<'_, '_>, lines: &mut Lines) {
    lines.field("cluster_enabled", u8::from(ctx.server.settings().cluster_enabled));
}

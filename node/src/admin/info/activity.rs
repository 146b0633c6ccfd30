//! Sections Clients, Stats, Commandstats, Errorstats and Keyspace.

use std::sync::atomic::{AtomicU64, Ordering};

use keyward_store::counts::Count;

use super::Lines;
use crate::admin::ServerContext;
use crate::io::pause::PauseMode;
use crate::message::ChannelKind;
use crate::stats::{Counter, ThreadStats};

pub(super) fn clients(ctx: &mut ServerContext<'_, '_>, lines: &mut Lines) {
    let server = ctx.server;
    ctx.session.describe();
    let all = server.clients.summary(server.clock.monotonic());
    let (until, mode) = server.pause.state();
    let now = server.clock.monotonic();
    let paused_for = until.since(now).as_millis();
    let actions = match (paused_for, mode) {
        (0, _) => "none",
        (_, PauseMode::Write) => "write",
        (_, PauseMode::All) => "all",
    };
    lines.fields(&[
        ("connected_clients", &all.connected),
        ("cluster_connections", &0),
        ("maxclients", &server.settings().maxclients),
        ("client_recent_max_input_buffer", &all.query_buffer_max),
        ("client_recent_max_output_buffer", &all.output_buffer_max),
        ("blocked_clients", &all.blocked),
        ("tracking_clients", &server.tracking.len()),
        ("pubsub_clients", &all.subscribers),
        ("watching_clients", &all.watching),
        ("clients_in_timeout_table", &all.blocked),
        ("total_watched_keys", &all.watched),
        ("total_blocking_keys", &all.waiting_keys),
        ("total_blocking_keys_on_nokey", &0),
        ("paused_reason", &if paused_for == 0 { "none" } else { "client_pause" }),
        ("paused_actions", &actions),
        ("paused_timeout_milliseconds", &paused_for),
    ]);
}

pub(super) fn stats(ctx: &mut ServerContext<'_, '_>, lines: &mut Lines) {
    let server = ctx.server;
    let sum = |counter: fn(&ThreadStats) -> &Counter| server.stats.sum(counter);
    let [commands, bytes_in, bytes_out] = server.stats.rates.per_second();
    #[allow(clippy::cast_precision_loss, reason = "two digits are shown")]
    let kilobytes = |bytes: u64| format!("{:.2}", bytes as f64 / 1024.0);
    lines.fields(&[
        ("total_connections_received", &sum(|t| &t.connections)),
        ("total_commands_processed", &sum(|t| &t.commands)),
        ("instantaneous_ops_per_sec", &commands),
        ("total_net_input_bytes", &sum(|t| &t.net_in_bytes)),
        ("total_net_output_bytes", &sum(|t| &t.net_out_bytes)),
        ("total_net_repl_input_bytes", &0),
        ("total_net_repl_output_bytes", &0),
        ("total_net_cluster_slot_import_bytes", &0),
        ("total_net_cluster_slot_export_bytes", &0),
        ("instantaneous_input_kbps", &kilobytes(bytes_in)),
        ("instantaneous_output_kbps", &kilobytes(bytes_out)),
        ("instantaneous_input_repl_kbps", &"0.00"),
        ("instantaneous_output_repl_kbps", &"0.00"),
        ("rejected_connections", &sum(|t| &t.rejected_connections)),
        ("sync_full", &server.shared.full_syncs.load(Ordering::Relaxed)),
        ("sync_partial_ok", &server.shared.partial_syncs.load(Ordering::Relaxed)),
        ("sync_partial_err", &0),
        ("expired_keys", &sum(|t| &t.expired_keys)),
        ("expired_fields", &sum(|t| &t.expired_fields)),
        ("expired_stale_perc", &"0.00"),
        ("expired_keys_with_volatile_items_stale_perc", &"0.00"),
    ]);
    let (exceeded_total, exceeded_current) = server.memory.exceeded_millis(server.clock.monotonic());
    lines.fields(&[
        ("expired_time_cap_reached_count", &sum(|t| &t.expire_time_cap_reached)),
        ("expire_cycle_cpu_milliseconds", &(sum(|t| &t.expire_nanos) / 1_000_000)),
        ("evicted_keys", &sum(|t| &t.evicted_keys)),
        ("evicted_clients", &sum(|t| &t.evicted_clients)),
        ("evicted_scripts", &server.scripts.cache.lock().evicted()),
        ("total_eviction_exceeded_time", &exceeded_total),
        ("current_eviction_exceeded_time", &exceeded_current),
        ("keyspace_hits", &sum(|t| &t.keyspace_hits)),
        ("keyspace_misses", &sum(|t| &t.keyspace_misses)),
        ("pubsub_channels", &server.pubsub.channel_count(ChannelKind::Global)),
        ("pubsub_patterns", &server.pubsub.pattern_count()),
        ("pubsubshard_channels", &server.pubsub.channel_count(ChannelKind::Shard)),
    ]);
    let [delay, delay_max, delays] = server.control_delay.figures();
    lines.fields(&[
        ("control_delay_usec", &delay),
        ("control_delay_usec_max", &delay_max),
        ("control_delays_over_100ms", &delays),
    ]);
    let [still, longest] = server.still_io_threads();
    lines.fields(&[("io_threads_still", &still), ("io_thread_still_usec_max", &longest)]);
    lines.fields(&[("latest_fork_usec", &server.snapshots.pause_micros()), ("total_forks", &0)]);
    lines.zeros(&[
        "migrate_cached_sockets",
        "slave_expires_tracked_keys",
        "active_defrag_hits",
        "active_defrag_misses",
        "active_defrag_key_hits",
        "active_defrag_key_misses",
        "total_active_defrag_time",
        "current_active_defrag_time",
    ]);
    lines.fields(&[
        ("tracking_total_keys", &server.keyspace.tracking.keys()),
        ("tracking_total_items", &server.keyspace.tracking.readers()),
        ("tracking_total_prefixes", &server.tracking.prefix_count()),
        ("unexpected_error_replies", &0),
    ]);
    lines.fields(&[
        ("total_error_replies", &sum(|t| &t.error_replies)),
        ("dump_payload_sanitizations", &0),
        ("total_reads_processed", &sum(|t| &t.reads)),
        ("total_writes_processed", &sum(|t| &t.writes)),
        ("io_threaded_reads_processed", &sum(|t| &t.reads)),
        ("io_threaded_writes_processed", &sum(|t| &t.writes)),
        ("io_threaded_freed_objects", &0),
        ("io_threaded_accept_processed", &0),
        ("io_threaded_poll_processed", &0),
        ("io_threaded_total_prefetch_batches", &0),
        ("io_threaded_total_prefetch_entries", &0),
        ("client_query_buffer_limit_disconnections", &sum(|t| &t.query_buffer_disconnections)),
        (
            "client_output_buffer_limit_disconnections",
            &(sum(|t| &t.output_buffer_disconnections)
                + server.pubsub.disconnections.load(Ordering::Relaxed)),
        ),
        ("reply_buffer_shrinks", &0),
        ("reply_buffer_expands", &0),
        ("eventloop_cycles", &0),
        ("eventloop_duration_sum", &0),
        ("eventloop_duration_cmd_sum", &0),
        ("instantaneous_eventloop_cycles_per_sec", &0),
        ("instantaneous_eventloop_duration_usec", &0),
        ("acl_access_denied_auth", &server.stats.auth_failures.load(Ordering::Relaxed)),
    ]);
    let refused = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    lines.fields(&[
        ("acl_access_denied_cmd", &refused(&server.refusals.commands)),
        ("acl_access_denied_key", &refused(&server.refusals.keys)),
        ("acl_access_denied_channel", &refused(&server.refusals.channels)),
    ]);
    lines.field("acl_access_denied_tls_cert", server.tls.unknown_users.load(Ordering::Relaxed));
    lines.field("acl_access_denied_db", refused(&server.refusals.databases));
    let [done, failed] = server.tls.counts();
    lines.fields(&[("tls_handshakes", &done), ("tls_handshakes_failed", &failed)]);
}

pub(super) fn commandstats(ctx: &mut ServerContext<'_, '_>, lines: &mut Lines) {
    for c in ctx.server.stats.per_command() {
        #[allow(clippy::cast_precision_loss, reason = "two digits are shown")]
        let per_call = c.nanos as f64 / 1000.0 / c.calls.max(1) as f64;
        lines.field(
            &format!("cmdstat_{}", c.name),
            format_args!(
                "calls={},usec={},usec_per_call={per_call:.2},rejected_calls={},failed_calls={}",
                c.calls,
                c.nanos / 1000,
                c.rejected,
                c.failed
            ),
        );
    }
}

pub(super) fn latencystats(ctx: &mut ServerContext<'_, '_>, lines: &mut Lines) {
    let settings = ctx.server.settings();
    if !settings.latency_tracking {
        return;
    }
    for c in ctx.server.stats.per_command().into_iter().filter(|c| 0 < c.times.total()) {
        let figure = |percent: &f64| {
            #[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
            let micros = c.times.percentile(*percent) as f64 / 1000.0;
            format!("p{percent}={micros:.3}")
        };
        let figures: Vec<String> = settings.latency_percentiles.iter().map(figure).collect();
        lines.field(&format!("latency_percentiles_usec_{}", c.name), figures.join(","));
    }
}

pub(super) fn errorstats(ctx: &mut ServerContext<'_, '_>, lines: &mut Lines) {
    for (code, count) in ctx.server.stats.errors() {
        lines.field(&format!("errorstat_{code}"), format_args!("count={count}"));
    }
}

/// Of a primary: what it has executed. A former one that does not know what of it was committed says nothing.
pub(super) fn keyspace(ctx: &mut ServerContext<'_, '_>, lines: &mut Lines) {
    if ctx.server.shared.gate.state().is_in_doubt() {
        return;
    }
    for (db, count) in ctx.keys.counts_of_all() {
        let Count { keys, expires, volatile, .. } = count;
        let value = format!("keys={keys},expires={expires},avg_ttl=0,keys_with_volatile_items={volatile}");
        lines.field(&format!("db{db}"), value);
    }
}

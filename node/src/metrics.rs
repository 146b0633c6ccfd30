//! What this node shows over HTTP (`metrics-port`): counters and figures, whether it makes progress, whether it can do what
//! its role is.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use keyward_net::observe::{Histogram, Observed, Page, Word, flag, float, label};
use keyward_proto::time::Monotonic;
use keyward_replication::core::node_core::RoleStatus;
use keyward_replication::gate::GateState;
use keyward_store::counts::Count;

use crate::process;
use crate::server::Server;
use crate::stats::{CommandTotals, Counter, TIME_BOUNDS, ThreadStats};

/// A node whose I/O threads answer nothing for so long is not well. Long commands are legitimate, so it is long.
const STILL_MAX: Duration = Duration::from_secs(60);

/// A node as it is seen from outside.
pub(crate) struct Metrics(pub(crate) Arc<Server>);

impl Observed for Metrics {
    fn page(&self) -> Page {
        let mut page = Page::default();
        process_figures(&self.0, &mut page);
        client_figures(&self.0, &mut page);
        keyspace_figures(&self.0, &mut page);
        command_figures(&self.0.stats.per_command(), &mut page);
        replication_figures(&self.0, &mut page);
        disk_figures(&self.0, &mut page);
        certificate_figures(&self.0, &mut page);
        page
    }

    fn health(&self) -> Word {
        let [count, longest] = self.0.still_io_threads();
        let longest = Duration::from_micros(longest);
        if STILL_MAX <= longest {
            return Err(format!("{count} I/O threads have made no step for {} s", longest.as_secs()));
        }
        Ok("ok".to_owned())
    }

    fn readiness(&self) -> Word {
        let server = &self.0;
        if let Some(progress) = server.loading.progress() {
            let percent = progress.loaded_bytes * 100 / progress.total_bytes.max(1);
            return Err(format!("loading: {percent} %, {} s are left", progress.eta_seconds));
        }
        readiness(server.shared.gate.state(), || server.shared.gate.lease_valid(server.clock.monotonic()))
    }

    fn flight(&self) -> Option<String> {
        self.0.replication.get()?.flights().text("asked")
    }
}

/// Whether clients get what they ask for, by the state and by whether leases are held.
fn readiness(state: GateState, holds_leases: impl FnOnce() -> bool) -> Word {
    match state {
        GateState::Primary if holds_leases() => Ok("ready: primary".to_owned()),
        GateState::Primary => Err("the primary holds no lease of its replicas: it waits for them".to_owned()),
        GateState::Replica => Ok("ready: replica".to_owned()),
        GateState::Holding => Err("the primary is handing its role over".to_owned()),
        GateState::InDoubt => Err("it does not know yet whether what it has executed last counts".to_owned()),
        GateState::NoPrimary => Err("its shard has no primary".to_owned()),
        GateState::Loading => Err("it lacks data".to_owned()),
        GateState::Undecided => Err("it has no role yet".to_owned()),
    }
}

fn size(number: usize) -> f64 {
    float(number as u64)
}

fn process_figures(server: &Server, page: &mut Page) {
    server.correct_memory();
    let memory = process::memory();
    let used = server.memory.used();
    let version = label("version", env!("CARGO_PKG_VERSION"));
    page.gauges("build_info", "The version of the program; always 1", [(version, 1.0)]);
    page.gauge("memory_used_bytes", "Bytes that are allocated", size(used));
    page.gauge(
        "memory_peak_bytes",
        "The most bytes that were allocated",
        size(server.memory.peak().max(used)),
    );
    page.gauge("memory_rss_bytes", "Bytes of main memory that the process occupies", size(memory.rss));
    let maxmemory = server.settings().maxmemory;
    page.gauge("memory_max_bytes", "What maxmemory is set to; 0: no bound", size(maxmemory));
    let [delay, delay_max, late] = server.control_delay.figures();
    page.gauge("control_delay_seconds", "How late control tasks last came to run", float(delay) / 1e6);
    page.gauge("control_delay_max_seconds", "How late they came at most", float(delay_max) / 1e6);
    page.counter("control_delays_over_100ms", "How often they were later than 100 ms", float(late));
    let [still, _] = server.still_io_threads();
    page.gauge("io_threads_still", "I/O threads that have made no step for a second", float(still));
}

fn client_figures(server: &Server, page: &mut Page) {
    let clients = server.clients.summary(server.clock.monotonic());
    page.gauge("clients_connected", "Connections of clients", size(clients.connected));
    page.gauge("clients_blocked", "Clients that wait for a key", size(clients.blocked));
    page.gauge("clients_max", "What maxclients is set to", size(server.settings().maxclients));
    page.gauge("clients_memory_bytes", "Bytes of clients with their buffers", size(clients.memory_bytes));
    let sum = |counter: fn(&ThreadStats) -> &Counter| float(server.stats.sum(counter));
    page.counter("connections", "Connections that were accepted", sum(|t| &t.connections));
    page.counter("connections_rejected", "Connections beyond maxclients", sum(|t| &t.rejected_connections));
    page.counter("net_input_bytes", "Bytes received from clients", sum(|t| &t.net_in_bytes));
    page.counter("net_output_bytes", "Bytes sent to clients", sum(|t| &t.net_out_bytes));
    let failures = float(server.stats.auth_failures.load(Ordering::Relaxed));
    page.counter("auth_failures", "AUTH and HELLO with a wrong password", failures);
    let errors = server.stats.errors();
    let errors = errors.iter().map(|(code, count)| (label("code", code), float(*count)));
    page.counters("error_replies", "Error replies by their first word", errors);
}

fn keyspace_figures(server: &Server, page: &mut Page) {
    let counts = server.keyspace.counts.all();
    let of_each = |figure: fn(&Count) -> usize| {
        let each: Vec<_> = counts.iter().map(|(db, count)| (label("db", db), size(figure(count)))).collect();
        each
    };
    page.gauges("keys", "Keys by database", of_each(Count::keys));
    let expiring = of_each(|count| usize::try_from(count.expires).unwrap_or(0));
    page.gauges("keys_expiring", "Keys with a time to live by database", expiring);
    let sum = |counter: fn(&ThreadStats) -> &Counter| float(server.stats.sum(counter));
    page.counter("keyspace_hits", "Reads of keys that were there", sum(|t| &t.keyspace_hits));
    page.counter("keyspace_misses", "Reads of keys that were not there", sum(|t| &t.keyspace_misses));
    page.counter("keys_expired", "Keys whose time was up", sum(|t| &t.expired_keys));
    page.counter("fields_expired", "Fields of hashes whose time was up", sum(|t| &t.expired_fields));
    page.counter("keys_evicted", "Keys that were evicted", sum(|t| &t.evicted_keys));
    page.gauge("lazyfree_pending", "Values that are still to be freed", size(server.lazyfree.pending()));
}

fn command_figures(commands: &[CommandTotals], page: &mut Page) {
    let of_each = |figure: fn(&CommandTotals) -> u64| {
        let each: Vec<_> = commands.iter().map(|c| (label("command", c.name), float(figure(c)))).collect();
        each
    };
    page.counters("commands_rejected", "Calls that were refused before they began", of_each(|c| c.rejected));
    page.counters("commands_failed", "Calls that ended with an error", of_each(|c| c.failed));
    let bounds: Vec<f64> = TIME_BOUNDS.iter().map(|micros| float(*micros) / 1e6).collect();
    let times = commands.iter().map(|command| {
        let counts = command.time_counts().to_vec();
        let histogram = Histogram { bounds: bounds.clone(), counts, sum: float(command.nanos) / 1e9 };
        (label("command", command.name), histogram)
    });
    page.histograms("command_seconds", "Time of calls; those of a batch share its time", times);
}

fn replication_figures(server: &Server, page: &mut Page) {
    let gate = &server.shared.gate;
    let state = gate.state();
    let is_primary = matches!(state, GateState::Primary | GateState::Holding);
    page.gauge("is_primary", "1: this node leads its shard, or runs alone", flag(is_primary));
    page.gauge("term", "Of the shard; it rises with each change of the primary", float(gate.term().get()));
    let (last, bytes) = {
        let log = server.shared.log.lock();
        (log.last().index.get(), log.bytes())
    };
    page.gauge("log_index", "The last entry of the write log", float(last));
    page.gauge("log_committed_index", "The last entry that is committed", float(gate.commit_index().get()));
    page.gauge("log_memory_bytes", "Bytes of the write log in memory", size(bytes));
    let [full, partial] = [&server.shared.full_syncs, &server.shared.partial_syncs];
    page.counter("syncs_full", "Full syncs of replicas", float(full.load(Ordering::Relaxed)));
    page.counter(
        "syncs_partial",
        "Replicas that went on with the log",
        float(partial.load(Ordering::Relaxed)),
    );
    let Some(replication) = server.replication.get() else { return };
    let now = server.clock.monotonic();
    let (routing, status) = (server.routing(), replication.status());
    if let RoleStatus::Replica { linked, silence, .. } = &status.role {
        page.gauge("primary_linked", "1: the stream of the primary is there", flag(*linked));
        page.gauge("primary_silence_seconds", "Since the primary was heard", silence.as_secs_f64());
        let behind = last.saturating_sub(status.applied.get());
        page.gauge("apply_lag_entries", "Entries that this replica has and has not applied", float(behind));
    }
    if is_primary {
        let margin = gate.lease_margin(now).as_secs_f64();
        page.gauge("lease_margin_seconds", "For how long leases of all members are still held", margin);
        replica_figures(server, &routing, last, page);
    }
    let heard = replication.sentinels_heard_at().map_or(-1.0, |at: Monotonic| now.since(at).as_secs_f64());
    page.gauge("sentinels_silence_seconds", "Since a sentinel confirmed the topology; -1: never", heard);
    page.gauge("topology_version", "Of the topology that this node knows", float(routing.topology.version));
}

fn replica_figures(server: &Server, routing: &crate::routing::Routing, last: u64, page: &mut Page) {
    let replicas = server.replicas(routing);
    let of_each = |figure: &dyn Fn(&crate::server::Replica<'_>) -> f64| {
        let address = |r: &crate::server::Replica<'_>| format!("{}:{}", r.node.host, r.node.port);
        let each: Vec<_> = replicas.iter().map(|r| (label("replica", address(r)), figure(r))).collect();
        each
    };
    page.gauges("replica_in_sync", "1: in the in-sync set", of_each(&|r| flag(r.in_sync)));
    let behind = of_each(&|r| float(last.saturating_sub(r.held)));
    page.gauges("replica_lag_entries", "Entries that a replica has not acknowledged", behind);
    page.gauges("replica_silence_seconds", "Since a replica was heard", of_each(&|r| float(r.lag_seconds)));
}

fn disk_figures(server: &Server, page: &mut Page) {
    let saves = server.saves.info(server.stats.sum(|thread| &thread.changes), server.clock.monotonic());
    page.gauge(
        "rdb_last_save_timestamp_seconds",
        "When the database was last saved",
        float(u64::try_from(saves.last_save).unwrap_or(0)),
    );
    page.gauge(
        "rdb_changes_since_last_save",
        "Changes of keys since then",
        float(saves.changes_since_last_save),
    );
    let ok = flag(saves.last_background_ok);
    page.gauge("rdb_last_save_ok", "1: the last save in the background succeeded", ok);
    let (aof, rewrite) = (server.aof.status(), server.aof.rewrite_info());
    page.gauge("aof_enabled", "1: changes are written to disk", flag(aof.enabled));
    if !aof.enabled {
        return;
    }
    let counters = &server.aof.counters;
    page.gauge("aof_bytes", "Bytes of the write log on disk", float(counters.total_bytes()));
    page.gauge(
        "aof_unwritten_bytes",
        "Bytes that are not written yet",
        float(server.shared.log.lock().unwritten_bytes()),
    );
    let ok = flag(aof.error.is_none());
    page.gauge("aof_write_ok", "1: the last write succeeded", ok);
    page.gauge("aof_rewrite_ok", "1: the last rewrite succeeded", flag(rewrite.last_ok));
    page.counter("aof_rewrites", "Rewrites of the write log on disk", float(rewrite.count));
    let delayed = float(counters.delayed_syncs.load(Ordering::Relaxed));
    page.counter("aof_syncs_delayed", "Syncs that had to wait for one under way", delayed);
}

fn certificate_figures(server: &Server, page: &mut Page) {
    let Some(material) = server.tls.material() else { return };
    let now = server.clock.unix_millis().0 / 1000;
    #[allow(clippy::cast_precision_loss, reason = "figures are shown with 16 digits")]
    let left = material.certificates().into_iter().filter_map(|(owner, certificate)| {
        Some((label("owner", owner), certificate?.seconds_left(now) as f64))
    });
    page.gauges("tls_certificate_seconds_left", "Until a certificate expires", left);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_ready_that_does_what_its_role_is() {
        assert_eq!(readiness(GateState::Primary, || true).unwrap(), "ready: primary");
        assert_eq!(readiness(GateState::Replica, || false).unwrap(), "ready: replica");
        assert!(readiness(GateState::Primary, || false).is_err());
        for state in [GateState::Holding, GateState::NoPrimary, GateState::Loading, GateState::Undecided] {
            assert!(readiness(state, || true).is_err(), "{state:?}");
        }
    }
}

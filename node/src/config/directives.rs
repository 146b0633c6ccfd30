//! All directives: names, types, defaults, whether they do something, and the older names that they also have.
//!
//! A directive is one row. A row that has an effect ends with the field of [`Settings`] that it sets: there is no other
//! place where its value is read, and a field of another type does not compile.

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use keyward_net::tls::{CipherPreference, Secret};
use keyward_store::rdb::Compression;
use keyward_store::types::quicklist::Fill;

use super::settings::Settings;
use super::types::{
    Buffers, Clamped, Ending, Events, FOLDER, FileName, Form, MemoryOrPercent, Octal, OneOf, Percentiles,
    Place, Primary, SavePoints, Scores, TEXT, TEXT_OR_EMPTY, Type, Words, YesNo, choice, int, memory,
    memory_from, number,
};

/// When a directive may be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Runtime,
    StartOnly,
    /// As `StartOnly`, for its effect on the host.
    Protected,
}
use Change::{Protected, Runtime, StartOnly};

/// What a directive does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// What its name says.
    Full,
    /// None, and nothing is missed: other values than the default are accepted, and told of in a warning.
    None,
    /// The feature does not exist, and would be missed: other values than the default are refused, for this reason.
    Absent(&'static str),
}

/// What CONFIG SET of a directive has to begin at once; all else sees the new settings by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Consequence {
    SetLogLevel,
    SetLogForm,
    SwitchWriteLog,
    /// The system has to allow so many.
    CheckClients,
    /// Files are read before anything is changed.
    LoadTls,
    /// Another port for TLS, or none.
    ListenTls,
}

#[derive(Debug)]
pub(super) struct Directive {
    pub(super) name: &'static str,
    pub(super) default: &'static str,
    pub(super) change: Change,
    pub(super) effect: Effect,
    pub(super) consequence: Option<Consequence>,
    rule: Box<dyn Rule>,
}

impl Directive {
    /// The text that CONFIG GET shows for a value, or why it is refused; `current` is the text that it replaces.
    pub(super) fn normalize(&self, text: &str, current: &str) -> Result<String, String> {
        self.rule.normalize(text, Place { name: self.name, current })
    }

    /// Sets the field of the settings, if there is one.
    pub(super) fn apply(&self, text: &str, settings: &mut Settings) -> Result<(), String> {
        self.rule.apply(text, Place { name: self.name, current: "" }, settings)
    }

    pub(super) fn form(&self) -> Form {
        self.rule.form()
    }

    fn with(self, consequence: Consequence) -> Directive {
        Directive { consequence: Some(consequence), ..self }
    }
}

/// A type with the field that its values set, whatever type it is.
trait Rule: Debug + Send + Sync {
    fn normalize(&self, text: &str, place: Place<'_>) -> Result<String, String>;
    fn apply(&self, text: &str, place: Place<'_>, settings: &mut Settings) -> Result<(), String>;
    fn form(&self) -> Form;
}

#[derive(Debug)]
struct Typed<K: Type> {
    kind: K,
    set: fn(&mut Settings, K::Value),
}

impl<K: Type> Rule for Typed<K> {
    fn normalize(&self, text: &str, place: Place<'_>) -> Result<String, String> {
        self.kind.parse(text, place).map(|value| self.kind.show(&value))
    }

    fn apply(&self, text: &str, place: Place<'_>, settings: &mut Settings) -> Result<(), String> {
        (self.set)(settings, self.kind.parse(text, place)?);
        Ok(())
    }

    fn form(&self) -> Form {
        self.kind.form()
    }
}

fn row<K: Type>(
    name: &'static str,
    kind: K,
    default: &'static str,
    change: Change,
    set: fn(&mut Settings, K::Value),
) -> Directive {
    Directive {
        name,
        default,
        change,
        effect: Effect::Full,
        consequence: None,
        rule: Box::new(Typed { kind, set }),
    }
}

/// Accepted so that a valkey.conf can stay as it is; what it tunes does not exist here or tunes itself.
fn inert<K: Type>(name: &'static str, kind: K, default: &'static str, change: Change) -> Directive {
    Directive { effect: Effect::None, ..row(name, kind, default, change, |_, _| {}) }
}

/// Not there: refused, so that nobody relies on it by mistake.
fn absent<K: Type>(
    name: &'static str,
    kind: K,
    default: &'static str,
    change: Change,
    why: &'static str,
) -> Directive {
    Directive { effect: Effect::Absent(why), ..row(name, kind, default, change, |_, _| {}) }
}

use Consequence::LoadTls;

const HERE: &str = "it is not available in this version";
const NO_PRIMARY_USER: &str = "a replica is no user: use 'cluster-secret-file'";

const INT: i64 = i32::MAX as i64;
const LONG: i64 = i64::MAX;
const PORT: i64 = u16::MAX as i64;

/// `None` for zero.
fn seconds(seconds: u64) -> Option<Duration> {
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

/// `None`: no file is named.
fn path(name: String) -> Option<PathBuf> {
    (!name.is_empty()).then(|| name.into())
}

/// `maxmemory-eviction-tenacity`: half a millisecond by default, 15 % more with each step above that.
fn eviction_time_max(tenacity: u32) -> Option<Duration> {
    const STEP: Duration = Duration::from_micros(50);
    match tenacity {
        0..=10 => Some(STEP * tenacity),
        11..100 => Some((STEP * 10).mul_f64(1.15_f64.powi(i32::try_from(tenacity - 10).unwrap_or(0)))),
        _ => None,
    }
}

/// As many threads as there are processors, if the number is zero.
fn io_threads(threads: usize) -> usize {
    match threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    }
}

/// Directives that are accepted with one value, whatever it is, and forgotten: of older versions, as Valkey does, and
/// one for tests that Redis 7.0 shows.
pub(super) static FORGOTTEN: &[&str] = &[
    "aof-disable-auto-gc",
    "dynamic-hz",
    "events-per-io-thread",
    "io-threads-do-reads",
    "list-max-ziplist-entries",
    "list-max-ziplist-value",
    "lua-replicate-commands",
    "sanitize-dump-payload",
];

/// Other names, with the one of the row.
pub(super) static ALIASES: &[(&str, &str)] = &[
    ("aof_rewrite_cpulist", "aof-rewrite-cpulist"),
    ("availability-zone", "zone"),
    ("bgsave_cpulist", "bgsave-cpulist"),
    ("bio_cpulist", "bio-cpulist"),
    ("cluster-port", "bus-port"),
    ("cluster-slave-no-failover", "cluster-replica-no-failover"),
    ("cluster-slave-validity-factor", "cluster-replica-validity-factor"),
    ("hash-max-ziplist-entries", "hash-max-listpack-entries"),
    ("hash-max-ziplist-value", "hash-max-listpack-value"),
    ("list-max-ziplist-size", "list-max-listpack-size"),
    ("lua-time-limit", "busy-reply-threshold"),
    ("masterauth", "primaryauth"),
    ("masteruser", "primaryuser"),
    ("min-slaves-max-lag", "min-replicas-max-lag"),
    ("min-slaves-to-write", "min-replicas-to-write"),
    ("repl-ping-slave-period", "repl-ping-replica-period"),
    ("server_cpulist", "server-cpulist"),
    ("slave-announce-ip", "replica-announce-ip"),
    ("slave-announce-port", "replica-announce-port"),
    ("slave-ignore-maxmemory", "replica-ignore-maxmemory"),
    ("slave-lazy-flush", "replica-lazy-flush"),
    ("slave-priority", "replica-priority"),
    ("slave-read-only", "replica-read-only"),
    ("slave-serve-stale-data", "replica-serve-stale-data"),
    ("slaveof", "replicaof"),
    ("slowlog-log-slower-than", "commandlog-execution-slower-than"),
    ("slowlog-max-len", "commandlog-slow-execution-max-len"),
    ("zset-max-ziplist-entries", "zset-max-listpack-entries"),
    ("zset-max-ziplist-value", "zset-max-listpack-value"),
];

pub(super) static DIRECTIVES: LazyLock<Vec<Directive>> = LazyLock::new(|| {
    vec![
        // Network
        row("port", int(0, PORT), "6379", StartOnly, |s, v| s.port = v),
        row("bind", Words, "* -::*", StartOnly, |s, v| s.bind = v.to_vec()),
        row("bus-port", int(0, PORT), "0", StartOnly, |s, v| s.bus_port = v),
        row("protected-mode", YesNo, "yes", Runtime, |s, v| s.protected_mode = v),
        row("tcp-backlog", int(0, INT), "511", StartOnly, |s, v| s.tcp_backlog = v),
        row("tcp-keepalive", int(0, INT), "300", Runtime, |s, v| s.tcp_keepalive = seconds(v)),
        row("timeout", int(0, INT), "0", Runtime, |s, v| s.timeout = seconds(v)),
        row("metrics-port", int(0, PORT), "0", StartOnly, |s, v| s.metrics_port = v),
        row("admin-port", int(0, PORT), "0", StartOnly, |s, v| s.admin_port = v),
        row("forwarding-port", int(0, PORT), "0", StartOnly, |s, v| s.forwarding_port = v),
        row("forwarding-tls-port", int(0, PORT), "0", StartOnly, |s, v| s.forwarding_tls_port = v),
        row("flight-recorder-files", int(0, 1000), "8", StartOnly, |s, v| s.flight_recorder_files = v),
        row("busy-reply-threshold", number(0, LONG), "5000", Runtime, |s, v| {
            s.busy_reply_threshold = Duration::from_millis(u64::try_from(v).unwrap_or(0))
        }),
        row("maxclients", int(1, 4294967295), "10000", Runtime, |s, v| s.maxclients = v)
            .with(Consequence::CheckClients),
        row("io-threads", int(0, 256), "0", StartOnly, |s, v| s.io_threads = io_threads(v)),
        row("enable-debug-command", choice(), "no", StartOnly, |s, v| s.debug_command = v),
        // Access
        row("requirepass", TEXT, "", Runtime, |s, v| s.requirepass = v),
        row("aclfile", TEXT, "", StartOnly, |s, v| s.aclfile = v),
        row("requirepass-file", TEXT, "", StartOnly, |s, v| s.requirepass_file = v),
        inert("primaryauth", TEXT, "", Runtime),
        // General
        row("dir", FOLDER, ".", Protected, |s, v| s.dir = v.into()),
        row("databases", int(1, PORT), "16", StartOnly, |s, v| s.standalone_databases = v),
        row("cluster-databases", int(1, PORT), "1", StartOnly, |s, v| s.cluster_databases = v),
        row("log-format", choice(), "legacy", Runtime, |s, v| s.log_format = v).with(Consequence::SetLogForm),
        row("log-timestamp-format", choice(), "legacy", Runtime, |s, v| s.log_timestamp_format = v)
            .with(Consequence::SetLogForm),
        row("loglevel", choice(), "notice", Runtime, |s, v| s.loglevel = v).with(Consequence::SetLogLevel),
        // INFO shows it.
        Directive {
            effect: Effect::None,
            ..row("hz", Clamped { min: 1, max: 500 }, "10", Runtime, |s, v| s.hz = v)
        },
        row("lfu-log-factor", int(0, INT), "10", Runtime, |s, v| s.lfu.log_factor = v),
        row("lfu-decay-time", int(0, INT), "1", Runtime, |s, v| s.lfu.decay_minutes = v),
        row("notify-keyspace-events", Events, "", Runtime, |s, v| s.keys.events = v),
        row("latency-monitor-threshold", int(0, LONG), "0", Runtime, |s, v| s.latency_threshold_millis = v),
        // Limits
        row("proto-max-bulk-len", memory_from(1 << 20), "536870912", Runtime, |s, v| {
            s.proto_max_bulk_len = v
        }),
        row("client-query-buffer-limit", memory_from(1 << 20), "1073741824", Runtime, |s, v| {
            s.query_buffer_limit = v
        }),
        row(
            "client-output-buffer-limit",
            Buffers,
            "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60",
            Runtime,
            |s, v| s.output_limits = v,
        ),
        row("maxmemory", memory(), "0", Runtime, |s, v| s.maxmemory = v),
        row("maxmemory-policy", choice(), "noeviction", Runtime, |s, v| s.maxmemory_policy = v),
        row("maxmemory-samples", int(1, 64), "5", Runtime, |s, v| s.maxmemory_samples = v),
        row("maxmemory-eviction-tenacity", int(0, 100), "10", Runtime, |s, v| {
            s.eviction_time_max = eviction_time_max(v)
        }),
        row("maxmemory-clients", MemoryOrPercent, "0", Runtime, |s, v| s.maxmemory_clients = v),
        // Memory and expiry
        row("lazyfree-lazy-eviction", YesNo, "yes", Runtime, |s, v| s.lazy_eviction = v),
        row("lazyfree-lazy-expire", YesNo, "yes", Runtime, |s, v| s.lazy_expire = v),
        row("lazyfree-lazy-server-del", YesNo, "yes", Runtime, |s, v| s.lazy_server_del = v),
        row("lazyfree-lazy-user-del", YesNo, "yes", Runtime, |s, v| s.lazy_user_del = v),
        row("active-expire-effort", int(1, 10), "1", Runtime, |s, v| s.expire_effort = v),
        // Encodings
        row("hash-max-listpack-entries", int(0, LONG), "512", Runtime, |s, v| s.keys.limits.hash.entries = v),
        row("hash-max-listpack-value", memory(), "64", Runtime, |s, v| s.keys.limits.hash.value = v),
        row("list-max-listpack-size", int(-INT - 1, INT), "-2", Runtime, |s, v| {
            s.keys.limits.list = Fill::new(v)
        }),
        inert("list-compress-depth", number(0, INT), "0", Runtime),
        row("set-max-intset-entries", int(0, LONG), "512", Runtime, |s, v| {
            s.keys.limits.set.intset_entries = v
        }),
        row("set-max-listpack-entries", int(0, LONG), "128", Runtime, |s, v| {
            s.keys.limits.set.listpack_entries = v
        }),
        row("set-max-listpack-value", int(0, LONG), "64", Runtime, |s, v| {
            s.keys.limits.set.listpack_value = v
        }),
        row("stream-node-max-bytes", memory(), "4096", Runtime, |s, v| s.keys.limits.stream.node_bytes = v),
        row("stream-node-max-entries", int(0, LONG), "100", Runtime, |s, v| {
            s.keys.limits.stream.node_entries = v
        }),
        row("zset-max-listpack-entries", int(0, LONG), "128", Runtime, |s, v| {
            s.keys.limits.sorted_set.entries = v
        }),
        row("zset-max-listpack-value", memory(), "64", Runtime, |s, v| s.keys.limits.sorted_set.value = v),
        row("hll-sparse-max-bytes", memory(), "3000", Runtime, |s, v| s.hll_sparse_max_bytes = v),
        // Persistence
        row("save", SavePoints, "3600 1 300 100 60 10000", Runtime, |s, v| s.save_points = v),
        row("appendonly", YesNo, "no", Runtime, |s, v| s.appendonly = v).with(Consequence::SwitchWriteLog),
        row("appendfsync", choice(), "everysec", Runtime, |s, v| s.appendfsync = v),
        row("appendfilename", FileName("filename"), "appendonly.aof", StartOnly, |s, v| {
            s.append_filename = v
        }),
        row("appenddirname", FileName("dirname"), "appendonlydir", StartOnly, |s, v| s.append_dirname = v),
        row("dbfilename", FileName("filename"), "dump.rdb", Protected, |s, v| s.dbfilename = v),
        // Replication and cluster
        absent(
            "replica-read-only",
            YesNo,
            "yes",
            Runtime,
            "a replica that takes writes would have other data than its primary, and for ever",
        ),
        row("replica-serve-stale-data", YesNo, "yes", Runtime, |s, v| s.serve_stale_data = v),
        row("replica-priority", int(0, INT), "100", StartOnly, |s, v| s.replica_priority = v),
        row("repl-backlog-size", memory_from(1), "268435456", StartOnly, |s, v| s.backlog_len_bytes = v),
        row("repl-backlog-disk-size", memory(), "1073741824", Runtime, |s, v| s.backlog_disk_bytes = v),
        row("cluster-enabled", YesNo, "no", StartOnly, |s, v| s.cluster_enabled = v),
        row("cluster-announce-ip", TEXT, "", StartOnly, |s, v| s.announce_ip = v),
        row("cluster-announce-port", int(0, PORT), "0", StartOnly, |s, v| s.announce_port = v),
        row("cluster-announce-bus-port", int(0, PORT), "0", StartOnly, |s, v| s.announce_bus_port = v),
        row("cluster-announce-tls-port", int(0, PORT), "0", StartOnly, |s, v| s.announce_tls_port = v),
        row("cluster-announce-hostname", TEXT, "", StartOnly, |s, v| s.announce_hostname = v),
        row("cluster-preferred-endpoint-type", choice(), "ip", Runtime, |s, v| s.preferred_endpoint = v),
        row("cluster-require-full-coverage", YesNo, "yes", Runtime, |s, v| s.require_full_coverage = v),
        absent(
            "cluster-allow-reads-when-down",
            YesNo,
            "no",
            Runtime,
            "a node that is cut off does not know the newest writes: its replies could be out of date",
        ),
        inert("cluster-node-timeout", number(0, LONG), "15000", Runtime),
        // Keyward's own
        row("sentinels", Words, "", StartOnly, |s, v| s.sentinels = v.to_vec()),
        row("cluster-secret-file", TEXT, "", StartOnly, |s, v| s.cluster_secret_file = v),
        row("replication-ack", choice(), "in-sync", StartOnly, |s, v| s.replication_ack = v),
        row("min-in-sync", int(0, 1000), "0", StartOnly, |s, v| s.min_in_sync = v),
        row("lease-ms", int(20, 10_000), "100", StartOnly, |s, v| s.lease = Duration::from_millis(v)),
        row("grace-ms", int(21, 60_000), "500", StartOnly, |s, v| s.grace = Duration::from_millis(v)),
        row("fast-failover", choice(), "yes", StartOnly, |s, v| s.fast_failover = v),
        row("zone", TEXT, "", StartOnly, |s, v| s.zone = v),
        // Further ones of Valkey; most have no effect.
        row("acl-pubsub-default", choice(), "resetchannels", Runtime, |s, v| s.acl_channels = v),
        row("acllog-max-len", int(0, LONG), "128", Runtime, |s, v| s.acl_log_len_max = v),
        inert("active-defrag-cycle-max", number(1, 99), "25", Runtime),
        inert("active-defrag-cycle-min", number(1, 99), "1", Runtime),
        inert("active-defrag-cycle-us", number(0, 100_000), "500", Runtime),
        inert("active-defrag-ignore-bytes", memory_from::<i64>(1), "104857600", Runtime),
        inert("active-defrag-max-scan-fields", number(1, LONG), "1000", Runtime),
        inert("active-defrag-threshold-lower", number(0, 1000), "10", Runtime),
        inert("active-defrag-threshold-upper", number(0, 1000), "100", Runtime),
        inert("activedefrag", YesNo, "no", Runtime),
        inert("activerehashing", YesNo, "yes", Runtime),
        inert("always-show-logo", YesNo, "no", StartOnly),
        row("aof-load-truncated", YesNo, "yes", Runtime, |s, v| s.aof_load_truncated = v),
        inert("aof-rewrite-cpulist", TEXT, "", StartOnly),
        inert("aof-rewrite-incremental-fsync", YesNo, "yes", Runtime),
        inert("aof-timestamp-enabled", YesNo, "no", Runtime),
        inert("aof-use-rdb-preamble", YesNo, "yes", Runtime),
        row("auto-aof-rewrite-min-size", memory(), "67108864", Runtime, |s, v| {
            s.auto_aof_rewrite_min_bytes = v
        }),
        row("auto-aof-rewrite-percentage", int(0, INT), "100", Runtime, |s, v| {
            s.auto_aof_rewrite_percentage = v
        }),
        inert("bgsave-cpulist", TEXT, "", StartOnly),
        inert("bio-cpulist", TEXT, "", StartOnly),
        inert("cluster-allow-pubsubshard-when-down", YesNo, "yes", Runtime),
        inert("cluster-allow-replica-migration", YesNo, "yes", Runtime),
        inert("cluster-announce-client-ipv4", TEXT, "", Runtime),
        inert("cluster-announce-client-ipv6", TEXT, "", Runtime),
        inert("cluster-announce-client-port", number(0, PORT), "0", Runtime),
        inert("cluster-announce-client-tls-port", number(0, PORT), "0", Runtime),
        inert("cluster-announce-human-nodename", TEXT, "", Runtime),
        inert("cluster-blacklist-ttl", number(0, INT), "60", Runtime),
        inert("cluster-config-file", TEXT, "nodes.conf", StartOnly),
        inert("cluster-config-save-behavior", OneOf(&["sync", "best-effort"]), "sync", Runtime),
        inert("cluster-link-sendbuf-limit", memory::<i64>(), "0", Runtime),
        inert("cluster-manual-failover-timeout", number(1, INT), "5000", Runtime),
        inert("cluster-migration-barrier", number(0, INT), "1", Runtime),
        inert("cluster-replica-no-failover", YesNo, "no", Runtime),
        inert("cluster-replica-validity-factor", number(0, INT), "10", Runtime),
        inert("cluster-slot-migration-log-max-len", number(0, LONG), "1000", Runtime),
        inert("cluster-slot-stats-enabled", YesNo, "no", Runtime),
        row("commandlog-execution-slower-than", number(-1, LONG), "10000", Runtime, |s, v| {
            s.commandlog.slow_micros = u64::try_from(v).ok()
        }),
        row("commandlog-large-reply-max-len", int(0, LONG), "128", Runtime, |s, v| {
            s.commandlog.replies_kept = v
        }),
        row("commandlog-large-request-max-len", int(0, LONG), "128", Runtime, |s, v| {
            s.commandlog.requests_kept = v
        }),
        row("commandlog-reply-larger-than", number(-1, LONG), "1048576", Runtime, |s, v| {
            s.commandlog.reply_bytes = usize::try_from(v).ok()
        }),
        row("commandlog-request-larger-than", number(-1, LONG), "1048576", Runtime, |s, v| {
            s.commandlog.request_bytes = usize::try_from(v).ok()
        }),
        row("commandlog-slow-execution-max-len", int(0, LONG), "128", Runtime, |s, v| {
            s.commandlog.slow_kept = v
        }),
        inert("crash-log-enabled", YesNo, "yes", Runtime),
        inert("crash-memcheck-enabled", YesNo, "yes", Runtime),
        row("daemonize", YesNo, "no", StartOnly, |s, v| s.daemonize = v),
        inert("disable-thp", YesNo, "yes", StartOnly),
        inert("dual-channel-replication-enabled", YesNo, "no", Runtime),
        row("enable-module-command", choice(), "no", StartOnly, |s, v| s.module_command = v),
        inert("enable-protected-configs", OneOf(&["no", "yes", "local"]), "no", StartOnly),
        inert("extended-redis-compatibility", YesNo, "no", Runtime),
        inert("hash-seed", TEXT, "", StartOnly),
        inert("hide-user-data-from-log", YesNo, "yes", Runtime),
        inert("ignore-warnings", TEXT, "", Runtime),
        inert("jemalloc-bg-thread", YesNo, "yes", Runtime),
        row("latency-tracking", YesNo, "yes", Runtime, |s, v| s.latency_tracking = v),
        row("latency-tracking-info-percentiles", Percentiles, "50 99 99.9", Runtime, |s, v| {
            s.latency_percentiles = v
        }),
        inert("lazyfree-lazy-user-flush", YesNo, "yes", Runtime),
        inert("locale-collate", TEXT_OR_EMPTY, "", StartOnly),
        row("logfile", TEXT_OR_EMPTY, "", StartOnly, |s, v| s.logfile = v),
        inert("max-new-connections-per-cycle", number(1, 1000), "10", Runtime),
        inert("max-new-tls-connections-per-cycle", number(1, 1000), "1", Runtime),
        inert("min-replicas-max-lag", number(0, INT), "10", Runtime),
        inert("no-appendfsync-on-rewrite", YesNo, "no", Runtime),
        row("oom-score-adj", choice(), "no", Runtime, |s, v| s.oom_score_adj = v),
        row("oom-score-adj-values", Scores, "0 200 800", Runtime, |s, v| s.oom_score_adj_values = v),
        row("pidfile", TEXT, "", StartOnly, |s, v| s.pidfile = v),
        inert("prefetch-batch-max-size", number(0, 128), "16", Runtime),
        inert("proc-title-template", TEXT, "{title} {listen-addr} {server-mode}", Runtime),
        inert(
            "propagation-error-behavior",
            OneOf(&["ignore", "panic", "panic-on-replicas"]),
            "ignore",
            Runtime,
        ),
        inert("rdb-del-sync-files", YesNo, "no", Runtime),
        row("rdb-save-incremental-fsync", YesNo, "yes", Runtime, |s, v| s.rdb_incremental_fsync = v),
        row("rdb-version-check", choice(), "strict", Runtime, |s, v| s.rdb_version_check = v),
        row("rdbchecksum", YesNo, "yes", Runtime, |s, v| s.rdb_checksum = v),
        row("rdbcompression", YesNo, "yes", Runtime, |s, v| {
            s.rdb_compression = if v { Compression::Lzf } else { Compression::None }
        }),
        inert("rdma-completion-vector", number(-1, 1024), "-1", StartOnly),
        inert("rdma-rx-size", number(65_536, 16_777_216), "1048576", StartOnly),
        inert("repl-backlog-ttl", number(0, LONG), "3600", Runtime),
        inert("repl-disable-tcp-nodelay", YesNo, "no", Runtime),
        inert(
            "repl-diskless-load",
            OneOf(&["disabled", "on-empty-db", "swapdb", "flush-before-load"]),
            "disabled",
            Runtime,
        ),
        inert("repl-diskless-sync", YesNo, "yes", Runtime),
        inert("repl-diskless-sync-delay", number(0, INT), "5", Runtime),
        inert("repl-diskless-sync-max-replicas", number(0, INT), "0", Runtime),
        inert("repl-mptcp", YesNo, "no", StartOnly),
        inert("repl-ping-replica-period", number(1, INT), "10", Runtime),
        inert("repl-timeout", number(1, INT), "60", Runtime),
        inert("replica-announce-ip", TEXT, "", Runtime),
        inert("replica-announce-port", number(0, PORT), "0", Runtime),
        inert("replica-announced", YesNo, "yes", Runtime),
        inert("replica-ignore-disk-write-errors", YesNo, "no", Runtime),
        inert("replica-lazy-flush", YesNo, "yes", Runtime),
        inert("server-cpulist", TEXT, "", StartOnly),
        inert("set-proc-title", YesNo, "yes", StartOnly),
        row("shutdown-on-sigint", Ending, "default", Runtime, |s, v| s.shutdown_on_sigint = v.options),
        row("shutdown-on-sigterm", Ending, "default", Runtime, |s, v| s.shutdown_on_sigterm = v.options),
        inert("shutdown-timeout", number(0, INT), "10", Runtime),
        inert("slot-migration-max-failover-repl-bytes", memory_from::<i64>(-1), "0", Runtime),
        inert("socket-mark-id", number(0, u32::MAX as i64), "0", StartOnly),
        row("stop-writes-on-bgsave-error", YesNo, "yes", Runtime, |s, v| s.stop_writes_on_bgsave_error = v),
        row("supervised", choice(), "no", StartOnly, |s, v| s.supervised = v),
        row("syslog-enabled", YesNo, "no", StartOnly, |s, v| s.syslog_enabled = v),
        row("syslog-facility", choice(), "local0", StartOnly, |s, v| s.syslog_facility = v),
        row("syslog-ident", TEXT_OR_EMPTY, "valkey", StartOnly, |s, v| s.syslog_ident = v),
        row("tracking-table-max-keys", int(0, LONG), "1000000", Runtime, |s, v| s.tracking_keys_max = v),
        inert("unixsocketgroup", TEXT, "", StartOnly),
        inert("unixsocketperm", Octal { max: 0o777 }, "0", StartOnly),
        // TLS
        row("tls-port", int(0, PORT), "0", Runtime, |s, v| s.tls_port = v).with(Consequence::ListenTls),
        row("tls-cert-file", TEXT, "", Runtime, |s, v| s.tls.server.certificate = path(v)).with(LoadTls),
        row("tls-key-file", TEXT, "", Runtime, |s, v| s.tls.server.key = path(v)).with(LoadTls),
        row("tls-key-file-pass", TEXT, "", Runtime, |s, v| s.tls.server.password = Secret(v)).with(LoadTls),
        row("tls-client-cert-file", TEXT, "", Runtime, |s, v| s.tls.client.certificate = path(v))
            .with(LoadTls),
        row("tls-client-key-file", TEXT, "", Runtime, |s, v| s.tls.client.key = path(v)).with(LoadTls),
        row("tls-client-key-file-pass", TEXT, "", Runtime, |s, v| s.tls.client.password = Secret(v))
            .with(LoadTls),
        row("tls-ca-cert-file", TEXT, "", Runtime, |s, v| s.tls.ca_file = path(v)).with(LoadTls),
        row("tls-ca-cert-dir", TEXT, "", Runtime, |s, v| s.tls.ca_dir = path(v)).with(LoadTls),
        row("tls-auth-clients", choice(), "yes", Runtime, |s, v| s.tls.client_certificates = v).with(LoadTls),
        row("tls-auth-clients-user", choice(), "off", Runtime, |s, v| s.tls_user = v),
        row("tls-protocols", TEXT, "", Runtime, |s, v| s.tls.protocols = v).with(LoadTls),
        row("tls-ciphers", TEXT, "", Runtime, |s, v| s.tls.ciphers = v).with(LoadTls),
        row("tls-ciphersuites", TEXT, "", Runtime, |s, v| s.tls.ciphersuites = v).with(LoadTls),
        row("tls-prefer-server-ciphers", YesNo, "no", Runtime, |s, v| {
            s.tls.cipher_preference = if v { CipherPreference::Server } else { CipherPreference::Client }
        })
        .with(LoadTls),
        row("tls-session-caching", YesNo, "yes", Runtime, |s, v| s.tls_session_caching = v).with(LoadTls),
        row("tls-session-cache-size", int(0, INT), "20480", Runtime, |s, v| s.tls_session_cache_size = v)
            .with(LoadTls),
        row("tls-session-cache-timeout", int(0, INT), "300", Runtime, |s, v| {
            s.tls_session_cache_timeout = Duration::from_secs(v)
        })
        .with(LoadTls),
        row("tls-auto-reload-interval", int(0, INT), "0", Runtime, |s, v| s.tls_reload_every = seconds(v)),
        inert("tls-dh-params-file", TEXT, "", Runtime),
        row("tls-replication", YesNo, "no", StartOnly, |s, v| s.tls_replication = v),
        row("tls-cluster", YesNo, "no", StartOnly, |s, v| s.tls_cluster = v),
        // Features that are not there.
        absent("bind-source-addr", TEXT, "", Runtime, HERE),
        absent("import-mode", YesNo, "no", Runtime, HERE),
        absent("mptcp", YesNo, "no", StartOnly, HERE),
        absent("primaryuser", TEXT, "", Runtime, NO_PRIMARY_USER),
        absent("rdma-bind", TEXT, "", Runtime, HERE),
        absent("rdma-port", number(0, PORT), "0", Runtime, HERE),
        absent(
            "replica-ignore-maxmemory",
            YesNo,
            "yes",
            Runtime,
            "a replica has what its primary has: it evicts nothing by itself",
        ),
        absent("replicaof", Primary, "", StartOnly, "replication is set up with sentinels: see 'sentinels'"),
        absent("unixsocket", TEXT, "", StartOnly, HERE),
        absent("min-replicas-to-write", number(0, INT), "0", Runtime, "use 'min-in-sync'"),
    ]
});

//! All directives: names, types, defaults, whether they do something, and the older names that they also have.

use std::ops::RangeInclusive;

/// The type of a directive.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Integer {
        min: i64,
        max: i64,
    },
    /// A number that is not negative; beyond the limits the nearest of them is taken.
    Clamped {
        min: i64,
        max: i64,
    },
    /// An amount of memory: `1gb`, `64mb`, `100`.
    Memory {
        min: i64,
        max: i64,
    },
    /// An amount of memory, or a part of `maxmemory`: `10%`.
    MemoryOrPercent,
    YesNo,
    Text,
    /// The name of a file or folder in `dir`.
    FileName,
    Choice(&'static [&'static str]),
    /// Letters of `notify-keyspace-events`.
    Events,
    /// Permissions of a file.
    Octal {
        max: u32,
    },
    /// Text in which only the words count.
    Words,
    /// `save`: pairs of seconds and changes.
    SavePoints,
    /// `shutdown-on-sigterm`: words of SHUTDOWN.
    Ending,
    /// `client-output-buffer-limit`
    OutputLimits,
    /// `latency-tracking-info-percentiles`
    Percentiles,
    /// `oom-score-adj-values`: three numbers.
    OomScores,
    /// `replicaof`: host and port, or `no one`.
    Primary,
}

impl Kind {
    /// How many words make a value in a conf file.
    pub(super) fn words(self) -> RangeInclusive<usize> {
        match self {
            Kind::Words
            | Kind::SavePoints
            | Kind::Ending
            | Kind::OutputLimits
            | Kind::Percentiles
            | Kind::OomScores => 0..=usize::MAX,
            Kind::Primary => 2..=2,
            Kind::Integer { .. }
            | Kind::Clamped { .. }
            | Kind::Memory { .. }
            | Kind::MemoryOrPercent
            | Kind::YesNo
            | Kind::Text
            | Kind::FileName
            | Kind::Choice(_)
            | Kind::Events
            | Kind::Octal { .. } => 1..=1,
        }
    }
}

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

#[derive(Debug)]
pub(super) struct Directive {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) default: &'static str,
    pub(super) change: Change,
    pub(super) effect: Effect,
}

const fn row(name: &'static str, kind: Kind, default: &'static str, change: Change) -> Directive {
    Directive { name, kind, default, change, effect: Effect::Full }
}

/// Accepted so that a valkey.conf can stay as it is; what it tunes does not exist here or tunes itself.
const fn inert(name: &'static str, kind: Kind, default: &'static str, change: Change) -> Directive {
    Directive { name, kind, default, change, effect: Effect::None }
}

/// Not there: refused, so that nobody relies on it by mistake.
const fn absent(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    change: Change,
    why: &'static str,
) -> Directive {
    Directive { name, kind, default, change, effect: Effect::Absent(why) }
}

const HERE: &str = "it is not available in this version";
const NO_ACL: &str = "users and rights (ACL) are not available in this version";
const NO_TLS: &str = "TLS is not available in this version";

const fn int(min: i64, max: i64) -> Kind {
    Kind::Integer { min, max }
}

const INT: i64 = i32::MAX as i64;
const LONG: Kind = int(0, i64::MAX);
const PORT: Kind = int(0, 65535);
const MEMORY: Kind = Kind::Memory { min: 0, max: i64::MAX };

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

pub(super) static DIRECTIVES: &[Directive] = &[
    // Network
    row("port", int(0, 65535), "6379", StartOnly),
    row("bind", Kind::Words, "* -::*", StartOnly),
    row("bus-port", int(0, 65535), "0", StartOnly),
    row("protected-mode", Kind::YesNo, "yes", Runtime),
    row("tcp-backlog", int(0, INT), "511", StartOnly),
    row("tcp-keepalive", int(0, INT), "300", Runtime),
    row("timeout", int(0, INT), "0", Runtime),
    row("maxclients", int(1, 4294967295), "10000", Runtime),
    row("io-threads", int(0, 256), "0", StartOnly),
    row("enable-debug-command", Kind::Choice(&["no", "yes", "local"]), "no", StartOnly),
    // Access
    row("requirepass", Kind::Text, "", Runtime),
    row("requirepass-file", Kind::Text, "", StartOnly),
    inert("primaryauth", Kind::Text, "", Runtime),
    // General
    row("dir", Kind::Text, ".", Protected),
    row("databases", int(1, 65535), "16", StartOnly),
    row("cluster-databases", int(1, 65535), "1", StartOnly),
    row("loglevel", Kind::Choice(&["debug", "verbose", "notice", "warning", "nothing"]), "notice", Runtime),
    inert("hz", Kind::Clamped { min: 1, max: 500 }, "10", Runtime),
    row("lfu-log-factor", int(0, INT), "10", Runtime),
    row("lfu-decay-time", int(0, INT), "1", Runtime),
    row("notify-keyspace-events", Kind::Events, "", Runtime),
    inert("latency-monitor-threshold", int(0, i64::MAX), "0", Runtime),
    // Limits
    row("proto-max-bulk-len", Kind::Memory { min: 1 << 20, max: i64::MAX }, "536870912", Runtime),
    row("client-query-buffer-limit", Kind::Memory { min: 1 << 20, max: i64::MAX }, "1073741824", Runtime),
    row(
        "client-output-buffer-limit",
        Kind::OutputLimits,
        "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60",
        Runtime,
    ),
    row("maxmemory", MEMORY, "0", Runtime),
    row(
        "maxmemory-policy",
        Kind::Choice(&[
            "volatile-lru",
            "volatile-lfu",
            "volatile-random",
            "volatile-ttl",
            "allkeys-lru",
            "allkeys-lfu",
            "allkeys-random",
            "noeviction",
        ]),
        "noeviction",
        Runtime,
    ),
    row("maxmemory-samples", int(1, 64), "5", Runtime),
    row("maxmemory-eviction-tenacity", int(0, 100), "10", Runtime),
    row("maxmemory-clients", Kind::MemoryOrPercent, "0", Runtime),
    // Memory and expiry
    row("lazyfree-lazy-eviction", Kind::YesNo, "yes", Runtime),
    row("lazyfree-lazy-expire", Kind::YesNo, "yes", Runtime),
    row("lazyfree-lazy-server-del", Kind::YesNo, "yes", Runtime),
    row("lazyfree-lazy-user-del", Kind::YesNo, "yes", Runtime),
    row("active-expire-effort", int(1, 10), "1", Runtime),
    // Encodings
    row("hash-max-listpack-entries", int(0, i64::MAX), "512", Runtime),
    row("hash-max-listpack-value", MEMORY, "64", Runtime),
    row("list-max-listpack-size", int(-INT - 1, INT), "-2", Runtime),
    inert("list-compress-depth", int(0, INT), "0", Runtime),
    row("set-max-intset-entries", int(0, i64::MAX), "512", Runtime),
    row("set-max-listpack-entries", int(0, i64::MAX), "128", Runtime),
    row("set-max-listpack-value", LONG, "64", Runtime),
    row("zset-max-listpack-entries", int(0, i64::MAX), "128", Runtime),
    row("zset-max-listpack-value", MEMORY, "64", Runtime),
    // Persistence
    row("save", Kind::SavePoints, "3600 1 300 100 60 10000", Runtime),
    row("appendonly", Kind::YesNo, "no", Runtime),
    row("appendfsync", Kind::Choice(&["everysec", "always", "no"]), "everysec", Runtime),
    row("appendfilename", Kind::FileName, "appendonly.aof", StartOnly),
    row("appenddirname", Kind::FileName, "appendonlydir", StartOnly),
    row("dbfilename", Kind::FileName, "dump.rdb", Protected),
    // Replication and cluster
    absent(
        "replica-read-only",
        Kind::YesNo,
        "yes",
        Runtime,
        "a replica that takes writes would have other data than its primary, and for ever",
    ),
    row("replica-serve-stale-data", Kind::YesNo, "yes", Runtime),
    row("replica-priority", int(0, INT), "100", StartOnly),
    row("repl-backlog-size", Kind::Memory { min: 1, max: i64::MAX }, "268435456", StartOnly),
    row("repl-backlog-disk-size", MEMORY, "1073741824", Runtime),
    row("cluster-enabled", Kind::YesNo, "no", StartOnly),
    row("cluster-announce-ip", Kind::Text, "", StartOnly),
    row("cluster-announce-port", int(0, 65535), "0", StartOnly),
    row("cluster-announce-bus-port", int(0, 65535), "0", StartOnly),
    row("cluster-announce-hostname", Kind::Text, "", StartOnly),
    row(
        "cluster-preferred-endpoint-type",
        Kind::Choice(&["ip", "hostname", "unknown-endpoint"]),
        "ip",
        Runtime,
    ),
    row("cluster-require-full-coverage", Kind::YesNo, "yes", Runtime),
    absent(
        "cluster-allow-reads-when-down",
        Kind::YesNo,
        "no",
        Runtime,
        "a node that is cut off does not know the newest writes: its replies could be out of date",
    ),
    inert("cluster-node-timeout", int(0, i64::MAX), "15000", Runtime),
    // Keyward's own
    row("sentinels", Kind::Words, "", StartOnly),
    row("replication-ack", Kind::Choice(&["in-sync", "async"]), "in-sync", StartOnly),
    row("min-in-sync", int(0, 1000), "0", StartOnly),
    row("lease-ms", int(10, 60_000), "400", StartOnly),
    row("grace-ms", int(11, 120_000), "500", StartOnly),
    row("fast-failover", Kind::YesNo, "yes", StartOnly),
    row("zone", Kind::Text, "", StartOnly),
    // Further ones of Valkey; most have no effect.
    inert("acl-pubsub-default", Kind::Choice(&["allchannels", "resetchannels"]), "resetchannels", Runtime),
    inert("acllog-max-len", LONG, "128", Runtime),
    inert("active-defrag-cycle-max", int(1, 99), "25", Runtime),
    inert("active-defrag-cycle-min", int(1, 99), "1", Runtime),
    inert("active-defrag-cycle-us", int(0, 100_000), "500", Runtime),
    inert("active-defrag-ignore-bytes", Kind::Memory { min: 1, max: i64::MAX }, "104857600", Runtime),
    inert("active-defrag-max-scan-fields", int(1, i64::MAX), "1000", Runtime),
    inert("active-defrag-threshold-lower", int(0, 1000), "10", Runtime),
    inert("active-defrag-threshold-upper", int(0, 1000), "100", Runtime),
    inert("activedefrag", Kind::YesNo, "no", Runtime),
    inert("activerehashing", Kind::YesNo, "yes", Runtime),
    inert("always-show-logo", Kind::YesNo, "no", StartOnly),
    row("aof-load-truncated", Kind::YesNo, "yes", Runtime),
    inert("aof-rewrite-cpulist", Kind::Text, "", StartOnly),
    inert("aof-rewrite-incremental-fsync", Kind::YesNo, "yes", Runtime),
    inert("aof-timestamp-enabled", Kind::YesNo, "no", Runtime),
    inert("aof-use-rdb-preamble", Kind::YesNo, "yes", Runtime),
    row("auto-aof-rewrite-min-size", MEMORY, "67108864", Runtime),
    row("auto-aof-rewrite-percentage", int(0, INT), "100", Runtime),
    inert("bgsave-cpulist", Kind::Text, "", StartOnly),
    inert("bio-cpulist", Kind::Text, "", StartOnly),
    inert("busy-reply-threshold", int(0, i64::MAX), "5000", Runtime),
    inert("cluster-allow-pubsubshard-when-down", Kind::YesNo, "yes", Runtime),
    inert("cluster-allow-replica-migration", Kind::YesNo, "yes", Runtime),
    inert("cluster-announce-client-ipv4", Kind::Text, "", Runtime),
    inert("cluster-announce-client-ipv6", Kind::Text, "", Runtime),
    inert("cluster-announce-client-port", PORT, "0", Runtime),
    inert("cluster-announce-client-tls-port", PORT, "0", Runtime),
    inert("cluster-announce-human-nodename", Kind::Text, "", Runtime),
    inert("cluster-announce-tls-port", PORT, "0", Runtime),
    inert("cluster-blacklist-ttl", int(0, INT), "60", Runtime),
    inert("cluster-config-file", Kind::Text, "nodes.conf", StartOnly),
    inert("cluster-config-save-behavior", Kind::Choice(&["sync", "best-effort"]), "sync", Runtime),
    inert("cluster-link-sendbuf-limit", MEMORY, "0", Runtime),
    inert("cluster-manual-failover-timeout", int(1, INT), "5000", Runtime),
    inert("cluster-migration-barrier", int(0, INT), "1", Runtime),
    inert("cluster-replica-no-failover", Kind::YesNo, "no", Runtime),
    inert("cluster-replica-validity-factor", int(0, INT), "10", Runtime),
    inert("cluster-slot-migration-log-max-len", LONG, "1000", Runtime),
    inert("cluster-slot-stats-enabled", Kind::YesNo, "no", Runtime),
    inert("commandlog-execution-slower-than", int(-1, i64::MAX), "10000", Runtime),
    inert("commandlog-large-reply-max-len", LONG, "128", Runtime),
    inert("commandlog-large-request-max-len", LONG, "128", Runtime),
    inert("commandlog-reply-larger-than", int(-1, i64::MAX), "1048576", Runtime),
    inert("commandlog-request-larger-than", int(-1, i64::MAX), "1048576", Runtime),
    inert("commandlog-slow-execution-max-len", LONG, "128", Runtime),
    inert("crash-log-enabled", Kind::YesNo, "yes", Runtime),
    inert("crash-memcheck-enabled", Kind::YesNo, "yes", Runtime),
    row("daemonize", Kind::YesNo, "no", StartOnly),
    inert("disable-thp", Kind::YesNo, "yes", StartOnly),
    inert("dual-channel-replication-enabled", Kind::YesNo, "no", Runtime),
    inert("enable-module-command", Kind::Choice(&["no", "yes", "local"]), "no", StartOnly),
    inert("enable-protected-configs", Kind::Choice(&["no", "yes", "local"]), "no", StartOnly),
    inert("extended-redis-compatibility", Kind::YesNo, "no", Runtime),
    inert("hash-seed", Kind::Text, "", StartOnly),
    inert("hide-user-data-from-log", Kind::YesNo, "yes", Runtime),
    inert("hll-sparse-max-bytes", MEMORY, "3000", Runtime),
    inert("ignore-warnings", Kind::Text, "", Runtime),
    inert("jemalloc-bg-thread", Kind::YesNo, "yes", Runtime),
    inert("latency-tracking", Kind::YesNo, "yes", Runtime),
    inert("latency-tracking-info-percentiles", Kind::Percentiles, "50 99 99.9", Runtime),
    inert("lazyfree-lazy-user-flush", Kind::YesNo, "yes", Runtime),
    inert("locale-collate", Kind::Text, "", StartOnly),
    inert("log-format", Kind::Choice(&["legacy", "logfmt", "json"]), "legacy", Runtime),
    inert("log-timestamp-format", Kind::Choice(&["legacy", "iso8601", "milliseconds"]), "legacy", Runtime),
    row("logfile", Kind::Text, "", StartOnly),
    inert("max-new-connections-per-cycle", int(1, 1000), "10", Runtime),
    inert("max-new-tls-connections-per-cycle", int(1, 1000), "1", Runtime),
    inert("min-replicas-max-lag", int(0, INT), "10", Runtime),
    inert("no-appendfsync-on-rewrite", Kind::YesNo, "no", Runtime),
    row("oom-score-adj", Kind::Choice(&["no", "yes", "relative", "absolute"]), "no", Runtime),
    row("oom-score-adj-values", Kind::OomScores, "0 200 800", Runtime),
    row("pidfile", Kind::Text, "", StartOnly),
    inert("prefetch-batch-max-size", int(0, 128), "16", Runtime),
    inert("proc-title-template", Kind::Text, "{title} {listen-addr} {server-mode}", Runtime),
    inert(
        "propagation-error-behavior",
        Kind::Choice(&["ignore", "panic", "panic-on-replicas"]),
        "ignore",
        Runtime,
    ),
    inert("rdb-del-sync-files", Kind::YesNo, "no", Runtime),
    row("rdb-save-incremental-fsync", Kind::YesNo, "yes", Runtime),
    row("rdb-version-check", Kind::Choice(&["strict", "relaxed"]), "strict", Runtime),
    row("rdbchecksum", Kind::YesNo, "yes", Runtime),
    row("rdbcompression", Kind::YesNo, "yes", Runtime),
    inert("rdma-completion-vector", int(-1, 1024), "-1", StartOnly),
    inert("rdma-rx-size", Kind::Integer { min: 65_536, max: 16_777_216 }, "1048576", StartOnly),
    inert("repl-backlog-ttl", int(0, i64::MAX), "3600", Runtime),
    inert("repl-disable-tcp-nodelay", Kind::YesNo, "no", Runtime),
    inert(
        "repl-diskless-load",
        Kind::Choice(&["disabled", "on-empty-db", "swapdb", "flush-before-load"]),
        "disabled",
        Runtime,
    ),
    inert("repl-diskless-sync", Kind::YesNo, "yes", Runtime),
    inert("repl-diskless-sync-delay", int(0, INT), "5", Runtime),
    inert("repl-diskless-sync-max-replicas", int(0, INT), "0", Runtime),
    inert("repl-mptcp", Kind::YesNo, "no", StartOnly),
    inert("repl-ping-replica-period", int(1, INT), "10", Runtime),
    inert("repl-timeout", int(1, INT), "60", Runtime),
    inert("replica-announce-ip", Kind::Text, "", Runtime),
    inert("replica-announce-port", PORT, "0", Runtime),
    inert("replica-announced", Kind::YesNo, "yes", Runtime),
    inert("replica-ignore-disk-write-errors", Kind::YesNo, "no", Runtime),
    inert("replica-lazy-flush", Kind::YesNo, "yes", Runtime),
    inert("server-cpulist", Kind::Text, "", StartOnly),
    inert("set-proc-title", Kind::YesNo, "yes", StartOnly),
    row("shutdown-on-sigint", Kind::Ending, "default", Runtime),
    row("shutdown-on-sigterm", Kind::Ending, "default", Runtime),
    inert("shutdown-timeout", int(0, INT), "10", Runtime),
    inert("slot-migration-max-failover-repl-bytes", Kind::Memory { min: -1, max: i64::MAX }, "0", Runtime),
    inert("socket-mark-id", int(0, u32::MAX as i64), "0", StartOnly),
    row("stop-writes-on-bgsave-error", Kind::YesNo, "yes", Runtime),
    inert("stream-node-max-bytes", MEMORY, "4096", Runtime),
    inert("stream-node-max-entries", LONG, "100", Runtime),
    row("supervised", Kind::Choice(&["upstart", "systemd", "auto", "no"]), "no", StartOnly),
    row("syslog-enabled", Kind::YesNo, "no", StartOnly),
    row(
        "syslog-facility",
        Kind::Choice(&[
            "user", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
        ]),
        "local0",
        StartOnly,
    ),
    row("syslog-ident", Kind::Text, "valkey", StartOnly),
    inert("tracking-table-max-keys", int(0, i64::MAX), "1000000", Runtime),
    inert("unixsocketgroup", Kind::Text, "", StartOnly),
    inert("unixsocketperm", Kind::Octal { max: 0o777 }, "0", StartOnly),
    // Features that are not there.
    absent("aclfile", Kind::Text, "", StartOnly, NO_ACL),
    absent("bind-source-addr", Kind::Text, "", Runtime, HERE),
    absent("import-mode", Kind::YesNo, "no", Runtime, HERE),
    absent("mptcp", Kind::YesNo, "no", StartOnly, HERE),
    absent("primaryuser", Kind::Text, "", Runtime, NO_ACL),
    absent("rdma-bind", Kind::Text, "", Runtime, HERE),
    absent("rdma-port", PORT, "0", Runtime, HERE),
    absent(
        "replica-ignore-maxmemory",
        Kind::YesNo,
        "yes",
        Runtime,
        "a replica has what its primary has: it evicts nothing by itself",
    ),
    absent(
        "replicaof",
        Kind::Primary,
        "",
        StartOnly,
        "replication is set up with sentinels: see 'sentinels'",
    ),
    absent("tls-auth-clients", Kind::Choice(&["no", "yes", "optional"]), "yes", Runtime, NO_TLS),
    absent("tls-auth-clients-user", Kind::Choice(&["CN", "URI", "off"]), "off", Runtime, NO_TLS),
    absent("tls-auto-reload-interval", int(0, INT), "0", Runtime, NO_TLS),
    absent("tls-ca-cert-dir", Kind::Text, "", Runtime, NO_TLS),
    absent("tls-ca-cert-file", Kind::Text, "", Runtime, NO_TLS),
    absent("tls-cert-file", Kind::Text, "", Runtime, NO_TLS),
    absent("tls-ciphers", Kind::Text, "", Runtime, NO_TLS),
    absent("tls-ciphersuites", Kind::Text, "", Runtime, NO_TLS),
    absent("tls-client-cert-file", Kind::Text, "", Runtime, NO_TLS),
    absent("tls-client-key-file", Kind::Text, "", Runtime, NO_TLS),
    absent("tls-client-key-file-pass", Kind::Text, "", Runtime, NO_TLS),
    absent("tls-cluster", Kind::YesNo, "no", Runtime, NO_TLS),
    absent("tls-dh-params-file", Kind::Text, "", Runtime, NO_TLS),
    absent("tls-key-file", Kind::Text, "", Runtime, NO_TLS),
    absent("tls-key-file-pass", Kind::Text, "", Runtime, NO_TLS),
    absent("tls-port", PORT, "0", Runtime, NO_TLS),
    absent("tls-prefer-server-ciphers", Kind::YesNo, "no", Runtime, NO_TLS),
    absent("tls-protocols", Kind::Text, "", Runtime, NO_TLS),
    absent("tls-replication", Kind::YesNo, "no", Runtime, NO_TLS),
    absent("tls-session-cache-size", int(0, INT), "20480", Runtime, NO_TLS),
    absent("tls-session-cache-timeout", int(0, INT), "300", Runtime, NO_TLS),
    absent("tls-session-caching", Kind::YesNo, "yes", Runtime, NO_TLS),
    absent("unixsocket", Kind::Text, "", StartOnly, HERE),
    absent("min-replicas-to-write", int(0, INT), "0", Runtime, "use 'min-in-sync'"),
];

//! Configuration: directives in valkey.conf's syntax, from a file, from `--directive value`, and from CONFIG SET.
//!
//! A directive is one row of [`directives`]: its name, its type with limits, its default, whether it may change at
//! run time, and whether it does anything. Values are kept as normalized text ([`value`]), which is what CONFIG GET
//! shows; the rest of the program reads the typed [`Settings`], which are derived from all values at once.
//! [`file`] reads the configuration at the start, [`rewrite`] is CONFIG REWRITE.

mod directives;
mod file;
mod rewrite;
#[cfg(test)]
mod tests;
mod value;

pub use file::Origin;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use keyward_commands::DataLimits;

use crate::command::rename::Renames;
pub use crate::disk_log::Fsync;
use crate::keyspace::access::Lfu;
use crate::keyspace::eviction::Policy;
use crate::keyspace::keys::KeySettings;
use crate::keyspace::lazyfree::Cause;
use crate::keyspace::types::quicklist::Fill;
use crate::keyspace::types::{HashLimits, Limits, SetLimits, SortedSetLimits};
use crate::notify::EventClasses;
use crate::rdb::{Compression, VersionCheck};
use crate::shutdown::Options;
use crate::snapshot::rules::{self, SavePoint};
use directives::{ALIASES, Change, DIRECTIVES, Directive, Effect, Kind};
use value::normalize;

/// What is configured, and where it came from.
#[derive(Debug, Clone)]
pub struct Config {
    values: BTreeMap<&'static str, String>,
    /// The conf file, absolute.
    pub file: Option<PathBuf>,
    /// What standard input said, if it was asked.
    pub stdin: Option<Vec<u8>>,
    /// `rename-command`
    pub renames: Renames,
    /// `user default` names the hash of a password.
    password_is_hashed: bool,
    /// `dir`, absolute.
    folder: PathBuf,
    /// The password, if it is from a file of its own or from the environment: no conf file gets it.
    external_password: String,
    /// A `save` directive has been read: further ones add to it instead of replacing the default.
    save_given: bool,
}

/// The values that the program reads, typed. `Duration`s and sizes have their unit in the type or the name.
#[derive(Debug, Clone)]
pub struct Settings {
    pub port: u16,
    pub bus_port: u16,
    pub bind: Vec<String>,
    pub protected_mode: bool,
    pub tcp_backlog: i32,
    /// `None`: off.
    pub tcp_keepalive: Option<Duration>,
    /// Idle clients are closed after this.
    pub timeout: Option<Duration>,
    pub maxclients: usize,
    pub io_threads: usize,
    pub requirepass: String,
    pub dir: PathBuf,
    pub databases: u16,
    pub proto_max_bulk_len: usize,
    pub query_buffer_limit: usize,
    pub output_limit_normal: OutputLimit,
    pub output_limit_pubsub: OutputLimit,
    pub cluster_enabled: bool,
    pub announce_ip: String,
    pub announce_port: u16,
    pub announce_bus_port: u16,
    pub announce_hostname: String,
    pub prefer_hostname: bool,
    pub unknown_endpoint: bool,
    pub require_full_coverage: bool,
    pub serve_stale_data: bool,
    pub replica_priority: u32,
    pub backlog_len_bytes: usize,
    pub backlog_disk_bytes: u64,
    /// `host:port` of the sentinels' bus ports; empty: the node runs alone.
    pub sentinels: Vec<String>,
    pub ack_in_sync: bool,
    /// Zero: half of the shard's nodes, rounded up.
    pub min_in_sync: usize,
    pub lease: Duration,
    pub grace: Duration,
    pub fast_failover: bool,
    pub zone: String,
    /// `None`: the kernel's choice of what to end first stays as it is.
    pub oom_scores: Option<OomScores>,
    pub dbfilename: String,
    pub rdb_compression: Compression,
    /// Whether checksums of RDB files are written and compared.
    pub rdb_checksum: bool,
    pub rdb_version_check: VersionCheck,
    pub save_points: Vec<SavePoint>,
    pub stop_writes_on_bgsave_error: bool,
    pub rdb_incremental_fsync: bool,
    pub shutdown_on_sigterm: Options,
    pub shutdown_on_sigint: Options,
    /// Whether the write log is written to disk.
    pub appendonly: bool,
    pub appendfsync: Fsync,
    pub append_dirname: String,
    pub append_filename: String,
    pub aof_load_truncated: bool,
    /// Zero: no limit.
    pub maxmemory: usize,
    /// What clients may take with their buffers; zero: no limit.
    pub maxmemory_clients: usize,
    pub maxmemory_policy: Policy,
    pub maxmemory_samples: usize,
    /// How long one command may evict; `None`: as long as it takes.
    pub eviction_time_max: Option<Duration>,
    pub lazy_eviction: bool,
    pub lazy_expire: bool,
    pub lazy_server_del: bool,
    pub lazy_user_del: bool,
    /// 1 to 10.
    pub expire_effort: u32,
    /// Zero: never by itself.
    pub auto_aof_rewrite_percentage: u32,
    pub auto_aof_rewrite_min_bytes: u64,
    /// `*-max-listpack-*` and their like, `lfu-*`, `notify-keyspace-events`.
    pub keys: KeySettings,
}

/// How readily the kernel ends this process when memory runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OomScores {
    /// They are added to the score that the process has at its start.
    pub relative: bool,
    pub primary: i32,
    pub replica: i32,
}

/// How lines in the system's log are marked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Syslog {
    pub ident: String,
    /// As in RFC 5424.
    pub facility: u8,
}

/// When a client that does not read what it is sent is closed. Zero bytes: never.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutputLimit {
    /// More than this closes it at once.
    pub hard_bytes: usize,
    /// More than this all the time for `soft_seconds` closes it.
    pub soft_bytes: usize,
    pub soft_seconds: u64,
}

impl Settings {
    /// What commands on keys have to know.
    pub fn data_limits(&self) -> DataLimits {
        DataLimits {
            string_bytes_max: self.proto_max_bulk_len,
            databases: self.databases,
            compression: self.rdb_compression,
        }
    }

    /// Whether a large value is dropped in the background.
    pub fn frees_lazily(&self, cause: Cause) -> bool {
        match cause {
            Cause::Evicted => self.lazy_eviction,
            Cause::Expired => self.lazy_expire,
            Cause::Replaced => self.lazy_server_del,
            Cause::Deleted => self.lazy_user_del,
            Cause::Unlinked => true,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Config {
            values: DIRECTIVES.iter().map(|d| (d.name, d.default.to_owned())).collect(),
            file: None,
            stdin: None,
            renames: Renames::default(),
            password_is_hashed: false,
            folder: PathBuf::from("."),
            external_password: String::new(),
            save_given: false,
        }
    }
}

impl Config {
    fn in_folder(folder: PathBuf) -> Config {
        let mut config = Config::default();
        config.values.insert("dir", folder.to_string_lossy().into_owned());
        config.folder = folder;
        config
    }

    /// CONFIG SET of several directives: all of them, or none.
    ///
    /// # Errors
    /// The text behind `ERR ` in Valkey's words.
    pub fn set(&mut self, pairs: &[(String, String)]) -> Result<(), String> {
        let failed = |name: &str, why: &str| {
            format!("CONFIG SET failed (possibly related to argument '{name}') - {why}")
        };
        let mut next = self.clone();
        for (i, (name, value)) in pairs.iter().enumerate() {
            let Some(directive) = find(&name.to_ascii_lowercase()) else {
                return Err(format!("Unknown option or number of arguments for CONFIG SET - '{name}'"));
            };
            match directive.change {
                Change::Runtime => {}
                Change::StartOnly => return Err(failed(name, "can't set immutable config")),
                Change::Protected => return Err(failed(name, "can't set protected config")),
            }
            if pairs[..i].iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
                return Err(failed(name, "duplicate parameter"));
            }
            // A refused value is told with the directive's own spelling, all else with the client's.
            let own = name.to_ascii_lowercase();
            let value =
                normalize(directive, value, next.text(directive.name)).map_err(|why| failed(&own, &why))?;
            if let Effect::Absent(why) = directive.effect
                && value != directive.default
            {
                return Err(failed(&own, why));
            }
            next.values.insert(directive.name, value);
        }
        next.password_is_hashed = false;
        next.settings()?;
        *self = next;
        Ok(())
    }

    /// Directives, by all their names, that match a glob pattern.
    pub fn matching<'a>(&'a self, pattern: &'a [u8]) -> impl Iterator<Item = (&'static str, &'a str)> {
        let pattern = pattern.to_ascii_lowercase();
        let names = self.values.iter().map(|(name, value)| (*name, value.as_str()));
        let aliases = ALIASES.iter().map(|(alias, name)| (*alias, self.text(name)));
        names.chain(aliases).filter(move |(name, _)| keyward_proto::glob::matches(&pattern, name.as_bytes()))
    }

    pub fn text(&self, name: &str) -> &str {
        self.values.get(name).map_or("", String::as_str)
    }

    fn integer(&self, name: &str) -> i64 {
        self.text(name).parse().unwrap_or(0)
    }

    fn unsigned<T: TryFrom<i64>>(&self, name: &str) -> Result<T, String> {
        T::try_from(self.integer(name)).map_err(|_| format!("'{name}' is out of range"))
    }

    /// Whether `enable-debug-command` lets a client at this address use DEBUG.
    pub fn allows_debug(&self, address: &str) -> bool {
        match self.text("enable-debug-command") {
            "yes" => true,
            "local" => crate::clients::is_loopback(address),
            _ => false,
        }
    }

    fn yes(&self, name: &str) -> bool {
        self.text(name) == "yes"
    }

    fn limits(&self) -> Result<Limits, String> {
        Ok(Limits {
            hash: HashLimits {
                entries: self.unsigned("hash-max-listpack-entries")?,
                value: self.unsigned("hash-max-listpack-value")?,
            },
            list: Fill::new(self.integer("list-max-listpack-size")),
            set: SetLimits {
                intset_entries: self.unsigned("set-max-intset-entries")?,
                listpack_entries: self.unsigned("set-max-listpack-entries")?,
                listpack_value: self.unsigned("set-max-listpack-value")?,
            },
            sorted_set: SortedSetLimits {
                entries: self.unsigned("zset-max-listpack-entries")?,
                value: self.unsigned("zset-max-listpack-value")?,
            },
        })
    }

    /// # Errors
    /// Values that contradict each other.
    pub fn settings(&self) -> Result<Settings, String> {
        let seconds = |n: i64| (n > 0).then(|| Duration::from_secs(n.unsigned_abs()));
        let millis = |name: &str| Duration::from_millis(self.integer(name).unsigned_abs());
        let words = |name: &str| {
            self.text(name).split([' ', ',']).filter(|w| !w.is_empty()).map(str::to_owned).collect()
        };
        let output_limit = |class: &str| {
            let words: Vec<&str> = self.text("client-output-buffer-limit").split(' ').collect();
            let group = words.chunks(4).find(|c| c[0] == class).unwrap_or_default();
            let number = |at: usize| group.get(at).and_then(|n| n.parse().ok()).unwrap_or(0);
            OutputLimit { hard_bytes: number(1), soft_bytes: number(2), soft_seconds: number(3) as u64 }
        };
        let ending = |name: &str| {
            Options::parse(self.text(name).split_whitespace().map(str::as_bytes)).unwrap_or_default()
        };
        let cluster_enabled = self.yes("cluster-enabled");
        let port: u16 = self.unsigned("port")?;
        let io_threads = match self.unsigned("io-threads")? {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let maxmemory: usize = self.unsigned("maxmemory")?;
        let policy = Policy::parse(self.text("maxmemory-policy"));
        let settings = Settings {
            port,
            // Alone nobody connects there.
            bus_port: self.bus_port().unwrap_or(0),
            bind: words("bind"),
            protected_mode: self.yes("protected-mode"),
            tcp_backlog: self.unsigned("tcp-backlog")?,
            tcp_keepalive: seconds(self.integer("tcp-keepalive")),
            timeout: seconds(self.integer("timeout")),
            maxclients: self.unsigned("maxclients")?,
            io_threads,
            requirepass: self.text("requirepass").to_owned(),
            dir: self.folder.clone(),
            databases: self.unsigned(if cluster_enabled { "cluster-databases" } else { "databases" })?,
            proto_max_bulk_len: self.unsigned("proto-max-bulk-len")?,
            query_buffer_limit: self.unsigned("client-query-buffer-limit")?,
            output_limit_normal: output_limit("normal"),
            output_limit_pubsub: output_limit("pubsub"),
            cluster_enabled,
            announce_ip: self.text("cluster-announce-ip").to_owned(),
            announce_port: self.unsigned("cluster-announce-port")?,
            announce_bus_port: self.unsigned("cluster-announce-bus-port")?,
            announce_hostname: self.text("cluster-announce-hostname").to_owned(),
            prefer_hostname: self.text("cluster-preferred-endpoint-type") == "hostname",
            unknown_endpoint: self.text("cluster-preferred-endpoint-type") == "unknown-endpoint",
            require_full_coverage: self.yes("cluster-require-full-coverage"),
            serve_stale_data: self.yes("replica-serve-stale-data"),
            replica_priority: self.unsigned("replica-priority")?,
            backlog_len_bytes: self.unsigned("repl-backlog-size")?,
            backlog_disk_bytes: self.unsigned("repl-backlog-disk-size")?,
            sentinels: words("sentinels"),
            ack_in_sync: self.text("replication-ack") == "in-sync",
            min_in_sync: self.unsigned("min-in-sync")?,
            lease: millis("lease-ms"),
            grace: millis("grace-ms"),
            fast_failover: self.yes("fast-failover"),
            zone: self.text("zone").to_owned(),
            oom_scores: self.oom_scores(),
            dbfilename: self.text("dbfilename").to_owned(),
            rdb_compression: if self.yes("rdbcompression") { Compression::Lzf } else { Compression::None },
            rdb_checksum: self.yes("rdbchecksum"),
            rdb_version_check: match self.text("rdb-version-check") {
                "relaxed" => VersionCheck::Relaxed,
                _ => VersionCheck::Strict,
            },
            save_points: rules::parse(self.text("save")),
            stop_writes_on_bgsave_error: self.yes("stop-writes-on-bgsave-error"),
            rdb_incremental_fsync: self.yes("rdb-save-incremental-fsync"),
            shutdown_on_sigterm: ending("shutdown-on-sigterm"),
            shutdown_on_sigint: ending("shutdown-on-sigint"),
            keys: KeySettings {
                limits: self.limits()?,
                lfu: policy.is_lfu().then_some(Lfu {
                    log_factor: self.unsigned("lfu-log-factor")?,
                    decay_minutes: self.unsigned("lfu-decay-time")?,
                }),
                events: EventClasses::parse(self.text("notify-keyspace-events")).unwrap_or_default(),
            },
            appendonly: self.yes("appendonly"),
            appendfsync: match self.text("appendfsync") {
                "always" => Fsync::Always,
                "no" => Fsync::No,
                _ => Fsync::EverySecond,
            },
            append_dirname: self.text("appenddirname").to_owned(),
            append_filename: self.text("appendfilename").to_owned(),
            aof_load_truncated: self.yes("aof-load-truncated"),
            maxmemory,
            maxmemory_clients: match self.text("maxmemory-clients").strip_suffix('%') {
                Some(percent) => clients_limit(maxmemory, percent.parse().unwrap_or(0)),
                None => clients_limit(self.unsigned("maxmemory-clients")?, 100),
            },
            maxmemory_policy: policy,
            maxmemory_samples: self.unsigned("maxmemory-samples")?,
            eviction_time_max: eviction_time_max(self.unsigned("maxmemory-eviction-tenacity")?),
            lazy_eviction: self.yes("lazyfree-lazy-eviction"),
            lazy_expire: self.yes("lazyfree-lazy-expire"),
            lazy_server_del: self.yes("lazyfree-lazy-server-del"),
            lazy_user_del: self.yes("lazyfree-lazy-user-del"),
            expire_effort: self.unsigned("active-expire-effort")?,
            auto_aof_rewrite_percentage: self.unsigned("auto-aof-rewrite-percentage")?,
            auto_aof_rewrite_min_bytes: self.unsigned("auto-aof-rewrite-min-size")?,
        };
        match self.contradictions().into_iter().next() {
            Some(contradiction) => Err(contradiction),
            None => Ok(settings),
        }
    }

    /// Values that do not go together.
    fn contradictions(&self) -> Vec<String> {
        let mut found = Vec::new();
        let alone = self.text("sentinels").is_empty();
        if self.integer("grace-ms") <= self.integer("lease-ms") {
            found.push("grace-ms must be larger than lease-ms".to_owned());
        }
        if self.password_is_hashed && self.text("requirepass").is_empty() {
            found.push("the password of user default is needed in clear: set requirepass".to_owned());
        }
        if self.yes("cluster-enabled") && alone {
            found.push("cluster-enabled yes needs --sentinels host:port,...".to_owned());
        }
        if !alone && self.bus_port().is_none() {
            found.push("port + 10000 is above 65535: set bus-port".to_owned());
        }
        found
    }

    /// Where other nodes and sentinels connect; `None`: the number that is meant does not exist.
    fn bus_port(&self) -> Option<u16> {
        match self.unsigned("bus-port").ok()? {
            0 => self.unsigned::<u16>("port").ok()?.checked_add(10000),
            explicit => Some(explicit),
        }
    }

    /// Where lines of the log go; `None`: standard error.
    pub fn log_file(&self) -> Option<PathBuf> {
        self.path("logfile")
    }

    pub fn pid_file(&self) -> Option<PathBuf> {
        self.path("pidfile")
    }

    pub fn daemonize(&self) -> bool {
        self.yes("daemonize")
    }

    /// Whether, and as what, lines go to the system's log.
    pub fn syslog(&self) -> Option<Syslog> {
        let facility = match self.text("syslog-facility").strip_prefix("local") {
            Some(number) => 16 + number.parse::<u8>().unwrap_or(0),
            None => 1,
        };
        self.yes("syslog-enabled").then(|| Syslog { ident: self.text("syslog-ident").to_owned(), facility })
    }

    fn oom_scores(&self) -> Option<OomScores> {
        let mode = self.text("oom-score-adj");
        let mut scores = self.text("oom-score-adj-values").split(' ').map(|score| score.parse().unwrap_or(0));
        let (primary, replica) = (scores.next()?, scores.next()?);
        (mode != "no").then_some(OomScores { relative: mode != "absolute", primary, replica })
    }

    /// The value of a directive that names a file.
    fn path(&self, name: &str) -> Option<PathBuf> {
        Some(self.text(name)).filter(|path| !path.is_empty()).map(|path| self.folder.join(path))
    }

    /// Directives that have another value than by default, and no effect here.
    pub fn without_effect(&self) -> Vec<&'static str> {
        let set = |d: &&Directive| d.effect == Effect::None && self.text(d.name) != d.default;
        DIRECTIVES.iter().filter(set).map(|d| d.name).collect()
    }
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

/// Whether the value of a directive may be any text: no other value can have bytes that are no UTF-8.
pub fn is_text(name: &str) -> bool {
    let text = |directive: &Directive| matches!(directive.kind, Kind::Text | Kind::FileName | Kind::Words);
    find(&name.to_ascii_lowercase()).is_some_and(text)
}

fn find(name: &str) -> Option<&'static Directive> {
    let canonical = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, canonical)| canonical);
    DIRECTIVES.iter().find(|d| d.name == canonical)
}

/// Less is not enforced: nobody could connect to change it.
const CLIENTS_LIMIT_MIN: usize = 128 << 10;

/// So many per cent of `bytes`; zero stays no limit.
fn clients_limit(bytes: usize, percent: usize) -> usize {
    match bytes as u128 * percent as u128 / 100 {
        0 if bytes == 0 || percent == 0 => 0,
        limit => usize::try_from(limit).unwrap_or(usize::MAX).max(CLIENTS_LIMIT_MIN),
    }
}

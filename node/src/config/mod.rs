//! Configuration: directives in valkey.conf's syntax, from a file, from `--directive value`, and from CONFIG SET.
//!
//! A directive is one row of [`directives`]: its name, its type with limits, its default, and whether it may change
//! at run time. Values are kept as normalized text ([`value`]), which is what CONFIG GET shows; the rest of the
//! program reads the typed [`Settings`], which are derived from all values at once.

mod directives;
mod value;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use keyward_proto::resp::request::split_words;

use crate::keyspace::access::Lfu;
use crate::keyspace::eviction::Policy;
use crate::keyspace::garbage::Cause;
use crate::keyspace::types::quicklist::Fill;
use crate::keyspace::types::{HashLimits, Limits, SetLimits, SortedSetLimits};
use crate::notify::EventClasses;
use crate::rdb::{Compression, VersionCheck};
use crate::shutdown::Options;
use crate::snapshot::rules::{self, SavePoint};
use directives::{ALIASES, Change, DIRECTIVES, Directive, Kind};
use value::normalize;

/// What is configured, and where it came from.
#[derive(Debug, Clone)]
pub struct Config {
    values: BTreeMap<&'static str, String>,
    /// The conf file, absolute.
    pub file: Option<PathBuf>,
    /// A `save` directive has been read: further ones add to it instead of replacing the default.
    save_given: bool,
}

/// `appendfsync`: when the write log is synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    Always,
    EverySecond,
    No,
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
    pub notify_keyspace_events: EventClasses,
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
    pub allow_reads_when_down: bool,
    pub replica_read_only: bool,
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
    pub loglevel: String,
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
    /// The parameters of the counters, with an LFU policy.
    pub lfu: Option<Lfu>,
    pub lazy_eviction: bool,
    pub lazy_expire: bool,
    pub lazy_server_del: bool,
    pub lazy_user_del: bool,
    /// 1 to 10.
    pub expire_effort: u32,
    /// Zero: never by itself.
    pub auto_aof_rewrite_percentage: u32,
    pub auto_aof_rewrite_min_bytes: u64,
    // Up to these sizes a collection counts as small, and a scan returns it whole.
    /// `*-max-listpack-*` and their like.
    pub limits: Limits,
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
            save_given: false,
        }
    }
}

impl Config {
    /// Reads the program's arguments: an optional conf file, then `--directive value ...`.
    ///
    /// # Errors
    /// One line that names the file and line, or the argument, and the reason.
    pub fn from_arguments(arguments: &[String]) -> Result<Config, String> {
        let mut config = Config::default();
        let mut rest = arguments;
        if let Some(first) = rest.first().filter(|a| !a.starts_with("--")) {
            config.read_file(Path::new(first))?;
            rest = &rest[1..];
        }
        while let [name, following @ ..] = rest {
            let Some(directive) = name.strip_prefix("--") else {
                return Err(format!("argument '{name}': expected --directive value"));
            };
            let count = following.iter().take_while(|a| !a.starts_with("--")).count();
            let values: Vec<String> = following[..count].to_vec();
            config.set_start(directive, &values).map_err(|e| format!("argument '{name}': {e}"))?;
            rest = &following[count..];
        }
        config.settings().map(|_| config)
    }

    fn read_file(&mut self, path: &Path) -> Result<(), String> {
        let text =
            std::fs::read(path).map_err(|e| format!("can't open config file '{}': {e}", path.display()))?;
        self.file = Some(std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
        for (number, line) in text.split(|b| *b == b'\n').enumerate() {
            let at = |reason: &str| format!("{}, line {}: {reason}", path.display(), number + 1);
            let trimmed = line.trim_ascii();
            if trimmed.is_empty() || trimmed[0] == b'#' {
                continue;
            }
            let words = split_words(trimmed).map_err(|_| at("unbalanced quotes"))?;
            let words: Vec<String> =
                words.into_iter().map(|w| String::from_utf8_lossy(&w).into_owned()).collect();
            let [name, values @ ..] = &words[..] else { continue };
            self.set_start(name, values).map_err(|e| at(&e))?;
        }
        Ok(())
    }

    fn set_start(&mut self, name: &str, values: &[String]) -> Result<(), String> {
        let name = name.to_ascii_lowercase();
        let directive = find(&name).ok_or_else(|| format!("unknown directive '{name}'"))?;
        if values.is_empty() {
            return Err(format!("directive '{name}' needs a value"));
        }
        let words = matches!(
            directive.kind,
            Kind::Words | Kind::Text | Kind::SavePoints | Kind::Ending | Kind::OutputLimits
        );
        if values.len() > 1 && !words {
            return Err(format!("directive '{name}' takes one value"));
        }
        let mut value = normalize(directive, &values.join(" "), self.text(directive.name))
            .map_err(|e| format!("bad value for '{name}': {e}"))?;
        if matches!(directive.kind, Kind::SavePoints) && std::mem::replace(&mut self.save_given, true) {
            let before = self.text(directive.name);
            if !value.is_empty() && !before.is_empty() {
                value = format!("{before} {value}");
            }
        }
        if directive.change == Change::Unavailable && value != directive.default {
            return Err(format!("'{name}' is not available in this version"));
        }
        self.values.insert(directive.name, value);
        Ok(())
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
                Change::StartOnly | Change::Unavailable => {
                    return Err(failed(name, "can't set immutable config"));
                }
                Change::Protected => return Err(failed(name, "can't set protected config")),
            }
            if pairs[..i].iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
                return Err(failed(name, "duplicate parameter"));
            }
            // A refused value is told with the directive's own spelling, all else with the client's.
            let own = name.to_ascii_lowercase();
            let value =
                normalize(directive, value, next.text(directive.name)).map_err(|why| failed(&own, &why))?;
            next.values.insert(directive.name, value);
        }
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
        let bus_port = match self.unsigned("bus-port")? {
            0 => port.checked_add(10000).ok_or("port + 10000 is above 65535: set bus-port")?,
            explicit => explicit,
        };
        let io_threads = match self.unsigned("io-threads")? {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let maxmemory: usize = self.unsigned("maxmemory")?;
        let policy = Policy::parse(self.text("maxmemory-policy"));
        let settings = Settings {
            port,
            bus_port,
            bind: words("bind"),
            protected_mode: self.yes("protected-mode"),
            tcp_backlog: self.unsigned("tcp-backlog")?,
            tcp_keepalive: seconds(self.integer("tcp-keepalive")),
            timeout: seconds(self.integer("timeout")),
            maxclients: self.unsigned("maxclients")?,
            io_threads,
            requirepass: self.text("requirepass").to_owned(),
            dir: PathBuf::from(self.text("dir")),
            databases: self.unsigned(if cluster_enabled { "cluster-databases" } else { "databases" })?,
            notify_keyspace_events: EventClasses::parse(self.text("notify-keyspace-events"))
                .unwrap_or_default(),
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
            allow_reads_when_down: self.yes("cluster-allow-reads-when-down"),
            replica_read_only: self.yes("replica-read-only"),
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
            loglevel: self.text("loglevel").to_owned(),
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
            limits: self.limits()?,
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
            lfu: policy.is_lfu().then_some(Lfu {
                log_factor: self.unsigned("lfu-log-factor")?,
                decay_minutes: self.unsigned("lfu-decay-time")?,
            }),
            auto_aof_rewrite_percentage: self.unsigned("auto-aof-rewrite-percentage")?,
            auto_aof_rewrite_min_bytes: self.unsigned("auto-aof-rewrite-min-size")?,
        };
        for (name, value) in
            [("appendfilename", &settings.append_filename), ("appenddirname", &settings.append_dirname)]
        {
            if value.is_empty() || value.contains('/') || value == "." || value == ".." {
                return Err(format!("'{name}' must be a name, not a path"));
            }
        }
        if settings.grace <= settings.lease {
            return Err("grace-ms must be larger than lease-ms".into());
        }
        if cluster_enabled && settings.sentinels.is_empty() {
            return Err("cluster-enabled yes needs --sentinels host:port,...".into());
        }
        Ok(settings)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(text: &str) -> Result<Config, String> {
        Config::from_arguments(&text.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn arguments_like_valkeys() {
        let config = arguments("--port 7000 --repl-backlog-size 1gb --bind 127.0.0.1 ::1 --save ").unwrap();
        let settings = config.settings().unwrap();
        assert_eq!((settings.port, settings.bus_port), (7000, 17000));
        assert_eq!(settings.bind, ["127.0.0.1", "::1"]);
        assert_eq!(config.text("repl-backlog-size"), "1073741824");
    }

    #[test]
    fn the_limit_of_clients_leaves_room_for_some() {
        let check = |text: &str, expect: usize| {
            assert_eq!(arguments(text).unwrap().settings().unwrap().maxmemory_clients, expect, "{text}");
        };
        check("--maxmemory 1gb", 0);
        check("--maxmemory-clients 50%", 0);
        check("--maxmemory 100mb --maxmemory-clients 0%", 0);
        check("--maxmemory 100mb --maxmemory-clients 50%", 52_428_800);
        check("--maxmemory 1kb --maxmemory-clients 100%", 128 << 10);
        check("--maxmemory-clients 1", 128 << 10);
        check("--maxmemory-clients 2mb", 2 << 20);
    }

    #[test]
    fn mistakes_are_named() {
        let check = |text: &str, expect: &str| assert_eq!(arguments(text).unwrap_err(), expect);
        check("--prot 1", "argument '--prot': unknown directive 'prot'");
        check(
            "--port x",
            "argument '--port': bad value for 'port': argument couldn't be parsed into an integer",
        );
        check("--lease-ms 500 --grace-ms 400", "grace-ms must be larger than lease-ms");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "port 1\n# comment\n\nappendfsync sometimes\n").unwrap();
        let error = arguments(file.path().to_str().unwrap()).unwrap_err();
        assert!(error.ends_with(
            "line 4: bad value for 'appendfsync': argument(s) must be one of the following: everysec, always, no"
        ));
    }

    #[test]
    fn config_set_is_all_or_nothing() {
        let mut config = Config::default();
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert!(config.set(&[pair("timeout", "5"), pair("port", "1")]).is_err());
        assert_eq!(config.text("timeout"), "0");
        assert!(config.set(&[pair("timeout", "5"), pair("TIMEOUT", "6")]).is_err());
        config.set(&[pair("timeout", "5"), pair("client-query-buffer-limit", "2mb")]).unwrap();
        assert_eq!((config.text("timeout"), config.text("client-query-buffer-limit")), ("5", "2097152"));
    }
}

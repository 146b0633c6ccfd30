//! The values that the program reads, typed.
//!
//! Each field is set by the row of its directive and by nothing else; a field that nobody reads is found by the
//! compiler. What depends on several directives is a method. `Duration`s and sizes have their unit in the type or the
//! name.

use crc_fast::{CrcAlgorithm, Digest};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use keyward_commands::DataLimits;
use keyward_net::logging::{LogFormat, TimestampFormat};
use keyward_net::tls::options::PeerConnections;
use keyward_net::tls::{ClientCertificates, NameField, SessionLimits, TlsOptions};
use keyward_proto::topology::FastFailover;
use keyward_replication::core::ReplicationAck;
use keyward_replication::disk_log::Fsync;
use keyward_replication::gate::GateState;
use keyward_store::access::Lfu;
use keyward_store::eviction::{Order, Policy};
use keyward_store::keys::KeySettings;
use keyward_store::lazyfree::Cause;
use keyward_store::rdb::{Compression, VersionCheck};

use super::types::Choice;
use crate::acl::{Channels, Users};
use crate::observe::commandlog::Limits;
use crate::shutdown::Options;
use crate::snapshot::rules::SavePoint;

#[derive(Debug, Clone, Default)]
pub struct Settings {
    pub(crate) port: u16,
    pub(super) tls_replication: bool,
    pub(super) tls_cluster: bool,
    /// Zero: none.
    pub(crate) metrics_port: u16,
    /// Zero: none.
    pub(crate) admin_port: u16,
    pub(crate) forwarding_port: u16,
    pub(crate) forwarding_tls_port: u16,
    /// Zero: none are written.
    pub(crate) flight_recorder_files: usize,
    /// Zero: see [`Settings::bus_port`].
    pub(super) bus_port: u16,
    /// Zero: no connections with TLS.
    pub(crate) tls_port: u16,
    pub(crate) bind: Vec<String>,
    pub(crate) protected_mode: bool,
    pub(crate) tcp_backlog: i32,
    /// `None`: off.
    pub(crate) tcp_keepalive: Option<Duration>,
    /// Idle clients are closed after this; `None`: never.
    pub(crate) timeout: Option<Duration>,
    /// A script that takes longer has other clients told that the server is busy.
    pub(crate) busy_reply_threshold: Duration,
    pub(crate) maxclients: usize,
    /// At least one.
    pub(crate) io_threads: usize,
    pub(super) debug_command: DebugCommand,
    pub(super) module_command: DebugCommand,
    /// Without what sessions there are: see [`Settings::tls_options`].
    pub(super) tls: TlsOptions,
    pub(crate) tls_user: CertificateUser,
    pub(super) tls_session_caching: bool,
    pub(super) tls_session_cache_size: usize,
    pub(super) tls_session_cache_timeout: Duration,
    /// How often it is looked whether certificates have changed; `None`: never.
    pub(crate) tls_reload_every: Option<Duration>,
    pub(super) requirepass: String,
    /// Whom directives, `user` lines, `aclfile` and ACL have made.
    pub(crate) users: Arc<Users>,
    /// Empty: none.
    pub(crate) aclfile: String,
    /// Which channels new users may use.
    pub(crate) acl_channels: Channels,
    pub(crate) acl_log_len_max: usize,
    /// Empty: none.
    pub(super) requirepass_file: String,
    /// Absolute.
    pub(crate) dir: PathBuf,
    pub(super) standalone_databases: u16,
    pub(super) cluster_databases: u16,
    pub(crate) loglevel: LogLevel,
    pub(crate) log_format: LogFormat,
    pub(crate) log_timestamp_format: TimestampFormat,
    /// Only shown.
    pub(crate) hz: i64,
    pub(crate) proto_max_bulk_len: usize,
    pub(super) hll_sparse_max_bytes: usize,
    pub(crate) query_buffer_limit: usize,
    pub(crate) output_limits: OutputLimits,
    pub(crate) cluster_enabled: bool,
    pub(crate) announce_ip: String,
    pub(crate) announce_port: u16,
    pub(crate) announce_tls_port: u16,
    pub(crate) announce_bus_port: u16,
    pub(crate) announce_hostname: String,
    pub(crate) preferred_endpoint: EndpointType,
    pub(crate) require_full_coverage: bool,
    pub(crate) serve_stale_data: bool,
    pub(crate) replica_priority: u32,
    pub(crate) backlog_len_bytes: usize,
    pub(crate) backlog_disk_bytes: u64,
    /// `host:port` of the sentinels' bus ports; empty: the node runs alone.
    pub(crate) sentinels: Vec<String>,
    /// What it has proves to the others that this node belongs to the cluster; empty: none is set.
    pub(crate) cluster_secret_file: String,
    pub(crate) replication_ack: ReplicationAck,
    /// Zero: half of the shard's nodes, rounded up.
    pub(crate) min_in_sync: usize,
    pub(crate) lease: Duration,
    pub(crate) grace: Duration,
    pub(crate) fast_failover: FastFailover,
    pub(crate) zone: String,
    pub(super) oom_score_adj: OomScoreAdj,
    /// Of a primary, a replica, and a process in the background.
    pub(super) oom_score_adj_values: [i32; 3],
    pub(super) logfile: String,
    pub(super) pidfile: String,
    pub(crate) daemonize: bool,
    pub(crate) supervised: Supervision,
    pub(super) syslog_enabled: bool,
    pub(super) syslog_ident: String,
    pub(super) syslog_facility: Facility,
    pub(crate) dbfilename: String,
    pub(crate) rdb_compression: Compression,
    /// Whether checksums of RDB files are written and compared.
    pub(crate) rdb_checksum: bool,
    pub(crate) rdb_version_check: VersionCheck,
    pub(crate) save_points: Vec<SavePoint>,
    pub(crate) stop_writes_on_bgsave_error: bool,
    pub(crate) rdb_incremental_fsync: bool,
    pub(crate) shutdown_on_sigterm: Options,
    pub(crate) shutdown_on_sigint: Options,
    /// Whether the write log is written to disk.
    pub(crate) appendonly: bool,
    pub(crate) appendfsync: Fsync,
    pub(crate) append_dirname: String,
    pub(crate) append_filename: String,
    pub(crate) aof_load_truncated: bool,
    /// Zero: no limit.
    pub(crate) maxmemory: usize,
    pub(super) maxmemory_clients: Share,
    pub(crate) maxmemory_policy: Policy,
    pub(crate) maxmemory_samples: usize,
    /// How long one command may evict; `None`: as long as it takes.
    pub(crate) eviction_time_max: Option<Duration>,
    /// The parameters of the counters, if the policy has them.
    pub(super) lfu: Lfu,
    pub(super) lazy_eviction: bool,
    pub(super) lazy_expire: bool,
    pub(super) lazy_server_del: bool,
    pub(super) lazy_user_del: bool,
    /// Which commands SLOWLOG and COMMANDLOG note.
    pub(crate) commandlog: Limits,
    /// From when on the latency monitor notes an event; zero: never.
    pub(crate) latency_threshold_millis: u64,
    /// Whether INFO shows how long calls take.
    pub(crate) latency_tracking: bool,
    /// Per cent.
    pub(crate) latency_percentiles: Vec<f64>,
    /// Keys of which is remembered who has read them; zero: no limit.
    pub(crate) tracking_keys_max: usize,
    /// 1 to 10.
    pub(crate) expire_effort: u32,
    /// Zero: never by itself.
    pub(crate) auto_aof_rewrite_percentage: u32,
    pub(crate) auto_aof_rewrite_min_bytes: u64,
    /// `*-max-listpack-*` and their like, `notify-keyspace-events`; of `lfu` what the policy needs.
    pub(crate) keys: KeySettings,
}

/// `tls-auth-clients-user`: which part of its certificate says whom a client stands for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum CertificateUser {
    #[default]
    Off,
    Named(NameField),
}

/// `enable-debug-command` and its like: who may use a command.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum DebugCommand {
    #[default]
    No,
    Yes,
    /// Clients on this host.
    Local,
}

impl DebugCommand {
    fn allows(self, address: &str) -> bool {
        match self {
            DebugCommand::No => false,
            DebugCommand::Yes => true,
            DebugCommand::Local => crate::io::clients::is_loopback(address),
        }
    }
}

/// `loglevel`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum LogLevel {
    Debug,
    Verbose,
    #[default]
    Notice,
    Warning,
    Nothing,
}

/// `cluster-preferred-endpoint-type`: what redirects name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum EndpointType {
    #[default]
    Ip,
    Hostname,
    Unknown,
}

/// `supervised`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Supervision {
    #[default]
    No,
    /// Nobody uses it any more.
    Upstart,
    Systemd,
    Auto,
}

/// `oom-score-adj`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum OomScoreAdj {
    #[default]
    No,
    /// As `Relative`.
    Yes,
    Relative,
    Absolute,
}

/// `syslog-facility`, as in RFC 5424.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Facility(u8);

/// An amount of memory, or a part of `maxmemory` in per cent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Share {
    Bytes(u64),
    Percent(u8),
}

impl Default for Share {
    fn default() -> Share {
        Share::Bytes(0)
    }
}

/// How readily the kernel ends this process when memory runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OomScores {
    /// They are added to the score that the process has at its start.
    pub(crate) relative: bool,
    pub(crate) primary: i32,
    pub(crate) replica: i32,
}

impl OomScores {
    pub(crate) fn of(&self, state: GateState) -> OomScore {
        let score = if matches!(state, GateState::Primary | GateState::Holding) {
            self.primary
        } else {
            self.replica
        };
        if self.relative { OomScore::Relative(score) } else { OomScore::Absolute(score) }
    }
}

/// A score for the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OomScore {
    /// Added to the one that the process has at its start.
    Relative(i32),
    Absolute(i32),
}

/// How lines in the system's log are marked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Syslog {
    pub(crate) ident: String,
    /// As in RFC 5424.
    pub(crate) facility: u8,
}

/// When a client that does not read what it is sent is closed. Zero bytes: never.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutputLimit {
    /// More than this closes it at once.
    pub(crate) hard_bytes: usize,
    /// More than this all the time for `soft_seconds` closes it.
    pub(crate) soft_bytes: usize,
    pub(crate) soft_seconds: u64,
}

/// `client-output-buffer-limit`: by class of clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct OutputLimits {
    pub(crate) normal: OutputLimit,
    /// Only shown: replicas are no clients.
    pub(super) replica: OutputLimit,
    pub(crate) pubsub: OutputLimit,
}

impl OutputLimits {
    /// The limit of a client with so many subscriptions.
    pub(crate) fn of_client(&self, subscriptions: usize) -> OutputLimit {
        if subscriptions == 0 { self.normal } else { self.pubsub }
    }
}

impl Choice for Fsync {
    const WORDS: &'static [(&'static str, Self)] =
        &[("everysec", Fsync::EverySecond), ("always", Fsync::Always), ("no", Fsync::No)];
}

impl Choice for DebugCommand {
    const WORDS: &'static [(&'static str, Self)] =
        &[("no", DebugCommand::No), ("yes", DebugCommand::Yes), ("local", DebugCommand::Local)];
}

impl Choice for Channels {
    const WORDS: &'static [(&'static str, Self)] =
        &[("allchannels", Channels::All), ("resetchannels", Channels::None)];
}

impl Choice for LogLevel {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("debug", LogLevel::Debug),
        ("verbose", LogLevel::Verbose),
        ("notice", LogLevel::Notice),
        ("warning", LogLevel::Warning),
        ("nothing", LogLevel::Nothing),
    ];
}

impl Choice for LogFormat {
    const WORDS: &'static [(&'static str, Self)] = LogFormat::WORDS;
}

impl Choice for TimestampFormat {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("legacy", TimestampFormat::Legacy),
        ("iso8601", TimestampFormat::Iso8601),
        ("milliseconds", TimestampFormat::Milliseconds),
    ];
}

impl Choice for EndpointType {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("ip", EndpointType::Ip),
        ("hostname", EndpointType::Hostname),
        ("unknown-endpoint", EndpointType::Unknown),
    ];
}

impl Choice for Supervision {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("upstart", Supervision::Upstart),
        ("systemd", Supervision::Systemd),
        ("auto", Supervision::Auto),
        ("no", Supervision::No),
    ];
}

impl Choice for OomScoreAdj {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("no", OomScoreAdj::No),
        ("yes", OomScoreAdj::Yes),
        ("relative", OomScoreAdj::Relative),
        ("absolute", OomScoreAdj::Absolute),
    ];
}

impl Choice for Facility {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("user", Facility(1)),
        ("local0", Facility(16)),
        ("local1", Facility(17)),
        ("local2", Facility(18)),
        ("local3", Facility(19)),
        ("local4", Facility(20)),
        ("local5", Facility(21)),
        ("local6", Facility(22)),
        ("local7", Facility(23)),
    ];
}

impl Choice for ClientCertificates {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("no", ClientCertificates::Unasked),
        ("yes", ClientCertificates::Required),
        ("optional", ClientCertificates::Optional),
    ];
}

impl Choice for CertificateUser {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("CN", CertificateUser::Named(NameField::CommonName)),
        ("URI", CertificateUser::Named(NameField::Uri)),
        ("off", CertificateUser::Off),
    ];
}

impl Choice for VersionCheck {
    const WORDS: &'static [(&'static str, Self)] =
        &[("strict", VersionCheck::Strict), ("relaxed", VersionCheck::Relaxed)];
}

impl Choice for ReplicationAck {
    const WORDS: &'static [(&'static str, Self)] =
        &[("in-sync", ReplicationAck::InSync), ("async", ReplicationAck::Async)];
}

impl Choice for FastFailover {
    const WORDS: &'static [(&'static str, Self)] =
        &[("trusted", FastFailover::Trusted), ("yes", FastFailover::Yes), ("no", FastFailover::No)];
}

impl Choice for Policy {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("volatile-lru", Policy::Volatile(Order::Lru)),
        ("volatile-lfu", Policy::Volatile(Order::Lfu)),
        ("volatile-random", Policy::Volatile(Order::Random)),
        ("volatile-ttl", Policy::Volatile(Order::Ttl)),
        ("allkeys-lru", Policy::AllKeys(Order::Lru)),
        ("allkeys-lfu", Policy::AllKeys(Order::Lfu)),
        ("allkeys-random", Policy::AllKeys(Order::Random)),
        ("noeviction", Policy::NoEviction),
    ];
}

/// Less is not enforced: nobody could connect to change it.
const CLIENTS_LIMIT_MIN: usize = 128 << 10;

impl Settings {
    /// Whether the node has no sentinels.
    pub(super) fn is_standalone(&self) -> bool {
        self.sentinels.is_empty()
    }

    /// The port that others are told as the node's own: without TLS, if there is one.
    pub(crate) fn main_port(&self) -> u16 {
        if self.port == 0 { self.tls_port } else { self.port }
    }

    /// Whether the bus, over which nodes replicate and talk to the sentinels, is encrypted: one of both is enough.
    pub(crate) fn encrypts_bus(&self) -> bool {
        self.tls_cluster || self.tls_replication
    }

    /// What `tls-*` says of certificates and handshakes.
    pub(crate) fn tls_options(&self) -> TlsOptions {
        let (count, age) = (self.tls_session_cache_size, self.tls_session_cache_timeout);
        let sessions = self.tls_session_caching.then_some(SessionLimits { count, age });
        let peers = if self.encrypts_bus() { PeerConnections::Tls } else { PeerConnections::Plain };
        TlsOptions { sessions, peers, ..self.tls.clone() }
    }

    /// Whether certificates are needed for anything.
    pub(crate) fn uses_tls(&self) -> bool {
        self.tls_port != 0 || self.encrypts_bus()
    }

    /// Where other nodes and sentinels connect; `None`: the number that is meant does not exist.
    pub(crate) fn bus_port(&self) -> Option<u16> {
        match self.bus_port {
            0 => self.main_port().checked_add(10000),
            explicit => Some(explicit),
        }
    }

    pub(crate) fn databases(&self) -> u16 {
        if self.cluster_enabled { self.cluster_databases } else { self.standalone_databases }
    }

    /// What clients may take with their buffers; zero: no limit.
    pub(crate) fn maxmemory_clients(&self) -> usize {
        let bytes = match self.maxmemory_clients {
            Share::Bytes(0) | Share::Percent(0) => return 0,
            Share::Bytes(bytes) => usize::try_from(bytes).unwrap_or(usize::MAX),
            Share::Percent(_) if self.maxmemory == 0 => return 0,
            Share::Percent(percent) => {
                self.maxmemory / 100 * usize::from(percent)
                    + self.maxmemory % 100 * usize::from(percent) / 100
            }
        };
        bytes.max(CLIENTS_LIMIT_MIN)
    }

    /// Whether a large value is dropped in the background.
    pub(crate) fn frees_lazily(&self, cause: Cause) -> bool {
        match cause {
            Cause::Evicted => self.lazy_eviction,
            Cause::Expired => self.lazy_expire,
            Cause::Replaced => self.lazy_server_del,
            Cause::Deleted => self.lazy_user_del,
            Cause::Unlinked => true,
        }
    }

    /// What commands on keys have to know.
    pub(crate) fn data_limits(&self) -> DataLimits {
        DataLimits {
            string_bytes_max: self.proto_max_bulk_len,
            databases: self.databases(),
            compression: self.rdb_compression,
            hll_sparse_bytes_max: self.hll_sparse_max_bytes,
            cluster: self.cluster_enabled,
        }
    }

    /// By which it is noticed that the nodes of a shard have not the same password. It travels in the clear and is shown, so
    /// it has less than eight bits: whoever sees it learns no more of the password than that, however fast he computes.
    pub(crate) fn password_mark(&self) -> u32 {
        const NONE: u32 = 1;
        const MARKS: u64 = 251;
        let default = self.users.default_user();
        if default.has_no_password() {
            return NONE;
        }
        let mut hashes = default.passwords();
        let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
        digest.update(b"requirepass");
        if hashes == Users::with_password(&self.requirepass).default_user().passwords() {
            digest.update(self.requirepass.as_bytes());
        } else {
            hashes.sort_unstable();
            hashes.iter().for_each(|hash| digest.update(hash.as_bytes()));
        }
        NONE + 1 + (digest.finalize() % MARKS) as u32
    }

    /// Whether a client at this address may use DEBUG.
    pub(crate) fn allows_debug(&self, address: &str) -> bool {
        self.debug_command.allows(address)
    }

    /// Whether a client at this address may use MODULE.
    pub(crate) fn allows_modules(&self, address: &str) -> bool {
        self.module_command.allows(address)
    }

    /// Where lines of the log go; `None`: standard error.
    pub(crate) fn log_file(&self) -> Option<PathBuf> {
        self.path(&self.logfile)
    }

    pub(crate) fn pid_file(&self) -> Option<PathBuf> {
        self.path(&self.pidfile)
    }

    /// A file that a directive names.
    fn path(&self, name: &str) -> Option<PathBuf> {
        (!name.is_empty()).then(|| self.dir.join(name))
    }

    /// Whether, and as what, lines go to the system's log.
    pub(crate) fn syslog(&self) -> Option<Syslog> {
        let syslog = || Syslog { ident: self.syslog_ident.clone(), facility: self.syslog_facility.0 };
        self.syslog_enabled.then(syslog)
    }

    /// Whether who looks at standard error sees nothing of the log.
    pub fn logs_elsewhere(&self) -> bool {
        self.log_file().is_some() || self.syslog_enabled
    }

    /// `None`: the kernel's choice of what to end first stays as it is.
    pub(crate) fn oom_scores(&self) -> Option<OomScores> {
        let [primary, replica, _] = self.oom_score_adj_values;
        match self.oom_score_adj {
            OomScoreAdj::No => None,
            OomScoreAdj::Yes | OomScoreAdj::Relative => Some(OomScores { relative: true, primary, replica }),
            OomScoreAdj::Absolute => Some(OomScores { relative: false, primary, replica }),
        }
    }
}

//! Options: flags on the command line, or the same names in a conf file, one `name value` per line.
//!
//! Flags win over the file. Anything unknown or wrong is one line that names the file, the line and the reason.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, Parser, Subcommand};
use keyward_net::logging::LogFormat;
use keyward_net::tls::{CipherPreference, ClientCertificates, Identity, Secret, SessionLimits, TlsOptions};
use keyward_proto::conf_kind;
use keyward_proto::peer::split_address;
use keyward_proto::resp::request::split_words;
use keyward_proto::topology::{Shape, Transport};

use crate::rules::health::Hosts;
use crate::rules::topology::RaftId;

/// Clients of sentinels are few.
const SESSIONS: SessionLimits = SessionLimits { count: 1024, age: Duration::from_secs(300) };

/// Keyward's control plane: sentinels agree on which node serves which slots, and replace primaries that fail.
///
/// Sentinels form one group; start three with the same --initial list. Nodes need the bus address of any of them.
/// Clients find the primary through the Sentinel API on --port.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "keyward-sentinel",
    version,
    args_override_self = true,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Example, one of three:\n  keyward-sentinel --dir /var/lib/keyward --name s1 \\\n    --initial s1=10.0.0.1:36379,s2=10.0.0.2:36379,s3=10.0.0.3:36379"
)]
pub struct Options {
    /// File with `name value` lines; the names are those of the flags below
    #[arg(value_name = "CONF-FILE")]
    pub conf_file: Option<PathBuf>,

    /// Directory of the durable state
    #[arg(long, default_value = "sentinel-data")]
    pub dir: PathBuf,

    /// Port of the Sentinel API; 0: none without TLS
    #[arg(long, default_value_t = 26379)]
    pub port: u16,

    /// Port of the Sentinel API with TLS; 0: none
    #[arg(long, default_value_t = 0)]
    pub tls_port: u16,

    #[command(flatten)]
    pub tls: TlsArguments,

    /// Port for nodes and other sentinels [default: port + 10000]
    #[arg(long)]
    pub bus_port: Option<u16>,

    /// Port for metrics, /healthz, /readyz and /flight over HTTP; 0: none
    #[arg(long, default_value_t = 0)]
    pub metrics_port: u16,

    /// So many recordings of what happened lately are kept in DIR/flight, one after each failover; 0: none is written
    #[arg(long, default_value_t = 8, value_name = "NUMBER")]
    pub flight_recorder_files: usize,

    /// Port for the page that shows the cluster in a browser; 0: none
    #[arg(long, default_value_t = 0)]
    pub http_port: u16,

    /// Whether the page is encrypted, with the certificates of the Sentinel API with TLS (yes or no)
    #[arg(long, default_value = "no", value_parser = ["yes", "no"])]
    pub http_tls: String,

    /// File with the token of those who may hand a primary over on the page; without one nobody may [default: the file
    /// in KEYWARD_HTTP_ADMIN_TOKEN_FILE]
    #[arg(long, value_name = "FILE")]
    pub http_admin_token_file: Option<PathBuf>,

    /// Name of this sentinel, as in --initial
    #[arg(long, default_value = "s1")]
    pub name: String,

    /// All sentinels of the group: name=host:bus-port, separated by commas [default: this one alone]
    #[arg(long, value_name = "LIST")]
    pub initial: Option<String>,

    /// Address to listen on
    #[arg(long, default_value = "0.0.0.0", value_name = "ADDRESS")]
    pub bind: String,

    /// Host that clients and other sentinels are told [default: the host in --initial]
    #[arg(long, value_name = "HOST")]
    pub announce_host: Option<String>,

    /// Wanted number of shards
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16384))]
    pub shards: u32,

    /// Wanted replicas of each shard
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub replicas: u32,

    /// Name of the first shard in the Sentinel API; the others are NAME-2, NAME-3 ...
    #[arg(long, default_value = "mymaster", value_name = "NAME")]
    pub primary_name: String,

    /// Password that clients of the Sentinel API must give
    #[arg(long, value_name = "PASSWORD")]
    pub requirepass: Option<String>,

    /// File whose first line is that password, if requirepass is not set
    #[arg(long, value_name = "FILE")]
    pub requirepass_file: Option<PathBuf>,

    /// User of the nodes: kept so that a conf file written for Sentinel can be used
    #[arg(long, value_name = "USER")]
    pub auth_user: Option<String>,

    /// Password of the nodes, shown to nobody: kept so that a conf file written for Sentinel can be used
    #[arg(long, value_name = "PASSWORD")]
    pub auth_pass: Option<String>,

    #[command(flatten)]
    pub bus: BusArguments,

    /// A node that has been silent for so long is reported as +sdown
    #[arg(long, default_value_t = 1000, value_name = "MILLISECONDS")]
    pub down_after_milliseconds: u64,

    /// Tell clients the nodes' host names instead of addresses (yes or no)
    #[arg(long, default_value = "no", value_parser = hosts)]
    pub announce_hostnames: Hosts,

    /// legacy (for people), logfmt or json (one object for each line)
    #[arg(long, default_value = "legacy", value_parser = log_format, value_name = "FORMAT")]
    pub log_format: LogFormat,

    /// debug, verbose, notice or warning
    #[arg(long, default_value = "notice", value_parser = ["debug", "verbose", "notice", "warning"])]
    pub loglevel: String,

    #[command(subcommand)]
    pub command: Option<Command>,
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    let known = LogFormat::WORDS.iter().find(|(word, _)| *word == text);
    known.map(|(_, format)| *format).ok_or_else(|| "it must be legacy, logfmt or json".to_owned())
}

impl Options {
    pub(crate) fn encrypts_page(&self) -> bool {
        self.http_port != 0 && self.http_tls == "yes"
    }
}

/// How a process takes part in the cluster.
#[derive(Debug, Clone, clap::Args)]
pub struct BusArguments {
    /// File with the secret that all nodes and sentinels of the cluster know, on a line of its own; a second line is
    /// accepted, too [default: the file in KEYWARD_CLUSTER_SECRET_FILE, or KEYWARD_CLUSTER_SECRET itself]
    #[arg(long, value_name = "FILE")]
    pub cluster_secret_file: Option<PathBuf>,

    /// Speak TLS with the nodes and the other sentinels, all of which show certificates of one CA (yes or no)
    #[arg(long, default_value = "no", value_parser = ["yes", "no"])]
    pub tls_cluster: String,
}

impl BusArguments {
    pub(crate) fn encrypts(&self) -> bool {
        self.tls_cluster == "yes"
    }
}

/// Certificates and handshakes of the TLS port and of the bus, as a node has them.
#[derive(Debug, Clone, clap::Args)]
pub struct TlsArguments {
    /// Certificate (PEM), and behind it those between it and the CA
    #[arg(long, value_name = "FILE")]
    pub tls_cert_file: Option<PathBuf>,

    /// Its private key (PEM)
    #[arg(long, value_name = "FILE")]
    pub tls_key_file: Option<PathBuf>,

    /// Password of the key; better in the conf file, as everybody on this host sees flags
    #[arg(long, value_name = "PASSWORD", value_parser = secret)]
    pub tls_key_file_pass: Option<Secret>,

    /// Certificates of the CAs that issue clients' certificates
    #[arg(long, value_name = "FILE")]
    pub tls_ca_cert_file: Option<PathBuf>,

    /// Folder with such files
    #[arg(long, value_name = "FOLDER")]
    pub tls_ca_cert_dir: Option<PathBuf>,

    /// Whether clients have to show a certificate: yes, no or optional
    #[arg(long, default_value = "yes", value_parser = client_certificates)]
    pub tls_auth_clients: ClientCertificates,

    /// TLSv1.2, TLSv1.3 or both [default: both]
    #[arg(long, default_value = "", hide_default_value = true)]
    pub tls_protocols: String,

    /// Cipher suites for TLS 1.2, by OpenSSL's names [default: all]
    #[arg(long, default_value = "", hide_default_value = true)]
    pub tls_ciphers: String,

    /// Cipher suites for TLS 1.3 [default: all]
    #[arg(long, default_value = "", hide_default_value = true)]
    pub tls_ciphersuites: String,

    /// Whether the order of these counts, and not the client's (yes or no)
    #[arg(long, default_value = "no", value_parser = cipher_preference)]
    pub tls_prefer_server_ciphers: CipherPreference,

    /// Seconds between two looks at whether certificates have changed; 0: never
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    pub tls_auto_reload_interval: u64,
}

impl TlsArguments {
    pub(crate) fn options(&self) -> TlsOptions {
        TlsOptions {
            server: Identity {
                certificate: self.tls_cert_file.clone(),
                key: self.tls_key_file.clone(),
                password: self.tls_key_file_pass.clone().unwrap_or_default(),
            },
            ca_file: self.tls_ca_cert_file.clone(),
            ca_dir: self.tls_ca_cert_dir.clone(),
            client_certificates: self.tls_auth_clients,
            protocols: self.tls_protocols.clone(),
            ciphers: self.tls_ciphers.clone(),
            ciphersuites: self.tls_ciphersuites.clone(),
            cipher_preference: self.tls_prefer_server_ciphers,
            sessions: Some(SESSIONS),
            ..TlsOptions::default()
        }
    }
}

/// What an operator can ask of a running group.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Show shards, roles, in-sync sets, terms, lag and the sentinels, and what is wrong
    #[command(
        after_help = "Exit code: 0 all well; 3 everything is served, but not all processes are up and in sync; \
                            4 something is not served, or would not be replaced if it failed; 1 nobody answers"
    )]
    Status {
        #[command(flatten)]
        target: Target,
        /// Nodes to ask if no sentinel answers, separated by commas; with names, which are shown
        #[arg(long, value_name = "[NAME=]HOST:BUS-PORT", value_delimiter = ',', value_parser = named_address)]
        nodes: Vec<NamedAddress>,
        /// JSON instead of a table
        #[arg(long)]
        json: bool,
        /// Again and again, until Ctrl-C; without a terminal a block whenever something has changed
        #[arg(long, conflicts_with = "json")]
        watch: bool,
    },
    /// Hand a shard's primary role over to a replica, without losing a write
    Failover {
        /// Name (mymaster) or ID of the shard, or the beginning of its ID
        shard: String,
        /// The replica that should become primary: its ID, the beginning of it, or host:port
        #[arg(long, value_name = "NODE")]
        to: Option<String>,
        #[command(flatten)]
        target: Target,
    },
    /// Form shards of what the nodes hold, around those that have most: where it differs, or is of shards that these
    /// sentinels do not know since they have lost their directories
    #[command(
        after_help = "Wait until all nodes of the cluster are there: what only an absent node has would be lost. Nodes \
                            that hold something else than the shard that they would belong to stay out, with all that they \
                            have."
    )]
    Adopt {
        #[command(flatten)]
        target: Target,
    },
    /// Set for all shards how many nodes must be in sync for writes, in the place of the nodes' min-in-sync
    #[command(
        after_help = "What is acknowledged is on so many nodes at that moment. With a larger number writes may be \
                            refused at once; a smaller one lets a shard go on that has lost nodes."
    )]
    MinInSync {
        /// 0: what each node is set to
        nodes: u32,
        #[command(flatten)]
        target: Target,
    },
    /// Save the keys of all shards, each as it is at one moment, into a new folder
    #[command(
        after_help = "A shard is read from a replica that is in sync and has executed all that the primary had when the \
                            backup began. Each file is read back; if anything is missing there is no backup. Restore it \
                            with keyward-sentinel restore, or start a node alone with one of the files as its dump.rdb."
    )]
    Backup {
        /// Folder of the backups: each gets a folder in it, named after its time
        #[arg(long, value_name = "FOLDER")]
        to: PathBuf,
        /// Remove the oldest of the complete ones when there are more
        #[arg(long, value_name = "N")]
        keep: Option<usize>,
        #[command(flatten)]
        access: Access,
        #[command(flatten)]
        target: Target,
    },
    /// Load a backup into a running cluster, which may have other shards than the one that was saved
    #[command(
        after_help = "A cluster that has keys is refused, unless --replace is given. Functions are replaced."
    )]
    Restore {
        /// Folder of one backup, or an RDB file, such as a dump.rdb of Valkey or Redis
        #[arg(long, value_name = "FOLDER|FILE")]
        from: PathBuf,
        /// Into a cluster that has keys: those of the same names are replaced, all others stay
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        access: Access,
        #[command(flatten)]
        target: Target,
    },
    /// Forget a node that will not come back
    RemoveNode {
        /// Its ID, the beginning of it, or host:port
        node: String,
        #[command(flatten)]
        target: Target,
    },
}

/// How a program of an operator reaches nodes as their client.
#[derive(Debug, Clone, clap::Args)]
pub struct Access {
    /// File whose first line is the nodes' password [default: the file in VALKEY_PASSWORD_FILE, or VALKEY_PASSWORD itself]
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Speak TLS to the nodes' ports for clients, with the certificates of the tls flags
    #[arg(long)]
    pub client_tls: bool,
}

#[derive(Debug, Clone, clap::Args)]
pub struct Target {
    /// Bus address of any sentinel; of several, separated by commas, the first that answers is asked
    #[arg(long, default_value = "127.0.0.1:36379", value_name = "HOST:BUS-PORT", value_delimiter = ',')]
    pub sentinel: Vec<String>,
    #[command(flatten)]
    pub bus: BusArguments,
    #[command(flatten)]
    pub tls: TlsArguments,
}

/// A password as a file has it: its first line.
///
/// # Errors
/// In words, with the path.
pub(crate) fn password_in(path: &Path) -> Result<String, String> {
    let told = |why: &dyn std::fmt::Display| format!("can't use the password file {}: {why}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| told(&error))?;
    match text.lines().next() {
        None | Some("") => Err(told(&"its first line is empty")),
        Some(password) => Ok(password.to_owned()),
    }
}

/// An address, and what it is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedAddress {
    pub name: Option<String>,
    pub address: String,
}

fn named_address(text: &str) -> Result<NamedAddress, String> {
    let (name, address) = match text.split_once('=') {
        Some((name, address)) if !name.is_empty() => (Some(name.to_owned()), address),
        _ => (None, text),
    };
    if split_address(address).is_none() {
        return Err(format!("`{address}` is not host:bus-port"));
    }
    Ok(NamedAddress { name, address: address.to_owned() })
}

fn secret(text: &str) -> Result<Secret, String> {
    Ok(Secret(text.to_owned()))
}

fn client_certificates(text: &str) -> Result<ClientCertificates, String> {
    match text {
        "yes" => Ok(ClientCertificates::Required),
        "optional" => Ok(ClientCertificates::Optional),
        "no" => Ok(ClientCertificates::Unasked),
        _ => Err("it must be yes, no or optional".into()),
    }
}

fn cipher_preference(text: &str) -> Result<CipherPreference, String> {
    match text {
        "yes" => Ok(CipherPreference::Server),
        "no" => Ok(CipherPreference::Client),
        _ => Err("it must be yes or no".into()),
    }
}

fn hosts(text: &str) -> Result<Hosts, String> {
    match text {
        "yes" => Ok(Hosts::Names),
        "no" => Ok(Hosts::Addresses),
        _ => Err("it must be yes or no".into()),
    }
}

/// A sentinel of the first group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Founder {
    pub id: RaftId,
    pub name: String,
    pub host: String,
    pub bus_port: u16,
}

/// Checked options.
#[derive(Debug, Clone)]
pub struct Config {
    pub options: Options,
    pub bus_port: u16,
    pub founders: Vec<Founder>,
    pub announce_host: String,
}

/// One line for the operator.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct ConfigError(pub String);

impl Config {
    /// Checks what the types of the single options cannot.
    ///
    /// # Errors
    /// One line that says what is wrong.
    pub fn new(mut options: Options) -> Result<Config, ConfigError> {
        if let (None, Some(path)) = (&options.requirepass, &options.requirepass_file) {
            options.requirepass = Some(password_in(path).map_err(ConfigError)?);
        }
        let bus_port = match options.bus_port {
            Some(port) => port,
            None => main_port(&options)
                .checked_add(10000)
                .ok_or_else(|| ConfigError("port + 10000 is beyond 65535: give --bus-port".into()))?,
        };
        if main_port(&options) == 0 {
            return Err(ConfigError("neither port nor tls-port is set: no client could connect".into()));
        }
        let founders = match &options.initial {
            Some(list) => parse_initial(list)?,
            None => vec![Founder { id: 1, name: options.name.clone(), host: "127.0.0.1".into(), bus_port }],
        };
        let me = founders.iter().find(|f| f.name == options.name);
        let me = me
            .ok_or_else(|| ConfigError(format!("--initial does not list this sentinel, {}", options.name)))?;
        let announce_host = options.announce_host.clone().unwrap_or_else(|| me.host.clone());
        Ok(Config { bus_port, announce_host, founders, options })
    }

    /// The port that others are told as this sentinel's own: without TLS, if there is one.
    pub(crate) fn main_port(&self) -> u16 {
        main_port(&self.options)
    }

    /// How clients can be connected.
    pub(crate) fn transports(&self) -> impl Iterator<Item = Transport> + use<> {
        let ports = [(self.options.port, Transport::Plain), (self.options.tls_port, Transport::Tls)];
        ports.into_iter().filter(|(port, _)| *port != 0).map(|(_, transport)| transport)
    }

    /// What the operator wants; placement works towards it.
    pub(crate) fn shape(&self) -> Shape {
        Shape {
            shards: self.options.shards,
            replicas_per_shard: self.options.replicas,
            primary_name: self.options.primary_name.clone(),
        }
    }

    pub(crate) fn initial_addresses(&self) -> BTreeMap<RaftId, String> {
        let address = |f: &Founder| keyward_proto::topology::names::host_port(&f.host, f.bus_port);
        self.founders.iter().map(|f| (f.id, address(f))).collect()
    }
}

fn main_port(options: &Options) -> u16 {
    if options.port == 0 { options.tls_port } else { options.port }
}

fn parse_initial(list: &str) -> Result<Vec<Founder>, ConfigError> {
    let mut founders: Vec<Founder> = Vec::new();
    for (item, id) in list.split(',').map(str::trim).filter(|item| !item.is_empty()).zip(1..) {
        let wrong = || ConfigError(format!("--initial: `{item}` is not name=host:bus-port"));
        let (name, address) = item.split_once('=').ok_or_else(wrong)?;
        let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
        let bus_port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if name.is_empty() || host.is_empty() {
            return Err(wrong());
        }
        if founders.iter().any(|f| f.name == name) {
            return Err(ConfigError(format!("--initial lists {name} twice")));
        }
        founders.push(Founder { id, name: name.into(), host: host.into(), bus_port });
    }
    if founders.is_empty() {
        return Err(ConfigError("--initial is empty".into()));
    }
    Ok(founders)
}

/// Reads flags, and the conf file that they name.
///
/// # Errors
/// clap's own error for `--help` and flags; for the file one line.
pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Options, ParseError> {
    let args: Vec<String> = args.into_iter().collect();
    let options = Options::try_parse_from(&args)?;
    let Some(file) = options.conf_file.clone() else { return Ok(options) };
    let text =
        std::fs::read(&file).map_err(|e| ConfigError(format!("cannot read {}: {e}", file.display())))?;
    let mut all: Vec<String> = args.first().cloned().into_iter().collect();
    all.extend(file_to_flags(&file, &text).map_err(|fault| match conf_kind::foreign_to_sentinel(&text) {
        Some(kind) => {
            ConfigError(format!("{} is not a conf file of keyward-sentinel: it is {kind}", file.display()))
        }
        None => fault,
    })?);
    all.extend(args.into_iter().skip(1));
    Ok(Options::try_parse_from(all)?)
}

#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    #[error(transparent)]
    Flags(#[from] clap::Error),
    #[error(transparent)]
    File(#[from] ConfigError),
}

fn file_to_flags(file: &Path, text: &[u8]) -> Result<Vec<String>, ConfigError> {
    let mut flags = Vec::new();
    for (number, line) in (1..).zip(text.split(|b| *b == b'\n')) {
        let wrong = |reason: &str| ConfigError(format!("{}, line {number}: {reason}", file.display()));
        let trimmed = line.trim_ascii();
        if trimmed.is_empty() || trimmed.starts_with(b"#") {
            continue;
        }
        let words = split_words(trimmed).map_err(|_| wrong("unbalanced quotes"))?;
        let words: Result<Vec<String>, _> = words.into_iter().map(String::from_utf8).collect();
        let words = words.map_err(|_| wrong("not UTF-8"))?;
        let [name, value] = words.as_slice() else {
            return Err(wrong("expected a name and a value"));
        };
        let flag = format!("--{}", name.trim_start_matches("--"));
        let one = Options::command().try_get_matches_from(["keyward-sentinel", &flag, value]);
        match one {
            Ok(_) => flags.extend([flag, value.clone()]),
            Err(e) => return Err(wrong(&reason(&e, name, value))),
        }
    }
    Ok(flags)
}

/// What clap found wrong with one option, on one line.
fn reason(error: &clap::Error, name: &str, value: &str) -> String {
    match error.kind() {
        clap::error::ErrorKind::UnknownArgument => format!("unknown option `{name}`"),
        clap::error::ErrorKind::InvalidValue => match error.get(ContextKind::ValidValue) {
            Some(ContextValue::Strings(valid)) if !valid.is_empty() => {
                format!("`{value}` is no value for `{name}`: it must be one of {}", valid.join(", "))
            }
            _ => format!("`{value}` is no value for `{name}`"),
        },
        _ => {
            let source = std::error::Error::source(error).map(|e| format!(": {e}")).unwrap_or_default();
            format!("`{value}` is no value for `{name}`{source}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(args: &[&str]) -> Result<Options, ParseError> {
        parse(std::iter::once("keyward-sentinel").chain(args.iter().copied()).map(String::from))
    }

    #[test]
    fn the_position_in_the_list_is_the_raft_id() {
        let config =
            Config::new(options(&["--name", "b", "--initial", "a=h1:1,b=[::1]:2"]).unwrap()).unwrap();
        assert_eq!(config.founders[1], Founder { id: 2, name: "b".into(), host: "::1".into(), bus_port: 2 });
        assert_eq!(config.initial_addresses()[&2], "[::1]:2");
        assert_eq!((config.announce_host.as_str(), config.bus_port), ("::1", 36379));
        for list in ["a=h1", "a", "=h:1", "a=h:0", "a=h:1,a=h:2", ""] {
            let config = Config::new(options(&["--name", "a", "--initial", list]).unwrap());
            assert!(config.is_err(), "{list}");
        }
        let stranger = Config::new(options(&["--name", "c", "--initial", "a=h1:1"]).unwrap());
        assert_eq!(stranger.unwrap_err().0, "--initial does not list this sentinel, c");
    }

    #[test]
    fn the_password_may_be_in_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        let password = |more: &[&str]| {
            let args = [&["--requirepass-file", path.to_str().unwrap()][..], more].concat();
            Config::new(options(&args).unwrap()).map(|config| config.options.requirepass)
        };
        assert!(password(&[]).unwrap_err().0.starts_with("can't use the password file"));
        std::fs::write(&path, "\n").unwrap();
        assert!(password(&[]).unwrap_err().0.ends_with("its first line is empty"));
        std::fs::write(&path, "a password\nmore\n").unwrap();
        assert_eq!(password(&[]).unwrap().as_deref(), Some("a password"));
        assert_eq!(password(&["--requirepass", "given"]).unwrap().as_deref(), Some("given"));
    }

    #[test]
    fn a_file_is_overridden_by_flags_and_its_errors_name_the_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sentinel.conf");
        let name = path.to_str().unwrap();
        let check = |text: &str, error: &str| {
            std::fs::write(&path, text).unwrap();
            assert_eq!(options(&[name]).unwrap_err().to_string(), format!("{name}, {error}"));
        };
        check("# comment\n\nprot 1\n", "line 3: unknown option `prot`");
        check("port 99999\n", "line 1: `99999` is no value for `port`: 99999 is not in 0..=65535");
        check(
            "loglevel loud\n",
            "line 1: `loud` is no value for `loglevel`: it must be one of debug, verbose, notice, warning",
        );
        check(
            "announce-hostnames maybe\n",
            "line 1: `maybe` is no value for `announce-hostnames`: it must be yes or no",
        );
        check("port\n", "line 1: expected a name and a value");
        std::fs::write(&path, "port 6379\nappendonly yes\n").unwrap();
        let error = options(&[name]).unwrap_err().to_string();
        assert!(error.ends_with("is not a conf file of keyward-sentinel: it is a conf file of a node (keyward-node, valkey-server, redis-server)"), "{error}");
        std::fs::write(&path, "port 1000\nname \"x y\"\n").unwrap();
        let read = options(&[name, "--port", "2000"]).unwrap();
        assert_eq!((read.port, read.name.as_str()), (2000, "x y"));
        std::fs::remove_file(&path).unwrap();
        assert!(options(&[name]).unwrap_err().to_string().starts_with("cannot read "));
    }

    #[test]
    fn subcommands_need_no_other_option() {
        let read = options(&["status", "--json", "--sentinel", "h:1"]).unwrap();
        assert!(matches!(read.command, Some(Command::Status { json: true, .. })));
        let read = options(&["failover", "mymaster", "--to", "abc"]).unwrap();
        assert!(matches!(read.command, Some(Command::Failover { to: Some(_), .. })));
        let read = options(&["status", "--sentinel", "h:1,i:2", "--nodes", "n1=h:3,h:4"]).unwrap();
        let Some(Command::Status { target, nodes, .. }) = read.command else { panic!("{read:?}") };
        assert_eq!(target.sentinel, ["h:1", "i:2"]);
        assert_eq!(nodes[0], NamedAddress { name: Some("n1".into()), address: "h:3".into() });
        assert_eq!(nodes[1], NamedAddress { name: None, address: "h:4".into() });
        assert!(options(&["status", "--nodes", "n1=h"]).is_err());
    }
}

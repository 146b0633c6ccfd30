//! INFO: sections of `field:value` lines, with Valkey's names so that exporters and dashboards find them.
//!
//! Fields of features that do not exist here are there with the value that they have while nothing happens.

mod activity;
mod memory;
mod replication;
mod server;

use std::collections::BTreeSet;
use std::fmt::Write;

use keyward_proto::resp::Args;

use crate::admin::{ServerCommand, ServerContext, ServerOutcome, ServerResult, plain};
use crate::command::spec::{LOADING, SENTINEL, STALE, category};

/// Writes lines of a section.
struct Lines(String);

impl Lines {
    fn field(&mut self, name: &str, value: impl std::fmt::Display) {
        let written = write!(self.0, "{name}:{value}\r\n");
        debug_assert!(written.is_ok(), "writing to a string does not fail");
    }

    fn fields(&mut self, fields: &[(&str, &dyn std::fmt::Display)]) {
        for (name, value) in fields {
            self.field(name, value);
        }
    }

    /// Fields whose value is zero as long as this server has no such thing.
    fn zeros(&mut self, names: &[&str]) {
        for name in names {
            self.field(name, 0);
        }
    }
}

struct Section {
    /// As an argument: in lower case.
    name: &'static str,
    title: &'static str,
    /// Shown without arguments.
    is_default: bool,
    write: fn(&mut ServerContext<'_, '_>, &mut Lines),
}

const fn section(
    name: &'static str,
    title: &'static str,
    write: fn(&mut ServerContext<'_, '_>, &mut Lines),
) -> Section {
    Section { name, title, is_default: true, write }
}

impl Section {
    const fn on_request(self) -> Section {
        Section { is_default: false, ..self }
    }
}

static SECTIONS: &[Section] = &[
    section("server", "Server", server::server),
    section("tls", "TLS", server::tls).on_request(),
    section("clients", "Clients", activity::clients),
    section("memory", "Memory", memory::memory),
    section("persistence", "Persistence", memory::persistence),
    section("stats", "Stats", activity::stats),
    section("replication", "Replication", replication::replication),
    section("cpu", "CPU", server::cpu),
    section("modules", "Modules", server::nothing),
    section("commandstats", "Commandstats", activity::commandstats).on_request(),
    section("errorstats", "Errorstats", activity::errorstats),
    section("latencystats", "Latencystats", activity::latencystats).on_request(),
    section("cluster", "Cluster", replication::cluster),
    section("cluster_info", "Cluster Info", server::nothing).on_request(),
    section("scriptingengines", "Scripting Engines", server::scripting_engines).on_request(),
    section("keyspace", "Keyspace", activity::keyspace),
];

/// `INFO [section [section ...]]`
pub(super) const INFO: ServerCommand = plain("info", info, -1, LOADING | STALE | SENTINEL, "1.0.0")
    .categories(category::DANGEROUS)
    .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"]);
fn info(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    let wanted: BTreeSet<Vec<u8>> = args.iter().skip(1).map(<[u8]>::to_ascii_lowercase).collect();
    let has = |word: &str| wanted.contains(word.as_bytes());
    let all = has("all") || has("everything");
    let default = wanted.is_empty() || has("default");
    let mut lines = Lines(String::new());
    for section in SECTIONS {
        if !(all || (default && section.is_default) || has(section.name)) {
            continue;
        }
        if !lines.0.is_empty() {
            lines.0.push_str("\r\n");
        }
        lines.0.push_str(&format!("# {}\r\n", section.title));
        (section.write)(ctx, &mut lines);
    }
    ctx.out.verbatim("txt", lines.0.as_bytes());
    Ok(ServerOutcome::Reply)
}

/// Bytes as people read them: `1.50M`.
fn human(bytes: usize) -> String {
    let units = ["B", "K", "M", "G", "T", "P"];
    let mut unit = 0;
    #[allow(clippy::cast_precision_loss, reason = "two digits are shown")]
    let mut value = bytes as f64;
    while 1024.0 <= value && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes}B") } else { format!("{value:.2}{}", units[unit]) }
}

/// Two digits behind the point; zero if there is nothing to divide by.
fn ratio(part: usize, whole: usize) -> String {
    #[allow(clippy::cast_precision_loss, reason = "two digits are shown")]
    let ratio = if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    format!("{ratio:.2}")
}

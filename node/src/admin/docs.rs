//! COMMAND DOCS: what a command is for and which arguments it takes, from `docs.json`.
//!
//! Differs from Valkey: the summaries are our own, and the history of commands is left out.

use std::collections::HashMap;
use std::sync::LazyLock;

use keyward_proto::resp::{Args, ReplyWriter};
use serde::Deserialize;

use super::command::find_full_name;
use crate::admin::{ServerCommand, ServerContext, ServerOutcome, ServerResult, plain};
use crate::command::spec::{LOADING, SENTINEL, STALE, category};
use crate::command::table::{self, Row};

#[derive(Debug, Deserialize)]
struct Docs {
    summary: String,
    complexity: Option<String>,
    /// For servers among each other, not for clients.
    #[serde(default)]
    system: bool,
    deprecated_since: Option<String>,
    replaced_by: Option<String>,
    #[serde(default)]
    arguments: Vec<Argument>,
}

#[derive(Debug, Deserialize)]
struct Argument {
    name: String,
    r#type: String,
    /// Shown instead of the name.
    #[serde(default)]
    display: Option<String>,
    #[serde(default)]
    key_spec_index: Option<i64>,
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    since: Option<String>,
    #[serde(default)]
    deprecated_since: Option<String>,
    #[serde(default)]
    optional: bool,
    #[serde(default)]
    multiple: bool,
    #[serde(default)]
    multiple_token: bool,
    #[serde(default)]
    arguments: Vec<Argument>,
}

static DOCS: LazyLock<HashMap<String, Docs>> =
    LazyLock::new(|| serde_json::from_str(include_str!("docs.json")).expect("a test parses the file"));

/// `COMMAND DOCS [command-name [command-name ...]]`
pub(super) const COMMAND_DOCS: ServerCommand =
    plain("command|docs", command_docs, -2, LOADING | STALE | SENTINEL, "7.0.0")
        .categories(category::CONNECTION)
        .tips(&["nondeterministic_output_order"]);
fn command_docs(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    let rows: Vec<&Row> = match args.len() {
        2 => table::commands().iter().collect(),
        _ => args.iter().skip(2).filter_map(find_full_name).collect(),
    };
    ctx.out.map(rows.len());
    rows.iter().for_each(|row| command(&mut ctx.out, row));
    Ok(ServerOutcome::Reply)
}

fn command(out: &mut ReplyWriter<'_>, row: &Row) {
    let docs = DOCS.get(row.name);
    out.bulk_str(row.name);
    let start = out.deferred();
    let mut fields = 0;
    let mut text = |out: &mut ReplyWriter<'_>, name: &str, value: Option<&str>| {
        if let Some(value) = value {
            out.bulk_str(name);
            out.bulk_str(value);
            fields += 1;
        }
    };
    text(out, "summary", docs.map(|d| &*d.summary));
    text(out, "since", Some(row.since));
    text(out, "group", Some(row.group.name()));
    text(out, "complexity", docs.and_then(|d| d.complexity.as_deref()));
    let deprecated_since = docs.and_then(|d| d.deprecated_since.as_deref());
    let flag = match docs {
        Some(docs) if docs.system => Some("syscmd"),
        _ => deprecated_since.map(|_| "deprecated"),
    };
    if let Some(flag) = flag {
        out.bulk_str("doc_flags");
        out.set(1);
        out.simple(flag);
    }
    text(out, "deprecated_since", deprecated_since);
    text(out, "replaced_by", docs.and_then(|d| d.replaced_by.as_deref()));
    fields += usize::from(flag.is_some());
    if let Some(docs) = docs.filter(|d| !d.arguments.is_empty()) {
        out.bulk_str("arguments");
        arguments(out, &docs.arguments);
        fields += 1;
    }
    if row.has_subcommands() {
        out.bulk_str("subcommands");
        out.map(row.subcommands().len());
        row.subcommands().iter().for_each(|sub| command(out, sub));
        fields += 1;
    }
    out.finish_map(start, fields);
}

fn arguments(out: &mut ReplyWriter<'_>, all: &[Argument]) {
    out.array(all.len());
    all.iter().for_each(|argument| describe(out, argument));
}

fn describe(out: &mut ReplyWriter<'_>, argument: &Argument) {
    let has_parts = matches!(&*argument.r#type, "oneof" | "block");
    let start = out.deferred();
    let mut fields = 0;
    let mut text = |out: &mut ReplyWriter<'_>, name: &str, value: Option<&str>| {
        if let Some(value) = value {
            out.bulk_str(name);
            out.bulk_str(value);
            fields += 1;
        }
    };
    text(out, "name", Some(&argument.name));
    text(out, "type", Some(&argument.r#type));
    if !has_parts {
        text(out, "display_text", Some(argument.display.as_ref().unwrap_or(&argument.name)));
    }
    if let Some(index) = argument.key_spec_index {
        out.bulk_str("key_spec_index");
        out.integer(index);
    }
    text(out, "token", argument.token.as_ref().map(|t| t.to_uppercase()).as_deref());
    text(out, "since", argument.since.as_deref());
    text(out, "deprecated_since", argument.deprecated_since.as_deref());
    fields += usize::from(argument.key_spec_index.is_some());
    let flags = [
        (argument.optional, "optional"),
        (argument.multiple, "multiple"),
        (argument.multiple_token, "multiple_token"),
    ];
    let set = flags.iter().filter(|(set, _)| *set).count();
    if 0 < set {
        out.bulk_str("flags");
        out.set(set);
        flags.iter().filter(|(set, _)| *set).for_each(|(_, name)| out.simple(name));
        fields += 1;
    }
    if has_parts {
        out.bulk_str("arguments");
        arguments(out, &argument.arguments);
        fields += 1;
    }
    out.finish_map(start, fields);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_documented() {
        let all = || table::ROWS.iter();
        let missing: Vec<_> = all().map(|r| r.name).filter(|n| !DOCS.contains_key(*n)).collect();
        assert_eq!(missing, [""; 0]);
        assert_eq!(DOCS.len(), all().count(), "no command is documented that does not exist");
    }
}

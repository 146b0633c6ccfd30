//! COMMAND: what the table of commands says, in the shape that clients read to find keys in requests.
//!
//! Differs from Valkey: the notes of key specifications are left out, and so are the commands that do not exist here.

use keyward_proto::resp::{Args, ReplyWriter};

use crate::admin::{ServerCommand, ServerContext, ServerOutcome, ServerResult, help, plain};
use crate::command::keys_of::actual_flags;
use crate::command::spec::{
    self, Begin, Find, KEY_FLAG_NAMES, KeyFlags, KeySpec, LOADING, NOT_KEY, SENTINEL, STALE, category,
};
use crate::command::table::{self, Row};
use crate::command::{CommandError, ascii_eq};
use keyward_proto::glob;

/// The order in which a command's flags are listed; not all flags are.
const LISTED_FLAGS: &[(u32, &str)] = &[
    (spec::WRITE, "write"),
    (spec::READONLY, "readonly"),
    (spec::DENYOOM, "denyoom"),
    (spec::ADMIN, "admin"),
    (spec::PUBSUB, "pubsub"),
    (spec::NOSCRIPT, "noscript"),
    (spec::BLOCKING, "blocking"),
    (spec::LOADING, "loading"),
    (spec::STALE, "stale"),
    (spec::SKIP_MONITOR, "skip_monitor"),
    (spec::SKIP_COMMANDLOG, "skip_commandlog"),
    (spec::ASKING, "asking"),
    (spec::FAST, "fast"),
    (spec::NO_AUTH, "no_auth"),
    (spec::NO_MANDATORY_KEYS, "no_mandatory_keys"),
    (spec::NO_ASYNC_LOADING, "no_async_loading"),
    (spec::NO_MULTI, "no_multi"),
    (MOVABLE_KEYS, "movablekeys"),
    (spec::ALLOW_BUSY, "allow_busy"),
];

/// Derived from the key specifications; no flag of the table.
const MOVABLE_KEYS: u32 = 1 << 31;

/// `COMMAND`
pub(super) const COMMAND: ServerCommand = plain("command", command, -1, LOADING | STALE | SENTINEL, "2.8.13")
    .categories(category::CONNECTION)
    .tips(&["nondeterministic_output_order"]);
fn command(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    ctx.out.array(table::reachable().count());
    table::reachable().for_each(|row| describe(&mut ctx.out, row));
    Ok(ServerOutcome::Reply)
}

/// `COMMAND COUNT`
pub(super) const COMMAND_COUNT: ServerCommand =
    plain("command|count", command_count, 2, LOADING | STALE | SENTINEL, "2.8.13")
        .categories(category::CONNECTION);
fn command_count(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    ctx.out.len(table::reachable().count());
    Ok(ServerOutcome::Reply)
}

/// `COMMAND INFO [command-name [command-name ...]]`
pub(super) const COMMAND_INFO: ServerCommand =
    plain("command|info", command_info, -2, LOADING | STALE | SENTINEL, "2.8.13")
        .categories(category::CONNECTION)
        .tips(&["nondeterministic_output_order"]);
fn command_info(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    if args.len() == 2 {
        return command(ctx, args);
    }
    ctx.out.array(args.len() - 2);
    for name in args.iter().skip(2) {
        match find_full_name(name) {
            Some(row) => describe(&mut ctx.out, row),
            None => ctx.out.null(),
        }
    }
    Ok(ServerOutcome::Reply)
}

/// A command or, as `container|name`, a subcommand.
pub(super) fn find_full_name(name: &[u8]) -> Option<&'static Row> {
    match name.iter().position(|b| *b == b'|') {
        None => table::find(name),
        Some(at) => table::find_subcommand(table::find(&name[..at])?, &name[at + 1..]),
    }
}

fn describe(out: &mut ReplyWriter<'_>, row: &Row) {
    let (first, last, step, movable) = legacy_range(row);
    let flags = row.flags | if movable { MOVABLE_KEYS } else { 0 };
    out.array(10);
    out.bulk_str(row.name);
    out.integer(row.arity.into());
    simple_set(out, "", LISTED_FLAGS.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| *name));
    out.integer(first);
    out.integer(last);
    out.integer(step);
    simple_set(out, "@", categories_of(row));
    out.set(row.tips.len());
    row.tips.iter().for_each(|tip| out.bulk_str(&tip.to_ascii_lowercase()));
    out.set(row.keys().len());
    row.keys().iter().for_each(|spec| describe_keys(out, spec));
    out.array(row.subcommands().len());
    row.subcommands().iter().for_each(|sub| describe(out, sub));
}

fn simple_set<'a>(out: &mut ReplyWriter<'_>, prefix: &str, words: impl Iterator<Item = &'a str> + Clone) {
    out.set(words.clone().count());
    words.for_each(|word| out.simple(&format!("{prefix}{word}")));
}

fn categories_of(row: &Row) -> impl Iterator<Item = &'static str> + Clone {
    let categories = row.categories;
    let named = category::NAMES.iter().enumerate().filter(move |(bit, _)| categories & 1 << bit != 0);
    named.map(|(_, name)| *name)
}

fn key_flags(out: &mut ReplyWriter<'_>, flags: KeyFlags) {
    simple_set(out, "", KEY_FLAG_NAMES.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| *name));
}

fn describe_keys(out: &mut ReplyWriter<'_>, spec: &KeySpec) {
    let integers = |out: &mut ReplyWriter<'_>, kind: &str, fields: &[(&str, i64)]| {
        out.map(2);
        out.bulk_str("type");
        out.bulk_str(kind);
        out.bulk_str("spec");
        out.map(fields.len());
        for (name, value) in fields {
            out.bulk_str(name);
            out.integer(*value);
        }
    };
    out.map(3);
    out.bulk_str("flags");
    key_flags(out, spec.flags);
    out.bulk_str("begin_search");
    match spec.begin {
        Begin::Index(at) => integers(out, "index", &[("index", i64::from(at))]),
        Begin::Keyword(word, from) => {
            out.map(2);
            out.bulk_str("type");
            out.bulk_str("keyword");
            out.bulk_str("spec");
            out.map(2);
            out.bulk_str("keyword");
            out.bulk(word);
            out.bulk_str("startfrom");
            out.integer(from.into());
        }
        Begin::Unknown => integers(out, "unknown", &[]),
    }
    out.bulk_str("find_keys");
    match spec.find {
        Find::Range { last, step, limit } => {
            let fields =
                [("lastkey", last.into()), ("keystep", i64::from(step)), ("limit", i64::from(limit))];
            integers(out, "range", &fields);
        }
        Find::KeyNum { number: at, first, step } => {
            let fields =
                [("keynumidx", i64::from(at)), ("firstkey", i64::from(first)), ("keystep", i64::from(step))];
            integers(out, "keynum", &fields);
        }
        Find::Unknown => integers(out, "unknown", &[]),
    }
}

/// First key, last key and step as before key specifications existed, and whether they do not tell everything.
fn legacy_range(row: &Row) -> (i64, i64, i64, bool) {
    let fixed = |spec: &KeySpec| match (spec.begin, spec.find) {
        (Begin::Index(at), Find::Range { last, step, .. }) => {
            let (at, last) = (i64::from(at), i64::from(last));
            Some((at, if last < 0 { last } else { at + last }, i64::from(step)))
        }
        _ => None,
    };
    if let [only] = row.keys()
        && let Some((first, last, step)) = fixed(only)
    {
        return (first, last, step, false);
    }
    let mut range: Option<(i64, i64)> = None;
    let mut movable = false;
    for spec in row.keys() {
        match (fixed(spec), range) {
            (Some((first, last, 1)), None) => range = Some((first, last)),
            (Some((first, last, 1)), Some((start, end))) if end == first - 1 => range = Some((start, last)),
            _ => movable = true,
        }
    }
    match range {
        Some((first, last)) => (first, last, 1, movable),
        None => (0, 0, 0, movable),
    }
}

/// `COMMAND LIST [FILTERBY <MODULE module-name | ACLCAT category | PATTERN pattern>]`
pub(super) const COMMAND_LIST: ServerCommand =
    plain("command|list", command_list, -2, LOADING | STALE | SENTINEL, "7.0.0")
        .categories(category::CONNECTION)
        .tips(&["nondeterministic_output_order"]);
fn command_list(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    let all = || table::reachable().flat_map(|row| std::iter::once(row).chain(row.subcommands()));
    let names: Vec<&str> = match args.len() {
        2 => all().map(|r| r.name).collect(),
        5 if ascii_eq(args.at(2), "FILTERBY") => {
            let value = args.at(4);
            match args.at(3) {
                by if ascii_eq(by, "MODULE") => Vec::new(),
                by if ascii_eq(by, "ACLCAT") => {
                    let in_category = |r: &&Row| categories_of(r).any(|c| ascii_eq(value, c));
                    all().filter(in_category).map(|r| r.name).collect()
                }
                by if ascii_eq(by, "PATTERN") => {
                    let lower = value.to_ascii_lowercase();
                    all().map(|r| r.name).filter(|n| glob::matches(&lower, n.as_bytes())).collect()
                }
                _ => return Err(CommandError::Syntax),
            }
        }
        _ => return Err(CommandError::Syntax),
    };
    // A filtered list is an array in both protocols.
    if args.len() == 2 {
        ctx.out.set(names.len());
    } else {
        ctx.out.array(names.len());
    }
    names.iter().for_each(|name| ctx.out.bulk_str(name));
    Ok(ServerOutcome::Reply)
}

/// `COMMAND GETKEYS command [arg [arg ...]]`
pub(super) const COMMAND_GETKEYS: ServerCommand =
    plain("command|getkeys", command_getkeys, -3, LOADING | STALE | SENTINEL, "2.8.13")
        .categories(category::CONNECTION);
fn command_getkeys(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    let keys = keys_of_request(args)?;
    ctx.out.array(keys.len());
    keys.iter().for_each(|(key, _)| ctx.out.bulk(key));
    Ok(ServerOutcome::Reply)
}

/// `COMMAND GETKEYSANDFLAGS command [arg [arg ...]]`
pub(super) const COMMAND_GETKEYSANDFLAGS: ServerCommand =
    plain("command|getkeysandflags", command_getkeysandflags, -3, LOADING | STALE | SENTINEL, "7.0.0")
        .categories(category::CONNECTION);
fn command_getkeysandflags(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    let keys = keys_of_request(args)?;
    ctx.out.array(keys.len());
    for (key, flags) in keys {
        ctx.out.array(2);
        ctx.out.bulk(key);
        key_flags(&mut ctx.out, flags);
    }
    Ok(ServerOutcome::Reply)
}

type FoundKey<'a> = (&'a [u8], KeyFlags);

fn keys_of_request<'a>(args: Args<'a>) -> Result<Vec<FoundKey<'a>>, CommandError> {
    let request: Vec<&[u8]> = args.iter().skip(2).collect();
    let invalid = || CommandError::err("Invalid command specified");
    let mut row = table::find(request[0]).ok_or_else(invalid)?;
    if let Some(name) = request.get(1).filter(|_| row.has_subcommands()) {
        row = table::find_subcommand(row, name).ok_or_else(invalid)?;
    }
    let is_key = |flags: KeyFlags| flags & NOT_KEY == 0;
    if !row.keys().iter().any(|spec| is_key(spec.flags)) {
        return Err(CommandError::err("The command has no key arguments"));
    }
    if !row.accepts(request.len()) {
        return Err(CommandError::err("Invalid number of arguments specified for command"));
    }
    let words = Args::from_slices(&request);
    let mut found: Vec<FoundKey<'_>> = Vec::new();
    let no_keys_counted = row.keys().iter().any(|spec| match (spec.begin, spec.find) {
        (Begin::Index(at), Find::KeyNum { number, .. }) => {
            request.get(usize::from(at + number)).is_some_and(|n| *n == b"0")
        }
        _ => false,
    });
    if !no_keys_counted {
        let visited = row.visit_keys(words, &mut |at, flags| {
            if is_key(flags) {
                found.push((args.at(at + 2), actual_flags(flags, words)));
            }
        });
        // A script may have none: a number of them that is none comes to that.
        if !row.has(spec::NO_MANDATORY_KEYS) {
            visited?;
        }
    }
    if found.is_empty() && !row.has(spec::NO_MANDATORY_KEYS) {
        return Err(CommandError::err("Invalid arguments specified for command"));
    }
    Ok(found)
}

/// `COMMAND HELP`
pub(super) const COMMAND_HELP: ServerCommand =
    plain("command|help", command_help, 2, LOADING | STALE | SENTINEL, "5.0.0")
        .categories(category::CONNECTION);
fn command_help(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    help(
        ctx,
        &[
            "(no subcommand)",
            "    Describe all commands.",
            "COUNT",
            "    Return the number of commands.",
            "DOCS [<command-name> [<command-name> ...]]",
            "    Document these commands, or all.",
            "GETKEYS <full-command>",
            "    Return the keys of a request.",
            "GETKEYSANDFLAGS <full-command>",
            "    Return the keys of a request, each with what happens to it.",
            "INFO [<command-name> [<command-name> ...]]",
            "    Describe these commands, or all.",
            "LIST [FILTERBY (MODULE|ACLCAT|PATTERN) <value>]",
            "    Return the names of all commands, or of those that match.",
        ],
    )
}

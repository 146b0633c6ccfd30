//! Groups and their consumers: XGROUP, XACK.

use keyward_proto::resp::Args;
use keyward_store::events::EventClass;
use keyward_store::keys::Keys;
use keyward_store::types::StreamId;
use keyward_store::types::stream::{Group, Stream, UNKNOWN};

use super::claim::{Told, propagate_seen};
use super::parse_id;
use crate::spec::{DELETE, DENYOOM, FAST, INSERT, LOADING, RW, STALE, UPDATE, category};
use crate::{
    CommandError, CommandResult, Cursor, DataCommand, DataContext, Outcome, ascii_eq, container,
    parse_i64_arg, plain, write,
};

const HELP: &[&str] = &[
    "XGROUP <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "CREATE <key> <groupname> <id|$> [option]",
    "    Create a new consumer group. Options are:",
    "    * MKSTREAM",
    "      Create the empty stream if it does not exist.",
    "    * ENTRIESREAD entries_read",
    "      Set the group's entries_read counter (internal use).",
    "CREATECONSUMER <key> <groupname> <consumer>",
    "    Create a new consumer in the specified group.",
    "DELCONSUMER <key> <groupname> <consumer>",
    "    Remove the specified consumer.",
    "DESTROY <key> <groupname>",
    "    Remove the specified group.",
    "SETID <key> <groupname> <id|$> [ENTRIESREAD entries_read]",
    "    Set the current group ID and entries_read counter.",
    "HELP",
    "    Print this help.",
];

/// The key does not exist.
fn no_key() -> CommandError {
    CommandError::err(
        "The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM \
         option to create an empty stream automatically.",
    )
}

/// `NOGROUP`: the group is not there, or the key of a read-only command.
pub(super) fn no_group(group: &[u8], key: &[u8]) -> CommandError {
    CommandError::coded_bytes(&[b"NOGROUP No such consumer group '", group, b"' for key name '", key, b"'"])
}

/// `NOGROUP`: key or group are not there. `end`: what follows in the sentence.
pub(super) fn no_key_or_group(key: &[u8], group: &[u8], end: &str) -> CommandError {
    let end = end.as_bytes();
    CommandError::coded_bytes(&[b"NOGROUP No such key '", key, b"' or consumer group '", group, b"'", end])
}

/// A group for changing it, of XGROUP.
fn existing<'s>(keys: &'s mut Keys<'_>, key: &[u8], group: &[u8]) -> Result<&'s mut Group, CommandError> {
    let stream = keys.stream_mut(key)?.ok_or_else(no_key)?;
    stream.group_mut(group).ok_or_else(|| no_group(group, key))
}

/// `XGROUP subcommand`
pub(super) const XGROUP: DataCommand = container("xgroup", 0, "5.0.0");

/// `XGROUP HELP`
pub(super) const XGROUP_HELP: DataCommand =
    plain("xgroup|help", help, 2, LOADING | STALE, "5.0.0").categories(category::STREAM);
fn help(ctx: &mut DataContext<'_, '_>, _args: Args<'_>) -> CommandResult {
    ctx.out.array(HELP.len());
    HELP.iter().for_each(|line| ctx.out.simple(line));
    Ok(Outcome::Reply)
}

fn too_much(args: Args<'_>) -> CommandError {
    let before = "unknown subcommand or wrong number of arguments for '";
    CommandError::quoting(before, args.at(1), "'. Try XGROUP HELP.")
}

/// What stands behind the ID of CREATE and SETID.
struct Options {
    make_stream: bool,
    entries_read: i64,
}

impl Options {
    fn parse(args: Args<'_>) -> Result<Options, CommandError> {
        let may_make = ascii_eq(args.at(1), "create");
        let mut options = Options { make_stream: false, entries_read: UNKNOWN };
        let mut rest = Cursor::new(args, 5);
        while !rest.is_at_end() {
            if may_make && rest.word("mkstream") {
                options.make_stream = true;
            } else if let Some(count) = rest.value_of("entriesread") {
                options.entries_read = parse_i64_arg(count)?;
                if options.entries_read < UNKNOWN {
                    return Err(CommandError::err("value for ENTRIESREAD must be positive or -1"));
                }
            } else {
                return Err(too_much(args));
            }
        }
        Ok(options)
    }
}

/// An ID, or `$` for the last one.
fn parse_position(argument: &[u8], stream: Option<&Stream>) -> Result<StreamId, CommandError> {
    match argument {
        b"$" => Ok(stream.map(Stream::last_id).unwrap_or_default()),
        id => parse_id(id),
    }
}

/// `XGROUP CREATE key group id|$ [MKSTREAM] [ENTRIESREAD entries-read]`
pub(super) const XGROUP_CREATE: DataCommand =
    write("xgroup|create", create, -5, DENYOOM, "5.0.0").key(2, RW | INSERT);
fn create(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let options = Options::parse(args)?;
    let (key, name) = (args.at(2), args.at(3));
    let stream = ctx.keys.stream_mut(key)?;
    if stream.is_none() && !options.make_stream {
        return Err(no_key());
    }
    // Options that come twice.
    if 8 < args.len() {
        return Err(too_much(args));
    }
    let id = parse_position(args.at(4), stream.as_deref())?;
    if stream.as_ref().is_some_and(|stream| stream.group(name).is_some()) {
        return Err(CommandError::coded("BUSYGROUP Consumer Group name already exists"));
    }
    match stream {
        Some(_) => ctx.keys.modified_aside(),
        None => ctx.keys.modified(key),
    }
    ctx.keys.stream_or_new(key)?.create_group(name, id, options.entries_read);
    let more: &[&[u8]] = if options.make_stream { &[b"MKSTREAM"] } else { &[] };
    propagate_position(ctx.keys, b"CREATE", [key, name], (id, options.entries_read), more);
    ctx.keys.notify(EventClass::Stream, "xgroup-create", key);
    ctx.out.ok();
    Ok(Outcome::Reply)
}

pub(super) fn propagate_position(
    keys: &mut Keys<'_>,
    subcommand: &[u8],
    [key, name]: [&[u8]; 2],
    (id, entries_read): (StreamId, i64),
    more: &[&[u8]],
) {
    let (id, read) = (id.to_string(), entries_read.to_string());
    let mut command: Vec<&[u8]> = vec![b"XGROUP", subcommand, key, name, id.as_bytes()];
    command.extend(more);
    command.extend([b"ENTRIESREAD", read.as_bytes()]);
    keys.propagate_as(key, &command);
}

/// `XGROUP SETID key group id|$ [ENTRIESREAD entries-read]`
pub(super) const XGROUP_SETID: DataCommand = write("xgroup|setid", setid, -5, 0, "5.0.0").key(2, RW | UPDATE);
fn setid(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let options = Options::parse(args)?;
    let (key, name) = (args.at(2), args.at(3));
    let stream = ctx.keys.stream_mut(key)?.ok_or_else(no_key)?;
    if stream.group(name).is_none() {
        return Err(no_group(name, key));
    }
    if 7 < args.len() {
        return Err(too_much(args));
    }
    // As in Valkey here also the ends of all IDs are some.
    let id = match args.at(4) {
        b"-" => StreamId::ZERO,
        b"+" => StreamId::MAX,
        id => parse_position(id, Some(stream))?,
    };
    stream.set_group_position(name, id, options.entries_read);
    propagate_position(ctx.keys, b"SETID", [key, name], (id, options.entries_read), &[]);
    ctx.keys.modified_aside();
    ctx.keys.notify(EventClass::Stream, "xgroup-setid", key);
    ctx.out.ok();
    Ok(Outcome::Reply)
}

/// `XGROUP DESTROY key group`
pub(super) const XGROUP_DESTROY: DataCommand =
    write("xgroup|destroy", destroy, 4, 0, "5.0.0").key(2, RW | DELETE);
fn destroy(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let key = args.at(2);
    let destroyed = ctx.keys.stream_mut(key)?.ok_or_else(no_key)?.destroy_group(args.at(3));
    if destroyed {
        ctx.keys.modified_aside();
        ctx.keys.propagate(key, args);
        ctx.keys.notify(EventClass::Stream, "xgroup-destroy", key);
        // Who waits for the group hears that it is gone.
        ctx.keys.signal_ready(key);
    }
    ctx.out.integer(destroyed.into());
    Ok(Outcome::Reply)
}

/// `XGROUP CREATECONSUMER key group consumer`
pub(super) const XGROUP_CREATECONSUMER: DataCommand =
    write("xgroup|createconsumer", createconsumer, 5, DENYOOM, "6.2.0").key(2, RW | INSERT);
fn createconsumer(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let (key, name, consumer) = (args.at(2), args.at(3), args.at(4));
    let now = ctx.keys.now;
    let created = existing(ctx.keys, key, name)?.create_consumer(consumer, now, UNKNOWN);
    if created {
        consumer_created(ctx.keys, key);
        propagate_seen(ctx.keys, [key, name, consumer], Told::seen(now, UNKNOWN));
    }
    ctx.out.integer(created.into());
    Ok(Outcome::Reply)
}

/// What follows the creation of a consumer, but the effect.
pub(super) fn consumer_created(keys: &mut Keys<'_>, key: &[u8]) {
    keys.modified_aside();
    keys.notify(EventClass::Stream, "xgroup-createconsumer", key);
}

/// `XGROUP DELCONSUMER key group consumer`
pub(super) const XGROUP_DELCONSUMER: DataCommand =
    write("xgroup|delconsumer", delconsumer, 5, 0, "5.0.0").key(2, RW | DELETE);
fn delconsumer(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let key = args.at(2);
    let deleted = existing(ctx.keys, key, args.at(3))?.delete_consumer(args.at(4));
    if deleted.is_some() {
        ctx.keys.modified_aside();
        ctx.keys.propagate(key, args);
        ctx.keys.notify(EventClass::Stream, "xgroup-delconsumer", key);
    }
    ctx.out.len(deleted.unwrap_or(0));
    Ok(Outcome::Reply)
}

/// `XACK key group id [id ...]`
pub(super) const XACK: DataCommand = write("xack", xack, -4, FAST, "5.0.0").key(1, RW | UPDATE);
fn xack(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let key = args.at(1);
    let group = ctx.keys.stream_mut(key)?.and_then(|stream| stream.group_mut(args.at(2)));
    let Some(group) = group else {
        ctx.out.integer(0);
        return Ok(Outcome::Reply);
    };
    let ids = args.iter().skip(3).map(parse_id).collect::<Result<Vec<_>, _>>()?;
    let acknowledged = ids.into_iter().filter(|id| group.acknowledge(*id)).count();
    if acknowledged > 0 {
        ctx.keys.modified_aside();
        ctx.keys.propagate(key, args);
    }
    ctx.out.len(acknowledged);
    Ok(Outcome::Reply)
}

//! Finds the row of a command by its name, or says what is wrong with the name.

use keyward_proto::resp::Args;

use crate::admin::cluster;
use crate::command::CommandError;
use crate::command::spec;
use crate::command::table::{self, Row};
use crate::config::Settings;
use crate::io::session::Session;

/// The row of a command or of its subcommand, with the arity checked. Who has to authenticate learns nothing else.
#[inline]
pub(crate) fn find(
    settings: &Settings,
    session: &Session,
    args: Args<'_>,
) -> Result<&'static Row, CommandError> {
    let found = lookup(args);
    if session.must_authenticate(settings) && !found.as_ref().is_ok_and(|row| row.has(spec::NO_AUTH)) {
        return Err(CommandError::coded("NOAUTH Authentication required."));
    }
    let row = found.map_err(|error| instead(settings, args).unwrap_or(error))?;
    if !row.accepts(args.len()) {
        return Err(CommandError::WrongArity(row.name.into()));
    }
    Ok(row)
}

/// The error of what the sentinels do here: it names how.
#[cold]
fn instead(settings: &Settings, args: Args<'_>) -> Option<CommandError> {
    let (command, subcommand) = (args.at(0), args.get(1));
    if command.eq_ignore_ascii_case(b"replicaof") || command.eq_ignore_ascii_case(b"slaveof") {
        return Some(CommandError::err(
            "REPLICAOF is not supported: a node follows the primary that the sentinels name; start it with \
                 '--sentinels HOST:BUS-PORT,...'",
        ));
    }
    if command.eq_ignore_ascii_case(b"failover") {
        return Some(CommandError::err(
            "FAILOVER is not supported: use 'keyward-sentinel failover SHARD', or SENTINEL FAILOVER at a sentinel",
        ));
    }
    let text = subcommand.filter(|_| command.eq_ignore_ascii_case(b"cluster")).and_then(cluster::instead)?;
    Some(if settings.cluster_enabled {
        CommandError::err(text)
    } else {
        CommandError::err("This instance has cluster support disabled")
    })
}

/// The row of a client's command or of its subcommand.
#[inline]
fn lookup(args: Args<'_>) -> Result<&'static Row, CommandError> {
    with_subcommand(table::find(args.at(0)), args)
}

/// The row of an effect: whatever clients call it, it has the name of the row.
#[inline]
pub(crate) fn lookup_effect(args: Args<'_>) -> Result<&'static Row, CommandError> {
    with_subcommand(table::find_effect(args.at(0)), args)
}

#[inline]
fn with_subcommand(row: Option<&'static Row>, args: Args<'_>) -> Result<&'static Row, CommandError> {
    let row = row.ok_or_else(|| unknown_command(args))?;
    match args.get(1) {
        Some(name) if row.has_subcommands() => {
            table::find_subcommand(row, name).ok_or_else(|| unknown_subcommand(args.at(0), name))
        }
        Some(_) | None => Ok(row),
    }
}

/// Arguments are shown up to 128 bytes in all.
fn unknown_command(args: Args<'_>) -> CommandError {
    let mut shown = c_string(args.at(0), 128).to_vec();
    shown.extend_from_slice(b"', with args beginning with: ");
    let begin = shown.len();
    for arg in args.iter().skip(1) {
        let len = shown.len() - begin;
        if 128 <= len {
            break;
        }
        let len_max = 128 - len;
        shown.push(b'\'');
        shown.extend_from_slice(c_string(arg, len_max));
        shown.extend_from_slice(b"' ");
    }
    CommandError::quoting("unknown command '", &shown, "")
}

fn unknown_subcommand(container: &[u8], name: &[u8]) -> CommandError {
    let after = format!("'. Try {} HELP.", String::from_utf8_lossy(container).to_uppercase());
    CommandError::quoting("unknown subcommand '", c_string(name, 128), after)
}

/// What C prints: up to a NUL, and no more than `len_max` bytes.
fn c_string(bytes: &[u8], len_max: usize) -> &[u8] {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    &bytes[..end.min(len_max)]
}

//! ACL: users and their rights.

use keyward_proto::resp::number::parse_i64;
use keyward_proto::resp::{Args, ReplyWriter};
use rand::TryRngCore;

use crate::acl::log::Entry;
use crate::acl::{self, DEFAULT, Denied, RuleError, is_name, rules_of};
use crate::admin::{ServerCommand, ServerContext, ServerOutcome, ServerResult, container, help, plain};
use crate::command::spec::{ADMIN, Flags, Group, LOADING, NOSCRIPT, SENTINEL, STALE, category, family};
use crate::command::table::{self, Row};
use crate::command::{CommandError, ascii_eq, parse_i64_arg};

const OPEN: Flags = NOSCRIPT | LOADING | STALE | SENTINEL;
const RESTRICTED: Flags = OPEN | ADMIN;

/// Entries of ACL LOG that are shown unless more are asked for.
const LOG_SHOWN: usize = 10;
/// Bits of a generated password, by default and at most.
const PASSWORD_BITS: i64 = 256;
const PASSWORD_BITS_MAX: i64 = 4096;

const NO_FILE: &str = "This Keyward instance is not configured to use an ACL file. You may want to specify users via the \
                       ACL SETUSER command and then issue a CONFIG REWRITE (assuming you have a configuration file \
                       set) in order to store users in the configuration.";

/// All of them.
#[rustfmt::skip]
pub(super) const COMMANDS: [ServerCommand; 14] = family(Group::Server, [
    ACL, ACL_CAT, ACL_DELUSER, ACL_DRYRUN, ACL_GENPASS, ACL_GETUSER, ACL_HELP, ACL_LIST, ACL_LOAD,
    ACL_LOG, ACL_SAVE, ACL_SETUSER, ACL_USERS, ACL_WHOAMI,
]);

/// `ACL subcommand`
const ACL: ServerCommand = container("acl", SENTINEL, "6.0.0");

fn wrong_arguments(args: Args<'_>) -> CommandError {
    let before = "unknown subcommand or wrong number of arguments for '";
    CommandError::quoting(before, args.at(1), "'. Try ACL HELP.")
}

/// `ACL CAT [category]`
const ACL_CAT: ServerCommand = plain("acl|cat", acl_cat, -2, OPEN, "6.0.0");
fn acl_cat(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    match args.len() {
        2 => {
            ctx.out.array(category::NAMES.len());
            category::NAMES.iter().for_each(|name| ctx.out.bulk_str(name));
        }
        3 => {
            let found = category::NAMES.iter().position(|name| ascii_eq(args.at(2), name));
            let unknown = || CommandError::quoting("Unknown category '", args.at(2), "'");
            let bit = 1 << found.ok_or_else(unknown)?;
            let rows: Vec<&Row> = table::ROWS.iter().filter(|row| row.categories & bit != 0).collect();
            ctx.out.array(rows.len());
            rows.iter().for_each(|row| ctx.out.bulk_str(row.name));
        }
        _ => return Err(wrong_arguments(args)),
    }
    Ok(ServerOutcome::Reply)
}

/// `ACL WHOAMI`
const ACL_WHOAMI: ServerCommand = plain("acl|whoami", acl_whoami, 2, OPEN, "6.0.0");
fn acl_whoami(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    ctx.out.bulk(&ctx.session.user_name());
    Ok(ServerOutcome::Reply)
}

/// `ACL USERS`
const ACL_USERS: ServerCommand = plain("acl|users", acl_users, 2, RESTRICTED, "6.0.0");
fn acl_users(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    let users = &ctx.server.settings().users;
    ctx.out.array(users.iter().count());
    users.iter().for_each(|user| ctx.out.bulk(user.name()));
    Ok(ServerOutcome::Reply)
}

/// `ACL LIST`
const ACL_LIST: ServerCommand = plain("acl|list", acl_list, 2, RESTRICTED, "6.0.0");
fn acl_list(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    let users = &ctx.server.settings().users;
    ctx.out.array(users.iter().count());
    for user in users.iter() {
        ctx.out.bulk(&[b"user ", &**user.name(), b" ", &user.describe()].concat());
    }
    Ok(ServerOutcome::Reply)
}

/// `ACL GETUSER username`
const ACL_GETUSER: ServerCommand = plain("acl|getuser", acl_getuser, 3, RESTRICTED, "6.0.0");
fn acl_getuser(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    let settings = ctx.server.settings();
    let Some(user) = settings.users.get(args.at(2)) else {
        ctx.out.null();
        return Ok(ServerOutcome::Reply);
    };
    let out = &mut ctx.out;
    out.map(7);
    out.bulk_str("flags");
    let flags = user.flags();
    out.set(flags.len());
    flags.iter().for_each(|flag| out.bulk_str(flag));
    out.bulk_str("passwords");
    let passwords = user.passwords();
    out.array(passwords.len());
    passwords.iter().for_each(|hash| out.bulk_str(hash));
    let mut rights = user.rights();
    rights.next().iter().for_each(|root| describe(out, root));
    let selectors: Vec<acl::Rights> = rights.collect();
    out.bulk_str("selectors");
    out.array(selectors.len());
    for selector in &selectors {
        out.map(4);
        describe(out, selector);
    }
    Ok(ServerOutcome::Reply)
}

fn describe(out: &mut ReplyWriter<'_>, rights: &acl::Rights) {
    out.bulk_str("commands");
    out.bulk(&rights.commands);
    out.bulk_str("keys");
    out.bulk(&rights.keys);
    out.bulk_str("channels");
    out.bulk(&rights.channels);
    out.bulk_str("databases");
    out.bulk_str(&rights.databases);
}

/// `ACL SETUSER username [rule ...]`: all rules, or none.
const ACL_SETUSER: ServerCommand = plain("acl|setuser", acl_setuser, -3, RESTRICTED, "6.0.0")
    .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"]);
fn acl_setuser(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    let name = args.at(2);
    if !is_name(name) {
        return Err(CommandError::err("Usernames can't contain spaces or null characters"));
    }
    let open = |word: &[u8]| {
        CommandError::quoting("Unmatched parenthesis in acl selector starting at '", word, "'.")
    };
    let rules = rules_of(args.iter().skip(3)).map_err(open)?;
    let refused = |rule: &[u8], why: RuleError| {
        CommandError::quoting("Error in ACL SETUSER modifier '", rule, format!("': {}", why.text()))
    };
    ctx.server.change_users(ctx.session.client.id, |users, settings| {
        let set = users.set(name, &rules, settings.acl_channels);
        set.map_err(|(rule, why)| refused(rule, why))
    })?;
    ctx.out.ok();
    Ok(ending(ctx))
}

/// `ACL DELUSER username [username ...]`: their connections end.
const ACL_DELUSER: ServerCommand = plain("acl|deluser", acl_deluser, -3, RESTRICTED, "6.0.0")
    .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"]);
fn acl_deluser(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    let mut names = args.iter().skip(2);
    if names.any(|name| name == DEFAULT) {
        return Err(CommandError::err("The 'default' user cannot be removed"));
    }
    let deleted = ctx.server.change_users(ctx.session.client.id, |users, _| {
        Ok::<usize, CommandError>(args.iter().skip(2).filter(|name| users.delete(name)).count())
    })?;
    ctx.out.len(deleted);
    Ok(ending(ctx))
}

/// A client that has ended its own connection gets the reply first; nothing that it has sent behind is executed.
fn ending(ctx: &ServerContext<'_, '_>) -> ServerOutcome {
    if ctx.session.client.closes_after_reply() { ServerOutcome::Close } else { ServerOutcome::Reply }
}

/// `ACL DRYRUN username command [arg ...]`
const ACL_DRYRUN: ServerCommand = plain("acl|dryrun", acl_dryrun, -4, RESTRICTED, "7.0.0");
fn acl_dryrun(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    let settings = ctx.server.settings();
    let name = args.at(2);
    let Some(user) = settings.users.get(name) else {
        return Err(CommandError::quoting("User '", name, "' not found"));
    };
    let words: Vec<&[u8]> = args.iter().skip(3).collect();
    let request = Args::from_slices(&words);
    let found = table::find(words[0]).and_then(|row| match words.get(1) {
        Some(sub) if row.has_subcommands() => table::find_subcommand(row, sub),
        Some(_) | None => Some(row),
    });
    let row = found.ok_or_else(|| CommandError::quoting("Command '", words[0], "' not found"))?;
    if !row.accepts(request.len()) {
        return Err(CommandError::WrongArity(row.name.into()));
    }
    match user.check(row, request, ctx.session.place(&settings)) {
        Ok(()) => ctx.out.ok(),
        Err(denied) => {
            let object = request.at(denied.at());
            let reason = match denied {
                Denied::Command => format!("run the '{}' command", row.name).into_bytes(),
                Denied::Key(_) => [b"access the '", object, b"' key"].concat(),
                Denied::Channel(_) => [b"access the '", object, b"' channel"].concat(),
                Denied::Database(_) => [b"access database ", object].concat(),
            };
            ctx.out.bulk(&[b"User ", name, b" has no permissions to ", &reason].concat());
        }
    }
    Ok(ServerOutcome::Reply)
}

/// `ACL GENPASS [bits]`
const ACL_GENPASS: ServerCommand = plain("acl|genpass", acl_genpass, -2, OPEN, "6.0.0");
fn acl_genpass(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    let bits = match args.len() {
        2 => PASSWORD_BITS,
        3 => parse_i64_arg(args.at(2))?,
        _ => return Err(wrong_arguments(args)),
    };
    let digits = usize::try_from(bits).ok().filter(|_| (1..=PASSWORD_BITS_MAX).contains(&bits));
    let digits = digits.map(|bits| bits.div_ceil(4)).ok_or_else(|| {
        CommandError::err(format!(
            "ACL GENPASS argument must be the number of bits for the output password, a positive number up to \
             {PASSWORD_BITS_MAX}"
        ))
    })?;
    let mut random = vec![0; digits.div_ceil(2)];
    rand::rngs::OsRng.try_fill_bytes(&mut random).map_err(|error| CommandError::err(error.to_string()))?;
    let password: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    ctx.out.bulk_str(&password[..digits]);
    Ok(ServerOutcome::Reply)
}

/// `ACL LOG [count | RESET]`: what was refused, the latest first.
const ACL_LOG: ServerCommand = plain("acl|log", acl_log, -2, RESTRICTED, "6.0.0");
fn acl_log(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    let count = match args.len() {
        2 => LOG_SHOWN,
        3 if ascii_eq(args.at(2), "RESET") => {
            ctx.server.refusals.reset_log();
            ctx.out.ok();
            return Ok(ServerOutcome::Reply);
        }
        3 => {
            let count = parse_i64(args.at(2)).ok_or(CommandError::NotInteger)?;
            usize::try_from(count).unwrap_or(0)
        }
        _ => return Err(wrong_arguments(args)),
    };
    let entries = ctx.server.refusals.latest(count);
    let now = ctx.server.clock.unix_millis().0;
    ctx.out.array(entries.len());
    entries.iter().for_each(|entry| log_entry(&mut ctx.out, entry, now));
    Ok(ServerOutcome::Reply)
}

fn log_entry(out: &mut ReplyWriter<'_>, entry: &Entry, now: i64) {
    let refusal = &entry.refusal;
    out.map(10);
    out.bulk_str("count");
    out.integer(i64::try_from(entry.count).unwrap_or(i64::MAX));
    out.bulk_str("reason");
    out.bulk_str(refusal.reason);
    out.bulk_str("context");
    out.bulk_str(refusal.context.name());
    out.bulk_str("object");
    out.bulk(&refusal.object);
    out.bulk_str("username");
    out.bulk(&refusal.username);
    out.bulk_str("age-seconds");
    #[allow(
        clippy::cast_precision_loss,
        reason = "milliseconds are told apart for longer than anything runs"
    )]
    out.double((now - entry.updated_at) as f64 / 1000.0);
    out.bulk_str("client-info");
    out.bulk(&refusal.client);
    out.bulk_str("entry-id");
    out.integer(i64::try_from(entry.id).unwrap_or(i64::MAX));
    out.bulk_str("timestamp-created");
    out.integer(entry.created_at);
    out.bulk_str("timestamp-last-updated");
    out.integer(entry.updated_at);
}

/// `ACL LOAD`: the users of `aclfile` instead of those that there are.
const ACL_LOAD: ServerCommand = plain("acl|load", acl_load, 2, RESTRICTED, "6.0.0");
fn acl_load(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    let settings = ctx.server.settings();
    let loaded = ctx.server.with_config(|config| {
        config.users_file(&settings).ok_or_else(|| NO_FILE.to_owned())?;
        config.read_users(&settings)
    });
    let loaded = loaded.map_err(CommandError::err)?;
    ctx.server.change_users(ctx.session.client.id, |users, _| {
        users.replace(&loaded);
        Ok::<(), CommandError>(())
    })?;
    ctx.out.ok();
    Ok(ending(ctx))
}

/// `ACL SAVE`: writes `aclfile`.
const ACL_SAVE: ServerCommand = plain("acl|save", acl_save, 2, RESTRICTED, "6.0.0")
    .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"]);
fn acl_save(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    let settings = ctx.server.settings();
    ctx.server.with_config(|config| {
        config.users_file(&settings).ok_or_else(|| CommandError::err(NO_FILE))?;
        config.save_users(&settings).map_err(|error| {
            tracing::warn!(%error, file = settings.aclfile, "ACL SAVE failed");
            CommandError::err(
                "There was an error trying to save the ACLs. Please check the server logs for more information",
            )
        })
    })?;
    ctx.out.ok();
    Ok(ServerOutcome::Reply)
}

/// `ACL HELP`
const ACL_HELP: ServerCommand = plain("acl|help", acl_help, 2, LOADING | STALE | SENTINEL, "6.0.0");
fn acl_help(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    help(
        ctx,
        &[
            "CAT [<category>]",
            "    Return the categories of commands, or the commands of <category>.",
            "DELUSER <username> [<username> ...]",
            "    Delete users, and close their connections.",
            "DRYRUN <username> <command> [<arg> ...]",
            "    Tell whether the user may run this, and do not run it.",
            "GENPASS [<bits>]",
            "    Return a random password with so many bits (default: 256).",
            "GETUSER <username>",
            "    Return what there is of a user.",
            "LIST",
            "    Return all users, as lines of a file.",
            "LOAD",
            "    Read the users from 'aclfile'.",
            "LOG [<count> | RESET]",
            "    Return what was refused last, or forget it.",
            "SAVE",
            "    Write the users to 'aclfile'.",
            "SETUSER <username> <rule> [<rule> ...]",
            "    Make or change a user.",
            "USERS",
            "    Return the names of all users.",
            "WHOAMI",
            "    Return the name of this connection's user.",
        ],
    )
}

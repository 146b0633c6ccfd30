//! AUTH and HELLO: who the client is and which protocol it speaks.

use keyward_proto::VALKEY_VERSION;
use keyward_proto::resp::{Args, ReplyWriter, Version};
use keyward_replication::gate::GateState;

use super::client::checked_name;
use crate::acl::DEFAULT;
use crate::acl::log::Context;
use crate::admin::{ServerCommand, ServerContext, ServerOutcome, ServerResult, plain};
use crate::command::spec::{ALLOW_BUSY, FAST, LOADING, NO_AUTH, NOSCRIPT, SENTINEL, STALE};
use crate::command::{CommandError, Cursor, parse_i64_arg};
use crate::server::Server;

/// `AUTH [username] password`
pub(super) const AUTH: ServerCommand =
    plain("auth", auth, -2, NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | SENTINEL | ALLOW_BUSY, "1.0.0");
fn auth(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    let (user, password): (&[u8], &[u8]) = match args.len() {
        2 if ctx.server.settings().users.default_user().has_no_password() => {
            return Err(CommandError::err(
                "AUTH <password> called without any password configured for the default user. \
                 Are you sure your configuration is correct?",
            ));
        }
        2 => (DEFAULT, args.at(1)),
        3 => (args.at(1), args.at(2)),
        _ => return Err(CommandError::Syntax),
    };
    authenticate(ctx, user, password)?;
    ctx.out.ok();
    Ok(ServerOutcome::Reply)
}

fn authenticate(ctx: &mut ServerContext<'_, '_>, name: &[u8], password: &[u8]) -> Result<(), CommandError> {
    let settings = ctx.server.settings();
    let Some(user) = settings.users.get(name).filter(|user| user.admits(password)) else {
        let context = if ctx.session.in_exec { Context::Multi } else { Context::TopLevel };
        ctx.server.refusals.note_failure(ctx.server, ctx.session, context, name, ctx.spec.name);
        return Err(CommandError::coded("WRONGPASS invalid username-password pair or user is disabled."));
    };
    ctx.session.authenticate(user);
    Ok(())
}

/// `HELLO [protover [AUTH username password] [SETNAME clientname]]`
pub(super) const HELLO: ServerCommand =
    plain("hello", hello, -1, NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | SENTINEL | ALLOW_BUSY, "6.0.0");
fn hello(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    let mut version = ctx.session.version;
    if let Some(word) = args.get(1) {
        version = match parse_i64_arg(word) {
            Err(_) => {
                return Err(CommandError::err("Protocol version is not an integer or out of range"));
            }
            Ok(2) => Version::Resp2,
            Ok(3) => Version::Resp3,
            Ok(_) => return Err(CommandError::coded("NOPROTO unsupported protocol version")),
        };
    }
    let mut credentials = None;
    let mut name = None;
    let mut options = Cursor::new(args, 2);
    while let Some(option) = options.peek() {
        if let Some(mut values) = options.values_of("AUTH", 2) {
            credentials = values.next().zip(values.next());
        } else if let Some(value) = options.value_of("SETNAME") {
            name = Some(checked_name(value, "Client names")?);
        } else {
            return Err(CommandError::quoting("Syntax error in HELLO option '", option, "'"));
        }
    }
    if let Some((user, password)) = credentials {
        authenticate(ctx, user, password)?;
    }
    if !ctx.session.authenticated {
        return Err(CommandError::coded(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH \
             <user> <pass> option can be used to authenticate the client and select the RESP protocol version at \
             the same time",
        ));
    }
    if let Some(name) = name {
        ctx.session.client.description.lock().name = name.into();
    }
    if ctx.session.version != version {
        ctx.session.version = version;
        ctx.server.pubsub.set_version(ctx.session);
    }
    ctx.session.describe();
    ctx.out.set_version(version);
    reply(&mut ctx.out, ctx.server, ctx.session.client.id);
    Ok(ServerOutcome::Reply)
}

fn reply(out: &mut ReplyWriter<'_>, server: &Server, id: u64) {
    let settings = server.settings();
    let zone = &settings.zone;
    out.map(if zone.is_empty() { 7 } else { 8 });
    out.bulk_str("server");
    out.bulk_str("valkey");
    out.bulk_str("version");
    out.bulk_str(VALKEY_VERSION);
    out.bulk_str("proto");
    out.integer(if out.is_resp3() { 3 } else { 2 });
    out.bulk_str("id");
    out.integer(i64::try_from(id).unwrap_or(i64::MAX));
    out.bulk_str("mode");
    out.bulk_str(if settings.cluster_enabled { "cluster" } else { "standalone" });
    out.bulk_str("role");
    out.bulk_str(match server.shared.gate.state() {
        GateState::Primary | GateState::Holding => "master",
        GateState::Replica
        | GateState::NoPrimary
        | GateState::Loading
        | GateState::InDoubt
        | GateState::Undecided => "replica",
    });
    if !zone.is_empty() {
        out.bulk_str("availability_zone");
        out.bulk_str(zone);
    }
    out.bulk_str("modules");
    out.array(0);
}

//! WAIT and WAITAOF: how many replicas have what this client wrote.
//!
//! With `replication-ack in-sync` a reply to a write leaves only when the whole in-sync set has it; WAIT then counts
//! those and whoever else has caught up.

use keyward_proto::resp::number::parse_i64;
use keyward_proto::resp::{Args, ReplyWriter};

use crate::admin::{ServerCommand, ServerContext, ServerOutcome, ServerResult, plain};
use crate::command::spec::{BLOCKING, category};
use crate::command::{CommandError, parse_i64_arg};

fn refuse_on_replica(ctx: &ServerContext<'_, '_>) -> Result<(), CommandError> {
    if !ctx.server.shared.gate.state().is_replica() {
        return Ok(());
    }
    Err(CommandError::err(format!(
        "{} cannot be used with replica instances. Please also note that writes to replicas are just local and \
         are not propagated.",
        ctx.spec.name.to_ascii_uppercase()
    )))
}

/// Milliseconds; zero: for ever.
fn parse_timeout_millis(argument: &[u8], now: i64) -> Result<u64, CommandError> {
    let millis = parse_i64(argument);
    let millis = millis.ok_or_else(|| CommandError::err("timeout is not an integer or out of range"))?;
    let end = millis.checked_add(now).ok_or_else(|| CommandError::err("timeout is out of range"));
    match u64::try_from(millis) {
        Err(_) => Err(CommandError::err("timeout is negative")),
        Ok(millis) => end.map(|_| millis),
    }
}

/// `WAIT numreplicas timeout`
pub(super) const WAIT: ServerCommand = plain("wait", wait, 3, BLOCKING, "3.0.0")
    .categories(category::CONNECTION)
    .tips(&["request_policy:all_shards", "response_policy:agg_min"]);
fn wait(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    refuse_on_replica(ctx)?;
    let replicas = parse_i64_arg(args.at(1))?;
    let timeout_ms = parse_timeout_millis(args.at(2), ctx.keys.now)?;
    let replicas = u64::try_from(replicas).unwrap_or(0);
    let holding = ctx.server.replicas_holding(ctx.session.last_write);
    if replicas <= holding as u64 || ctx.session.in_exec {
        ctx.out.len(holding);
        return Ok(ServerOutcome::Reply);
    }
    Ok(ServerOutcome::WaitReplicas { replicas, timeout_ms })
}

/// `WAITAOF numlocal numreplicas timeout`. Differs from Valkey: replicas do not tell what they have synced, so none is
/// counted.
pub(super) const WAITAOF: ServerCommand = plain("waitaof", waitaof, 4, BLOCKING, "7.2.0")
    .categories(category::CONNECTION)
    .tips(&["request_policy:all_shards", "response_policy:agg_min"]);
fn waitaof(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    let local = parse_i64_arg(args.at(1))?;
    if !(0..=1).contains(&local) {
        return Err(CommandError::err("value is out of range, value must between 0 and 1"));
    }
    let replicas = parse_i64(args.at(2)).filter(|n| 0 <= *n);
    let replicas = replicas.ok_or_else(|| CommandError::err("value is out of range, must be positive"))?;
    let timeout_ms = parse_timeout_millis(args.at(3), ctx.keys.now)?;
    refuse_on_replica(ctx)?;
    if local == 1 && !ctx.server.aof.status().enabled {
        return Err(CommandError::err(
            "WAITAOF cannot be used when numlocal is set but appendonly is disabled.",
        ));
    }
    let synced = u64::from(ctx.server.has_synced(ctx.session.last_write));
    let replicas = replicas.unsigned_abs();
    if replicas == 0 && local.unsigned_abs() <= synced || ctx.session.in_exec {
        write_synced(&mut ctx.out, synced);
        return Ok(ServerOutcome::Reply);
    }
    Ok(ServerOutcome::WaitDisk { replicas, timeout_ms })
}

/// How many of this node and of the replicas have synced what was asked for.
pub(crate) fn write_synced(out: &mut ReplyWriter<'_>, local: u64) {
    out.array(2);
    out.integer(local as i64);
    out.integer(0);
}

//! The process: TIME, ROLE, SHUTDOWN, LOLWUT.

use keyward_proto::VALKEY_VERSION;
use keyward_proto::resp::{Args, ReplyWriter};
use keyward_replication::gate::GateState;

use crate::admin::{Request, ServerCommand, ServerContext, ServerOutcome, ServerResult, plain, read};
use crate::command::spec::{ADMIN, ALLOW_BUSY, FAST, LOADING, NO_MULTI, NOSCRIPT, SENTINEL, STALE, category};
use crate::command::{CommandError, ascii_eq, parse_f64_arg, parse_i64_arg};
use crate::shutdown::{Options, Saving};

/// `TIME`
pub(super) const TIME: ServerCommand =
    plain("time", time, 1, LOADING | STALE | FAST, "2.6.0").tips(&["nondeterministic_output"]);
fn time(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    let now = ctx.server.clock.unix_micros();
    ctx.out.array(2);
    ctx.out.bulk_integer(now / 1_000_000);
    ctx.out.bulk_integer(now % 1_000_000);
    Ok(ServerOutcome::Reply)
}

/// `ROLE`
pub(super) const ROLE: ServerCommand =
    plain("role", role, 1, NOSCRIPT | LOADING | STALE | FAST | SENTINEL, "2.8.12")
        .categories(category::ADMIN | category::DANGEROUS);
fn role(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    let server = ctx.server;
    let (settings, routing) = (server.settings(), server.routing());
    let offset = i64::try_from(server.shared.log.lock().last().index.get()).unwrap_or(i64::MAX);
    let out = &mut ctx.out;
    let state = server.shared.gate.state();
    match state {
        GateState::Primary | GateState::Holding => {
            let replicas = server.replicas(&routing);
            out.array(3);
            out.bulk_str("master");
            out.integer(offset);
            out.array(replicas.len());
            for replica in replicas {
                out.array(3);
                out.bulk_str(&crate::routing::host(replica.node, &settings));
                out.bulk_integer(replica.node.port.into());
                out.bulk_integer(i64::try_from(replica.held).unwrap_or(i64::MAX));
            }
        }
        GateState::Replica
        | GateState::NoPrimary
        | GateState::Loading
        | GateState::InDoubt
        | GateState::Undecided => {
            let primary = routing.my_primary();
            out.array(5);
            out.bulk_str("slave");
            out.bulk_str(&primary.map_or_else(String::new, |n| crate::routing::host(n, &settings)));
            out.integer(primary.map_or(0, |n| n.port.into()));
            out.bulk_str(link_state(state));
            out.integer(offset);
        }
    }
    Ok(ServerOutcome::Reply)
}

fn link_state(state: GateState) -> &'static str {
    match state {
        GateState::Loading => "sync",
        GateState::NoPrimary | GateState::InDoubt | GateState::Undecided => "connect",
        GateState::Replica | GateState::Primary | GateState::Holding => "connected",
    }
}

/// `SHUTDOWN [[NOSAVE | SAVE] [NOW] [FORCE] [SAFE] [FAILOVER] | ABORT]`: hands the primary role over, if there is a
/// replica to take it, saves the database if asked to or by its rules, and ends the process; then there is no reply.
pub(super) const SHUTDOWN: ServerCommand = plain(
    "shutdown",
    shutdown,
    -1,
    ADMIN | NOSCRIPT | LOADING | STALE | NO_MULTI | SENTINEL | ALLOW_BUSY,
    "1.0.0",
);
fn shutdown(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    let words = || args.iter().skip(1);
    if words().any(|word| ascii_eq(word, "ABORT")) {
        if args.len() > 2 {
            return Err(CommandError::Syntax);
        }
        if !ctx.server.shutdown.abort(ctx.server) {
            return Err(CommandError::err("No shutdown in progress."));
        }
        ctx.out.ok();
        return Ok(ServerOutcome::Reply);
    }
    let options = Options::parse(words().filter(|w| !ascii_eq(w, "default"))).ok_or(CommandError::Syntax)?;
    let runs = &ctx.server.scripts.runs;
    if options.saving != Saving::Never && runs.is_busy() {
        return Err(CommandError::coded(runs.busy_error()));
    }
    tracing::info!(client = ctx.session.client.id, "SHUTDOWN");
    Ok(ServerOutcome::Await(Request::Shutdown(options)))
}

/// `LOLWUT [VERSION version] [columns rows [real imaginary]]`: a tower of wards, as wide and high as asked. What the
/// pictures of Valkey's versions take as arguments is checked as there.
pub(super) const LOLWUT: ServerCommand = read("lolwut", lolwut, -1, FAST, "5.0.0");
fn lolwut(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    let mut words: Vec<&[u8]> = args.iter().skip(1).collect();
    let mut version = LOLWUT_VERSION;
    if let [word, number, ..] = words[..]
        && ascii_eq(word, "VERSION")
    {
        version = parse_i64_arg(number)?;
        words.drain(..2);
    }
    words.truncate(match version {
        5 => 3,
        6 => 2,
        LOLWUT_VERSION => words.len(),
        _ => 0,
    });
    let is_size_and_point = matches!(words.len(), 0 | 2 | 4);
    if version == LOLWUT_VERSION && !is_size_and_point {
        return Err(CommandError::err("Syntax error. Use: LOLWUT [columns rows] [real imaginary]"));
    }
    let point = if version == LOLWUT_VERSION { words.split_off(words.len().min(2)) } else { Vec::new() };
    let numbers: Vec<i64> = words.iter().map(|w| parse_i64_arg(w)).collect::<Result<_, _>>()?;
    for number in point {
        parse_f64_arg(number)?;
    }
    let bounded = |at: usize, default: usize, max: i64| {
        numbers.get(at).map_or(default, |n| usize::try_from((*n).clamp(1, max)).unwrap_or(default))
    };
    let picture = tower(bounded(0, 48, 160), bounded(1, 12, 80));
    let text = format!("{picture}\nKeyward, at your service. Valkey ver. {VALKEY_VERSION}\n");
    verbatim(&mut ctx.out, &text);
    Ok(ServerOutcome::Reply)
}

/// The version of Valkey whose picture is shown if none is named.
const LOLWUT_VERSION: i64 = 9;

fn verbatim(out: &mut ReplyWriter<'_>, text: &str) {
    out.verbatim("txt", text.as_bytes());
}

/// Rows of battlements that grow narrower towards the top.
fn tower(columns: usize, rows: usize) -> String {
    let mut picture = String::new();
    for row in 0..rows {
        let width = (columns * (row + 1) / rows).max(1);
        let brick = if row % 2 == 0 { "|__" } else { "_|_" };
        picture.extend(std::iter::repeat_n(' ', (columns - width) / 2));
        picture.extend(brick.chars().cycle().take(width));
        picture.push('\n');
    }
    picture
}

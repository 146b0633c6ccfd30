//! CLIENT INFO, LIST and KILL: a client as a line of `name=value` fields, and picking clients by them.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use keyward_proto::resp::{Args, Version};
use keyward_proto::time::Monotonic;

use super::filter::{Filter, Me};
use crate::admin::{ServerCommand, ServerContext, ServerOutcome, ServerResult, plain};
use crate::command::CommandError;
use crate::command::spec::{ADMIN, LOADING, NOSCRIPT, SENTINEL, STALE};
use crate::io::clients::{Client, Description};

/// `CLIENT INFO`
pub(super) const CLIENT_INFO: ServerCommand =
    plain("client|info", client_info, 2, NOSCRIPT | LOADING | STALE | SENTINEL, "6.2.0")
        .tips(&["nondeterministic_output"]);
fn client_info(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    ctx.session.describe();
    let mut text = Vec::new();
    push_line(&mut text, &ctx.session.client, ctx.server.clock.monotonic());
    ctx.out.verbatim("txt", &text);
    Ok(ServerOutcome::Reply)
}

/// `CLIENT LIST [TYPE ... | ID id ... | ...]`: see [`Filter`].
pub(super) const CLIENT_LIST: ServerCommand =
    plain("client|list", client_list, -2, ADMIN | NOSCRIPT | LOADING | STALE | SENTINEL, "2.4.0")
        .tips(&["nondeterministic_output"]);
fn client_list(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    let filter = Filter::parse(ctx.server, args, Me::Counts)?;
    ctx.session.describe();
    let now = ctx.server.clock.monotonic();
    let mut text = Vec::new();
    for client in ctx.server.clients.all() {
        if filter.selects(&client, ctx.session.client.id, now) {
            push_line(&mut text, &client, now);
        }
    }
    ctx.out.verbatim("txt", &text);
    Ok(ServerOutcome::Reply)
}

/// `CLIENT KILL <ip:port | filter ...>`: see [`Filter`].
pub(super) const CLIENT_KILL: ServerCommand =
    plain("client|kill", client_kill, -3, ADMIN | NOSCRIPT | LOADING | STALE | SENTINEL, "2.4.0");
fn client_kill(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    let by_address = args.len() == 3;
    let filter = if by_address {
        Filter::by_address(args.at(2))
    } else {
        Filter::parse(ctx.server, args, Me::Skipped)?
    };
    let (me, now) = (ctx.session.client.id, ctx.server.clock.monotonic());
    let all = ctx.server.clients.all();
    let selected: Vec<&Arc<Client>> = all.iter().filter(|c| filter.selects(c, me, now)).collect();
    if by_address && selected.is_empty() {
        return Err(CommandError::err("No such client"));
    }
    for client in &selected {
        if client.id == me { client.kill_after_reply() } else { client.kill() }
    }
    if by_address {
        ctx.out.ok();
    } else {
        ctx.out.len(selected.len());
    }
    // Nothing that the client has sent behind this is executed.
    Ok(if ctx.session.client.closes_after_reply() { ServerOutcome::Close } else { ServerOutcome::Reply })
}

/// The letters of the field `flags`.
pub(super) fn flags_of(d: &Description, client: &Client) -> String {
    let mut flags = String::new();
    let letters = [
        (d.monitor, 'O'),
        (d.channels + d.patterns + d.sharded > 0, 'P'),
        (d.multi.is_some(), 'x'),
        (d.blocked, 'b'),
        (d.tracking, 't'),
        (d.tracking_broken, 'R'),
        (d.broadcasts, 'B'),
        (client.closes_after_reply(), 'c'),
        (client.is_killed(), 'A'),
        (d.readonly, 'r'),
        (d.no_evict, 'e'),
        (d.no_touch, 'T'),
    ];
    flags.extend(letters.iter().filter(|(set, _)| *set).map(|(_, letter)| *letter));
    if flags.is_empty() { "N".into() } else { flags }
}

/// What of a client the log of refusals shows.
pub(crate) fn line_of(client: &Client, now: Monotonic) -> Vec<u8> {
    let mut line = Vec::new();
    push_line(&mut line, client, now);
    line.truncate(line.trim_ascii_end().len());
    line
}

fn push_line(text: &mut Vec<u8>, client: &Client, now: Monotonic) {
    let d = client.description.lock();
    let load = |n: &std::sync::atomic::AtomicUsize| n.load(Ordering::Relaxed);
    let (input, output) = (load(&client.query_buffer_len), load(&client.output_buffer_len));
    let multi = d.multi.map_or_else(|| "-1".to_owned(), |n| n.to_string());
    let resp = match d.version {
        Version::Resp2 => 2,
        Version::Resp3 => 3,
    };
    let redirect = match d.redirect {
        _ if !d.tracking => -1,
        None => 0,
        Some(id) => i64::try_from(id).unwrap_or(i64::MAX),
    };
    let mut head = String::new();
    let written = writeln!(
        head,
        "id={} addr={} laddr={} fd={} name={} age={} idle={} flags={} capa={} db={} sub={} psub={} ssub={} \
         multi={multi} watch={} qbuf={input} qbuf-free=0 argv-mem=0 multi-mem={} rbs=0 rbp=0 obl=0 oll={} \
         omem={output} tot-mem={} events={} cmd={} user={} redir={redirect} resp={resp} lib-name={} lib-ver={} \
         tot-net-in={} tot-net-out={} tot-cmds={}",
        client.id,
        client.address,
        client.local_address,
        client.fd.load(Ordering::Relaxed),
        String::from_utf8_lossy(&d.name),
        client.age(now).as_secs(),
        client.idle(now).as_secs(),
        flags_of(&d, client),
        if d.capa_redirect { "r" } else { "" },
        d.db,
        d.channels,
        d.patterns,
        d.sharded,
        d.watched,
        d.multi_len_bytes,
        usize::from(output > 0),
        size_of::<Client>() + input + output + d.multi_len_bytes,
        if output > 0 { "rw" } else { "r" },
        client.last_command(),
        String::from_utf8_lossy(&d.user),
        String::from_utf8_lossy(&d.lib_name),
        String::from_utf8_lossy(&d.lib_version),
        client.net_in_bytes.load(Ordering::Relaxed),
        client.net_out_bytes.load(Ordering::Relaxed),
        client.commands.load(Ordering::Relaxed),
    );
    debug_assert!(written.is_ok(), "writing to a string does not fail");
    text.extend_from_slice(head.as_bytes());
}

//! CLIENT TRACKING and what belongs to it: the client keeps values itself, and is told when they change.

use std::collections::BTreeSet;

use keyward_proto::resp::Args;

use crate::admin::{ServerCommand, ServerContext, ServerOutcome, ServerResult, plain};
use crate::command::spec::{ALLOW_BUSY, LOADING, NOSCRIPT, SENTINEL, STALE};
use crate::command::{CommandError, Cursor, ascii_eq, parse_i64_arg};
use crate::tracking::{Mode, Tracking};

/// `CLIENT TRACKING <ON | OFF> [REDIRECT client-id] [PREFIX prefix [PREFIX prefix ...]] [BCAST] [OPTIN] [OPTOUT]
/// [NOLOOP]`
pub(super) const CLIENT_TRACKING: ServerCommand =
    plain("client|tracking", client_tracking, -3, NOSCRIPT | LOADING | STALE | SENTINEL, "6.0.0");
fn client_tracking(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    let options = Options::parse(ctx, args)?;
    match args.at(2) {
        word if ascii_eq(word, "ON") => {
            let tracking = options.apply(ctx.session.tracking.as_deref())?;
            ctx.server.tracking.set(&ctx.session.client, &tracking, &ctx.server.keyspace.tracking);
            ctx.session.tracking = Some(Box::new(tracking));
        }
        word if ascii_eq(word, "OFF") => end(ctx),
        _ => return Err(CommandError::Syntax),
    }
    ctx.session.client.description.lock().tracking_broken = false;
    ctx.session.describe();
    ctx.out.ok();
    Ok(ServerOutcome::Reply)
}

/// The client is told of nothing any more.
pub(super) fn end(ctx: &mut ServerContext<'_, '_>) {
    if ctx.session.tracking.take().is_some() {
        ctx.server.tracking.remove(ctx.session.client.id, &ctx.server.keyspace.tracking);
    }
}

#[derive(Default)]
struct Options {
    redirect: Option<u64>,
    prefixes: Vec<Box<[u8]>>,
    broadcasts: bool,
    opts_in: bool,
    opts_out: bool,
    no_loop: bool,
}

impl Options {
    fn parse(ctx: &ServerContext<'_, '_>, args: Args<'_>) -> Result<Options, CommandError> {
        let mut options = Options::default();
        let mut rest = Cursor::new(args, 3);
        while rest.peek().is_some() {
            if let Some(value) = rest.value_of("REDIRECT") {
                if options.redirect.is_some() {
                    return Err(CommandError::err("A client can only redirect to a single other client"));
                }
                let known = u64::try_from(parse_i64_arg(value)?)
                    .ok()
                    .filter(|id| ctx.server.clients.get(*id).is_some());
                let unknown = || CommandError::err("The client ID you want redirect to does not exist");
                options.redirect = Some(known.ok_or_else(unknown)?);
            } else if let Some(value) = rest.value_of("PREFIX") {
                options.prefixes.push(value.into());
            } else if rest.word("BCAST") {
                options.broadcasts = true;
            } else if rest.word("OPTIN") {
                options.opts_in = true;
            } else if rest.word("OPTOUT") {
                options.opts_out = true;
            } else if rest.word("NOLOOP") {
                options.no_loop = true;
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(options)
    }

    /// What the client has asked for now, after what it had asked for before.
    fn apply(self, before: Option<&Tracking>) -> Result<Tracking, CommandError> {
        let mode_before = before.map(|before| before.mode);
        let was_broadcast = mode_before == Some(Mode::Broadcast);
        let refused = |text: &str| Err(CommandError::err(text.to_owned()));
        if !self.broadcasts && !self.prefixes.is_empty() {
            return refused("PREFIX option requires BCAST mode to be enabled");
        }
        if before.is_some() && was_broadcast != self.broadcasts {
            return refused(
                "You can't switch BCAST mode on/off before disabling tracking for this client, and then re-enabling \
                 it with a different mode.",
            );
        }
        if self.broadcasts && (self.opts_in || self.opts_out) {
            return refused("OPTIN and OPTOUT are not compatible with BCAST");
        }
        if self.opts_in && self.opts_out {
            return refused("You can't specify both OPTIN mode and OPTOUT mode");
        }
        if (self.opts_in && mode_before == Some(Mode::OptOut))
            || (self.opts_out && mode_before == Some(Mode::OptIn))
        {
            return refused(
                "You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then re-enabling \
                 it with a different mode.",
            );
        }
        let mut prefixes = before.map_or_else(BTreeSet::new, |before| before.prefixes.clone());
        check_prefixes(&self.prefixes, &prefixes)?;
        prefixes.extend(self.prefixes.iter().cloned());
        if self.broadcasts && self.prefixes.is_empty() {
            prefixes.insert(Box::default());
        }
        let mode = match (self.broadcasts, self.opts_in, self.opts_out) {
            (true, ..) => Mode::Broadcast,
            (false, true, _) => Mode::OptIn,
            (false, false, true) => Mode::OptOut,
            (false, false, false) => Mode::Read,
        };
        Ok(Tracking { mode, no_loop: self.no_loop, redirect: self.redirect, prefixes, caching: false })
    }
}

/// No key may have two of a client's prefixes.
fn check_prefixes(new: &[Box<[u8]>], existing: &BTreeSet<Box<[u8]>>) -> Result<(), CommandError> {
    let overlap = |a: &[u8], b: &[u8]| a.starts_with(b) || b.starts_with(a);
    let refused = |a: &[u8], which: &str, b: &[u8]| {
        let (a, b) = (String::from_utf8_lossy(a), String::from_utf8_lossy(b));
        let text = format!("Prefix '{a}' overlaps with {which} prefix '{b}'. ");
        Err(CommandError::err(text + "Prefixes for a single client must not overlap."))
    };
    for (at, prefix) in new.iter().enumerate() {
        if let Some(other) = existing.iter().find(|other| overlap(prefix, other)) {
            return refused(prefix, "an existing", other);
        }
        if let Some(other) = new[at + 1..].iter().find(|other| overlap(prefix, other)) {
            return refused(prefix, "another provided", other);
        }
    }
    Ok(())
}

/// `CLIENT CACHING <YES | NO>`
pub(super) const CLIENT_CACHING: ServerCommand =
    plain("client|caching", client_caching, 3, ALLOW_BUSY | NOSCRIPT | LOADING | STALE | SENTINEL, "6.0.0");
fn client_caching(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    let needs = "CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled";
    let Some(tracking) = ctx.session.tracking.as_mut() else { return Err(CommandError::err(needs)) };
    let wanted = match args.at(2) {
        word if ascii_eq(word, "YES") => (Mode::OptIn, "YES", "OPTIN"),
        word if ascii_eq(word, "NO") => (Mode::OptOut, "NO", "OPTOUT"),
        _ => return Err(CommandError::Syntax),
    };
    let (mode, word, name) = wanted;
    if tracking.mode != mode {
        return Err(CommandError::err(format!(
            "CLIENT CACHING {word} is only valid when tracking is enabled in {name} mode."
        )));
    }
    tracking.caching = true;
    ctx.out.ok();
    Ok(ServerOutcome::Reply)
}

/// `CLIENT GETREDIR`: the client that is told instead; 0: none, -1: nobody is told.
pub(super) const CLIENT_GETREDIR: ServerCommand =
    plain("client|getredir", client_getredir, 2, ALLOW_BUSY | NOSCRIPT | LOADING | STALE | SENTINEL, "6.0.0");
fn client_getredir(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    let redirect = ctx.session.redirect();
    ctx.out.integer(redirect);
    Ok(ServerOutcome::Reply)
}

/// `CLIENT TRACKINGINFO`
pub(super) const CLIENT_TRACKINGINFO: ServerCommand =
    plain("client|trackinginfo", client_trackinginfo, 2, NOSCRIPT | LOADING | STALE | SENTINEL, "6.2.0");
fn client_trackinginfo(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    let tracking = ctx.session.tracking.as_deref();
    let mut flags = tracking.map_or_else(|| vec!["off"], flags_of);
    if ctx.session.client.description.lock().tracking_broken {
        flags.push("broken_redirect");
    }
    let redirect = ctx.session.redirect();
    let out = &mut ctx.out;
    out.map(3);
    out.bulk_str("flags");
    out.set(flags.len());
    flags.iter().for_each(|flag| out.bulk_str(flag));
    out.bulk_str("redirect");
    out.integer(redirect);
    out.bulk_str("prefixes");
    let prefixes = tracking.map(|tracking| &tracking.prefixes);
    out.array(prefixes.map_or(0, BTreeSet::len));
    prefixes.into_iter().flatten().for_each(|prefix| out.bulk(prefix));
    Ok(ServerOutcome::Reply)
}

fn flags_of(tracking: &Tracking) -> Vec<&'static str> {
    let mut flags = vec!["on"];
    let (name, caching) = match tracking.mode {
        Mode::Read => ("", ""),
        Mode::Broadcast => ("bcast", ""),
        Mode::OptIn => ("optin", "caching-yes"),
        Mode::OptOut => ("optout", "caching-no"),
    };
    flags.extend([name].into_iter().filter(|name| !name.is_empty()));
    flags.extend([caching].into_iter().filter(|_| tracking.caching));
    flags.extend(["noloop"].into_iter().filter(|_| tracking.no_loop));
    flags
}

/// `CLIENT CAPA capability [capability ...]`: what the client understands; `redirect` is known, others are passed over.
pub(super) const CLIENT_CAPA: ServerCommand =
    plain("client|capa", client_capa, -3, ALLOW_BUSY | NOSCRIPT | LOADING | STALE, "8.0.0");
fn client_capa(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    if args.iter().skip(2).any(|capability| ascii_eq(capability, "redirect")) {
        ctx.session.client.description.lock().capa_redirect = true;
    }
    ctx.out.ok();
    Ok(ServerOutcome::Reply)
}

/// `CLIENT IMPORT-SOURCE <ON | OFF>`: there is no import mode.
pub(super) const CLIENT_IMPORT_SOURCE: ServerCommand =
    plain("client|import-source", client_import_source, 3, NOSCRIPT | LOADING | STALE, "8.1.0");
fn client_import_source(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    if !ascii_eq(args.at(2), "OFF") {
        return Err(CommandError::err("Server is not in import mode"));
    }
    ctx.out.ok();
    Ok(ServerOutcome::Reply)
}

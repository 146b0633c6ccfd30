//! LATENCY: what took long, by event, and how long calls of commands take.

use keyward_proto::resp::Args;

use crate::admin::{ServerCommand, ServerContext, ServerOutcome, ServerResult, container, help, plain};
use crate::command::CommandError;
use crate::command::spec::{ADMIN, LOADING, NOSCRIPT, STALE};
use crate::command::table;
use crate::observe::histogram::Histogram;
use crate::observe::latency::{graph, report};

const TIPS: [&str; 3] = ["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"];
const RESET_TIPS: [&str; 2] = ["request_policy:all_nodes", "response_policy:agg_sum"];
const FLAGS: u32 = ADMIN | NOSCRIPT | LOADING | STALE;

fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// `LATENCY <DOCTOR | GRAPH | HELP | HISTOGRAM | HISTORY | LATEST | RESET>`
pub(super) const LATENCY: ServerCommand = container("latency", 0, "2.8.13");

/// `LATENCY LATEST`: for each event its latest time, when that was, the longest ever, the sum of all and their number.
pub(super) const LATENCY_LATEST: ServerCommand =
    plain("latency|latest", latest, 2, FLAGS, "2.8.13").tips(&TIPS);
fn latest(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    let events = ctx.server.latency.all();
    ctx.out.array(events.len());
    for (event, series) in events {
        let latest = series.latest();
        ctx.out.array(6);
        ctx.out.bulk_str(event);
        ctx.out.integer(latest.map_or(0, |sample| sample.unix_seconds));
        ctx.out.integer(latest.map_or(0, |sample| integer(sample.millis)));
        ctx.out.integer(integer(series.max_millis));
        ctx.out.integer(integer(series.sum_millis));
        ctx.out.integer(integer(series.count));
    }
    Ok(ServerOutcome::Reply)
}

/// `LATENCY HISTORY event`
pub(super) const LATENCY_HISTORY: ServerCommand =
    plain("latency|history", history, 3, FLAGS, "2.8.13").tips(&TIPS);
fn history(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    let series = ctx.server.latency.of(args.at(2)).unwrap_or_default();
    ctx.out.array(series.samples.len());
    for sample in series.samples {
        ctx.out.array(2);
        ctx.out.integer(sample.unix_seconds);
        ctx.out.integer(integer(sample.millis));
    }
    Ok(ServerOutcome::Reply)
}

/// `LATENCY GRAPH event`
pub(super) const LATENCY_GRAPH: ServerCommand =
    plain("latency|graph", latency_graph, 3, FLAGS, "2.8.13").tips(&TIPS);
fn latency_graph(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    let Some(series) = ctx.server.latency.of(args.at(2)) else {
        return Err(CommandError::quoting("No samples available for event '", args.at(2), "'"));
    };
    let event = String::from_utf8_lossy(args.at(2));
    let picture = graph(&event, &series, ctx.server.clock.unix_micros() / 1_000_000);
    ctx.out.verbatim("txt", picture.as_bytes());
    Ok(ServerOutcome::Reply)
}

/// `LATENCY DOCTOR`
pub(super) const LATENCY_DOCTOR: ServerCommand =
    plain("latency|doctor", doctor, 2, FLAGS, "2.8.13").tips(&TIPS);
fn doctor(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    let settings = ctx.server.settings();
    let events = ctx.server.latency.all();
    let text = report(&events, settings.latency_threshold_millis, settings.commandlog.slow_micros);
    ctx.out.verbatim("txt", text.as_bytes());
    Ok(ServerOutcome::Reply)
}

/// `LATENCY RESET [event [event ...]]`: the reply is how many events are forgotten.
pub(super) const LATENCY_RESET: ServerCommand =
    plain("latency|reset", reset, -2, FLAGS, "2.8.13").tips(&RESET_TIPS);
fn reset(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    let monitor = &ctx.server.latency;
    let forgotten = match args.len() {
        2 => monitor.reset_all(),
        _ => args.iter().skip(2).filter(|event| monitor.reset(event)).count(),
    };
    ctx.out.len(forgotten);
    Ok(ServerOutcome::Reply)
}

/// `LATENCY HISTOGRAM [command [command ...]]`: for each command how many calls took no longer than so many
/// microseconds; a container stands for its subcommands.
pub(super) const LATENCY_HISTOGRAM: ServerCommand =
    plain("latency|histogram", histogram, -2, FLAGS, "7.0.0").tips(&TIPS);
fn histogram(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    let known: Vec<(&str, Histogram)> = {
        let all = ctx.server.stats.per_command();
        all.into_iter().filter(|c| 0 < c.times.total()).map(|c| (c.name, c.times)).collect()
    };
    let shown: Vec<&(&str, Histogram)> = if args.len() == 2 {
        known.iter().collect()
    } else {
        args.iter().skip(2).flat_map(|name| known.iter().filter(move |(of, _)| is_meant(name, of))).collect()
    };
    ctx.out.map(shown.len());
    for (name, times) in shown {
        ctx.out.bulk_str(name);
        ctx.out.map(2);
        ctx.out.bulk_str("calls");
        ctx.out.integer(integer(times.total()));
        ctx.out.bulk_str("histogram_usec");
        let steps = times.cumulative();
        ctx.out.map(steps.len());
        for (micros, count) in steps {
            ctx.out.integer(integer(micros));
            ctx.out.integer(integer(count));
        }
    }
    Ok(ServerOutcome::Reply)
}

/// Whether a word means this command: by its name, or by that of its container.
fn is_meant(word: &[u8], name: &str) -> bool {
    let container = name.split('|').next().unwrap_or(name);
    table::find(word).is_some_and(|row| row.name == container)
}

/// `LATENCY HELP`
pub(super) const LATENCY_HELP: ServerCommand =
    plain("latency|help", latency_help, 2, LOADING | STALE, "2.8.13");
fn latency_help(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    help(
        ctx,
        &[
            "DOCTOR",
            "    Say what has taken long, and what to look at.",
            "GRAPH <event>",
            "    Draw the times of an event.",
            "HISTOGRAM [<command> ...]",
            "    Count calls of commands by how long they took, in microseconds.",
            "HISTORY <event>",
            "    Show the times of an event, of each second the longest.",
            "LATEST",
            "    Show the latest time of each event.",
            "RESET [<event> ...]",
            "    Forget what is known of these events, or of all.",
        ],
    )
}

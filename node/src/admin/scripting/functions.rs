//! FUNCTION: the libraries of functions. FCALL is run by the executor.
//!
//! For replication they belong to one slot ([`libraries::SLOT`]): whoever changes them has stopped the world, and their
//! effects are ones on that slot. An effect is applied whatever else is there: a file that is rewritten meanwhile, or a
//! full sync, may have what comes after it.

use std::sync::Arc;

use keyward_proto::glob;
use keyward_proto::resp::Args;
use keyward_store::keys::Mode;
use keyward_store::rdb::{Compression, payload};

use super::{ServerCommand, ServerContext, ServerOutcome, ServerResult, container, help, kill, plain, write};
use crate::command::spec::{ALLOW_BUSY, DENYOOM, LOADING, NOSCRIPT, STALE, Scope};
use crate::command::{CommandError, Cursor, ascii_eq};
use crate::scripts;
use crate::scripts::engine::Loading;
use crate::scripts::libraries::{self, Existing, Libraries, Library};
use crate::scripts::runs::What;

pub(super) const FUNCTION: ServerCommand = container("function", 0, "7.0.0");

/// `FUNCTION LOAD [REPLACE] function-code`
pub(super) const FUNCTION_LOAD: ServerCommand =
    write("function|load", function_load, -3, NOSCRIPT | DENYOOM, "7.0.0")
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .scope(Scope::World);
fn function_load(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    let mut existing = Existing::Refused;
    for option in args.iter().take(args.len() - 1).skip(2) {
        if !ascii_eq(option, "REPLACE") {
            return Err(CommandError::quoting("Unknown option given: ", option, ""));
        }
        existing = Existing::Replaced;
    }
    let source = args.at(args.len() - 1);
    let server = ctx.server.shared_self().ok_or_else(|| CommandError::err("the node is ending"))?;
    let library = if ctx.keys.mode() == Mode::Apply {
        scripts::accept_library(&server, source)?
    } else {
        scripts::examine_library(&server, source, existing)?
    };
    ctx.out.bulk_str(&library.name);
    add(ctx, vec![Arc::new(library)]);
    Ok(ServerOutcome::Reply)
}

/// Adds libraries in place of those with their names.
fn add(ctx: &mut ServerContext<'_, '_>, added: Vec<Arc<Library>>) {
    for library in &added {
        ctx.keys.propagate_on(libraries::SLOT, &[b"FUNCTION", b"LOAD", b"REPLACE", &library.source]);
    }
    ctx.server.scripts.change_libraries(|known| added.into_iter().for_each(|library| known.add(library)));
}

/// `FUNCTION DELETE library-name`
pub(super) const FUNCTION_DELETE: ServerCommand =
    write("function|delete", function_delete, 3, NOSCRIPT, "7.0.0")
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .scope(Scope::World);
fn function_delete(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    let name = String::from_utf8_lossy(args.at(2));
    let existed = ctx.server.scripts.change_libraries(|known| known.remove(&name));
    if !existed && ctx.keys.mode() != Mode::Apply {
        return Err(CommandError::err("Library not found"));
    }
    ctx.keys.propagate_on(libraries::SLOT, &[b"FUNCTION", b"DELETE", args.at(2)]);
    ctx.out.ok();
    Ok(ServerOutcome::Reply)
}

/// `FUNCTION FLUSH [ASYNC | SYNC]`
pub(super) const FUNCTION_FLUSH: ServerCommand =
    write("function|flush", function_flush, -2, NOSCRIPT, "7.0.0")
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .scope(Scope::World);
fn function_flush(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    if 3 < args.len() {
        return Err(too_many_words(args));
    }
    if args.get(2).is_some_and(|word| !ascii_eq(word, "SYNC") && !ascii_eq(word, "ASYNC")) {
        return Err(CommandError::err("FUNCTION FLUSH only supports SYNC|ASYNC option"));
    }
    flush(ctx);
    ctx.out.ok();
    Ok(ServerOutcome::Reply)
}

fn flush(ctx: &mut ServerContext<'_, '_>) {
    ctx.server.scripts.change_libraries(Libraries::clear);
    ctx.keys.propagate_on(libraries::SLOT, &[b"FUNCTION", b"FLUSH"]);
}

fn too_many_words(args: Args<'_>) -> CommandError {
    CommandError::quoting(
        "unknown subcommand or wrong number of arguments for '",
        args.at(1),
        "'. Try FUNCTION HELP.",
    )
}

/// `FUNCTION LIST [LIBRARYNAME library-name-pattern] [WITHCODE]`
pub(super) const FUNCTION_LIST: ServerCommand = plain("function|list", function_list, -2, NOSCRIPT, "7.0.0")
    .tips(&["nondeterministic_output_order"])
    .scope(Scope::Walk);
fn function_list(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    let (mut pattern, mut with_code) = (None, false);
    let mut words = Cursor::new(args, 2);
    while let Some(word) = words.take() {
        if !with_code && ascii_eq(word, "WITHCODE") {
            with_code = true;
        } else if pattern.is_none() && ascii_eq(word, "LIBRARYNAME") {
            let given = words.take();
            let given = given.ok_or_else(|| CommandError::err("library name argument was not given"))?;
            pattern = Some(given.to_ascii_lowercase());
        } else {
            return Err(CommandError::quoting("Unknown argument ", word, ""));
        }
    }
    let known = seen(ctx);
    let is_shown = |library: &&Arc<Library>| {
        let name = library.name.to_ascii_lowercase();
        pattern.as_ref().is_none_or(|pattern| glob::matches(pattern, name.as_bytes()))
    };
    let shown: Vec<&Arc<Library>> = known.iter().filter(is_shown).collect();
    ctx.out.array(shown.len());
    for library in shown {
        ctx.out.map(if with_code { 4 } else { 3 });
        write_library(ctx, library);
        if with_code {
            ctx.out.bulk_str("library_code");
            ctx.out.bulk(&library.source);
        }
    }
    Ok(ServerOutcome::Reply)
}

/// The libraries; the reply depends on their last change.
fn seen(ctx: &mut ServerContext<'_, '_>) -> Vec<Arc<Library>> {
    let server = ctx.server;
    ctx.keys.with_slot(libraries::SLOT, |_| server.scripts.libraries.lock().iter().cloned().collect())
}

/// Three pairs of a map.
fn write_library(ctx: &mut ServerContext<'_, '_>, library: &Library) {
    let out = &mut ctx.out;
    out.bulk_str("library_name");
    out.bulk_str(&library.name);
    out.bulk_str("engine");
    out.bulk_str("LUA");
    out.bulk_str("functions");
    out.array(library.functions.len());
    for function in &library.functions {
        out.map(3);
        out.bulk_str("name");
        out.bulk_str(&function.name);
        out.bulk_str("description");
        match &function.description {
            Some(description) => out.bulk(description),
            None => out.null(),
        }
        out.bulk_str("flags");
        out.set(function.flags.names().count());
        function.flags.names().for_each(|flag| out.simple(flag));
    }
}

/// `FUNCTION STATS`
pub(super) const FUNCTION_STATS: ServerCommand =
    plain("function|stats", function_stats, 2, NOSCRIPT | ALLOW_BUSY, "7.0.0").tips(&[
        "nondeterministic_output",
        "request_policy:all_shards",
        "response_policy:special",
    ]);
fn function_stats(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    let (server, out) = (ctx.server, &mut ctx.out);
    let runs = &server.scripts.runs;
    let running = runs.longest(What::Function);
    if running.is_none() && runs.is_busy() {
        return Err(CommandError::coded(runs.busy_error()));
    }
    out.map(2);
    out.bulk_str("running_script");
    match running {
        None => out.null(),
        Some(running) => {
            out.map(3);
            out.bulk_str("name");
            out.bulk_str(&running.name);
            out.bulk_str("command");
            out.array(running.command.len());
            running.command.iter().for_each(|word| out.bulk(word));
            out.bulk_str("duration_ms");
            let elapsed = server.clock.monotonic().since(running.since);
            out.integer(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX));
        }
    }
    let libraries = server.scripts.libraries.lock();
    out.bulk_str("engines");
    out.map(1);
    out.bulk_str("LUA");
    out.map(2);
    out.bulk_str("libraries_count");
    out.len(libraries.len());
    out.bulk_str("functions_count");
    out.len(libraries.functions_len());
    Ok(ServerOutcome::Reply)
}

/// `FUNCTION KILL`
pub(super) const FUNCTION_KILL: ServerCommand =
    plain("function|kill", function_kill, 2, NOSCRIPT | ALLOW_BUSY, "7.0.0")
        .tips(&["request_policy:all_shards", "response_policy:one_succeeded"]);
fn function_kill(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    kill(ctx, What::Function)
}

/// `FUNCTION DUMP`
pub(super) const FUNCTION_DUMP: ServerCommand =
    plain("function|dump", function_dump, 2, NOSCRIPT, "7.0.0").scope(Scope::Walk);
fn function_dump(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    let known = seen(ctx);
    let sources = known.iter().map(|library| library.source.as_slice());
    ctx.out.bulk(&payload::save_functions(sources, Compression::Lzf));
    Ok(ServerOutcome::Reply)
}

/// `FUNCTION RESTORE serialized-value [FLUSH | APPEND | REPLACE]`
pub(super) const FUNCTION_RESTORE: ServerCommand =
    write("function|restore", function_restore, -3, NOSCRIPT | DENYOOM, "7.0.0")
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .scope(Scope::World);
fn function_restore(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    if 4 < args.len() {
        return Err(too_many_words(args));
    }
    let word = args.get(3).unwrap_or(b"APPEND");
    let flushes = ascii_eq(word, "FLUSH");
    if !flushes && !ascii_eq(word, "APPEND") && !ascii_eq(word, "REPLACE") {
        return Err(CommandError::err(
            "Wrong restore policy given, value should be either FLUSH, APPEND or REPLACE.",
        ));
    }
    let content = payload::verified(args.at(2))
        .ok_or_else(|| CommandError::err("DUMP payload version or checksum are wrong"))?;
    let sources = payload::load_functions(content).map_err(|error| CommandError::err(error.to_string()))?;
    let server = ctx.server.shared_self().ok_or_else(|| CommandError::err("the node is ending"))?;
    let mut added = Vec::new();
    if ctx.keys.mode() == Mode::Apply {
        for source in &sources {
            added.push(Arc::new(scripts::accept_library(&server, source)?));
        }
    } else {
        let known = if flushes { Libraries::default() } else { server.scripts.libraries.lock().clone() };
        let existing = if ascii_eq(word, "REPLACE") { Existing::Replaced } else { Existing::Refused };
        added = scripts::examine_restored(&server, &sources, known, existing, Loading::Limited)?;
    }
    if flushes {
        flush(ctx);
    }
    add(ctx, added);
    ctx.out.ok();
    Ok(ServerOutcome::Reply)
}

/// `FUNCTION HELP`
pub(super) const FUNCTION_HELP: ServerCommand =
    plain("function|help", function_help, 2, LOADING | STALE, "7.0.0");
fn function_help(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    help(
        ctx,
        &[
            "DELETE <library-name>",
            "    Remove a library with its functions.",
            "DUMP",
            "    Serialize all libraries.",
            "FLUSH [ASYNC|SYNC]",
            "    Remove all libraries.",
            "KILL",
            "    End a function that takes too long and has not written.",
            "LIST [LIBRARYNAME <pattern>] [WITHCODE]",
            "    Show the libraries.",
            "LOAD [REPLACE] <function-code>",
            "    Add a library.",
            "RESTORE <serialized-value> [FLUSH|APPEND|REPLACE]",
            "    Add libraries that DUMP has serialized.",
            "STATS",
            "    Show which function runs, and how many there are.",
        ],
    )
}

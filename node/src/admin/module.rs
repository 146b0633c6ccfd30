//! MODULE: there are none, and none can be loaded.

use keyward_proto::resp::Args;

use crate::admin::{ServerCommand, ServerContext, ServerOutcome, ServerResult, container, help, plain};
use crate::command::CommandError;
use crate::command::spec::{ADMIN, LOADING, NO_ASYNC_LOADING, NOSCRIPT, PROTECTED, STALE};
use crate::config::Settings;

const NOT_ALLOWED: &str = "MODULE command not allowed. If the enable-module-command option is set to \"local\", you can \
                           run it from a local connection, otherwise you need to set this option in the \
                           configuration file, and then restart the server.";

const CHANGES: u32 = NO_ASYNC_LOADING | ADMIN | NOSCRIPT | PROTECTED;

/// `MODULE <HELP | LIST | LOAD | LOADEX | UNLOAD>`
pub(super) const MODULE: ServerCommand = container("module", 0, "4.0.0");

/// `MODULE LIST`: Differs from Valkey, where the engine for scripts is one.
pub(super) const MODULE_LIST: ServerCommand =
    plain("module|list", list, 2, ADMIN | NOSCRIPT, "4.0.0").tips(&["nondeterministic_output_order"]);
fn list(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    ctx.out.array(0);
    Ok(ServerOutcome::Reply)
}

/// `MODULE LOAD path [arg [arg ...]]`
pub(super) const MODULE_LOAD: ServerCommand = plain("module|load", load, -3, CHANGES, "4.0.0");
/// `MODULE LOADEX path [CONFIG name value [CONFIG name value ...]] [ARGS args [args ...]]`
pub(super) const MODULE_LOADEX: ServerCommand = plain("module|loadex", load, -3, CHANGES, "7.0.0");
fn load(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    check_allowed(ctx)?;
    tracing::warn!(module = %String::from_utf8_lossy(args.at(2)), "modules cannot be loaded");
    Err(CommandError::err("Error loading the extension. Please check the server logs."))
}

/// `MODULE UNLOAD name`
pub(super) const MODULE_UNLOAD: ServerCommand = plain("module|unload", unload, 3, CHANGES, "4.0.0");
fn unload(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    check_allowed(ctx)?;
    Err(CommandError::err("Error unloading module: no such module with that name"))
}

fn check_allowed(ctx: &ServerContext<'_, '_>) -> Result<(), CommandError> {
    check_address(&ctx.server.settings(), &ctx.session.client.address)
}

/// Whether a client may change modules: `enable-module-command`.
pub(super) fn check_address(settings: &Settings, address: &str) -> Result<(), CommandError> {
    if settings.allows_modules(address) { Ok(()) } else { Err(CommandError::err(NOT_ALLOWED)) }
}

/// `MODULE HELP`
pub(super) const MODULE_HELP: ServerCommand = plain("module|help", module_help, 2, LOADING | STALE, "5.0.0");
fn module_help(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    help(
        ctx,
        &[
            "LIST",
            "    List the modules: there are none.",
            "LOAD <path> [<arg> ...]",
            "    Modules cannot be loaded.",
            "LOADEX <path> [[CONFIG NAME VALUE] [CONFIG NAME VALUE]] [ARGS ...]",
            "    Modules cannot be loaded.",
            "UNLOAD <name>",
            "    Unload a module.",
        ],
    )
}

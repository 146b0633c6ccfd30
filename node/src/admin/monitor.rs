//! MONITOR: the client is shown what others ask for.

use keyward_proto::resp::Args;

use crate::admin::{ServerCommand, ServerContext, ServerOutcome, ServerResult, plain};
use crate::command::CommandError;
use crate::command::spec::{ADMIN, LOADING, NOSCRIPT, STALE};

/// `MONITOR`: until RESET, or the end of the connection.
pub(super) const MONITOR: ServerCommand =
    plain("monitor", monitor, 1, ADMIN | NOSCRIPT | LOADING | STALE, "1.0.0");
fn monitor(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    if ctx.session.in_exec {
        return Err(CommandError::err("MONITOR isn't allowed for DENY BLOCKING client"));
    }
    if !ctx.session.is_monitor {
        ctx.session.is_monitor = true;
        ctx.session.describe();
        ctx.server.begin_monitoring(&ctx.session.client);
        ctx.out.ok();
    }
    Ok(ServerOutcome::Reply)
}

//! Commands of the group transactions.

use keyward_proto::resp::Args;

use super::{CommandError, CommandResult, Ctx};

pub(super) fn discard(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn exec(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn multi(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn unwatch(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn watch(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

//! Commands of the group server.

use keyward_proto::resp::Args;

use super::{CommandError, CommandResult, Ctx};

pub(super) fn command(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn command_count(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn command_docs(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn command_getkeys(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn command_getkeysandflags(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn command_help(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn command_info(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn command_list(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn config_get(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn config_help(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn config_resetstat(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn config_set(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn dbsize(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn debug(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn flushall(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn flushdb(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn info(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn lolwut(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn memory_help(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn memory_usage(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn role(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn shutdown(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn swapdb(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn time(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

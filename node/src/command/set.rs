//! Commands of the group set.

use keyward_proto::resp::Args;

use super::{CommandError, CommandResult, Ctx};

pub(super) fn sadd(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn scard(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn sdiff(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn sdiffstore(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn sinter(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn sintercard(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn sinterstore(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn sismember(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn smembers(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn smismember(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn smove(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn spop(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn srandmember(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn srem(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn sscan(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn sunion(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn sunionstore(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

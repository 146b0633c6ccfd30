//! Commands of the group string.

use keyward_proto::resp::Args;

use super::{CommandError, CommandResult, Ctx};

pub(super) fn append(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn decr(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn decrby(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn delifeq(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn get(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn getdel(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn getex(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn getrange(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn getset(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn incr(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn incrby(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn incrbyfloat(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn lcs(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn mget(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn mset(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn msetex(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn msetnx(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn psetex(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn set(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn setex(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn setnx(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn setrange(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn strlen(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn substr(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

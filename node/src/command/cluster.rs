//! Commands of the group cluster.

use keyward_proto::resp::Args;

use super::{CommandError, CommandResult, Ctx};

pub(super) fn asking(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn cluster_count_failure_reports(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn cluster_countkeysinslot(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn cluster_failover(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn cluster_getkeysinslot(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn cluster_help(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn cluster_info(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn cluster_keyslot(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn cluster_links(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn cluster_myid(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn cluster_myshardid(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn cluster_nodes(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn cluster_replicas(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn cluster_reset(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn cluster_shards(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn cluster_slaves(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn cluster_slots(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn readonly(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

pub(super) fn readwrite(_ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::err("not available yet"))
}

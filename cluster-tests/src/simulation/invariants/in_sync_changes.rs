//! Invariant 6: the in-sync set changes only by what is meant to change it, with its version, to a subset or by one node
//! more. Terms grow by one with each change of primary, and only by who knows the present one.

use keyward_proto::topology::{Shard, Topology};
use keyward_sentinel::rules::topology::TopologyCommand;

/// # Errors
/// What is broken.
pub(crate) fn check(before: &Topology, after: &Topology, command: &TopologyCommand) -> Result<(), String> {
    let both = after.shards.iter().filter_map(|(id, now)| Some((before.shards.get(id)?, now)));
    for (then, now) in both {
        check_shard(then, now, command)?;
    }
    Ok(())
}

fn check_shard(then: &Shard, now: &Shard, command: &TopologyCommand) -> Result<(), String> {
    let may_change =
        matches!(command, TopologyCommand::ChangeInSync { .. } | TopologyCommand::ReplacePrimary(_));
    let added = now.in_sync.difference(&then.in_sync).count();
    let is_same = now.in_sync == then.in_sync;
    let may_add = match command {
        TopologyCommand::ChangeInSync { .. } => 1,
        // It holds what members hold; or nobody does, and it is the furthest.
        TopologyCommand::ReplacePrimary(change) => {
            let all_restarted = then.restarted == then.in_sync;
            let nobody_else = then.absent.eligible.is_empty() && all_restarted;
            usize::from(then.absent.eligible.contains(&change.node) || nobody_else)
        }
        _ => 0,
    };
    let is_other = now.primary.is_some() && now.primary != then.primary;
    let next = if is_other { then.term.next() } else { then.term };
    if !is_same && !may_change {
        return Err(format!("{command:?} changed the in-sync set"));
    }
    if added > may_add {
        return Err(format!("{command:?} brought {added} nodes into the in-sync set"));
    }
    if !is_same && now.in_sync_version != then.in_sync_version + 1 {
        return Err("another in-sync set under the same version".to_owned());
    }
    if let TopologyCommand::ReplacePrimary(change) = command
        && now != then
        && change.expected_term != then.term
    {
        return Err(format!(
            "a change that expects term {} took effect in {}",
            change.expected_term, then.term
        ));
    }
    if now.term != next {
        return Err(format!("{command:?} made term {} of {}", now.term, then.term));
    }
    Ok(())
}

//! Invariant 6: the in-sync set changes only by what is meant to change it, with its version, to a subset or by one node
//! more. Terms grow by one with each change of primary, and only by who knows the present one.

use keyward_proto::topology::Topology;
use keyward_sentinel::rules::topology::TopologyCommand;

pub(super) fn check(before: &Topology, after: &Topology, command: &TopologyCommand) {
    for (id, now) in &after.shards {
        let Some(then) = before.shards.get(id) else { continue };
        let may_change =
            matches!(command, TopologyCommand::ChangeInSync { .. } | TopologyCommand::ReplacePrimary(_));
        let added = now.in_sync.difference(&then.in_sync).count();
        let is_same = now.in_sync == then.in_sync;
        assert!(is_same || may_change, "invariant 6: {command:?} changed the in-sync set");
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
        assert!(added <= may_add, "invariant 6: {command:?} brought {added} nodes into the in-sync set");
        assert!(
            is_same || now.in_sync_version == then.in_sync_version + 1,
            "invariant 6: another in-sync set under the same version"
        );
        if let TopologyCommand::ReplacePrimary(change) = command {
            let expected = change.expected_term;
            assert!(
                expected == then.term,
                "invariant 6: a change that expects term {expected} took effect in {}",
                then.term
            );
        }
        let is_other = now.primary.is_some() && now.primary != then.primary;
        let next = if is_other { then.term.next() } else { then.term };
        assert!(now.term == next, "invariant 6: {command:?} made term {} of {}", now.term, then.term);
    }
}

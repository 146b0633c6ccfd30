//! What is acknowledged is on `min-in-sync` members at that moment: a commit index advances only while so many are whole,
//! as far as the primary knows. (That they hold it is invariant 3.)

use keyward_proto::ids::LogIndex;
use keyward_proto::topology::Topology;

/// A primary that acts on this topology has committed these entries.
pub(super) fn check(node: usize, topology: &Topology, committed: std::ops::RangeInclusive<u64>) {
    let Some(shard) = topology.shards.values().next().filter(|_| !committed.is_empty()) else { return };
    let whole = shard.whole_members().count();
    // The default: half of its nodes. One that was formed anew has one node, until the others are assigned.
    let default = || topology.members(&shard.id).count().div_ceil(2);
    let enough = topology.min_in_sync.map_or_else(default, |nodes| nodes as usize);
    assert!(
        enough <= whole,
        "acknowledged with too few: node {node} has committed up to {} with {whole} members in sync",
        LogIndex::new(*committed.end())
    );
}

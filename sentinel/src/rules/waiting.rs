//! Shards that the watchdog finds without a primary and cannot give one: why, told once.

use std::collections::BTreeMap;

use keyward_proto::ids::ShardId;
use keyward_proto::topology::Topology;

use super::coordinator::Settlement;

/// What was told of each shard that waits.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    reasons: BTreeMap<ShardId, String>,
}

impl Waiting {
    /// What an attempt came to, or why there was none; a line for the log, if that is news.
    pub(crate) fn step(
        &mut self,
        topology: &Topology,
        shard: &ShardId,
        outcome: Result<Settlement, String>,
    ) -> Option<String> {
        let reason = match outcome {
            Ok(Settlement::Busy) => return None,
            Ok(Settlement::Replaced(_) | Settlement::CarriedOut) => {
                self.reasons.remove(shard);
                return None;
            }
            Ok(Settlement::Kept { reason, .. } | Settlement::Refused { reason }) | Err(reason) => reason,
            Ok(Settlement::Unknown) => "it is unknown whether the change was committed".into(),
        };
        if self.reasons.get(shard) == Some(&reason) {
            return None;
        }
        let line =
            format!("no failover of {} yet: {}", topology.shard_name(shard), topology.with_names(&reason));
        self.reasons.insert(shard.clone(), reason);
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::failover::tests::topology;

    #[test]
    fn a_reason_is_told_once_until_it_changes_or_the_shard_has_a_primary() {
        let (topology, mut waiting) = (topology(), Waiting::default());
        let shard = topology.shards.keys().next().unwrap();
        let refused = |reason: &str| Ok(Settlement::Refused { reason: reason.into() });
        let line = |reason: &str| Some(format!("no failover of mymaster yet: {reason}"));
        let node = topology.nodes.keys().next().unwrap();
        let steps = [
            (refused("a"), line("a")),
            (refused("a"), None),
            (Ok(Settlement::Busy), None),
            (refused("a"), None),
            (Err(format!("{node} is down")), line("127.0.0.1:7000 is down")),
            (Ok(Settlement::CarriedOut), None),
            (refused("a"), line("a")),
            (Ok(Settlement::Unknown), line("it is unknown whether the change was committed")),
        ];
        for (outcome, expected) in steps {
            assert_eq!(waiting.step(&topology, shard, outcome.clone()), expected, "{outcome:?}");
        }
    }
}

//! `save` rules: when a snapshot is due by itself.

use std::time::Duration;

/// `save seconds changes`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SavePoint {
    pub seconds: u64,
    pub changes: u64,
}

/// After a failed attempt, at least this long until the next one by rule.
const RETRY_SECONDS: u64 = 5;

/// What the rules look at. Ages, not times of the wall clock: that may be set back, and nothing would be saved until it
/// has caught up.
#[derive(Debug, Clone, Copy)]
pub struct Situation {
    pub since_save: Duration,
    pub since_try: Duration,
    pub last_try_failed: bool,
    /// Modifications of keys since the last save.
    pub changes: u64,
}

/// The rule by which a save is due now.
pub fn due(points: &[SavePoint], situation: Situation) -> Option<SavePoint> {
    let Situation { since_save, since_try, last_try_failed, changes } = situation;
    if last_try_failed && since_try.as_secs() <= RETRY_SECONDS {
        return None;
    }
    points.iter().copied().find(|point| point.changes <= changes && point.seconds < since_save.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(pairs: &[(u64, u64)]) -> Vec<SavePoint> {
        pairs.iter().map(|(seconds, changes)| SavePoint { seconds: *seconds, changes: *changes }).collect()
    }

    #[test]
    fn a_save_is_due_by_the_first_rule_that_holds() {
        let points = points(&[(3600, 1), (300, 100), (60, 10_000)]);
        let check = |elapsed: u64, changes: u64, expect: Option<u64>| {
            let since_save = Duration::from_secs(elapsed);
            let situation = Situation { since_save, since_try: since_save, last_try_failed: false, changes };
            assert_eq!(due(&points, situation).map(|p| p.seconds), expect, "{elapsed} s, {changes} changes");
        };
        check(59, 1_000_000, None);
        check(61, 9_999, None);
        check(61, 10_000, Some(60));
        check(301, 100, Some(300));
        check(3_601, 0, None);
        check(3_601, 1, Some(3600));
    }

    #[test]
    fn after_a_failure_the_next_attempt_waits() {
        let points = points(&[(1, 1)]);
        let after = |seconds: u64| Situation {
            since_save: Duration::from_secs(100),
            since_try: Duration::from_secs(seconds),
            last_try_failed: true,
            changes: 5,
        };
        assert_eq!(due(&points, after(5)), None);
        assert!(due(&points, after(6)).is_some());
    }
}

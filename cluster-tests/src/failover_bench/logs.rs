//! The phases of a failover, from what nodes and sentinels log.

use std::time::{Duration, SystemTime};

/// How long each phase took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phases {
    /// Until a node asks the sentinels.
    pub detect: Duration,
    /// Until they have decided and committed.
    pub decide: Duration,
    /// Until the new primary begins its term.
    pub promote: Duration,
    /// Until a client has a write acknowledged.
    pub serve: Duration,
}

impl Phases {
    pub(super) fn as_array(&self) -> [Duration; 4] {
        [self.detect, self.decide, self.promote, self.serve]
    }
}

/// Reads the phases of the failover after `fault`; `served` is how long after it a write was acknowledged. `None` if a
/// line is missing.
pub(super) fn phases(logs: &[String], fault: SystemTime, served: Duration) -> Option<Phases> {
    let fault = fault.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let first = |words: &[&str], after: Duration| {
        let lines = logs.iter().flat_map(|log| log.lines());
        let matching = lines.filter(|line| words.iter().any(|word| line.contains(word)));
        matching.filter_map(time_of).filter(|at| after <= *at).min()
    };
    let asked = first(&["request=Failover", "request=Handoff"], fault)?;
    let decided = first(&["primary replaced", "primary handed over"], asked)?;
    let began = first(&["role=Primary"], asked)?;
    let served = fault + served;
    Some(Phases {
        detect: asked - fault,
        decide: decided - asked,
        promote: began.saturating_sub(decided),
        serve: served.saturating_sub(began),
    })
}

/// The time stamp that begins a line: `2026-01-02T03:04:05.678901Z`, with colours around it or not. Since the epoch.
pub fn time_of(line: &str) -> Option<Duration> {
    let begin = line.find("20")?;
    let stamp = line.get(begin..begin + 27)?;
    let number = |range: std::ops::Range<usize>| stamp.get(range)?.parse::<u64>().ok();
    let days = days_since_epoch(number(0..4)?, number(5..7)?, number(8..10)?)?;
    let seconds = (days * 24 + number(11..13)?) * 3600 + number(14..16)? * 60 + number(17..19)?;
    Some(Duration::from_secs(seconds) + Duration::from_micros(number(20..26)?))
}

/// Days of the proleptic Gregorian calendar, with years that begin in March (so that a leap day comes last).
fn days_since_epoch(year: u64, month: u64, day: u64) -> Option<u64> {
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let of_years = 365 * year + year / 4 - year / 100 + year / 400;
    (of_years + (153 * month + 2) / 5 + day).checked_sub(719_469)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_the_times_between_lines() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_772_333_999);
        let node = "2026-03-01T02:59:58.000000Z  INFO x: asking request=Failover { }\n\
            \u{1b}[2m2026-03-01T02:59:59.010000Z\u{1b}[0m  INFO x: asking the sentinels request=Failover { }\n\
            2026-03-01T02:59:59.030000Z  INFO x: role role=Primary { }\n";
        let sentinel = "2026-03-01T02:59:59.025000Z  INFO y: primary replaced\n";
        let phases = phases(&[node.to_owned(), sentinel.to_owned()], at, Duration::from_millis(42)).unwrap();
        let ms = Duration::from_millis;
        assert_eq!(phases.as_array(), [ms(10), ms(15), ms(5), ms(12)]);
        assert_eq!(time_of("1999-12-31"), None);
    }
}

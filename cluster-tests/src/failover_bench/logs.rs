//! The phases of a failover, from what nodes and sentinels log.

use std::time::{Duration, SystemTime};

/// How long each phase took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phases {
    /// Until a node asks the sentinels.
    pub detect: Duration,
    /// Until they have asked the nodes and decided.
    pub decide: Duration,
    /// Until that is committed.
    pub commit: Duration,
    /// Until the new primary begins its term.
    pub promote: Duration,
    /// Until a client has a write acknowledged.
    pub serve: Duration,
}

impl Phases {
    pub(super) const NAMES: [&str; 5] = ["detect", "decide", "commit", "promote", "serve"];

    pub(super) fn as_array(&self) -> [Duration; 5] {
        [self.detect, self.decide, self.commit, self.promote, self.serve]
    }
}

/// Reads the phases of the failover after `fault`; `served` is how long after it a write was acknowledged. `None` if a
/// line is missing.
pub(super) fn phases(logs: &[String], fault: SystemTime, served: Duration) -> Option<Phases> {
    let fault = fault.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let first = |words: &[&str], after: Duration| {
        let lines = logs.iter().flat_map(|log| log.lines());
        let matching = lines.filter(|line| words.iter().any(|word| line.contains(word)));
        let timed = matching.filter_map(|line| Some((time_of(line)?, line)));
        timed.filter(|(at, _)| after <= *at).min()
    };
    let (asked, _) =
        first(&["asking the sentinels for another primary", "asking the sentinels to make"], fault)?;
    let (committed, line) = first(&["primary replaced", "primary handed over"], asked)?;
    let (began, _) = first(&["this node is the primary of"], asked)?;
    let commit = duration_in(line, "committed=")?.min(committed - asked);
    let served = fault + served;
    Some(Phases {
        detect: asked - fault,
        decide: committed - asked - commit,
        commit,
        promote: began.saturating_sub(committed),
        serve: served.saturating_sub(began),
    })
}

/// The duration behind `name`, as Rust prints it: `1.5ms`.
fn duration_in(line: &str, name: &str) -> Option<Duration> {
    let word = line.split(name).nth(1)?.split_whitespace().next()?;
    let digits = word.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = word.split_at(digits);
    let factor = match unit {
        "ns" => 1e-9,
        "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        _ => return None,
    };
    Some(Duration::from_secs_f64(number.parse::<f64>().ok()? * factor))
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
        let node = "2026-03-01T02:59:58.000000Z  INFO x: asking the sentinels for another primary of mymaster: x\n\
            \u{1b}[2m2026-03-01T02:59:59.010000Z\u{1b}[0m  INFO x: asking the sentinels for another primary of m: x\n\
            2026-03-01T02:59:59.030000Z  INFO x: this node is the primary of mymaster term=2\n";
        let sentinel = "2026-03-01T02:59:59.025000Z  INFO y: primary replaced: mymaster is led by 127.0.0.1:6380 now asked=11ms committed=4.0ms total=15ms\n";
        let phases = phases(&[node.to_owned(), sentinel.to_owned()], at, Duration::from_millis(42)).unwrap();
        let ms = Duration::from_millis;
        assert_eq!(phases.as_array(), [ms(10), ms(11), ms(4), ms(5), ms(12)]);
        assert_eq!(duration_in("x=1 y=250.5µs z", "y="), Some(Duration::from_nanos(250_500)));
        assert_eq!(time_of("1999-12-31"), None);
    }
}

//! The latency monitor: what took at least `latency-monitor-threshold` milliseconds, by event, for LATENCY.

use std::collections::{BTreeMap, VecDeque};

use parking_lot::Mutex;

/// Seconds of which an event keeps the longest time.
const SAMPLES_MAX: usize = 160;

/// The longest time within a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) unix_seconds: i64,
    pub(crate) millis: u64,
}

/// What is known of an event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Series {
    /// Oldest first.
    pub(crate) samples: VecDeque<Sample>,
    /// Of all, also those that are not kept any more.
    pub(crate) max_millis: u64,
    pub(crate) sum_millis: u64,
    pub(crate) count: u64,
}

impl Series {
    fn note(&mut self, sample: Sample) {
        self.max_millis = self.max_millis.max(sample.millis);
        self.sum_millis += sample.millis;
        self.count += 1;
        match self.samples.back_mut() {
            Some(last) if last.unix_seconds == sample.unix_seconds => {
                last.millis = last.millis.max(sample.millis);
            }
            Some(_) | None => {
                if self.samples.len() == SAMPLES_MAX {
                    self.samples.pop_front();
                }
                self.samples.push_back(sample);
            }
        }
    }

    pub(crate) fn latest(&self) -> Option<Sample> {
        self.samples.back().copied()
    }

    /// The shortest and the longest of the kept times.
    pub(crate) fn bounds(&self) -> (u64, u64) {
        let millis = || self.samples.iter().map(|sample| sample.millis);
        (millis().min().unwrap_or(0), millis().max().unwrap_or(0))
    }
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(crate) struct LatencyMonitor {
    events: Mutex<BTreeMap<&'static str, Series>>,
}

impl LatencyMonitor {
    pub(crate) fn note(&self, event: &'static str, sample: Sample) {
        self.events.lock().entry(event).or_default().note(sample);
    }

    pub(crate) fn all(&self) -> Vec<(&'static str, Series)> {
        self.events.lock().iter().map(|(event, series)| (*event, series.clone())).collect()
    }

    pub(crate) fn of(&self, event: &[u8]) -> Option<Series> {
        let events = self.events.lock();
        events.iter().find(|(name, _)| name.as_bytes().eq_ignore_ascii_case(event)).map(|(_, s)| s.clone())
    }

    /// Forgets an event; whether there was one.
    pub(crate) fn reset(&self, event: &[u8]) -> bool {
        let mut events = self.events.lock();
        let before = events.len();
        events.retain(|name, _| !name.as_bytes().eq_ignore_ascii_case(event));
        events.len() < before
    }

    /// Forgets all events; how many there were.
    pub(crate) fn reset_all(&self) -> usize {
        std::mem::take(&mut *self.events.lock()).len()
    }
}

/// Columns of a graph.
const COLUMNS: usize = 80;
const ROWS: usize = 4;
/// From low to high; what stands under a mark is filled.
const MARKS: [char; 3] = ['_', 'o', '#'];

/// A picture of the kept times of an event, the oldest to the left.
pub(crate) fn graph(event: &str, series: &Series, now_seconds: i64) -> String {
    let (low, high) = series.bounds();
    let max = series.max_millis;
    let mut text = format!("{event} - high {high} ms, low {low} ms (all time high {max} ms)\n");
    text.extend(std::iter::repeat_n('-', COLUMNS));
    text.push('\n');
    let samples: Vec<Sample> = series.samples.iter().copied().collect();
    for part in samples.chunks(COLUMNS) {
        let labels: Vec<String> =
            part.iter().map(|sample| age(now_seconds.saturating_sub(sample.unix_seconds))).collect();
        draw(&mut text, part, &labels, (low, high));
    }
    text
}

fn draw(text: &mut String, part: &[Sample], labels: &[String], (low, high): (u64, u64)) {
    let steps = (MARKS.len() * ROWS) as u64;
    let range = (high - low).max(1);
    for row in (0..ROWS).rev() {
        for sample in part {
            let step = ((sample.millis - low) * steps / range).min(steps - 1);
            let step = usize::try_from(step).unwrap_or(0);
            text.push(match step.checked_sub(row * MARKS.len()) {
                None => ' ',
                Some(above) => MARKS.get(above).copied().unwrap_or('|'),
            });
        }
        text.push('\n');
    }
    let height = labels.iter().map(String::len).max().unwrap_or(0);
    if height == 0 {
        return;
    }
    text.extend(std::iter::repeat_n(' ', part.len()));
    text.push('\n');
    for line in 0..height {
        text.extend(labels.iter().map(|label| label.chars().nth(line).unwrap_or(' ')));
        text.push('\n');
    }
}

fn age(seconds: i64) -> String {
    match seconds {
        ..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

/// What is to be said of the events, for people.
pub(crate) fn report(events: &[(&str, Series)], threshold_millis: u64, slow_micros: Option<u64>) -> String {
    if threshold_millis == 0 {
        return "The latency monitor is off, so there is nothing to look at. \
                CONFIG SET latency-monitor-threshold <milliseconds> turns it on.\n"
            .to_owned();
    }
    if events.is_empty() {
        return "Nothing has taken as long as latency-monitor-threshold since the node started or LATENCY RESET.\n"
            .to_owned();
    }
    let mut text = String::from("What took long in this node:\n\n");
    for (number, (event, series)) in events.iter().enumerate() {
        let average = series.sum_millis / series.count.max(1);
        text.push_str(&format!(
            "{}. {event}: {} times, {average} ms on average, {} ms at most.\n",
            number + 1,
            series.count,
            series.max_millis
        ));
    }
    text.push_str("\nWhat to look at:\n\n");
    let has = |name: &str| events.iter().any(|(event, _)| *event == name);
    if has("command") || has("fast-command") {
        let noted = slow_micros.is_some_and(|micros| micros <= threshold_millis.saturating_mul(1000));
        text.push_str(if noted {
            "- SLOWLOG GET names the commands.\n"
        } else {
            "- SLOWLOG would name the commands, but notes none that are as short as the threshold: \
             CONFIG SET slowlog-log-slower-than.\n"
        });
        text.push_str("- Deleting, replacing or reading values with very many elements takes its time.\n");
    }
    if has("fast-command") {
        text.push_str(
            "- Commands that do little took long: is the machine, or its processor time, shared?\n",
        );
    }
    if has("expire-cycle") {
        text.push_str("- Many keys expire at the same moment: spread their times.\n");
    }
    if has("eviction-cycle") {
        text.push_str("- Memory is short: more of it, or fewer writes.\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(unix_seconds: i64, millis: u64) -> Sample {
        Sample { unix_seconds, millis }
    }

    #[test]
    fn the_longest_of_each_second_is_kept() {
        let monitor = LatencyMonitor::default();
        for (second, millis) in [(1, 5), (1, 20), (1, 7), (2, 3)] {
            monitor.note("command", sample(second, millis));
        }
        let series = monitor.of(b"COMMAND").unwrap();
        assert_eq!(series.samples, [sample(1, 20), sample(2, 3)]);
        assert_eq!((series.max_millis, series.sum_millis, series.count), (20, 35, 4));
        for second in 3..500 {
            monitor.note("command", sample(second, 1));
        }
        assert_eq!(monitor.of(b"command").unwrap().samples.len(), SAMPLES_MAX);
        assert!(!monitor.reset(b"fork") && monitor.reset(b"command"));
        assert_eq!(monitor.reset_all(), 0);
    }

    #[test]
    fn a_graph_of_one_sample_is_valkeys() {
        let mut series = Series::default();
        series.note(sample(7, 20));
        let expect = format!(
            "command - high 20 ms, low 20 ms (all time high 20 ms)\n{}\n \n \n \n_\n \n0\ns\n",
            "-".repeat(80)
        );
        assert_eq!(graph("command", &series, 7), expect);
    }

    #[test]
    fn a_report_says_what_to_look_at() {
        assert!(report(&[], 0, None).contains("latency-monitor-threshold"));
        let mut series = Series::default();
        series.note(sample(7, 20));
        assert!(report(&[("command", series.clone())], 5, Some(10_000)).contains("slowlog-log-slower-than"));
        assert!(report(&[("command", series)], 10, Some(10_000)).contains("SLOWLOG GET names"));
    }
}

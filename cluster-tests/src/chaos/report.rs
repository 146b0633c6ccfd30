//! What a run of faults showed: a table for people, and a picture of throughput and latency with the faults as bands
//! and the failovers as lines.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::Settings;
use super::client::Refusal;
use super::nemesis::Fault;
use super::workload::{Findings, Seen, What};

/// One fault, or two at once. Times since the begin.
#[derive(Debug, Clone)]
pub struct Event {
    pub faults: Vec<Fault>,
    /// Of the shard that was hit.
    pub slots: Vec<RangeInclusive<u16>>,
    pub from: Duration,
    /// The fault was over.
    pub ended: Duration,
    /// All members were in sync again.
    pub healed: Duration,
}

/// A shard got another primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failover {
    pub at: Duration,
    pub is_handoff: bool,
}

/// See the module documentation.
#[derive(Debug)]
pub struct Report {
    pub settings: Settings,
    pub took: Duration,
    /// Faults that could not be brought about, and why.
    pub left_out: Vec<String>,
    pub events: Vec<Event>,
    pub failovers: Vec<Failover>,
    pub seen: Vec<Seen>,
    /// Answers to the load beside the recorded clients.
    pub pressed: u64,
    pub findings: Findings,
    /// Keys that all nodes of their shards held alike in the end.
    pub keys_equal: usize,
}

/// Time of one point of the picture.
const STEP: Duration = Duration::from_millis(100);

/// What is said of one kind of fault.
#[derive(Debug, Default)]
struct Row {
    times: usize,
    without_writes: Vec<u128>,
    without_answers: Vec<u128>,
    failovers: usize,
    /// Of answered writes, in milliseconds.
    latencies: Vec<u128>,
    others: BTreeMap<What, usize>,
}

impl Report {
    /// Whether nothing was lost, stale or undecided.
    pub fn is_clean(&self) -> bool {
        self.findings.violations.is_empty() && self.findings.undecided.is_empty()
    }

    pub fn answered(&self) -> usize {
        self.answers().count()
    }

    fn answers(&self) -> impl Iterator<Item = &Seen> {
        self.seen.iter().filter(|seen| seen.what == What::Answered)
    }

    /// Failovers, without hand-offs.
    pub fn unplanned_failovers(&self) -> usize {
        self.failovers.iter().filter(|failover| !failover.is_handoff).count()
    }

    fn rows(&self) -> BTreeMap<Vec<Fault>, Row> {
        let mut seen: Vec<&Seen> = self.seen.iter().collect();
        seen.sort_by_key(|seen| seen.at);
        let mut rows: BTreeMap<Vec<Fault>, Row> = BTreeMap::new();
        for event in &self.events {
            let row = rows.entry(event.faults.clone()).or_default();
            row.times += 1;
            row.without_writes.push(longest_gap(&seen, event, |seen| seen.is_write).as_millis());
            row.without_answers.push(longest_gap(&seen, event, |_| true).as_millis());
            let during = |at: Duration| event.from <= at && at < event.healed;
            row.failovers += self.failovers.iter().filter(|failover| during(failover.at)).count();
            let begin = seen.partition_point(|seen| seen.at < event.from);
            for seen in seen[begin..].iter().take_while(|seen| during(seen.at)) {
                if seen.what != What::Answered {
                    *row.others.entry(seen.what.clone()).or_default() += 1;
                } else if seen.is_write {
                    row.latencies.push(seen.latency.as_millis());
                }
            }
        }
        rows
    }

    /// Markdown.
    pub fn markdown(&self) -> String {
        let Findings { keys, operations, unknown, violations, undecided } = &self.findings;
        let handoffs = self.failovers.len() - self.unplanned_failovers();
        let mut text = format!(
            "# {} for {:.0} seconds, seed {}\n\n{} clients, {} faults, {} failovers, {handoffs} hand-offs; {} operations \
             answered, {operations} in {keys} histories, {unknown} of them without an answer. Not linearizable: {}. \
             Undecided: {}. In the end all nodes of a shard held the same {} keys.\n\n",
            if self.settings.faults.is_empty() { "No faults" } else { "Faults" },
            self.took.as_secs_f64(),
            self.settings.seed,
            self.settings.clients,
            self.events.len(),
            self.unplanned_failovers(),
            self.answered(),
            violations.len(),
            undecided.len(),
            self.keys_equal,
        );
        text += &self.surroundings();
        if !self.events.is_empty() {
            text += "| fault | times | failovers | without acknowledged writes of the shard, ms: median / max | without any answer, \
                     ms: median / max | write, ms: median / p99 | clients saw |\n|---|---|---|---|---|---|---|\n";
        }
        for (faults, mut row) in self.rows() {
            let name = faults.iter().map(Fault::to_string).collect::<Vec<_>>().join(" + ");
            row.latencies.sort_unstable();
            writeln!(
                text,
                "| {name} | {} | {} | {} | {} | {} / {} | {} |",
                row.times,
                row.failovers,
                median_and_max(row.without_writes),
                median_and_max(row.without_answers),
                rank(&row.latencies, 0.5),
                rank(&row.latencies, 0.99),
                describe(&row.others)
            )
            .expect("a String takes all");
        }
        for (key, story) in violations {
            text += &format!("\n## {key} is not linearizable\n\n```\n{story}\n```\n");
        }
        text
    }

    fn surroundings(&self) -> String {
        let Settings { shape, namespaces, delay_ms, pressure, .. } = &self.settings;
        let place = if *namespaces { "in network namespaces" } else { "on the loopback address" };
        let mut text = format!("Shards x nodes: {shape}, {place}.");
        if let Some(most) = delay_ms {
            text += &format!(" Packets between hosts take up to {most} ms all the time.");
        }
        if 0 < *pressure {
            let rate = self.pressed as f64 / self.took.as_secs_f64();
            text += &format!(" {pressure} connections with pipelines beside: {rate:.0} answers per second.");
        }
        for line in &self.left_out {
            text += &format!("\nLeft out: {line}.");
        }
        text + "\n\n"
    }

    /// A picture: answers per step and the longest latency of a write over time, faults as bands, failovers as lines.
    pub fn svg(&self) -> String {
        let mut picture = Picture::new(self.took);
        for event in &self.events {
            picture.fault(event);
        }
        for failover in &self.failovers {
            picture.failover(failover);
        }
        let steps = usize::try_from(self.took.as_millis() / STEP.as_millis()).unwrap_or(0) + 1;
        let (mut counts, mut latencies) = (vec![0.0_f64; steps], vec![0.0_f64; steps]);
        for seen in self.answers() {
            let step = usize::try_from(seen.at.as_millis() / STEP.as_millis()).unwrap_or(0);
            if let Some(count) = counts.get_mut(step) {
                *count += 1.0;
                if seen.is_write {
                    latencies[step] = latencies[step].max(seen.latency.as_secs_f64() * 1000.0);
                }
            }
        }
        picture.plot(0, "answers per 0.1 s", &counts, |value| value);
        // Milliseconds and seconds in one picture.
        picture.plot(1, "longest latency of a write in 0.1 s, ms, logarithmic", &latencies, |ms| {
            (1.0 + ms).log10()
        });
        picture.finish()
    }
}

/// The longest time between two answers of the shard that was hit around an event, of answers of some kind.
fn longest_gap(seen: &[&Seen], event: &Event, of: impl Fn(&Seen) -> bool) -> Duration {
    let counts = |seen: &&&Seen| {
        seen.what == What::Answered
            && of(seen)
            && event.slots.iter().any(|range| range.contains(&seen.slot.number()))
    };
    let begin = seen.partition_point(|seen| seen.at <= event.from);
    let Some(before) = seen[..begin].iter().rev().find(counts) else { return Duration::ZERO };
    let (mut last, mut longest) = (before.at, Duration::ZERO);
    for seen in seen[begin..].iter().filter(counts) {
        longest = longest.max(seen.at - last);
        last = seen.at;
        if event.healed <= last {
            break;
        }
    }
    longest
}

/// Of sorted numbers.
fn rank(numbers: &[u128], share: f64) -> u128 {
    let rank = (share * numbers.len() as f64).ceil() as usize;
    numbers.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

fn median_and_max(mut numbers: Vec<u128>) -> String {
    numbers.sort_unstable();
    format!("{} / {}", rank(&numbers, 0.5), rank(&numbers, 1.0))
}

/// What clients saw beside answers, most frequent first.
fn describe(others: &BTreeMap<What, usize>) -> String {
    let mut others: Vec<(&What, &usize)> = others.iter().collect();
    others.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let name = |what: &What| match what {
        What::Answered => "answers".to_owned(),
        What::Unanswered => "no answer".to_owned(),
        What::Refused(Refusal::Redirected) => "redirects".to_owned(),
        What::Refused(Refusal::NotConnected) => "no connection".to_owned(),
        What::Refused(Refusal::Error(word)) => word.clone(),
    };
    let words: Vec<String> = others.iter().map(|(what, count)| format!("{} {count}", name(what))).collect();
    words.join(", ")
}

/// An SVG being drawn.
struct Picture {
    took: Duration,
    width: f64,
    svg: String,
}

const LEFT: f64 = 60.0;
const TOP: f64 = 60.0;
const PLOT: f64 = 170.0;
const SPACE: f64 = 40.0;
const BOTTOM: f64 = TOP + 2.0 * PLOT + SPACE;
/// For the names of the faults, which are written aslant.
const NAMES: f64 = 340.0;
/// For the last of them.
const MARGIN: f64 = 240.0;
/// Width of a second.
const SECOND: f64 = 22.0;

impl Picture {
    fn new(took: Duration) -> Self {
        let width = (LEFT + SECOND * took.as_secs_f64()).clamp(1400.0, 12_000.0);
        let height = BOTTOM + NAMES;
        let svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{:.0}\" height=\"{height:.0}\" font-family=\"sans-serif\" \
             font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<g>\
             <rect x=\"{LEFT}\" y=\"8\" width=\"14\" height=\"12\" fill=\"#f6c7c0\"/><text x=\"80\" y=\"18\">fault</text>\
             <rect x=\"130\" y=\"8\" width=\"14\" height=\"12\" fill=\"#fbeccb\"/><text x=\"150\" y=\"18\">until whole again</text>\
             <line x1=\"270\" y1=\"6\" x2=\"270\" y2=\"22\" stroke=\"#c00000\" stroke-width=\"2\"/>\
             <text x=\"278\" y=\"18\">failover</text>\
             <line x1=\"340\" y1=\"6\" x2=\"340\" y2=\"22\" stroke=\"#2a8a2a\" stroke-width=\"2\"/>\
             <text x=\"348\" y=\"18\">hand-off</text></g>\n",
            width + MARGIN
        );
        Picture { took, width, svg }
    }

    fn x(&self, at: Duration) -> f64 {
        LEFT + (self.width - LEFT) * at.as_secs_f64() / self.took.as_secs_f64().max(0.1)
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.svg, "{line}").expect("a String takes all");
    }

    fn fault(&mut self, event: &Event) {
        let (from, ended, healed) = (self.x(event.from), self.x(event.ended), self.x(event.healed));
        for (from, to, color) in [(from, ended, "#f6c7c0"), (ended, healed, "#fbeccb")] {
            let (y, width, height) = (TOP - 10.0, (to - from).max(1.0), BOTTOM - TOP + 10.0);
            self.line(format_args!(
                "<rect x=\"{from:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"{height}\" fill=\"{color}\"/>"
            ));
        }
        let name = event.faults.iter().map(Fault::to_string).collect::<Vec<_>>().join(" + ");
        let (x, y) = ((from + ended) / 2.0, BOTTOM + 34.0);
        self.line(format_args!(
            "<text x=\"{x:.1}\" y=\"{y}\" transform=\"rotate(55 {x:.1} {y})\">{name}</text>"
        ));
    }

    fn failover(&mut self, failover: &Failover) {
        let x = self.x(failover.at);
        let color = if failover.is_handoff { "#2a8a2a" } else { "#c00000" };
        let top = TOP - 10.0;
        self.line(format_args!(
            "<line x1=\"{x:.1}\" y1=\"{top}\" x2=\"{x:.1}\" y2=\"{BOTTOM}\" stroke=\"{color}\" stroke-width=\"1.5\"/>"
        ));
    }

    /// Values of steps, below the plots that there are already.
    fn plot(&mut self, number: u8, title: &str, values: &[f64], scale: impl Fn(f64) -> f64) {
        let top = TOP + f64::from(number) * (PLOT + SPACE);
        let bottom = top + PLOT;
        let largest = values.iter().copied().fold(1.0, f64::max);
        let point = |(step, value): (usize, &f64)| {
            let at = STEP * u32::try_from(step).unwrap_or(u32::MAX);
            format!("{:.1},{:.1}", self.x(at), top + PLOT * (1.0 - scale(*value) / scale(largest)))
        };
        let points: Vec<String> = values.iter().enumerate().map(point).collect();
        let (points, right) = (points.join(" "), self.width);
        let (title_y, largest_y) = (top - 14.0, top + 8.0);
        self.line(format_args!("<text x=\"{LEFT}\" y=\"{title_y}\">{title}</text>"));
        self.line(format_args!("<text x=\"5\" y=\"{largest_y}\">{largest:.0}</text>"));
        self.line(format_args!("<text x=\"5\" y=\"{bottom}\">0</text>"));
        self.line(format_args!(
            "<line x1=\"{LEFT}\" y1=\"{bottom}\" x2=\"{right}\" y2=\"{bottom}\" stroke=\"#888\"/>"
        ));
        self.line(format_args!("<polyline fill=\"none\" stroke=\"#205090\" points=\"{points}\"/>"));
    }

    fn finish(mut self) -> String {
        let tick = if self.took < Duration::from_secs(600) { 5 } else { 60 };
        for second in (0..=self.took.as_secs()).step_by(tick) {
            let (x, y) = (self.x(Duration::from_secs(second)), BOTTOM + 18.0);
            self.line(format_args!("<text x=\"{x:.1}\" y=\"{y}\" fill=\"#555\">{second} s</text>"));
        }
        self.svg + "</svg>\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Shape;
    use crate::slots::slot_of;

    #[test]
    fn a_gap_is_the_longest_time_without_an_answer_around_its_fault() {
        let ms = Duration::from_millis;
        let slot = slot_of(b"key");
        let seen = |at, is_write, what| Seen { at: ms(at), latency: ms(1), slot, is_write, what };
        let answer = |at, is_write| seen(at, is_write, What::Answered);
        let refused = What::Refused(Refusal::Error("CLUSTERDOWN".into()));
        let report = Report {
            settings: Settings {
                duration: ms(1),
                seed: 1,
                faults: vec![Fault::KillPrimary],
                shape: Shape::ONE_BY_THREE,
                clients: 1,
                namespaces: false,
                node_args: Vec::new(),
                delay_ms: None,
                pressure: 0,
                logs: None,
            },
            took: ms(5000),
            left_out: Vec::new(),
            events: vec![Event {
                faults: vec![Fault::KillPrimary],
                slots: vec![0..=16383],
                from: ms(1000),
                ended: ms(1500),
                healed: ms(1600),
            }],
            failovers: vec![Failover { at: ms(1100), is_handoff: false }],
            seen: vec![
                answer(100, true),
                answer(900, true),
                answer(1010, false),
                seen(1200, true, refused.clone()),
                seen(1250, true, refused),
                answer(1300, true),
                answer(2590, false),
                answer(4900, true),
            ],
            pressed: 0,
            findings: Findings::default(),
            keys_equal: 3,
        };
        let line = "| kill -9 of the primary | 1 | 1 | 3600 / 3600 | 1290 / 1290 | 1 / 1 | CLUSTERDOWN 2 |";
        assert!(report.markdown().contains(line), "{}", report.markdown());
        assert!(report.svg().contains("kill -9 of the primary") && report.is_clean());
    }
}

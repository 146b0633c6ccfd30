//! What a run of faults showed: a table for people, and a picture of throughput and latency with the faults as bands.

use std::fmt::Write;
use std::time::Duration;

use super::Settings;
use super::nemesis::Fault;
use super::workload::{Findings, Served};

/// One fault. Times since the begin.
#[derive(Debug, Clone)]
pub struct Event {
    pub fault: Fault,
    pub from: Duration,
    /// The fault was over.
    pub ended: Duration,
    /// All members were in sync again.
    pub healed: Duration,
}

/// See the module documentation.
#[derive(Debug)]
pub struct Report {
    pub settings: Settings,
    pub took: Duration,
    pub events: Vec<Event>,
    pub served: Vec<Served>,
    pub findings: Findings,
    /// Keys that all nodes held alike in the end.
    pub keys_equal: usize,
}

/// Time of one point of the picture.
const STEP: Duration = Duration::from_millis(100);

impl Report {
    /// Whether nothing was lost, stale or undecided.
    pub fn is_clean(&self) -> bool {
        self.findings.violations.is_empty() && self.findings.undecided.is_empty()
    }

    /// The longest time between two answers around an event, of writes or of all operations.
    fn longest_gap(&self, event: &Event, writes: bool) -> Duration {
        let mut moments: Vec<Duration> =
            self.served.iter().filter(|s| s.is_write || !writes).map(|s| s.at).collect();
        moments.sort_unstable();
        moments
            .windows(2)
            .filter(|pair| event.from < pair[1] && pair[0] < event.healed)
            .map(|pair| pair[1] - pair[0])
            .max()
            .unwrap_or_default()
    }

    /// Markdown.
    pub fn markdown(&self) -> String {
        let Findings { keys, operations, unknown, violations, undecided } = &self.findings;
        let mut text = format!(
            "# Faults for {:.0} seconds, seed {}\n\n{} clients, {} faults; {} operations answered, {operations} in {keys} \
             histories, {unknown} of them without an answer. Not linearizable: {}. Undecided: {}. In the end all nodes \
             held the same {} keys.\n\n",
            self.took.as_secs_f64(),
            self.settings.seed,
            self.settings.clients,
            self.events.len(),
            self.served.len(),
            violations.len(),
            undecided.len(),
            self.keys_equal,
        );
        text += "| fault | times | without acknowledged writes, ms: median / max | without any answer, ms: median / max |\n";
        text += "|---|---|---|---|\n";
        for fault in Fault::ALL {
            let gaps = |writes| {
                let of_fault = self.events.iter().filter(|event| event.fault == *fault);
                let mut gaps: Vec<u128> =
                    of_fault.map(|event| self.longest_gap(event, writes).as_millis()).collect();
                gaps.sort_unstable();
                gaps
            };
            let (writes, all) = (gaps(true), gaps(false));
            if let (Some(write_max), Some(all_max)) = (writes.last(), all.last()) {
                let median = |gaps: &[u128]| gaps[gaps.len() / 2];
                let line = format!(
                    "| {fault} | {} | {} / {write_max} | {} / {all_max} |\n",
                    writes.len(),
                    median(&writes),
                    median(&all)
                );
                text += &line;
            }
        }
        for (key, story) in violations {
            text += &format!("\n## {key} is not linearizable\n\n```\n{story}\n```\n");
        }
        text
    }

    /// A picture: answers per step and their longest latency over time, faults as bands.
    pub fn svg(&self) -> String {
        const WIDTH: f64 = 1400.0;
        const PLOT: f64 = 160.0;
        const LEFT: f64 = 60.0;
        let steps = usize::try_from(self.took.as_millis() / STEP.as_millis()).unwrap_or(0) + 1;
        let (mut counts, mut latencies) = (vec![0.0_f64; steps], vec![0.0_f64; steps]);
        for served in &self.served {
            let step = usize::try_from(served.at.as_millis() / STEP.as_millis()).unwrap_or(0);
            if let Some(count) = counts.get_mut(step) {
                *count += 1.0;
                latencies[step] = latencies[step].max(served.latency.as_secs_f64() * 1000.0);
            }
        }
        let x = |at: Duration| LEFT + (WIDTH - LEFT) * at.as_secs_f64() / self.took.as_secs_f64().max(0.1);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"560\" font-family=\"sans-serif\" \
             font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        );
        for (number, event) in self.events.iter().enumerate() {
            let (from, ended, healed) = (x(event.from), x(event.ended), x(event.healed));
            let band = |from: f64, to: f64, color: &str| {
                format!(
                    "<rect x=\"{from:.1}\" y=\"30\" width=\"{:.1}\" height=\"400\" fill=\"{color}\"/>\n",
                    (to - from).max(1.0)
                )
            };
            svg += &band(from, ended, "#f6c7c0");
            svg += &band(ended, healed, "#fbeccb");
            let y = 445 + 14 * (number % 8);
            let label = event.fault.to_string().replace('&', "&amp;").replace('<', "&lt;");
            writeln!(svg, "<text x=\"{from:.1}\" y=\"{y}\">{label}</text>").expect("a String takes all");
        }
        for (top, title, values) in
            [(40.0, "answers per 0.1 s", &counts), (240.0, "longest latency in 0.1 s, ms", &latencies)]
        {
            let largest = values.iter().copied().fold(1.0, f64::max);
            let points: Vec<String> = values
                .iter()
                .enumerate()
                .map(|(step, value)| {
                    let at = STEP * u32::try_from(step).unwrap_or(u32::MAX);
                    format!("{:.1},{:.1}", x(at), top + PLOT * (1.0 - value / largest))
                })
                .collect();
            let bottom = top + PLOT;
            writeln!(
                svg,
                "<text x=\"{LEFT}\" y=\"{}\">{title}</text><text x=\"5\" y=\"{}\">{largest:.0}</text>\
                 <text x=\"5\" y=\"{bottom}\">0</text><line x1=\"{LEFT}\" y1=\"{bottom}\" x2=\"{WIDTH}\" y2=\"{bottom}\" \
                 stroke=\"#888\"/><polyline fill=\"none\" stroke=\"#205090\" points=\"{}\"/>",
                top - 8.0,
                top + 10.0,
                points.join(" ")
            )
            .expect("a String takes all");
        }
        let tick = self.took.as_secs().div_ceil(20).max(1);
        for second in (0..=self.took.as_secs()).step_by(usize::try_from(tick).unwrap_or(1)) {
            let at = x(Duration::from_secs(second));
            writeln!(svg, "<text x=\"{at:.1}\" y=\"428\" fill=\"#555\">{second} s</text>")
                .expect("a String takes all");
        }
        svg += "</svg>\n";
        svg
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_the_longest_time_without_an_answer_around_its_fault() {
        let ms = Duration::from_millis;
        let served = |at, is_write| Served { at: ms(at), latency: ms(1), is_write };
        let report = Report {
            settings: Settings {
                duration: ms(1),
                seed: 1,
                faults: vec![Fault::KillPrimary],
                clients: 1,
                namespaces: false,
                node_args: Vec::new(),
            },
            took: ms(5000),
            events: vec![Event {
                fault: Fault::KillPrimary,
                from: ms(1000),
                ended: ms(1500),
                healed: ms(1600),
            }],
            served: vec![
                served(100, true),
                served(900, true),
                served(1010, false),
                served(1300, true),
                served(2590, false),
                served(4900, true),
            ],
            findings: Findings::default(),
            keys_equal: 3,
        };
        assert_eq!(report.longest_gap(&report.events[0], true), ms(3600));
        assert_eq!(report.longest_gap(&report.events[0], false), ms(1290));
        assert!(report.markdown().contains("| kill -9 of the primary | 1 | 3600 / 3600 | 1290 / 1290 |"));
        assert!(report.svg().contains("kill -9 of the primary") && report.is_clean());
    }
}

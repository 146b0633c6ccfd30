//! How long a fault keeps clients without service, and what it loses: Keyward, and for comparison a Valkey Cluster
//! and a Valkey under Valkey's Sentinel, on the same hosts.
//!
//! Writers add numbers to a set of their own, one after the other; readers count them. Both ask whichever node answers,
//! with a short deadline, so that what is measured is the servers and not the patience of a client library. A gap is the
//! longest time between two answers around the fault. Lost are acknowledged writes that are not there afterwards;
//! stale are counts lower than that of the writes acknowledged before the question.
//!
//! Where Keyward's time goes is read from the logs: until a replica asks the sentinels (detect), until they have
//! decided (decide) and committed (commit), until the new primary begins (promote), until a client has a write
//! acknowledged (serve).
#![allow(clippy::disallowed_methods, reason = "a shell: runs processes and measures time")]

mod logs;
mod probes;
mod systems;

use std::fmt;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;
use serde_json::{Map, Value, json};

use crate::hosts::{Cut, Hosts};
use crate::processes::wait_until;
use logs::Phases;
pub use logs::time_of;
use probes::Probes;
use systems::Group;
pub use systems::System;

/// A Valkey Cluster with its defaults takes more than twenty seconds.
const HEAL_DEADLINE: Duration = Duration::from_secs(90);
/// Steady load before each fault.
const CALM: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    Kill,
    Stop,
    Partition,
    HandOff,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::Kill => "kill -9",
            Fault::Stop => "SIGSTOP",
            Fault::Partition => "partition",
            Fault::HandOff => "hand-off",
        })
    }
}

/// What one fault did.
#[derive(Debug, Clone)]
pub struct Sample {
    pub without_writes: Duration,
    pub without_reads: Duration,
    pub lost: usize,
    pub stale: u64,
    /// Error replies but for redirections, and connections that broke or stayed without an answer.
    pub errors: u64,
    pub phases: Option<Phases>,
}

/// All samples of a fault on a system.
#[derive(Debug)]
pub struct Row {
    pub system: System,
    pub fault: Fault,
    pub samples: Vec<Sample>,
}

/// Brings `fault` about so many times on a fresh `system`, on these machines.
///
/// # Errors
/// Processes that do not start, or a system that does not heal.
pub fn measure(
    system: System,
    fault: Fault,
    times: usize,
    hosts: Hosts,
    progress: &mut dyn FnMut(&str),
) -> Result<Row, String> {
    let mut group = Group::start(system, hosts)?;
    let mut samples = Vec::new();
    for number in 1..=times {
        let primary = group.wait_until_whole(HEAL_DEADLINE)?;
        let probes = Probes::start(&group.addrs(), number);
        thread::sleep(CALM);
        let (at, wall) = (Instant::now(), SystemTime::now());
        let target = group.bring_about(fault, primary)?;
        let served_again = |since: Instant| probes.has_acknowledged_since(since);
        if !wait_until(HEAL_DEADLINE, || {
            served_again(at + Duration::from_millis(1)) && group.other_primary(primary, target)
        }) {
            return Err(format!(
                "{system}, {fault}: no other primary within {HEAL_DEADLINE:?}\n{}",
                group.describe()
            ));
        }
        group.end(fault, primary)?;
        group.wait_until_whole(HEAL_DEADLINE)?;
        thread::sleep(CALM / 2);
        let seen = probes.stop();
        let nobody = |what| format!("{system}, {fault}: there was no {what} before the fault");
        let phases = matches!(system, System::Keyward { .. })
            .then(|| logs::phases(&group.logs(), wall, seen.first_write_after_gap(at)));
        let sample = Sample {
            without_writes: seen.longest_gap_of_writes(at).ok_or_else(|| nobody("write"))?,
            without_reads: seen.longest_gap_of_reads(at).ok_or_else(|| nobody("read"))?,
            lost: seen.lost(|key| group.members(key))?,
            stale: seen.stale,
            errors: seen.errors,
            phases: phases.flatten(),
        };
        progress(&format!(
            "{system}, {fault} {number}/{times}: {:.0} ms without writes, {:.0} ms without reads, {} lost, {} stale, {} errors",
            ms(sample.without_writes),
            ms(sample.without_reads),
            sample.lost,
            sample.stale,
            sample.errors
        ));
        samples.push(sample);
    }
    Ok(Row { system, fault, samples })
}

impl Group {
    /// Returns the node that is to be the next primary, if that is known.
    fn bring_about(&mut self, fault: Fault, primary: usize) -> Result<Option<usize>, String> {
        match fault {
            Fault::Kill => self.nodes[primary].kill(),
            Fault::Stop => self.nodes[primary].signal(Signal::STOP),
            Fault::Partition => self.hosts.cut(&[Cut::Host(primary)])?,
            Fault::HandOff => return self.hand_off(primary),
        }
        Ok(None)
    }

    /// Only after another node has become primary: what comes back too early is no failover.
    fn end(&mut self, fault: Fault, primary: usize) -> Result<(), String> {
        match fault {
            Fault::Kill => self.nodes[primary].restart(),
            Fault::Stop => {
                self.nodes[primary].signal(Signal::CONT);
                Ok(())
            }
            Fault::Partition => self.hosts.heal(),
            Fault::HandOff => Ok(()),
        }
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Minimum, median, 99th percentile and maximum, in milliseconds.
fn distribution(mut durations: Vec<Duration>) -> [f64; 4] {
    durations.sort_unstable();
    let at = |share: f64| {
        let rank = (share * durations.len() as f64).ceil() as usize;
        ms(durations[rank.clamp(1, durations.len()) - 1])
    };
    [at(0.0), at(0.5), at(0.99), at(1.0)]
}

impl Row {
    fn gaps(&self, of: impl Fn(&Sample) -> Duration) -> [f64; 4] {
        distribution(self.samples.iter().map(of).collect())
    }

    fn phases(&self) -> Option<[f64; 5]> {
        let phases: Vec<[Duration; 5]> =
            self.samples.iter().filter_map(|s| s.phases.as_ref()).map(Phases::as_array).collect();
        (!phases.is_empty())
            .then(|| std::array::from_fn(|i| distribution(phases.iter().map(|p| p[i]).collect())[1]))
    }

    fn json(&self) -> Value {
        json!({
            "system": self.system.to_string(),
            "fault": self.fault.to_string(),
            "times": self.samples.len(),
            "without_writes_ms": self.gaps(|s| s.without_writes),
            "without_reads_ms": self.gaps(|s| s.without_reads),
            "lost": self.samples.iter().map(|s| s.lost).sum::<usize>(),
            "stale": self.samples.iter().map(|s| s.stale).sum::<u64>(),
            "errors": self.samples.iter().map(|s| s.errors).sum::<u64>(),
            "phases_median_ms": self.phases().map(|phases| {
                Phases::NAMES.iter().zip(phases).map(|(name, ms)| ((*name).to_owned(), json!(ms))).collect::<Map<_, _>>()
            }),
        })
    }
}

/// All rows as JSON: distributions are minimum, median, 99th percentile, maximum.
pub fn json(rows: &[Row]) -> Value {
    Value::Array(rows.iter().map(Row::json).collect())
}

/// All rows as a Markdown table.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| system | fault | times | without acknowledged writes, ms: min / median / p99 / max | without reads, ms | lost | stale | \
         errors | detect / decide / commit / promote / serve, ms (medians) |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    let show = |numbers: &[f64]| numbers.iter().map(|n| format!("{n:.0}")).collect::<Vec<_>>().join(" / ");
    for row in rows {
        let sum = |of: fn(&Sample) -> u64| row.samples.iter().map(of).sum::<u64>();
        text += &format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
            row.system,
            row.fault,
            row.samples.len(),
            show(&row.gaps(|s| s.without_writes)),
            show(&row.gaps(|s| s.without_reads)),
            row.samples.iter().map(|s| s.lost).sum::<usize>(),
            sum(|s| s.stale),
            sum(|s| s.errors),
            row.phases().map_or(String::new(), |phases| show(&phases)),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_names_its_ranks() {
        let ms = |n| Duration::from_millis(n);
        assert_eq!(distribution(vec![ms(5), ms(1), ms(3)]), [1.0, 3.0, 5.0, 5.0]);
        assert_eq!(distribution((1..=200).map(ms).collect()), [1.0, 100.0, 198.0, 200.0]);
    }
}

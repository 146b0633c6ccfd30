//! How the cost of each command grows with what it works on, next to Valkey's growth in the same run.
//!
//! A command that is quadratic, or that fills a table in an order which is bad for it, is not found by comparing replies,
//! nor by a benchmark with random keys. So each case ([`cases`]) is run at two sizes on both servers, and what is
//! compared is how many times as much the large one costs: machine, build and protocol cancel out. The cost is the
//! processor time of the server's process, which other processes disturb little; a case beyond its limit is measured
//! again, and the least of all measurements counts, so what fails a case is the server.
#![allow(clippy::disallowed_methods, reason = "a shell: measures real processes")]

pub mod cases;
pub mod client;

use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

use crate::processes::Server;
use cases::Case;
use client::Client;

/// Our cost may grow so many times as much as Valkey's.
const GROWTH_MAX: f64 = 5.0;
/// A case beyond its limit is measured so often.
const ATTEMPTS: usize = 6;
/// Less than this is not told from nothing.
const COST_MIN: Duration = Duration::from_micros(500);
const SETTLE_DEADLINE: Duration = Duration::from_secs(60);

/// Elements, small and large.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    pub small: usize,
    pub large: usize,
}

/// Processor time of one server at both sizes.
#[derive(Debug, Clone, Copy)]
struct Costs {
    small: Duration,
    large: Duration,
}

impl Costs {
    const WORST: Costs = Costs { small: Duration::MAX, large: Duration::MAX };

    fn least(self, other: Costs) -> Costs {
        Costs { small: self.small.min(other.small), large: self.large.min(other.large) }
    }

    fn growth(&self) -> f64 {
        self.large.max(COST_MIN).as_secs_f64() / self.small.max(COST_MIN).as_secs_f64()
    }
}

/// What a case costs on both servers.
#[derive(Debug)]
pub struct Finding {
    name: &'static str,
    ours: Costs,
    theirs: Costs,
}

impl Finding {
    /// How many times Valkey's growth ours is. What does not grow there may be a little cheaper when it is large.
    pub fn excess(&self) -> f64 {
        self.ours.growth() / self.theirs.growth().max(1.0)
    }

    /// How many times as long as Valkey it takes at the large size.
    pub fn ratio(&self) -> f64 {
        self.ours.large.max(COST_MIN).as_secs_f64() / self.theirs.large.max(COST_MIN).as_secs_f64()
    }

    /// Whether the cost grows as it should; how long it takes does not matter here.
    pub fn is_fine(&self) -> bool {
        self.excess() <= GROWTH_MAX
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |cost: Duration| cost.as_secs_f64() * 1e3;
        let Finding { name, ours, theirs } = self;
        write!(
            f,
            "{name:45} ours {:9.2} -> {:9.2} ms (x{:6.1})  Valkey {:9.2} -> {:9.2} ms (x{:6.1})  growth {:5.2}  time {:5.2}",
            millis(ours.small),
            millis(ours.large),
            ours.growth(),
            millis(theirs.small),
            millis(theirs.large),
            theirs.growth(),
            self.excess(),
            self.ratio()
        )
    }
}

/// Runs a case on both servers, more than once if it seems to be bad.
///
/// # Errors
/// What a server refused, or that it did not answer.
pub fn measure(case: &Case, sizes: Sizes, ours: &Server, theirs: &Server) -> Result<Finding, String> {
    let mut finding = Finding { name: case.name, ours: Costs::WORST, theirs: Costs::WORST };
    for _ in 0..ATTEMPTS {
        finding.ours = finding.ours.least(costs(case, sizes, ours)?);
        finding.theirs = finding.theirs.least(costs(case, sizes, theirs)?);
        if finding.is_fine() {
            break;
        }
    }
    Ok(finding)
}

fn costs(case: &Case, sizes: Sizes, server: &Server) -> Result<Costs, String> {
    let cost = |len| cost(case, len, server).map_err(|error| format!("{} of {len}: {error}", case.name));
    Ok(Costs { small: cost(sizes.small)?, large: cost(sizes.large)? })
}

fn cost(case: &Case, len: usize, server: &Server) -> Result<Duration, String> {
    let mut client = Client::connect(&server.addr())?;
    client.call("FLUSHALL");
    (case.prepare)(&mut client, len);
    settle(&mut client)?;
    let before = cpu_time(server)?;
    (case.run)(&mut client, len);
    settle(&mut client)?;
    let after = cpu_time(server)?;
    client.close()?;
    Ok(after.saturating_sub(before))
}

/// Waits until what was deleted is freed.
fn settle(client: &mut Client) -> Result<(), String> {
    let end = Instant::now() + SETTLE_DEADLINE;
    loop {
        let info = client.read("INFO memory").concat();
        client.check()?;
        let info = String::from_utf8_lossy(&info);
        if info.contains("lazyfree_pending_objects:0\r\n") {
            return Ok(());
        }
        if end <= Instant::now() {
            return Err("the memory of deleted values is not freed".into());
        }
    }
}

/// Processor time of all threads of the process, in nanoseconds; by hundredths of a second where the kernel does not
/// tell.
fn cpu_time(server: &Server) -> Result<Duration, String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", server.pid())).map_err(|e| e.to_string())?;
    let times: Option<Vec<u64>> = tasks
        .flatten()
        .map(|task| {
            let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse().ok()
        })
        .collect();
    Ok(times.map_or_else(|| server.cpu_time(), |times| Duration::from_nanos(times.iter().sum())))
}

//! Faults on real processes under a recorded workload: afterwards every history must be linearizable (which includes
//! that every acknowledged write is there), and all nodes of a shard must hold the same.
//!
//! - [`client`] and [`workload`]: the clients and their histories; [`pressure`]: load beside them
//! - [`nemesis`]: the faults; `injury`, `large_values`: how they are brought about
//! - [`report`]: what happened, as Markdown and as a picture
//!
//! What the promises demand at any speed is asserted; times are only reported.
//!
//! Wall clocks jump by up to a day in either direction, those of nodes only: the lines in the sentinels' logs say when
//! a primary was changed, and sentinels look at no wall clock otherwise. Many keys expire, but in 30 days: whichever
//! node is asked has to have them. Monotonic clocks differ from node to node, and after a restart; that they run at
//! different speeds is left to the simulation.
#![allow(clippy::disallowed_methods, reason = "a shell: measures time")]

pub mod client;
mod injury;
mod large_values;
pub mod nemesis;
pub mod pressure;
pub mod report;
pub mod workload;

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::cluster::{Cluster, Mode, Shape};
use crate::delay::Delay;
use crate::hosts::{Hosts, run as run_program};
use crate::processes::wait_until;
use crate::wall_clocks::WallClocks;
use nemesis::{Fault, Need};
use pressure::Pressure;
use report::{Event, Failover, Report};
use workload::Workload;

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Settings {
    pub duration: Duration,
    /// Chooses the faults, how long they last, and what clients do; times differ from run to run all the same.
    pub seed: u64,
    /// None: the cluster is only observed.
    pub faults: Vec<Fault>,
    pub shape: Shape,
    pub clients: usize,
    /// Whether processes run in network namespaces; else on the loopback address, without faults of the network.
    pub namespaces: bool,
    /// With `--appendonly yes` data survives on disk.
    pub node_args: Vec<String>,
    /// Packets between hosts are delayed all the time, by up to so many milliseconds.
    pub delay_ms: Option<u64>,
    /// Connections that send as much as they can, beside the recorded clients.
    pub pressure: usize,
    /// Where the logs of all processes go in the end.
    pub logs: Option<PathBuf>,
}

/// How long the workload goes on undisturbed between faults.
const REST: Duration = Duration::from_millis(500);
/// How long a fault lasts, in milliseconds.
const LASTING_MS: std::ops::Range<u64> = 200..2500;
/// How often two faults happen at once.
const TWO_AT_ONCE: f64 = 0.25;
/// Between two lines of a run without faults.
const PROGRESS: Duration = Duration::from_secs(10);

/// Runs the workload and the faults; `progress` gets a line at each fault.
///
/// # Errors
/// A cluster that does not start, does not heal, or whose nodes differ in the end, with the story so far. What the
/// histories say is in the report.
pub fn run(settings: &Settings, progress: &mut dyn FnMut(&str)) -> Result<Report, String> {
    let hosts =
        if settings.namespaces { Hosts::namespaces(settings.shape.hosts())? } else { Hosts::Loopback };
    let (faults, left_out) = possible_faults(settings, &hosts);
    left_out.iter().for_each(|line| progress(&format!("left out: {line}")));
    if faults.is_empty() && !settings.faults.is_empty() {
        return Err("no fault is left to inject".into());
    }
    let args: Vec<&str> = settings.node_args.iter().map(String::as_str).collect();
    let jumps = faults.iter().any(|fault| fault.needs().contains(&Need::WallClocks));
    let wall_clocks = jumps.then(|| WallClocks::new(settings.shape.nodes())).transpose()?;
    let cluster = Cluster::start_shaped(hosts, Mode::Cluster, settings.shape, wall_clocks, &args)?;
    let delay = match settings.delay_ms {
        Some(most) => Some(Delay::start(&cluster.hosts, 0..=most, settings.seed)?),
        None => None,
    };
    let (begin, wall) = (Instant::now(), SystemTime::now());
    let workload = Workload::start(begin, cluster.node_addrs.clone(), settings.clients, settings.seed);
    let pressure = Pressure::start(&cluster.node_addrs, settings.pressure);
    let mut run = Run {
        settings,
        cluster,
        workload,
        rng: SmallRng::seed_from_u64(settings.seed),
        begin,
        events: Vec::new(),
    };
    let injected = if faults.is_empty() {
        run.observe(&pressure, progress);
        Ok(())
    } else {
        run.inject(&faults, progress)
    };
    if let Some(dir) = &settings.logs {
        run.cluster.save_logs(dir)?;
    }
    injected?;
    delay.map_or(Ok(()), Delay::end)?;
    let took = begin.elapsed();
    let pressed = pressure.stop();
    let Run { cluster, workload, events, .. } = run;
    let (histories, seen) = workload.finish()?;
    let keys_equal = cluster.wait_until_converged()?;
    let failovers = failovers(&cluster, wall);
    progress(&format!("{:7.1} s  checking the histories", begin.elapsed().as_secs_f64()));
    let findings = histories.check();
    let settings = settings.clone();
    Ok(Report { settings, took, left_out, events, failovers, seen, pressed, findings, keys_equal })
}

/// A run under way.
struct Run<'a> {
    settings: &'a Settings,
    cluster: Cluster,
    workload: Workload,
    rng: SmallRng,
    begin: Instant,
    events: Vec<Event>,
}

impl Run<'_> {
    /// Every fault once before any comes twice.
    fn inject(&mut self, faults: &[Fault], progress: &mut dyn FnMut(&str)) -> Result<(), String> {
        let mut left = Vec::new();
        while self.begin.elapsed() < self.settings.duration {
            if left.is_empty() {
                left = faults.to_vec();
            }
            let fault = *left.choose(&mut self.rng).expect("it was just filled");
            left.retain(|other| *other != fault);
            let with: Vec<Fault> = faults.iter().copied().filter(|other| fault.goes_with(*other)).collect();
            let second = with.choose(&mut self.rng).filter(|_| self.rng.random_bool(TWO_AT_ONCE));
            std::thread::sleep(REST);
            let faults: Vec<Fault> = std::iter::once(fault).chain(second.copied()).collect();
            let names = faults.iter().map(Fault::to_string).collect::<Vec<_>>().join(" + ");
            progress(&format!("{:7.1} s  {names}", self.begin.elapsed().as_secs_f64()));
            if let Err(error) = self.inject_one(faults) {
                return Err(format!("{names}: {error}\n{}", self.cluster.describe()));
            }
        }
        Ok(())
    }

    fn inject_one(&mut self, faults: Vec<Fault>) -> Result<(), String> {
        let shards = self.cluster.wait_until_healed()?;
        let shard = shards.choose(&mut self.rng).ok_or("there is no shard")?;
        let longer = faults.iter().map(|fault| fault.lasts_longer_by()).max().unwrap_or_default();
        let lasting = Duration::from_millis(self.rng.random_range(LASTING_MS)) + longer;
        let mut injuries = Vec::new();
        for fault in &faults {
            injuries.extend(fault.injuries(&self.cluster, shard, &mut self.rng)?);
        }
        let from = self.begin.elapsed();
        injury::inflict(injuries, &mut self.cluster, lasting)?;
        let ended = self.begin.elapsed();
        self.cluster.wait_until_healed()?;
        let count = self.workload.answered();
        if !wait_until(crate::cluster::HEAL_DEADLINE, || count + 20 < self.workload.answered()) {
            return Err("clients are not served again".into());
        }
        let slots = shard.slots.clone();
        self.events.push(Event { faults, slots, from, ended, healed: self.begin.elapsed() });
        Ok(())
    }

    fn observe(&self, pressure: &Pressure, progress: &mut dyn FnMut(&str)) {
        while self.begin.elapsed() < self.settings.duration {
            let left = self.settings.duration.saturating_sub(self.begin.elapsed());
            std::thread::sleep(left.min(PROGRESS));
            progress(&format!(
                "{:7.1} s  {} recorded operations answered, {} others",
                self.begin.elapsed().as_secs_f64(),
                self.workload.answered(),
                pressure.answered()
            ));
        }
    }
}

/// The faults that can be brought about here, and why the others cannot.
fn possible_faults(settings: &Settings, hosts: &Hosts) -> (Vec<Fault>, Vec<String>) {
    let persistent = settings.node_args.windows(2).any(|pair| pair == ["--appendonly", "yes"]);
    let (mut possible, mut left_out) = (Vec::new(), Vec::new());
    let is_needed = |need| settings.faults.iter().any(|fault| fault.needs().contains(&need));
    let check = |need, check: &dyn Fn() -> Result<(), String>| if is_needed(need) { check() } else { Ok(()) };
    let delays = check(Need::DelayedPackets, &|| Delay::start(hosts, 0..=0, 0).map(drop));
    let tracing = check(Need::Tracing, &|| run_program("strace", &["--version"]));
    let refusals = check(Need::Refusals, &|| hosts.refuse(0, 1).and_then(|()| hosts.admit(0)));
    let wall_clocks = check(Need::WallClocks, &|| WallClocks::new(0).map(drop));
    for fault in &settings.faults {
        let obstacle = fault.needs().iter().find_map(|need| match need {
            Need::Namespaces => (!settings.namespaces).then(|| "hosts of its own are needed".to_owned()),
            Need::Persistence => (!persistent).then(|| "--appendonly yes is needed".to_owned()),
            Need::DelayedPackets => delays.clone().err(),
            Need::Tracing => tracing.clone().err(),
            Need::WallClocks => wall_clocks.clone().err(),
            Need::Refusals => refusals.clone().err(),
        });
        match obstacle {
            None => possible.push(*fault),
            Some(reason) => left_out.push(format!("{fault}: {reason}")),
        }
    }
    (possible, left_out)
}

/// What the sentinels' logs tell of changes of primaries since `wall`.
fn failovers(cluster: &Cluster, wall: SystemTime) -> Vec<Failover> {
    let logs: Vec<String> = cluster.sentinels.iter().map(|sentinel| sentinel.log()).collect();
    let since = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let lines = logs.iter().flat_map(|log| log.lines());
    let mut failovers: Vec<Failover> = lines
        .filter_map(|line| {
            let is_handoff = line.contains("primary handed over");
            let at = crate::failover_bench::time_of(line)
                .filter(|_| is_handoff || line.contains("primary replaced"))?;
            Some(Failover { at: at.checked_sub(since)?, is_handoff })
        })
        .collect();
    failovers.sort_by_key(|failover| failover.at);
    failovers
}

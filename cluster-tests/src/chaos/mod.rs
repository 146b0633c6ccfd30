//! Faults on real processes under a recorded workload: afterwards every history must be linearizable, every
//! acknowledged write must be there, and all nodes must hold the same.
//!
//! - [`workload`]: the clients and their histories
//! - [`nemesis`]: the faults
//! - [`report`]: what happened, as Markdown and as a picture
//!
//! What the promises demand at any speed is asserted; times are only reported.
#![allow(clippy::disallowed_methods, reason = "a shell: measures time")]

pub mod nemesis;
pub mod report;
pub mod workload;

use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;

use crate::cluster::{Cluster, HOSTS, Mode};
use crate::hosts::Hosts;
use crate::processes::wait_until;
use nemesis::Fault;
use report::{Event, Report};
use workload::Workload;

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Settings {
    pub duration: Duration,
    /// Chooses the faults, how long they last, and what clients do; times differ from run to run all the same.
    pub seed: u64,
    pub faults: Vec<Fault>,
    pub clients: usize,
    /// Whether processes run in network namespaces; else on the loopback address, without faults of the network.
    pub namespaces: bool,
    /// Without `--appendonly yes` nodes are not all killed at once.
    pub node_args: Vec<String>,
}

/// How long the workload goes on undisturbed between faults.
const REST: Duration = Duration::from_millis(500);

/// Runs the workload and the faults; `progress` gets a line at each fault.
///
/// # Errors
/// A cluster that does not start, does not heal, or whose nodes differ in the end, with the story so far. What the
/// histories say is in the report.
pub fn run(settings: &Settings, progress: &mut dyn FnMut(&str)) -> Result<Report, String> {
    let hosts = if settings.namespaces { Hosts::namespaces(HOSTS)? } else { Hosts::Loopback };
    let persistent = settings.node_args.windows(2).any(|pair| pair == ["--appendonly", "yes"]);
    let possible =
        |f: &Fault| (settings.namespaces || !f.cuts_network()) && (persistent || !f.needs_persistence());
    let faults: Vec<Fault> = settings.faults.iter().copied().filter(possible).collect();
    if faults.is_empty() {
        return Err("no fault is left to inject".into());
    }
    let args: Vec<&str> = settings.node_args.iter().map(String::as_str).collect();
    let mut cluster = Cluster::start_on(hosts, Mode::Cluster, &args)?;
    let mut rng = SmallRng::seed_from_u64(settings.seed);
    let begin = Instant::now();
    let addrs = cluster.nodes.iter().map(|node| node.addr()).collect();
    let workload = Workload::start(begin, addrs, settings.clients, settings.seed);
    let mut events: Vec<Event> = Vec::new();
    // Every fault once before any comes twice.
    let mut left = Vec::new();
    while begin.elapsed() < settings.duration {
        if left.is_empty() {
            left.clone_from(&faults);
        }
        let fault = *left.choose(&mut rng).expect("it was just filled");
        left.retain(|other| *other != fault);
        std::thread::sleep(REST);
        let from = begin.elapsed();
        progress(&format!("{:7.1} s  {fault}", from.as_secs_f64()));
        let story = |error: String, cluster: &Cluster| format!("{fault}: {error}\n{}", cluster.describe());
        nemesis::inject(fault, &mut cluster, &mut rng).map_err(|e| story(e, &cluster))?;
        let ended = begin.elapsed();
        cluster.wait_until_whole().map_err(|e| story(e, &cluster))?;
        let count = workload.served().len();
        if !wait_until(crate::cluster::HEAL_DEADLINE, || count + 20 < workload.served().len()) {
            return Err(story("clients are not served again".into(), &cluster));
        }
        events.push(Event { fault, from, ended, healed: begin.elapsed() });
    }
    let took = begin.elapsed();
    let (histories, served) = workload.finish()?;
    let keys_equal = cluster.wait_until_converged()?;
    progress(&format!("{:7.1} s  checking the histories", begin.elapsed().as_secs_f64()));
    let findings = histories.check();
    Ok(Report { settings: settings.clone(), took, events, served, findings, keys_equal })
}

//! A deterministic simulation of one shard: three nodes, three sentinels and some clients in one thread, with a virtual
//! clock, a virtual network and virtual disks, all driven by a seed.
//!
//! Real are, of the node: the write log, on disk too, the gate, and all of replication (commit, leases, membership,
//! hand-off, partial and full sync, and whom it asks); the keyspace, the commands, the executor, what is applied, and what
//! replies wait for. Of the sentinels: the topology's state machine, the course of a failover with its questions,
//! requests for in-sync sets, health and placement. Modelled are the shells around them, as thin as they are in the
//! programs:
//! - [`node`]: a node's process; [`connection`]: its end of a connection; [`disk`]: the platter under its log
//! - [`sentinel`]: a sentinel's process; [`register`]: what Raft gives them
//! - [`network`], [`clocks`]; [`clients`], what they ask for ([`operations`]) and write down ([`history`]);
//!   [`keyspace`]: a model of what their keys hold
//! - [`faults`]: what goes wrong; [`invariants`]: what must hold nevertheless, checked after every step
//! - [`mutations`]: deliberate bugs, each of which has to be found
//! - [`story`]: what happened, to be read
//!
//! At the end the faults stop. Then the shard has to serve, all nodes have to hold the same, and what the clients were
//! told has to be linearizable. A seed reproduces a run exactly.

mod clients;
mod clocks;
mod connection;
mod disk;
mod faults;
mod history;
pub(crate) mod invariants;
mod keyspace;
mod messages;
pub mod mutations;
mod network;
mod node;
mod operations;
mod recordings;
mod register;
mod sentinel;
mod standing;
mod story;
mod world;

use std::cell::RefCell;
use std::ops::AddAssign;
use std::panic::{AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;

use crate::replay::Incident;
use keyward_proto::mutation::{self, Mutation};
use world::World;

/// Virtual time since the begin of a run.
type Nanos = u64;

const NODES: usize = 3;
const SENTINELS: usize = 3;
const CLIENTS: usize = 5;

const fn ms(ms: u64) -> Nanos {
    ms * 1_000_000
}

/// A timer never fires earlier than after this.
const WAIT_MIN: Nanos = ms(1) / 5;

const FAULTS_END: Nanos = ms(6000);
const CLIENTS_END: Nanos = ms(10_000);
const END: Nanos = ms(11_500);
/// What was written just before the end, as when a key expires, has reached everybody by then.
const SETTLED: Nanos = ms(11_800);

/// What a run, or several, have done.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outcome {
    /// Acknowledged to clients.
    pub writes: u64,
    pub reads: u64,
    /// By clients that any node may answer.
    pub reads_anywhere: u64,
    pub terms: u64,
    pub full_syncs: u64,
    pub resumed: u64,
    pub steps: u64,
    /// Operations whose histories were checked for linearizability.
    pub calls: u64,
    /// Histories for which that search was given up.
    pub undecided: u64,
}

impl AddAssign for Outcome {
    fn add_assign(&mut self, other: Outcome) {
        self.writes += other.writes;
        self.reads += other.reads;
        self.reads_anywhere += other.reads_anywhere;
        self.terms += other.terms;
        self.full_syncs += other.full_syncs;
        self.resumed += other.resumed;
        self.steps += other.steps;
        self.calls += other.calls;
        self.undecided += other.undecided;
    }
}

/// A run that broke a promise.
#[derive(Debug, Clone)]
pub struct Failure {
    pub seed: u64,
    pub reason: String,
    /// What happened, a line each.
    pub story: Vec<String>,
}

impl Failure {
    /// The one line that runs it again.
    pub fn reproduction(&self) -> String {
        reproduction(self.seed)
    }
}

fn reproduction(seed: u64) -> String {
    format!("cargo run --release -p cluster-tests --bin simulate -- --seed {seed}")
}

/// The hours that a run simulates.
pub fn simulated_hours(runs: u64) -> f64 {
    runs as f64 * END as f64 / 3.6e12
}

thread_local! {
    /// The seed that runs in this thread, and why it ended.
    static RUNNING: RefCell<Option<(u64, String)>> = const { RefCell::new(None) };
}

/// A panic in a run is a finding, not a crash: it is noted. Where panics end the process it is told first.
fn note_panic(info: &PanicHookInfo<'_>) -> bool {
    let reason = match (info.payload().downcast_ref::<&str>(), info.payload().downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        (None, None) => "a panic".to_owned(),
    };
    let place = info.location().map(|l| format!(" ({}:{})", l.file(), l.line())).unwrap_or_default();
    RUNNING.with_borrow_mut(|running| match running {
        Some((seed, noted)) => {
            *noted = reason + &place;
            if cfg!(panic = "abort") {
                let failure = Failure { seed: *seed, reason: noted.clone(), story: story::take() };
                eprint!("{failure}");
            }
            true
        }
        None => false,
    })
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.story.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        writeln!(f, "\nseed {}: {}", self.seed, self.reason)?;
        writeln!(f, "reproduce: {}", self.reproduction())
    }
}

fn install_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !note_panic(info) {
                default(info);
            }
        }));
    });
}

/// How a run is to be done.
#[derive(Debug, Clone, Copy, Default)]
pub struct Settings {
    /// Every message is part of the story.
    pub detailed: bool,
    /// The bug to run with.
    pub mutation: Option<Mutation>,
}

/// One run, in this thread.
///
/// # Errors
/// A promise was broken.
pub fn run(seed: u64, settings: Settings) -> Result<(Outcome, Vec<String>), Box<Failure>> {
    install_hook();
    assert!(
        mutation::activate(settings.mutation),
        "this build has no mutations: use one with debug assertions"
    );
    RUNNING.set(Some((seed, String::new())));
    story::begin(&settings);
    let result = std::panic::catch_unwind(AssertUnwindSafe(|| World::new(seed).run()));
    let noted = RUNNING.take();
    mutation::activate(None);
    let story = story::take();
    match result {
        Ok(outcome) => Ok((outcome, story)),
        Err(_) => {
            let reason = noted.map(|(_, reason)| reason).unwrap_or_default();
            Err(Box::new(Failure { seed, reason, story }))
        }
    }
}

/// One run, and what the flight recorders of its nodes have recorded.
///
/// # Errors
/// A promise was broken; the recordings are there all the same.
pub fn run_recorded(seed: u64, settings: Settings) -> (Result<Outcome, Box<Failure>>, Incident) {
    recordings::begin();
    let result = run(seed, settings).map(|(outcome, _)| outcome);
    (result, Incident::new(recordings::take(), Vec::new()))
}

/// Runs many seeds, with all cores, until one fails. `progress` is told how many are done and what they did.
///
/// # Errors
/// The failure; of several the one with the smallest seed.
pub fn run_many(
    seeds: std::ops::Range<u64>,
    settings: Settings,
    progress: &mut dyn FnMut(u64, &Outcome),
) -> Result<Outcome, Box<Failure>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, stop) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let (sender, results) = channel();
    let mut total = Outcome::default();
    let mut failure: Option<Box<Failure>> = None;
    #[allow(clippy::disallowed_methods, reason = "seeds run on all cores; a run is one thread")]
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (next, stop, sender, end) = (&next, &stop, sender.clone(), seeds.end);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if end <= seed || stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let result = run(seed, settings);
                    stop.fetch_or(result.is_err(), Ordering::Relaxed);
                    if sender.send(result.map(|(outcome, _)| outcome)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        for (done, result) in (1..).zip(results) {
            match result {
                Ok(outcome) => total += outcome,
                Err(found) => {
                    if failure.as_ref().is_none_or(|f| found.seed < f.seed) {
                        failure = Some(found);
                    }
                }
            }
            progress(done, &total);
        }
    });
    failure.map_or(Ok(total), Err)
}

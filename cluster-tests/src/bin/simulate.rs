//! Simulates a shard under faults, many times over, and checks what must hold.
#![allow(clippy::disallowed_methods, reason = "shows how fast it is")]

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use cluster_tests::simulation::{self, Settings, mutations};
use keyward_proto::mutation::Mutation;

#[derive(Debug, Parser)]
#[command(about = "Simulates a shard under faults, many times over, and checks what must hold")]
struct Options {
    /// How many runs.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    #[arg(long, default_value_t = 0)]
    first_seed: u64,
    /// One run, with its story.
    #[arg(long)]
    seed: Option<u64>,
    /// With every message and every step.
    #[arg(long)]
    detailed: bool,
    /// Runs with each deliberate bug until it is found, and prints the table. Not in release builds.
    #[arg(long)]
    mutations: bool,
    /// With one deliberate bug.
    #[arg(long)]
    mutation: Option<String>,
}

fn find_mutations(chosen: &[Mutation], seeds_max: u64) -> ExitCode {
    let findings = mutations::find_all(chosen, seeds_max, &|finding| {
        println!("{}: {:?} seeds: {}", finding.mutation.name(), finding.seeds, finding.reason);
    });
    println!("\n{}", mutations::table(&findings));
    let all_found = findings.iter().all(|f| f.seeds.is_some());
    if all_found { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_one(seed: u64, settings: Settings) -> ExitCode {
    match simulation::run(seed, settings) {
        Ok((outcome, story)) => {
            story.iter().for_each(|line| println!("{line}"));
            println!("\nseed {seed}: {outcome:?}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            print!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn run_many(first_seed: u64, seeds: u64, settings: Settings) -> ExitCode {
    let (started, mut shown) = (Instant::now(), Instant::now());
    let result = simulation::run_many(first_seed..first_seed + seeds, settings, &mut |done, outcome| {
        if shown.elapsed().as_secs() < 1 && done < seeds {
            return;
        }
        shown = Instant::now();
        let seconds = started.elapsed().as_secs_f64();
        println!(
            "{done} of {seeds} seeds in {seconds:.0} s, {:.2} simulated hours per second: {} writes and {} reads \
             acknowledged, {} terms, {} full syncs ({} resumed), {} of {} checked histories undecided",
            simulation::simulated_hours(done) / seconds,
            outcome.writes,
            outcome.reads,
            outcome.terms,
            outcome.full_syncs,
            outcome.resumed,
            outcome.undecided,
            done * 3,
        );
    });
    match result {
        Ok(_) => ExitCode::SUCCESS,
        Err(failure) => {
            print!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let named = |name: &String| Mutation::ALL.iter().copied().find(|m| m.name() == name);
    let mutation = options.mutation.as_ref().and_then(named);
    if options.mutation.is_some() && mutation.is_none() {
        eprintln!(
            "simulate: the mutations are {}",
            Mutation::ALL.iter().map(|m| m.name()).collect::<Vec<_>>().join(", ")
        );
        return ExitCode::FAILURE;
    }
    let settings = Settings { detailed: options.detailed, mutation };
    match (options.mutations, options.seed) {
        (true, _) => {
            let chosen = mutation.map_or(Mutation::ALL.to_vec(), |m| vec![m]);
            find_mutations(&chosen, options.seeds)
        }
        (false, Some(seed)) => run_one(seed, settings),
        (false, None) => run_many(options.first_seed, options.seeds, settings),
    }
}

//! Whether the simulation would find what it looks for: it runs with each deliberate bug until it has found it.

use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use keyward_proto::mutation::Mutation;

use super::{Settings, run};

/// Every mutation has to be found within so many seeds, starting with seed 0.
pub const SEEDS_MAX: u64 = 2000;

/// What became of a mutation.
#[derive(Debug, Clone)]
pub struct Finding {
    pub mutation: Mutation,
    /// How many seeds it took; `None`: it was not found.
    pub seeds: Option<u64>,
    pub reason: String,
}

/// Runs seeds from 0 on until the mutation is found.
pub fn find(mutation: Mutation, seeds_max: u64) -> Finding {
    let settings = Settings { mutation: Some(mutation), detailed: false };
    for seed in 0..seeds_max {
        if let Err(failure) = run(seed, settings) {
            let reason = failure.reason.lines().next().unwrap_or_default().to_owned();
            return Finding { mutation, seeds: Some(seed + 1), reason };
        }
    }
    Finding { mutation, seeds: None, reason: String::new() }
}

/// All mutations, with all cores; `tell` gets each finding when it is there.
pub fn find_all(mutations: &[Mutation], seeds_max: u64, tell: &(dyn Fn(&Finding) + Sync)) -> Vec<Finding> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    #[allow(clippy::disallowed_methods, reason = "seeds run on all cores; a run is one thread")]
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(mutation) = mutations.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let finding = find(*mutation, seeds_max);
                    tell(&finding);
                    found.lock().expect("no thread panics").push(finding);
                }
            });
        }
    });
    let mut found = found.into_inner().expect("no thread panics");
    found.sort_by_key(|f| f.mutation);
    found
}

/// As a table in Markdown.
pub fn table(findings: &[Finding]) -> String {
    let mut text = String::from("| Mutation | What is wrong | Seeds | Found as |\n|---|---|---|---|\n");
    for Finding { mutation, seeds, reason } in findings {
        let seeds = seeds.map_or("not found".to_owned(), |s| s.to_string());
        let (name, what) = (mutation.name(), mutation.description());
        // Writing to a String cannot fail.
        _ = writeln!(text, "| {name} | {what} | {seeds} | {} |", reason.replace('|', "/"));
    }
    text
}

//! A thousand simulated shards. See `cluster_tests::simulation`.
//!
//! `cargo run --release -p cluster-tests --bin simulate -- --seeds 100000` does the same for longer.

use cluster_tests::simulation::{self, Outcome, Settings, mutations};
use keyward_proto::mutation::Mutation;

const SEEDS: u64 = 1500;

fn simulate(seeds: std::ops::Range<u64>) -> Outcome {
    let count = seeds.end - seeds.start;
    let outcome = simulation::run_many(seeds, Settings::default(), &mut |_, _| {})
        .unwrap_or_else(|failure| panic!("{failure}"));
    println!("{count} seeds: {outcome:?}");
    outcome
}

#[test]
fn simulated_shards_keep_their_promises() {
    let outcome = simulate(0..SEEDS);
    // That it is all exercised, and not only survived by doing nothing.
    let seeds = SEEDS;
    assert!(outcome.writes > seeds * 300 && outcome.reads > seeds * 200, "clients are hardly served");
    assert!(outcome.terms > seeds * 3 && outcome.full_syncs > seeds / 2 && outcome.resumed > 0);
    assert!(outcome.undecided * 100 < seeds, "too many histories are undecided");
}

#[test]
fn every_mutation_is_found() {
    let findings = mutations::find_all(Mutation::ALL, mutations::SEEDS_MAX, &|_| {});
    println!("{}", mutations::table(&findings));
    for finding in findings {
        assert!(finding.seeds.is_some(), "{:?} is not found", finding.mutation);
    }
}

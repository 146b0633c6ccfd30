//! A minute of faults under a recorded workload, with a seed that stays and with a fresh one.
//!
//! `cargo run --release -p cluster-tests --bin chaos -- --minutes 10` does the same for longer, with a report.
#![allow(clippy::disallowed_methods, reason = "runs processes for a while")]

use std::time::Duration;

use cluster_tests::chaos::nemesis::Fault;
use cluster_tests::chaos::{self, Settings};
use cluster_tests::cluster::HOSTS;
use cluster_tests::hosts::Hosts;

const DURATION: Duration = Duration::from_secs(45);

fn survives(seed: u64) {
    let namespaces = Hosts::namespaces(HOSTS);
    if let Err(reason) = &namespaces {
        println!("on the loopback address, without faults of the network: {reason}");
    }
    let settings = Settings {
        duration: DURATION,
        seed,
        faults: Fault::ALL.to_vec(),
        clients: 6,
        namespaces: namespaces.is_ok(),
        node_args: ["--appendonly", "no", "--save", ""].map(str::to_owned).into(),
    };
    drop(namespaces);
    println!(
        "reproduce: cargo run --release -p cluster-tests --bin chaos -- --minutes 1 --clients 6 --seed {seed}"
    );
    let report =
        chaos::run(&settings, &mut |line| println!("{line}")).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    println!("{}", report.markdown());
    assert!(report.is_clean(), "seed {seed}: {}", report.markdown());
    assert!(100 < report.served.len() && !report.events.is_empty());
}

#[test]
fn chaos_histories_are_linearizable() {
    survives(1);
    survives(rand::random_range(0..1_000_000));
}

//! Three minutes and more of faults under a recorded workload: one shard of three nodes with a seed that stays, three shards of two
//! nodes with a fresh one.
//!
//! `cargo run --release -p cluster-tests --bin chaos -- --minutes 10` does the same for longer, with a report.
#![allow(clippy::disallowed_methods, reason = "runs processes for a while")]

use std::time::Duration;

use cluster_tests::chaos::nemesis::{Fault, Need};
use cluster_tests::chaos::{self, Settings};
use cluster_tests::cluster::Shape;
use cluster_tests::hosts::Hosts;
use cluster_tests::wall_clocks::WallClocks;

const DURATION: Duration = Duration::from_secs(100);

fn survives(shape: Shape, seed: u64) {
    let namespaces = Hosts::namespaces(shape.hosts());
    if let Err(reason) = &namespaces {
        println!("on the loopback address, without faults of the network: {reason}");
    }
    let settings = Settings {
        duration: DURATION,
        seed,
        faults: Fault::ALL.to_vec(),
        shape,
        clients: 6,
        namespaces: namespaces.is_ok(),
        node_args: ["--appendonly", "yes"].map(str::to_owned).into(),
        delay_ms: None,
        pressure: 0,
        logs: None,
    };
    drop(namespaces);
    println!(
        "reproduce: cargo run --release -p cluster-tests --bin chaos -- --minutes 1.7 --clients 6 --shape {shape} --seed {seed}"
    );
    let report =
        chaos::run(&settings, &mut |line| println!("{line}")).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    println!("{}", report.markdown());
    assert!(report.is_clean(), "seed {seed}: {}", report.markdown());
    assert!(1000 < report.answered() && !report.events.is_empty());
    // Where it can be done it was: the fault itself sees to it that clients notice the jump.
    let is_of_wall_clocks = |fault: &Fault| fault.needs().contains(&Need::WallClocks);
    assert!(
        WallClocks::new(0).is_err()
            || report.events.iter().flat_map(|event| &event.faults).any(is_of_wall_clocks)
    );
}

#[test]
fn chaos_histories_are_linearizable() {
    survives(Shape::ONE_BY_THREE, 1);
    survives(Shape::THREE_BY_TWO, rand::random_range(0..1_000_000));
}

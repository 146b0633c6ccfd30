//! Prints what it costs the sentinels when many shards fail together; virtual time, so it is the same everywhere.

use clap::Parser;
use cluster_tests::many_shards::{Scenario, run};

/// Simulates shards of two nodes of which some primaries die at once and come back
#[derive(Debug, Parser)]
struct Arguments {
    #[arg(long, default_value_t = 1000)]
    shards: u32,
    /// How many primaries die; a line of the table for each
    #[arg(long, value_delimiter = ',', default_value = "1,10,100,300")]
    failing: Vec<usize>,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() {
    let arguments = Arguments::parse();
    println!("{} shards of two nodes; virtual times: {:?}", arguments.shards, Scenario::new(1, 0).times);
    println!(
        "\n| primaries that die | entries | until all serve: ms | Raft entries | messages | updates | MiB |"
    );
    println!("|---|---|---|---|---|---|---|");
    for phase in ["service", "redundancy"] {
        if phase == "redundancy" {
            println!("\nThe dead nodes start again within 100 ms and catch up in 200 to 400 ms:\n");
            println!(
                "| restarted | entries | until all are in sync: ms | Raft entries | messages | updates | MiB |"
            );
            println!("|---|---|---|---|---|---|---|");
        }
        for &failing in &arguments.failing {
            for (name, batch_max) in [("shared", usize::MAX), ("one each", 1)] {
                let seed = arguments.seed;
                let scenario = Scenario::new(arguments.shards, failing.min(arguments.shards as usize));
                let batch_max = batch_max.min(scenario.batch_max);
                let report = run(&Scenario { seed, batch_max, ..scenario });
                let cost = if phase == "service" { report.service } else { report.redundancy };
                println!("| {failing} | {name} | {cost} |");
            }
        }
    }
}

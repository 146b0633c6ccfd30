//! Measures failovers and hand-offs, beside Valkey's if wanted.

use std::process::ExitCode;

use clap::Parser;
use cluster_tests::cluster::HOSTS;
use cluster_tests::failover_bench::{self, Fault, System};
use cluster_tests::hosts::Hosts;
use keyward_proto::topology::FastFailover;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Against {
    Nobody,
    /// A Valkey Cluster and a Valkey with Sentinel, with their defaults and with short timeouts.
    Valkey,
}

#[derive(Debug, Parser)]
#[command(about = "Measures failovers and hand-offs of three nodes under load, beside Valkey's if wanted")]
struct Options {
    #[arg(long, value_delimiter = ',', default_value = "kill,stop,partition,hand-off")]
    faults: Vec<Fault>,
    /// Each fault so many times.
    #[arg(long, default_value_t = 20)]
    times: usize,
    /// What Keyward's nodes take a refused connection for: one or more of trusted, yes and no.
    #[arg(long, value_delimiter = ',', default_value = "yes", value_parser = fast_failover)]
    fast_failover: Vec<FastFailover>,
    #[arg(long, value_enum, default_value = "nobody")]
    against: Against,
    /// Each fault on each of Valkey's systems so many times; they take longer.
    #[arg(long, default_value_t = 5)]
    valkey_times: usize,
    /// Also print the figures as JSON.
    #[arg(long)]
    json: bool,
}

fn fast_failover(word: &str) -> Result<FastFailover, String> {
    let all = [FastFailover::Trusted, FastFailover::Yes, FastFailover::No];
    all.into_iter().find(|choice| choice.word() == word).ok_or_else(|| "trusted, yes or no".to_owned())
}

fn run(options: &Options) -> Result<(), String> {
    let namespaces = rustix::process::geteuid().is_root();
    if !namespaces {
        println!("failover-bench: on the loopback address, without partitions (namespaces need root)");
    }
    let keyward =
        |fast_failover: &FastFailover| (System::Keyward { fast_failover: *fast_failover }, options.times);
    let mut systems: Vec<(System, usize)> = options.fast_failover.iter().map(keyward).collect();
    if options.against == Against::Valkey {
        let theirs = [
            System::ValkeyCluster { node_timeout: 15_000 },
            System::ValkeyCluster { node_timeout: 500 },
            System::ValkeySentinel { down_after: 30_000 },
            System::ValkeySentinel { down_after: 1000 },
        ];
        systems.extend(theirs.map(|system| (system, options.valkey_times)));
    }
    let mut rows = Vec::new();
    for (system, times) in systems {
        for fault in options.faults.iter().filter(|f| namespaces || **f != Fault::Partition) {
            let hosts = if namespaces { Hosts::namespaces(HOSTS)? } else { Hosts::Loopback };
            rows.push(failover_bench::measure(system, *fault, times, hosts, &mut |line| println!("{line}"))?);
        }
    }
    println!("\n{}", failover_bench::table(&rows));
    if options.json {
        println!("{}", failover_bench::json(&rows));
    }
    Ok(())
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("failover-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

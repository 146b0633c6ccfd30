//! Measures hit rates under `maxmemory` and mass expiry beside the real Valkey; prints Markdown tables. Run it with
//! `--release`.

use std::process::ExitCode;

use clap::Parser;
use cluster_tests::eviction_bench::{self, Settings};

#[derive(Debug, Parser)]
#[command(about = "Measures eviction and expiry beside the real Valkey on this machine")]
struct Options {
    /// A tenth of everything.
    #[arg(long)]
    quick: bool,
    #[arg(long, default_value_t = 1_000_000)]
    keys: usize,
    /// Keys for which there is room.
    #[arg(long, default_value_t = 100_000)]
    resident: usize,
    #[arg(long, default_value_t = 3_000_000)]
    requests: usize,
    /// Requests in a second.
    #[arg(long, default_value_t = 100_000)]
    pace: usize,
    /// The exponent of Zipf's law.
    #[arg(long, default_value_t = 0.99)]
    skew: f64,
    #[arg(long, default_value_t = 100)]
    value_len: usize,
    /// Policies to measure; empty: none.
    #[arg(long, value_delimiter = ',', default_value = "allkeys-lru,allkeys-lfu,allkeys-random")]
    policies: Vec<String>,
    /// Keys that expire together; 0: none.
    #[arg(long, default_value_t = 1_000_000)]
    expiring: usize,
    /// Given to both servers.
    #[arg(long, default_value_t = 1)]
    io_threads: usize,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if cfg!(debug_assertions) {
        eprintln!("eviction-bench: not an optimized build, the numbers mean little (use --release)");
    }
    let share = if options.quick { 10 } else { 1 };
    let settings = Settings {
        keys: options.keys / share,
        resident: options.resident / share,
        requests: options.requests / share,
        pace: options.pace,
        skew: options.skew,
        value_len: options.value_len,
        policies: options.policies.into_iter().filter(|policy| !policy.is_empty()).collect(),
        expiring: options.expiring / share,
        io_threads: options.io_threads,
    };
    match eviction_bench::run(&settings) {
        Ok(tables) => {
            println!("{tables}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("eviction-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

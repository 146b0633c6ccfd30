//! Measures how long Keyward and the real Valkey take to load the same RDB file. Run it with `--release`.

use std::process::ExitCode;

use clap::Parser;
use cluster_tests::load_bench::{self, Settings};

#[derive(Debug, Parser)]
#[command(about = "Measures a start with data beside the real Valkey on this machine")]
struct Options {
    #[arg(long, default_value_t = 5_000_000)]
    keys: usize,
    #[arg(long, default_value_t = 16)]
    value_len: usize,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if cfg!(debug_assertions) {
        eprintln!("load-bench: not an optimized build, the numbers mean little (use --release)");
    }
    let settings =
        Settings { keys: options.keys, value_len: options.value_len, rounds: options.rounds.max(1) };
    match load_bench::run(&settings) {
        Ok(table) => {
            println!("{table}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("load-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

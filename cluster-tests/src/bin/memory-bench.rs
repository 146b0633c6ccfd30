//! Measures the memory that keys and elements take in Keyward and in the real Valkey, and prints a Markdown table. Run
//! it with `--release`.

use std::process::ExitCode;

use clap::Parser;
use cluster_tests::memory;

#[derive(Debug, Parser)]
#[command(about = "Measures what keys and elements take in memory, beside the real Valkey")]
struct Options {
    /// Keys of each shape, or elements of a large collection.
    #[arg(long, default_value_t = 1_000_000)]
    count: usize,
    /// Only the shapes whose label contains this.
    #[arg(long, default_value = "")]
    only: String,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if cfg!(debug_assertions) {
        eprintln!("memory-bench: not an optimized build; the memory is the same, but it takes long");
    }
    match memory::table(options.count, &options.only) {
        Ok(table) => {
            println!("{table}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("memory-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

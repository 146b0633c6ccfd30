//! Measures what a BGSAVE costs under a load of writes, in Keyward and the real Valkey, and prints a Markdown table.
//! Run it with `--release`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use cluster_tests::snapshot_bench::{self, Settings};

#[derive(Debug, Parser)]
#[command(about = "Measures a BGSAVE under a load of writes beside the real Valkey")]
struct Options {
    /// A tenth of the keys, and less time.
    #[arg(long)]
    quick: bool,
    #[arg(long, default_value_t = 5_000_000)]
    keys: usize,
    #[arg(long, default_value_t = 100)]
    value_len: usize,
    #[arg(long, default_value_t = 50_000)]
    writes_per_second: usize,
    /// More flags for keyward-node, in one argument.
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    keyward_args: String,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if cfg!(debug_assertions) {
        eprintln!("snapshot-bench: not an optimized build, the numbers mean little (use --release)");
    }
    let settings = Settings {
        keys: if options.quick { options.keys / 10 } else { options.keys },
        value_len: options.value_len,
        writes_per_second: options.writes_per_second,
        baseline: Duration::from_secs(if options.quick { 3 } else { 10 }),
        keyward_args: options.keyward_args.split_whitespace().map(str::to_owned).collect(),
    };
    match snapshot_bench::run(&settings) {
        Ok(table) => {
            println!("{table}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("snapshot-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

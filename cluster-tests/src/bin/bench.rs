//! Measures Keyward beside the real Valkey and prints a Markdown table. Run it with `--release`.

use std::process::ExitCode;

use clap::Parser;
use cluster_tests::benchmark::{self, Settings};

#[derive(Debug, Parser)]
#[command(about = "Measures Keyward beside the real Valkey on this machine")]
struct Options {
    /// A tenth of the commands and of the keys, one round.
    #[arg(long)]
    quick: bool,
    /// Three nodes with acknowledged writes instead of single servers.
    #[arg(long)]
    replicated: bool,
    /// Commands of each data type and scripts instead of GET and SET.
    #[arg(long, conflicts_with = "replicated")]
    data: bool,
    /// With `--data`: only commands whose name contains this.
    #[arg(long, default_value = "", requires = "data")]
    only: String,
    #[arg(long, value_delimiter = ',', default_value = "1,16,64")]
    pipelines: Vec<usize>,
    /// Each value is given to both servers.
    #[arg(long, value_delimiter = ',', default_value = "1")]
    io_threads: Vec<usize>,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    #[arg(long, default_value_t = 50)]
    clients: usize,
    #[arg(long, default_value_t = 1_000_000)]
    keys: usize,
    #[arg(long, default_value_t = 64)]
    value_len: usize,
    /// Commands of a measurement without pipelining; up to eight times as many with pipelines.
    #[arg(long, default_value_t = 500_000)]
    requests: usize,
    /// More flags for both servers, in one argument, such as "--appendonly yes".
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    server_args: String,
    /// More flags for keyward-node, in one argument.
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    keyward_args: String,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if cfg!(debug_assertions) {
        eprintln!("bench: not an optimized build, the numbers mean little (use --release)");
    }
    let share = if options.quick { 10 } else { 1 };
    let settings = Settings {
        pipelines: options.pipelines,
        io_threads: options.io_threads,
        rounds: if options.quick { 1 } else { options.rounds },
        clients: options.clients,
        keys: options.keys / share,
        value_len: options.value_len,
        requests: options.requests / share,
        server_args: options.server_args.split_whitespace().map(str::to_owned).collect(),
        keyward_args: options.keyward_args.split_whitespace().map(str::to_owned).collect(),
    };
    let table = match (options.replicated, options.data) {
        (true, _) => benchmark::replicated(&settings),
        (_, true) => benchmark::data(&settings, &options.only),
        _ => benchmark::plain(&settings),
    };
    match table {
        Ok(table) => {
            println!("{table}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

//! Runs random command sequences against Keyward and the real Valkey and prints where their replies differ.
//!
//! Starts both servers unless their addresses are given. Exits with 1 if there was a difference.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use cluster_tests::compare::campaign::{Campaign, Mode};
use cluster_tests::compare::framing::{self, Pairs};
use cluster_tests::compare::pair::Pair;
use cluster_tests::processes::Server;
use cluster_tests::programs;

#[derive(Debug, Parser)]
#[command(about = "Compares Keyward's replies with the real Valkey's on random command sequences")]
struct Options {
    /// Where the random sequences start; a fresh seed if left out.
    #[arg(long)]
    seed: Option<u64>,
    /// The number of the first sequence of that seed.
    #[arg(long, default_value_t = 0)]
    first: u64,
    #[arg(long, default_value_t = 200)]
    sequences: u64,
    /// Steps in a sequence.
    #[arg(long, default_value_t = 40)]
    length: usize,
    /// Only these groups or commands, such as `sorted_set,GET`.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Without these groups or commands.
    #[arg(long, value_delimiter = ',')]
    skip: Vec<String>,
    /// The protocol, 2 or 3; both if left out.
    #[arg(long)]
    resp: Option<u8>,
    #[arg(long, value_enum, default_value_t)]
    mode: Mode,
    /// Send damaged bytes instead of commands; a sequence is one connection. Always starts the servers.
    #[arg(long)]
    framing: bool,
    /// Print so many differences, one per command, then stop.
    #[arg(long, default_value_t = 10)]
    differences: usize,
    /// Start no further sequence after so many seconds.
    #[arg(long)]
    seconds: Option<u64>,
    /// A running Keyward, `host:port`.
    #[arg(long)]
    keyward: Option<String>,
    /// A running Valkey, `host:port`.
    #[arg(long)]
    valkey: Option<String>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(options: &Options) -> Result<bool, String> {
    if options.framing {
        return run_framing(options);
    }
    // The servers end when these are dropped.
    let valkey = match options.valkey {
        None => Some(Server::valkey(&programs::valkey()?, &[])?),
        Some(_) => None,
    };
    let keyward = match options.keyward {
        None => Some(Server::keyward(&[])?),
        Some(_) => None,
    };
    let addr = |given: &Option<String>, started: &Option<Server>| {
        given.clone().or_else(|| started.as_ref().map(Server::addr)).expect("given or started")
    };
    let pair = Pair { ours: addr(&options.keyward, &keyward), theirs: addr(&options.valkey, &valkey) };
    let campaign = Campaign {
        seed: options.seed.unwrap_or_else(|| rand::random_range(0..1_000_000)),
        first: options.first,
        sequences: options.sequences,
        length: options.length,
        protocols: options.resp.map_or(vec![2, 3], |resp| vec![resp]),
        mode: options.mode,
        only: options.only.clone(),
        skip: options.skip.clone(),
        differences_max: options.differences,
        time_limit: options.seconds.map(Duration::from_secs),
    };
    let outcome = campaign.run(&pair)?;
    for report in &outcome.reports {
        println!("{report}\n");
    }
    println!("seed {}: {} sequences, {} actions", campaign.seed, outcome.sequences, outcome.actions);
    for (command, failures) in &outcome.failures {
        println!("  {failures} sequences differ at {command}");
    }
    if let Some(mut keyward) = keyward.filter(|_| !outcome.reports.is_empty())
        && !keyward.is_running()
    {
        println!("keyward-node has ended; its last words:\n{}", keyward.log_end());
    }
    Ok(outcome.reports.is_empty())
}

fn run_framing(options: &Options) -> Result<bool, String> {
    let dir = programs::valkey()?;
    let one_thread = ["--io-threads", "1"];
    let ours = [Server::keyward(&one_thread)?, Server::keyward(&one_thread)?];
    let theirs = [Server::valkey(&dir, &one_thread)?, Server::valkey(&dir, &one_thread)?];
    let pair = |number: usize| Pair { ours: ours[number].addr(), theirs: theirs[number].addr() };
    let pairs = Pairs { open: pair(0), guarded: pair(1) };
    let campaign = framing::Campaign {
        seed: options.seed.unwrap_or_else(|| rand::random_range(0..1_000_000)),
        first: options.first,
        cases: options.sequences,
        differences_max: options.differences,
        time_limit: options.seconds.map(Duration::from_secs),
    };
    let outcome = campaign.run(&pairs)?;
    for report in &outcome.reports {
        println!("{report}\n");
    }
    println!("seed {}: {} connections, {} closed by Valkey", campaign.seed, outcome.cases, outcome.closed);
    Ok(outcome.reports.is_empty())
}

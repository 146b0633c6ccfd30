//! How the cost of commands grows, next to Valkey's: the cases of the test, at any size.
#![allow(clippy::print_stdout, reason = "a program that prints what it measures")]

use std::process::ExitCode;

use clap::Parser;
use cluster_tests::complexity::{Sizes, cases::CASES, measure};
use cluster_tests::processes::Server;
use cluster_tests::programs;

/// Measures with the programs that the tests would take; use a release build for times.
#[derive(Debug, Parser)]
struct Options {
    /// Elements of the small collections.
    #[arg(long, default_value_t = 10_000)]
    small: usize,
    /// Elements of the large ones.
    #[arg(long, default_value_t = 1_000_000)]
    large: usize,
    /// Only cases with this in their names.
    #[arg(long, default_value = "")]
    only: String,
}

fn main() -> Result<ExitCode, String> {
    let options = Options::parse();
    let Some(dir) = programs::valkey_or_skip("growth of costs") else { return Ok(ExitCode::FAILURE) };
    let valkey = Server::valkey(&dir, &[])?;
    let keyward = Server::keyward(&[])?;
    let sizes = Sizes { small: options.small, large: options.large };
    let mut bad = 0;
    for case in CASES.iter().filter(|case| case.name.contains(&options.only)) {
        let finding = measure(case, sizes, &keyward, &valkey)?;
        println!("{finding}");
        bad += usize::from(!finding.is_fine());
    }
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

//! Prints the bill of materials of a program (CycloneDX 1.5, JSON): every crate that it is made of.

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use cluster_tests::supply::Supply;

#[derive(Debug, Parser)]
#[command(
    about = "Prints the bill of materials of a program: every crate that it is made of (CycloneDX 1.5, JSON)"
)]
struct Options {
    #[arg(default_value = "keyward-node", value_parser = ["keyward-node", "keyward-sentinel"])]
    program: String,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    match Supply::of(&root).and_then(|supply| supply.bill_of_materials(&options.program)) {
        Ok(bill) => {
            println!("{bill:#}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("sbom: {error}");
            ExitCode::FAILURE
        }
    }
}

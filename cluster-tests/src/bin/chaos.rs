//! Injects faults into a cluster of real processes and checks what its clients saw.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use cluster_tests::chaos::nemesis::Fault;
use cluster_tests::chaos::{self, Settings};

#[derive(Debug, Parser)]
#[command(about = "Injects faults into a cluster of real processes and checks what its clients saw")]
struct Options {
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// A fresh one if left out.
    #[arg(long)]
    seed: Option<u64>,
    /// Names of faults, or `all`.
    #[arg(long, value_delimiter = ',', default_value = "all")]
    faults: Vec<String>,
    #[arg(long, default_value_t = 8)]
    clients: usize,
    /// Everything on the loopback address; the network is left alone. For whoever is not root.
    #[arg(long)]
    loopback: bool,
    /// More flags for keyward-node, in one argument.
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    keyward_args: String,
    /// Where `chaos.md` and `chaos.svg` go.
    #[arg(long, default_value = ".")]
    report: PathBuf,
}

fn faults(names: &[String]) -> Result<Vec<Fault>, String> {
    if names.iter().any(|name| name == "all") {
        return Ok(Fault::ALL.to_vec());
    }
    names.iter().map(|name| <Fault as clap::ValueEnum>::from_str(name, true)).collect()
}

fn run(options: &Options) -> Result<bool, String> {
    let namespaces = !options.loopback && rustix::process::geteuid().is_root();
    if !namespaces {
        println!("chaos: on the loopback address, without faults of the network (namespaces need root)");
    }
    let settings = Settings {
        duration: Duration::from_secs_f64(options.minutes * 60.0),
        seed: options.seed.unwrap_or_else(|| rand::random_range(0..1_000_000)),
        faults: faults(&options.faults)?,
        clients: options.clients,
        namespaces,
        node_args: options.keyward_args.split_whitespace().map(str::to_owned).collect(),
    };
    println!("chaos: seed {}", settings.seed);
    let report = chaos::run(&settings, &mut |line| println!("{line}"))?;
    let text = |e: std::io::Error| format!("{}: {e}", options.report.display());
    std::fs::write(options.report.join("chaos.md"), report.markdown()).map_err(text)?;
    std::fs::write(options.report.join("chaos.svg"), report.svg()).map_err(text)?;
    println!("\n{}", report.markdown());
    Ok(report.is_clean())
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("chaos: histories are not linearizable, see above");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("chaos: {error}");
            ExitCode::FAILURE
        }
    }
}

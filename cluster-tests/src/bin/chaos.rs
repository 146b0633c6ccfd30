//! Injects faults into a cluster of real processes and checks what its clients saw.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Parser;
use cluster_tests::chaos::nemesis::Fault;
use cluster_tests::chaos::{self, Settings};
use cluster_tests::cluster::Shape;

/// Connections of `--load full`.
const FULL_LOAD: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Load {
    /// The recorded clients alone.
    Light,
    /// Connections with pipelines beside them, as fast as they are answered.
    Full,
}

#[derive(Debug, Parser)]
#[command(about = "Injects faults into a cluster of real processes and checks what its clients saw")]
struct Options {
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// A fresh one if left out.
    #[arg(long)]
    seed: Option<u64>,
    /// Names of faults, or `all`; `none`: a failover fails the run.
    #[arg(long, value_delimiter = ',', default_value = "all")]
    faults: Vec<String>,
    /// Shards x nodes of each.
    #[arg(long, default_value = "1x3", value_parser = shape)]
    shape: Shape,
    #[arg(long, default_value_t = 8)]
    clients: usize,
    #[arg(long, value_enum, default_value = "light")]
    load: Load,
    /// Delays packets between hosts by up to so many milliseconds, all the time.
    #[arg(long)]
    delay: Option<u64>,
    /// Everything on the loopback address; the network is left alone. For whoever is not root.
    #[arg(long)]
    loopback: bool,
    /// Flags for keyward-node, in one argument.
    #[arg(long, default_value = "--appendonly yes", allow_hyphen_values = true)]
    keyward_args: String,
    /// Where `chaos.md`, `chaos.svg` and the logs of all processes go.
    #[arg(long, default_value = "chaos-report")]
    report: PathBuf,
}

fn shape(text: &str) -> Result<Shape, String> {
    let (shards, nodes) = text.split_once('x').ok_or("expected SHARDSxNODES")?;
    let number = |text: &str| text.parse().map_err(|e| format!("{text}: {e}"));
    let shape = Shape { shards: number(shards)?, nodes_per_shard: number(nodes)? };
    if shape.shards == 0 || shape.nodes_per_shard < 2 {
        return Err("every shard needs a replica".into());
    }
    Ok(shape)
}

fn faults(names: &[String]) -> Result<Vec<Fault>, String> {
    match names {
        [all] if all == "all" => Ok(Fault::ALL.to_vec()),
        [none] if none == "none" => Ok(Vec::new()),
        _ => names.iter().map(|name| <Fault as clap::ValueEnum>::from_str(name, true)).collect(),
    }
}

fn run(options: &Options) -> Result<(), String> {
    let namespaces = !options.loopback && rustix::process::geteuid().is_root();
    if !namespaces {
        println!("chaos: on the loopback address, without faults of the network");
    }
    let settings = Settings {
        duration: Duration::from_secs_f64(options.minutes * 60.0),
        seed: options.seed.unwrap_or_else(|| rand::random_range(0..1_000_000)),
        faults: faults(&options.faults)?,
        shape: options.shape,
        clients: options.clients,
        namespaces,
        node_args: options.keyward_args.split_whitespace().map(str::to_owned).collect(),
        delay_ms: options.delay,
        pressure: if options.load == Load::Full { FULL_LOAD } else { 0 },
        logs: Some(options.report.clone()),
    };
    println!("chaos: seed {}", settings.seed);
    let text = |e: std::io::Error| format!("{}: {e}", options.report.display());
    std::fs::create_dir_all(&options.report).map_err(text)?;
    let report = chaos::run(&settings, &mut |line| println!("{line}"))?;
    std::fs::write(options.report.join("chaos.md"), report.markdown()).map_err(text)?;
    std::fs::write(options.report.join("chaos.svg"), report.svg()).map_err(text)?;
    println!("\n{}", report.markdown());
    if !report.is_clean() {
        return Err("histories are not linearizable, see above".into());
    }
    if settings.faults.is_empty() && !report.failovers.is_empty() {
        return Err(format!("{} failovers though nothing failed", report.failovers.len()));
    }
    Ok(())
}

/// Whether this process is the one that [`become_root`] has started.
const IS_ROOT: &str = "KEYWARD_CHAOS_IS_ROOT";

/// Starts this program again as the root of a user namespace, where the system allows that. Returns why it does not.
fn become_root() -> String {
    let unshare = ["--user", "--map-root-user", "--net", "--mount"];
    match Command::new("unshare").args(unshare).arg("true").output() {
        Err(error) => return error.to_string(),
        Ok(output) if !output.status.success() => {
            return String::from_utf8_lossy(&output.stderr).trim().into();
        }
        Ok(_) => {}
    }
    // `ip` keeps the names of network namespaces there.
    let script = "ip link set lo up && mount -t tmpfs tmpfs /run && exec \"$@\"";
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return error.to_string(),
    };
    let mut command = Command::new("unshare");
    command.args(unshare).args(["sh", "-c", script, "sh"]).arg(program).args(std::env::args_os().skip(1));
    command.env(IS_ROOT, "1").exec().to_string()
}

fn main() -> ExitCode {
    let options = Options::parse();
    if !options.loopback && !rustix::process::geteuid().is_root() && std::env::var_os(IS_ROOT).is_none() {
        println!("chaos: not root, and not in a user namespace either: {}", become_root());
    }
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chaos: {error}");
            ExitCode::FAILURE
        }
    }
}

//! Tells what recordings of flight recorders hold: the story of an incident, and whether it kept the invariants.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use cluster_tests::replay::{Incident, Span, scenario, story, violations};

#[derive(Debug, Parser)]
#[command(
    about = "Tells what recordings of nodes and sentinels hold, by one clock: what happened around the last failover, and \
             whether the invariants were kept",
    after_help = "Recordings are the files DIR/flight/*.flight of each process, or what its metrics port answers to /flight."
)]
struct Options {
    /// Recordings; folders are searched for them
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Everything that was recorded, not only what was around the last failover
    #[arg(long)]
    all: bool,
    /// Writes a draft of a scenario for node/replication/testdata
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("replay: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<ExitCode, String> {
    let mut texts = Vec::new();
    for path in &options.files {
        read(path, &mut texts)?;
    }
    if texts.is_empty() {
        return Err("no recordings (*.flight) are there".to_owned());
    }
    let incident = Incident::parse(texts.iter().map(|(name, text)| (name.as_str(), text.as_str())))?;
    let around =
        Span::LastFailover { before: Duration::from_millis(1500), after: Duration::from_millis(1500) };
    let span = if options.all { Span::All } else { around };
    story(&incident, span).iter().for_each(|line| println!("{line}"));
    if let Some(path) = &options.scenario {
        std::fs::write(path, scenario(&incident)?).map_err(|e| format!("{}: {e}", path.display()))?;
        println!("\na draft of a scenario is in {}", path.display());
    }
    let broken = violations(&incident);
    println!();
    broken.iter().for_each(|line| println!("BROKEN: {line}"));
    let of = format!("{} nodes and {} sentinels", incident.nodes.len(), incident.sentinels.len());
    if broken.is_empty() {
        println!("the recordings of {of} show no broken invariant");
        return Ok(ExitCode::SUCCESS);
    }
    println!("the recordings of {of} show {} broken invariants", broken.len());
    Ok(ExitCode::FAILURE)
}

/// The recording, or all that are in a folder and the folders in it.
fn read(path: &PathBuf, texts: &mut Vec<(String, String)>) -> Result<(), String> {
    let wrong = |error: std::io::Error| format!("{}: {error}", path.display());
    if !path.is_dir() {
        texts.push((path.display().to_string(), std::fs::read_to_string(path).map_err(wrong)?));
        return Ok(());
    }
    for entry in std::fs::read_dir(path).map_err(wrong)? {
        let path = entry.map_err(wrong)?.path();
        if path.is_dir() || path.extension().is_some_and(|extension| extension == "flight") {
            read(&path, texts)?;
        }
    }
    Ok(())
}

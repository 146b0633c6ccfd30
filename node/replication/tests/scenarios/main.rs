//! Scenarios of the replication cores in text: `testdata/*.txt`, in the manner of etcd raft's.
//!
//! A file begins with a comment that says what is shown. A line that begins with `>` is a command (`commands.rs` lists
//! them); below it stands what the cores did because of it, and how the nodes are afterwards, as far as that has changed.
//! With `KEYWARD_UPDATE_SCENARIOS=1` the files are written anew; the change is reviewed as a diff.
//!
//! Real are the cores: node, primary, replica, membership, hand-off, leases, log, streams, gate, when a reply may leave,
//! and the log on disk. The
//! script is everything else: the sentinels and what they decide, the network, the clients, the clock.

#![allow(clippy::unwrap_used, reason = "a test")]

mod commands;
mod node;
mod show;
mod world;

use std::fmt::Write;
use std::panic::AssertUnwindSafe;
use std::path::Path;

use world::World;

const UPDATE: &str = "KEYWARD_UPDATE_SCENARIOS";

/// Runs the commands of a scenario; `out` becomes its text with what has happened.
fn run(text: &str, out: &mut String) {
    let mut world = World::new();
    for line in text.lines().filter(|line| line.is_empty() || line.starts_with(['#', '>'])) {
        if line.is_empty() && out.ends_with("\n\n") {
            continue;
        }
        writeln!(out, "{line}").unwrap();
        if let Some(command) = line.strip_prefix('>') {
            world.command(command.split('#').next().unwrap_or_default().trim());
            world.take_output().iter().for_each(|line| writeln!(out, "{line}").unwrap());
        }
    }
}

/// The first lines that differ.
fn difference(expected: &str, found: &str) -> String {
    let at = expected.lines().zip(found.lines()).take_while(|(a, b)| a == b).count();
    let show = |text: &str| {
        text.lines().skip(at.saturating_sub(3)).take(10).fold(String::new(), |s, line| s + "\n    " + line)
    };
    format!("line {}, expected:{}\n  found:{}", at + 1, show(expected), show(found))
}

#[test]
fn scenarios() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut paths: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    let mut differences = Vec::new();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with('#'), "{name} does not say what it shows");
        let mut found = String::new();
        let run = std::panic::catch_unwind(AssertUnwindSafe(|| run(&text, &mut found)));
        if run.is_err() {
            differences.push(format!("{name} ends in a panic:\n{found}"));
            continue;
        }
        if found == text {
            continue;
        }
        match std::env::var_os(UPDATE) {
            Some(_) => std::fs::write(&path, found).unwrap(),
            None => differences.push(format!("{name}: {}", difference(&text, &found))),
        }
    }
    assert!(
        differences.is_empty(),
        "{}\n\nIf that is as it should be: {UPDATE}=1 cargo test -p keyward-replication --test scenarios",
        differences.join("\n\n")
    );
}

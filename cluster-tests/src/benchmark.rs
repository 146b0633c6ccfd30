//! Keyward beside the real Valkey, in one run on one machine: throughput, latency and processor time per command.
//!
//! Plain mode drives both with the real `valkey-benchmark`; rounds alternate, so that a change of the machine's
//! mood meets both. Replicated mode compares a Keyward shard, whose acknowledgements mean that the replicas have
//! the write, with a Valkey primary whose clients send `WAIT 1 0` after each pipeline; both are driven by
//! [`crate::load`]. Data mode drives both with commands of each data type, and with scripts (see [`CASES`]).
//!
//! The processor time per command is the server's alone: it does not depend on how fast the load generator is,
//! which on a small machine is as likely to be the bottleneck as the server.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::cluster::{Cluster, Mode};
use crate::load::{self, Load};
use crate::processes::{Server, wait_until};
use crate::programs;
use crate::resp_client::Connection;

mod cases;

use cases::CASES;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Settings {
    pub pipelines: Vec<usize>,
    pub io_threads: Vec<usize>,
    pub rounds: usize,
    pub clients: usize,
    pub keys: usize,
    pub value_len: usize,
    /// Commands of one measurement without pipelining; with pipelines it grows.
    pub requests: usize,
    /// Directives for both servers.
    pub server_args: Vec<String>,
    pub keyward_args: Vec<String>,
}

/// One measurement of one server.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// Commands in a second.
    throughput: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// Microseconds of processor time per command.
    cpu_us: f64,
}

/// One line of the table.
#[derive(Debug)]
struct Row {
    label: String,
    ours: Vec<Sample>,
    theirs: Vec<Sample>,
}

impl Settings {
    fn requests(&self, pipeline: usize) -> usize {
        self.requests * pipeline.clamp(1, 8)
    }
}

/// GET and SET with `valkey-benchmark`: a Markdown table.
pub fn plain(settings: &Settings) -> Result<String, String> {
    let valkey_dir = programs::valkey()?;
    let mut rows = Vec::new();
    for &threads in &settings.io_threads {
        let [keyward, valkey] = both(threads, settings, &valkey_dir)?;
        for server in [&keyward, &valkey] {
            load::fill(&server.addr(), settings.keys, settings.value_len)
                .map_err(|error| error.to_string())?;
        }
        for command in ["SET", "GET"] {
            for &pipeline in &settings.pipelines {
                let label = format!("{command}, pipeline {pipeline}, io-threads {threads}");
                let row = alternate(label, settings.rounds, &keyward, &valkey, |server| {
                    let flags = ["-t", &command.to_lowercase()];
                    let requests = settings.requests(pipeline);
                    let test = Test { flags: &flags, title: command, requests, pipeline };
                    valkey_benchmark(&valkey_dir, server, &test, settings)
                })?;
                rows.push(row);
            }
        }
    }
    Ok(report(&rows, &valkey_dir, settings))
}

/// Keyward and Valkey, fresh and alone.
fn both(threads: usize, settings: &Settings, valkey_dir: &Path) -> Result<[Server; 2], String> {
    let count = threads.to_string();
    let mut args = vec!["--io-threads", &count];
    args.extend(settings.server_args.iter().map(String::as_str));
    let valkey = Server::valkey(valkey_dir, &args)?;
    args.extend(settings.keyward_args.iter().map(String::as_str));
    Ok([Server::keyward(&args)?, valkey])
}

/// Measures both in turn, each round in the other order.
fn alternate(
    label: String,
    rounds: usize,
    keyward: &Server,
    valkey: &Server,
    measure: impl Fn(&Server) -> Result<Sample, String>,
) -> Result<Row, String> {
    let mut row = Row { label, ours: Vec::new(), theirs: Vec::new() };
    for round in 0..rounds {
        for turn in 0..2 {
            if (round + turn) % 2 == 0 {
                row.ours.push(measure(keyward)?);
            } else {
                row.theirs.push(measure(valkey)?);
            }
        }
    }
    Ok(row)
}

/// The commands of each data type whose label contains `only`, and scripts: a Markdown table. Each measurement starts
/// with an empty server.
pub fn data(settings: &Settings, only: &str) -> Result<String, String> {
    let valkey_dir = programs::valkey()?;
    let mut rows = Vec::new();
    for &threads in &settings.io_threads {
        let [keyward, valkey] = both(threads, settings, &valkey_dir)?;
        for case in CASES.iter().filter(|case| case.label.contains(only)) {
            for &pipeline in &settings.pipelines {
                let label = format!("{}, pipeline {pipeline}, io-threads {threads}", case.label);
                // A command sequence counts as one request.
                let requests = settings.requests(pipeline) / case.share;
                let words: Vec<&str> = case.command.split('|').collect();
                let flags = [&["--sequential", "--"], &words[..]].concat();
                let test = Test { flags: &flags, title: &words.join(" "), requests, pipeline };
                let row = alternate(label, settings.rounds, &keyward, &valkey, |server| {
                    case.fill(&server.addr(), requests)?;
                    valkey_benchmark(&valkey_dir, server, &test, settings)
                })?;
                rows.push(row);
            }
        }
    }
    Ok(report(&rows, &valkey_dir, settings))
}

/// What `valkey-benchmark` is to send.
struct Test<'a> {
    /// That say what.
    flags: &'a [&'a str],
    /// How that program calls it.
    title: &'a str,
    requests: usize,
    pipeline: usize,
}

fn valkey_benchmark(
    dir: &Path,
    server: &Server,
    test: &Test<'_>,
    settings: &Settings,
) -> Result<Sample, String> {
    let Test { flags, title, requests, pipeline } = *test;
    let number = |number: usize| number.to_string();
    let before = server.cpu_time();
    let output = Command::new(dir.join("valkey-benchmark"))
        .args(["-p", &server.port().to_string(), "--csv", "--precision", "3"])
        .args(["-n", &number(requests), "-c", &number(settings.clients), "-P", &number(pipeline)])
        .args(["-d", &number(settings.value_len), "-r", &number(settings.keys)])
        .args(flags)
        .output()
        .map_err(|error| format!("valkey-benchmark: {error}"))?;
    let cpu = server.cpu_time() - before;
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers = csv_row(&text, title).ok_or_else(|| {
        format!("valkey-benchmark printed {text:?} and {:?}", String::from_utf8_lossy(&output.stderr))
    })?;
    let [throughput, _, _, p50_ms, _, p99_ms, ..] = numbers.as_slice() else {
        return Err(format!("too few columns in {text:?}"));
    };
    Ok(Sample {
        throughput: *throughput,
        p50_ms: *p50_ms,
        p99_ms: *p99_ms,
        cpu_us: micros(cpu) / requests as f64,
    })
}

/// The numbers of the row whose first column is the test's name, which may contain commas.
fn csv_row(text: &str, test: &str) -> Option<Vec<f64>> {
    let name = format!("\"{test}\",");
    let row = text.lines().find_map(|line| line.strip_prefix(&name))?;
    row.split(',').map(|field| field.trim().trim_matches('"').parse().ok()).collect()
}

/// SETs to three nodes, acknowledged by replicas: a Markdown table. The processor time is that of all three.
pub fn replicated(settings: &Settings) -> Result<String, String> {
    let valkey_dir = programs::valkey()?;
    let own: Vec<&str> = settings.server_args.iter().map(String::as_str).collect();
    let valkey = Server::valkey(&valkey_dir, &own)?;
    let port = valkey.port().to_string();
    let replica = || Server::valkey(&valkey_dir, &[&["--replicaof", "127.0.0.1", &port], &own[..]].concat());
    let replicas = [replica()?, replica()?];
    if !wait_until(Duration::from_secs(30), || online_replicas(&valkey) == replicas.len()) {
        return Err("valkey's replicas do not get in sync".into());
    }
    let mut node_args = vec!["--save", "", "--appendonly", "no"];
    node_args.extend(settings.server_args.iter().chain(&settings.keyward_args).map(String::as_str));
    let mut cluster = Cluster::start(Mode::Replicated, &node_args)?;
    let primary = cluster.wait_until_whole()?;
    let keyward = &cluster.nodes[primary];
    let all_valkeys = [&valkey, &replicas[0], &replicas[1]];
    let all_nodes: Vec<&Server> = cluster.nodes.iter().collect();
    for server in [keyward, &valkey] {
        load::fill(&server.addr(), settings.keys, settings.value_len).map_err(|error| error.to_string())?;
    }
    let mut rows = Vec::new();
    // Keyward's SET is acknowledged by the in-sync set anyway; Valkey's needs the WAIT.
    for (pipeline, wait, what) in [
        (16, Some(1), "Valkey with WAIT 1 0"),
        (1, Some(1), "Valkey with WAIT 1 0"),
        (1, None, "Valkey's plain SET"),
    ] {
        let label = format!("SET, pipeline {pipeline}, against {what}");
        let row = alternate(label, settings.rounds, keyward, &valkey, |server| {
            let is_valkey = std::ptr::eq(server, &valkey);
            let all = if is_valkey { &all_valkeys[..] } else { &all_nodes[..] };
            own_load((server, all), pipeline, wait.filter(|_| is_valkey), settings)
        })?;
        rows.push(row);
    }
    Ok(report(&rows, &valkey_dir, settings))
}

fn online_replicas(server: &Server) -> usize {
    let info =
        Connection::connect(&server.addr()).map(|mut connection| connection.call(&["INFO", "replication"]));
    let Ok(Ok(info)) = info else { return 0 };
    info.string().lines().filter(|line| line.starts_with("slave") && line.contains("state=online")).count()
}

/// `all`: whose processor time counts.
fn own_load(
    (server, all): (&Server, &[&Server]),
    pipeline: usize,
    wait: Option<usize>,
    settings: &Settings,
) -> Result<Sample, String> {
    let load = Load {
        command: load::Command::Set,
        connections: settings.clients,
        pipeline,
        requests: settings.requests(pipeline),
        value_len: settings.value_len,
        keys: settings.keys,
        wait_for_replicas: wait,
    };
    let cpu_time = || all.iter().map(|server| server.cpu_time()).sum::<Duration>();
    let before = cpu_time();
    let measured = load.run(&server.addr()).map_err(|error| error.to_string())?;
    let cpu = cpu_time() - before;
    if 0 < measured.failures {
        return Err(format!("{} of {} SETs failed", measured.failures, measured.requests));
    }
    Ok(Sample {
        throughput: measured.throughput(),
        p50_ms: micros(measured.latency(0.5)) / 1000.0,
        p99_ms: micros(measured.latency(0.99)) / 1000.0,
        cpu_us: micros(cpu) / measured.requests as f64,
    })
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

fn median(samples: &[Sample], value: impl Fn(&Sample) -> f64) -> f64 {
    let mut values: Vec<f64> = samples.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The distance between the lowest and the highest value, in per cent of the median.
fn spread(samples: &[Sample], value: impl Fn(&Sample) -> f64) -> f64 {
    let values = || samples.iter().map(&value);
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
    (high - low) / median(samples, &value) * 100.0
}

fn report(rows: &[Row], valkey_dir: &Path, settings: &Settings) -> String {
    let mut text = String::new();
    let Settings { clients, keys, value_len, rounds, .. } = settings;
    writeln!(text, "{}; {clients} clients, {keys} keys, {value_len}-byte values, {rounds} rounds; medians, Keyward / Valkey\n", machine(valkey_dir))
        .expect("a string");
    text.push_str("| | commands/s | ratio | spread | p50 ms | p99 ms | server CPU us/command | ratio |\n");
    text.push_str("|---|---|---|---|---|---|---|---|\n");
    for Row { label, ours, theirs } in rows {
        let pair = |value: fn(&Sample) -> f64| (median(ours, value), median(theirs, value));
        let (rate, their_rate) = pair(|sample| sample.throughput);
        let (p50, their_p50) = pair(|sample| sample.p50_ms);
        let (p99, their_p99) = pair(|sample| sample.p99_ms);
        let (cpu, their_cpu) = pair(|sample| sample.cpu_us);
        let (spread, their_spread) = (spread(ours, |s| s.throughput), spread(theirs, |s| s.throughput));
        writeln!(
            text,
            "| {label} | {rate:.0} / {their_rate:.0} | {:.2} | {spread:.0} % / {their_spread:.0} % | \
             {p50:.3} / {their_p50:.3} | {p99:.3} / {their_p99:.3} | {cpu:.2} / {their_cpu:.2} | {:.2} |",
            rate / their_rate,
            cpu / their_cpu
        )
        .expect("a string");
    }
    text
}

/// Processor, cores and versions.
fn machine(valkey_dir: &Path) -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1)).unwrap_or("?");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let version = Command::new(valkey_dir.join("valkey-server")).arg("--version").output();
    let version =
        version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let valkey =
        version.split_whitespace().find_map(|word| word.strip_prefix("v=")).unwrap_or("?").to_owned();
    let keyward = env!("CARGO_PKG_VERSION");
    format!("{model}, {cores} cores; Keyward {keyward}, Valkey {valkey}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_of_a_test_is_found_in_valkey_benchmarks_output() {
        let text = "\"test\",\"rps\",\"avg_latency_ms\"\n\"SET\",\"1000.50\",\"0.1\"\n\"GET a, b\",\"2000\",\"0.2\"\n";
        assert_eq!(csv_row(text, "GET a, b"), Some(vec![2000.0, 0.2]));
        assert_eq!(csv_row(text, "INCR"), None);
    }

    #[test]
    fn medians_and_spreads() {
        let sample = |throughput| Sample { throughput, p50_ms: 1.0, p99_ms: 2.0, cpu_us: 3.0 };
        let samples = [sample(90.0), sample(110.0), sample(100.0)];
        assert_eq!(median(&samples, |s| s.throughput), 100.0);
        assert_eq!(spread(&samples, |s| s.throughput), 20.0);
    }
}

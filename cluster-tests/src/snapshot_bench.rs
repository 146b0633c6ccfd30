//! What a BGSAVE costs while clients write: memory, latency and duration, of Keyward and the real Valkey in one run.
//!
//! The load is open: each connection sends its next pipeline at its time, whether the last one was slow or not, and
//! a latency counts from that time. So a pause of the server is seen in full, by all who wait for it.
//!
//! Extra memory is what the server's processes have beyond what the server had before. A page that parent and child
//! still share counts once: of the child of a fork only what is its own counts.
#![allow(clippy::disallowed_methods, reason = "a shell: drives sockets and measures time")]

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

use crate::processes::{Server, wait_until};
use crate::programs;
use crate::resp_client::{Connection, encode};

/// What to measure.
#[derive(Clone, Debug)]
pub struct Settings {
    pub keys: usize,
    pub value_len: usize,
    pub writes_per_second: usize,
    /// Without a snapshot, for comparison.
    pub baseline: Duration,
    pub keyward_args: Vec<String>,
}

/// Connections, each on a thread of its own.
const CONNECTIONS: usize = 10;
/// A pipeline of each connection is due so often.
const PERIOD: Duration = Duration::from_millis(1);
const SAMPLE_EVERY: Duration = Duration::from_millis(20);
/// A save takes no longer.
const DEADLINE: Duration = Duration::from_secs(600);

const WARMING: usize = 0;
const WITHOUT: usize = 1;
const DURING: usize = 2;
const OVER: usize = 3;

/// Latencies of one phase, sorted.
#[derive(Debug, Default)]
struct Latencies(Vec<Duration>);

impl Latencies {
    fn ms(&self, share: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        let at = (last as f64 * share) as usize;
        self.0.get(at).copied().unwrap_or_default().as_secs_f64() * 1000.0
    }
}

#[derive(Debug)]
struct Outcome {
    name: String,
    data: u64,
    extra_used: u64,
    extra_rss: u64,
    without: Latencies,
    during: Latencies,
    duration: Duration,
    file: u64,
    writes_per_second: f64,
}

/// Measures both servers: a Markdown table.
pub fn run(settings: &Settings) -> Result<String, String> {
    let valkey_dir = programs::valkey()?;
    let rdb = ["--rdbcompression", "yes"];
    let mut keyward_args = rdb.to_vec();
    keyward_args.extend(settings.keyward_args.iter().map(String::as_str));
    let mut results = Vec::new();
    for is_keyward in [true, false] {
        let server =
            if is_keyward { Server::keyward(&keyward_args)? } else { Server::valkey(&valkey_dir, &rdb)? };
        let name = if is_keyward { "Keyward" } else { "Valkey" };
        results.push(measure(&server, name, settings).map_err(|e| format!("{name}: {e}"))?);
    }
    Ok(report(&results, settings))
}

fn measure(server: &Server, name: &str, settings: &Settings) -> Result<Outcome, String> {
    eprintln!("{name}: filling");
    fill(&server.addr(), settings).map_err(|e| e.to_string())?;
    let mut admin = Connection::connect(&server.addr()).map_err(|e| e.to_string())?;
    let phase = Arc::new(AtomicUsize::new(WARMING));
    let start = Instant::now() + Duration::from_millis(200);
    let writers: Vec<_> = (0..CONNECTIONS)
        .map(|number| {
            let (addr, settings, phase) = (server.addr(), settings.clone(), Arc::clone(&phase));
            let begin = start + PERIOD * u32::try_from(number).unwrap_or(0) / 10;
            thread::spawn(move || write_steadily(&addr, number as u64, begin, &settings, &phase))
        })
        .collect();
    eprintln!("{name}: writing");
    thread::sleep(Duration::from_secs(3));
    phase.store(WITHOUT, Ordering::SeqCst);
    thread::sleep(settings.baseline);
    let before = memory(server.pid());
    let used_before = used_memory(&mut admin)?;
    phase.store(DURING, Ordering::SeqCst);
    let begun = Instant::now();
    let reply = call(&mut admin, &["BGSAVE"])?;
    if !reply.starts_with("Background saving started") {
        return Err(format!("BGSAVE: {reply}"));
    }
    let (mut rss, mut used) = (before, used_before);
    let mut duration = Duration::ZERO;
    let ended = wait_until(DEADLINE, || {
        thread::sleep(SAMPLE_EVERY);
        rss = rss.max(memory(server.pid()));
        used = used.max(used_memory(&mut admin).unwrap_or(0));
        duration = begun.elapsed();
        call(&mut admin, &["INFO", "persistence"]).is_ok_and(|info| info.contains("rdb_bgsave_in_progress:0"))
    });
    phase.store(OVER, Ordering::SeqCst);
    let info = call(&mut admin, &["INFO", "persistence"])?;
    if !ended || !info.contains("rdb_last_bgsave_status:ok") {
        return Err(format!("the save did not end well: {info}"));
    }
    eprintln!("{name}: {}", server.log_end());
    let (mut without, mut during) = (Latencies::default(), Latencies::default());
    for writer in writers {
        let [a, b] = writer.join().map_err(|_| "a writer panicked")?.map_err(|e| e.to_string())?;
        without.0.extend(a);
        during.0.extend(b);
    }
    without.0.sort();
    during.0.sort();
    let per_pipeline = pipeline(settings) as f64;
    let file = fs::metadata(server.dir().join("dump.rdb")).map_err(|e| e.to_string())?.len();
    Ok(Outcome {
        name: name.to_owned(),
        data: used_before,
        extra_used: used - used_before,
        extra_rss: rss - before,
        writes_per_second: during.0.len() as f64 * per_pipeline / duration.as_secs_f64(),
        without,
        during,
        duration,
        file,
    })
}

fn pipeline(settings: &Settings) -> usize {
    let per_second = CONNECTIONS as f64 / PERIOD.as_secs_f64();
    ((settings.writes_per_second as f64 / per_second).round() as usize).max(1)
}

/// Values that do not compress much, as different as keys are.
fn value(rng: &mut SmallRng, settings: &Settings) -> Vec<u8> {
    let mut bytes = vec![0; settings.value_len];
    rng.fill_bytes(&mut bytes);
    bytes
}

fn fill(addr: &str, settings: &Settings) -> io::Result<()> {
    const BATCH: usize = 1000;
    let mut rng = SmallRng::seed_from_u64(1);
    let mut stream = TcpStream::connect(addr)?;
    let (mut out, mut replies) = (Vec::new(), vec![0; 5 * BATCH]);
    for first in (0..settings.keys).step_by(BATCH) {
        out.clear();
        let batch = first..(first + BATCH).min(settings.keys);
        let count = batch.len();
        batch.for_each(|key| {
            encode(&[b"SET", key_name(key).as_bytes(), &value(&mut rng, settings)], &mut out);
        });
        stream.write_all(&out)?;
        read_oks(&mut stream, &mut replies[..5 * count])?;
    }
    Ok(())
}

fn key_name(key: usize) -> String {
    format!("key:{key:012}")
}

/// As many replies as fit into the buffer; all are `+OK`.
fn read_oks(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<()> {
    stream.read_exact(buffer)?;
    if buffer.chunks(5).all(|reply| reply == b"+OK\r\n") {
        return Ok(());
    }
    Err(io::Error::other(format!("a reply was no OK: {}", buffer.escape_ascii())))
}

/// Latencies without and during the snapshot.
fn write_steadily(
    addr: &str,
    seed: u64,
    begin: Instant,
    settings: &Settings,
    phase: &AtomicUsize,
) -> io::Result<[Vec<Duration>; 2]> {
    let pipeline = pipeline(settings);
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    let (mut out, mut replies) = (Vec::new(), vec![0; 5 * pipeline]);
    let mut latencies = [Vec::new(), Vec::new()];
    let mut due = begin;
    loop {
        out.clear();
        for _ in 0..pipeline {
            let key = key_name(rng.random_range(0..settings.keys));
            encode(&[b"SET", key.as_bytes(), &value(&mut rng, settings)], &mut out);
        }
        thread::sleep(due.saturating_duration_since(Instant::now()));
        stream.write_all(&out)?;
        read_oks(&mut stream, &mut replies)?;
        match phase.load(Ordering::Relaxed) {
            WARMING => {}
            OVER => return Ok(latencies),
            number => latencies[number - WITHOUT].push(due.elapsed()),
        }
        due += PERIOD;
    }
}

fn call(connection: &mut Connection, words: &[&str]) -> Result<String, String> {
    connection.call(words).map(|reply| reply.string()).map_err(|e| format!("{}: {e}", words.join(" ")))
}

fn used_memory(admin: &mut Connection) -> Result<u64, String> {
    let info = call(admin, &["INFO", "memory"])?;
    let field = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
    field.and_then(|value| value.trim().parse().ok()).ok_or_else(|| "no used_memory in INFO".to_owned())
}

/// Resident bytes of a process, and those that its children do not share with it.
fn memory(pid: u32) -> u64 {
    let own = field(&format!("/proc/{pid}/status"), &["VmRSS:"]);
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let private = ["Private_Clean:", "Private_Dirty:"];
    let of_child = |child: &str| field(&format!("/proc/{child}/smaps_rollup"), &private);
    own + children.split_whitespace().map(of_child).sum::<u64>()
}

/// The sum of these fields, which are in kilobytes.
fn field(file: &str, names: &[&str]) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let value = |line: &str| {
        let rest = names.iter().find_map(|name| line.strip_prefix(name))?;
        rest.trim().trim_end_matches(" kB").parse::<u64>().ok()
    };
    text.lines().filter_map(value).sum::<u64>() * 1024
}

fn report(results: &[Outcome], settings: &Settings) -> String {
    let mut text = String::new();
    let Settings { keys, value_len, writes_per_second, .. } = settings;
    writeln!(
        text,
        "{keys} keys, {value_len}-byte values, {writes_per_second} SETs per second wanted ({CONNECTIONS} \
         connections, pipelines of {}), {} cores\n",
        pipeline(settings),
        thread::available_parallelism().map_or(0, usize::from)
    )
    .expect("a string");
    text.push_str(
        "| | data MB | extra used MB | extra RSS MB | extra, of data | p99.9 ms without / during | ratio | \
         longest ms without / during | BGSAVE s | file MB | SETs/s |\n|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for r in results {
        let mb = |bytes: u64| bytes as f64 / 1e6;
        let (without, during) = (r.without.ms(0.999), r.during.ms(0.999));
        writeln!(
            text,
            "| {} | {:.0} | {:.1} | {:.1} | {:.1} % | {without:.2} / {during:.2} | {:.2} | {:.1} / {:.1} | {:.1} | \
             {:.0} | {:.0} |",
            r.name,
            mb(r.data),
            mb(r.extra_used),
            mb(r.extra_rss),
            r.extra_used.max(r.extra_rss) as f64 * 100.0 / r.data as f64,
            during / without,
            r.without.ms(1.0),
            r.during.ms(1.0),
            r.duration.as_secs_f64(),
            mb(r.file),
            r.writes_per_second
        )
        .expect("a string");
    }
    text
}

//! How well eviction and expiry do, beside the real Valkey in the same run.
//!
//! **Hit rate.** A cache under a Zipf load: GET, and SET after a miss. Both servers get the `maxmemory` that the same
//! number of keys took in them before, so that what is compared is which keys they keep, not how small they are; and
//! the same pace, because recency is known to the second. The first half of the requests only warms up.
//!
//! **Expiry.** Many keys with the same expiry, and a client that goes on meanwhile: how long after that time the last
//! one is gone, and how long the client's commands took.
#![allow(clippy::disallowed_methods, reason = "a shell: drives sockets and measures time")]

use std::fmt::Write;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::processes::Server;
use crate::programs;
use crate::resp_client::{Connection, Frame, encode};

/// What to measure.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Keys that are asked for.
    pub keys: usize,
    /// Keys for which there is room.
    pub resident: usize,
    pub requests: usize,
    /// Requests in a second.
    pub pace: usize,
    /// The exponent of Zipf's law.
    pub skew: f64,
    pub value_len: usize,
    pub policies: Vec<String>,
    /// Keys that expire together; zero: leave that out.
    pub expiring: usize,
    pub io_threads: usize,
}

const PIPELINE: usize = 64;

/// A Markdown table.
pub fn run(settings: &Settings) -> Result<String, String> {
    let valkey_dir = programs::valkey()?;
    let threads = settings.io_threads.to_string();
    let args = ["--io-threads", &threads];
    let start = |keyward: bool| {
        if keyward { Server::keyward(&args) } else { Server::valkey(&valkey_dir, &args) }
    };
    let mut text = String::new();
    if !settings.policies.is_empty() {
        let Settings { keys, resident, requests, pace, skew, .. } = settings;
        line(
            &mut text,
            &format!(
                "Zipf {skew}, {keys} keys, room for {resident}, {requests} requests at {pace}/s, Keyward / Valkey\n"
            ),
        );
        line(
            &mut text,
            "| policy | hit rate % | ratio | keys kept | used_memory at most / maxmemory | evicted |",
        );
        line(&mut text, "|---|---|---|---|---|---|");
    }
    for policy in &settings.policies {
        let [ours, theirs] = [start(true)?, start(false)?].map(|server| hit_rate(&server, policy, settings));
        let (ours, theirs) = (ours?, theirs?);
        line(
            &mut text,
            &format!(
                "| {policy} | {:.2} / {:.2} | {:.4} | {} / {} | {:.4} / {:.4} | {} / {} |",
                ours.hit_rate * 100.0,
                theirs.hit_rate * 100.0,
                ours.hit_rate / theirs.hit_rate,
                ours.kept,
                theirs.kept,
                ours.used_share,
                theirs.used_share,
                ours.evicted,
                theirs.evicted,
            ),
        );
    }
    if 0 < settings.expiring {
        line(&mut text, &format!("\n{} keys that expire together\n", settings.expiring));
        line(&mut text, "| server | gone after s | other client p50 ms | p99.9 ms | max ms | CPU s |");
        line(&mut text, "|---|---|---|---|---|---|");
        for (name, keyward) in [("Keyward", true), ("Valkey", false)] {
            let expiry = expiry(&start(keyward)?, settings.expiring)?;
            let at = |share: f64| {
                expiry.latencies[((expiry.latencies.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3
            };
            line(
                &mut text,
                &format!(
                    "| {name} | {:.2} | {:.3} | {:.3} | {:.3} | {:.2} |",
                    expiry.gone_after.as_secs_f64(),
                    at(0.5),
                    at(0.999),
                    at(1.0),
                    expiry.cpu.as_secs_f64(),
                ),
            );
        }
    }
    Ok(text)
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("a string");
}

/// Draws numbers by Zipf's law: the n-th with a probability of 1 / n^skew.
#[derive(Debug)]
pub struct Zipf(Vec<f64>);

impl Zipf {
    pub fn new(count: usize, skew: f64) -> Self {
        let mut sum = 0.0;
        Self(
            (1..=count)
                .map(|n| {
                    sum += (n as f64).powf(-skew);
                    sum
                })
                .collect(),
        )
    }

    pub fn draw(&self, rng: &mut impl Rng) -> usize {
        let total = self.0.last().copied().unwrap_or(0.0);
        let drawn = rng.random::<f64>() * total;
        self.0.partition_point(|sum| *sum <= drawn)
    }
}

#[derive(Debug)]
struct Cached {
    hit_rate: f64,
    kept: i64,
    /// The largest `used_memory` that was seen, as a part of `maxmemory`.
    used_share: f64,
    evicted: u64,
}

fn hit_rate(server: &Server, policy: &str, settings: &Settings) -> Result<Cached, String> {
    let mut connection = Connection::connect(&server.addr()).map_err(|e| e.to_string())?;
    let value = vec![b'x'; settings.value_len];
    // How much memory does so many keys need?
    let mut pipeline = Pipeline::new(&mut connection);
    for key in 0..settings.resident {
        pipeline.send(&[b"SET", name(settings.keys + key).as_bytes(), &value])?;
    }
    pipeline.finish()?;
    // The figure may be some milliseconds old.
    let maxmemory = settled_used_memory(&mut connection)?;
    ok(connection.call(&["FLUSHALL", "SYNC"]))?;
    let flushed = |connection: &mut Connection| field(connection, "memory", "lazyfree_pending_objects");
    while flushed(&mut connection)? != 0 {
        std::thread::sleep(Duration::from_millis(10));
    }
    ok(connection.call(&["CONFIG", "SET", "maxmemory", &maxmemory.to_string(), "maxmemory-policy", policy]))?;
    let zipf = Zipf::new(settings.keys, settings.skew);
    let mut rng = SmallRng::seed_from_u64(1);
    let (mut hits, mut asked, mut used_max) = (0_usize, 0_usize, 0);
    let start = Instant::now();
    for batch in 0..settings.requests / PIPELINE {
        let keys: Vec<String> = (0..PIPELINE).map(|_| name(zipf.draw(&mut rng))).collect();
        for key in &keys {
            connection.send(&["GET", key]);
        }
        let mut missed = Vec::new();
        for key in &keys {
            if ok(connection.reply())?.is_null() {
                missed.push(key);
            }
        }
        for key in &missed {
            connection.send(&[b"SET", key.as_bytes(), &value]);
        }
        for _ in &missed {
            ok(connection.reply())?;
        }
        if settings.requests / PIPELINE / 2 <= batch {
            hits += PIPELINE - missed.len();
            asked += PIPELINE;
        }
        if batch % 512 == 0 {
            used_max = used_memory(&mut connection)?.max(used_max);
        }
        let due = Duration::from_secs_f64(((batch + 1) * PIPELINE) as f64 / settings.pace as f64);
        std::thread::sleep(due.saturating_sub(start.elapsed()));
    }
    Ok(Cached {
        hit_rate: hits as f64 / asked.max(1) as f64,
        kept: ok(connection.call(&["DBSIZE"]))?.integer().unwrap_or(0),
        used_share: used_max as f64 / maxmemory as f64,
        evicted: field(&mut connection, "stats", "evicted_keys")?,
    })
}

/// Scattered, so that the popular keys are not neighbours in any sense.
fn name(key: usize) -> String {
    format!("key:{:016x}", (key as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn used_memory(connection: &mut Connection) -> Result<u64, String> {
    field(connection, "memory", "used_memory")
}

/// Waits until two readings are about the same: tables that are being resized need memory twice.
fn settled_used_memory(connection: &mut Connection) -> Result<u64, String> {
    let mut before = 0;
    for _ in 0..50 {
        let now = used_memory(connection)?;
        if now.abs_diff(before) < now / 10_000 {
            return Ok(now);
        }
        before = now;
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(before)
}

fn field(connection: &mut Connection, section: &str, field: &str) -> Result<u64, String> {
    let info = ok(connection.call(&["INFO", section]))?.string();
    let value = info.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':')?.trim().parse().ok());
    value.ok_or_else(|| format!("no {field} in INFO {section}"))
}

fn ok(reply: crate::resp_client::Reply) -> Result<Frame, String> {
    let frame = reply.map_err(|e| e.to_string())?;
    if frame.is_error() { Err(frame.to_string()) } else { Ok(frame) }
}

/// Commands of which some are always under way.
struct Pipeline<'a> {
    connection: &'a mut Connection,
    buffer: Vec<u8>,
    sent: usize,
}

impl<'a> Pipeline<'a> {
    fn new(connection: &'a mut Connection) -> Self {
        Pipeline { connection, buffer: Vec::new(), sent: 0 }
    }

    fn send(&mut self, args: &[&[u8]]) -> Result<(), String> {
        encode(args, &mut self.buffer);
        self.sent += 1;
        if self.sent == 1024 { self.finish() } else { Ok(()) }
    }

    fn finish(&mut self) -> Result<(), String> {
        self.connection.send_raw(&self.buffer);
        self.buffer.clear();
        for _ in 0..std::mem::take(&mut self.sent) {
            ok(self.connection.reply())?;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Expiry {
    gone_after: Duration,
    /// Of the other client, sorted.
    latencies: Vec<Duration>,
    /// Of the server, from the time of the expiry on.
    cpu: Duration,
}

const EXPIRY_DEADLINE: Duration = Duration::from_secs(60);

fn expiry(server: &Server, count: usize) -> Result<Expiry, String> {
    let mut connection = Connection::connect(&server.addr()).map_err(|e| e.to_string())?;
    let since_epoch = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // When they are all there they should have a second left; a slow machine needs longer to write them.
    let mut at = Duration::ZERO;
    for micros_per_key in [5, 10, 20, 40, 80] {
        at = since_epoch() + Duration::from_micros(count as u64 * micros_per_key) + Duration::from_secs(1);
        let at_text = at.as_millis().to_string();
        let mut pipeline = Pipeline::new(&mut connection);
        for key in 0..count {
            pipeline.send(&[
                b"SET",
                name(key).as_bytes(),
                b"0123456789abcdef",
                b"PXAT",
                at_text.as_bytes(),
            ])?;
        }
        pipeline.finish()?;
        if since_epoch() < at {
            break;
        }
    }
    let kept = ok(connection.call(&["DBSIZE"]))?.integer().unwrap_or(0);
    if kept != count as i64 {
        return Err(format!("{kept} of {count} keys are there when they are to expire"));
    }
    std::thread::sleep(at.saturating_sub(since_epoch()));
    let (cpu, start) = (server.cpu_time(), Instant::now());
    let (mut latencies, mut looked) = (Vec::new(), start);
    loop {
        for command in [&["SET", "other", "x"][..], &["GET", "other"]] {
            let sent = Instant::now();
            ok(connection.call(command))?;
            latencies.push(sent.elapsed());
        }
        // DBSIZE is not part of the load, and not too often.
        if looked.elapsed() < Duration::from_millis(20) {
            continue;
        }
        looked = Instant::now();
        if ok(connection.call(&["DBSIZE"]))?.integer() == Some(1) {
            break;
        }
        if EXPIRY_DEADLINE < start.elapsed() {
            return Err("the keys do not go".into());
        }
    }
    let gone_after = start.elapsed();
    latencies.sort();
    Ok(Expiry { gone_after, latencies, cpu: server.cpu_time() - cpu })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zipf_law_is_followed() {
        let zipf = Zipf::new(1000, 1.0);
        let mut rng = SmallRng::seed_from_u64(1);
        let mut counts = vec![0; 1000];
        (0..100_000).for_each(|_| counts[zipf.draw(&mut rng)] += 1);
        let ratio = f64::from(counts[0]) / f64::from(counts[9]);
        assert!((8.0..12.5).contains(&ratio), "{ratio}");
    }
}

//! A load generator: some connections, each with one pipeline of GETs or SETs in flight, closed loop.
//!
//! `valkey-benchmark` remains the reference for plain commands. This one can also end each pipeline with
//! `WAIT 1 0`, which is how a Valkey client gets what Keyward's acknowledgement means, and it fills a keyspace.
//! It runs on one thread, as `valkey-benchmark` does by default, with the same key names and sizes.
#![allow(clippy::disallowed_methods, reason = "a shell: drives sockets and measures time")]

use std::io;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::resp_client::{encode, split_frame};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Get,
    Set,
}

/// What to send.
#[derive(Clone, Debug)]
pub struct Load {
    pub command: Command,
    pub connections: usize,
    pub pipeline: usize,
    /// Commands in all, WAIT not counted.
    pub requests: usize,
    pub value_len: usize,
    pub keys: usize,
    /// End each pipeline with `WAIT replicas 0`.
    pub wait_for_replicas: Option<usize>,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    pub requests: usize,
    pub elapsed: Duration,
    /// Time from sending a pipeline to its last reply, sorted.
    pub latencies: Vec<Duration>,
    /// Replies that were errors, and WAITs that came back with too few replicas.
    pub failures: usize,
}

impl Measured {
    pub fn throughput(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64()
    }

    /// The latency that this share of the pipelines did not exceed.
    pub fn latency(&self, share: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get((last as f64 * share) as usize).copied().unwrap_or_default()
    }
}

impl Load {
    /// Sends everything, on a runtime of its own.
    pub fn run(&self, addr: &str) -> io::Result<Measured> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.drive(addr))
    }

    async fn drive(&self, addr: &str) -> io::Result<Measured> {
        let mut tasks = JoinSet::new();
        let batches = self.requests.div_ceil(self.pipeline * self.connections);
        let start = Instant::now();
        for seed in 0..self.connections {
            let load = self.clone();
            let stream = TcpStream::connect(addr).await?;
            stream.set_nodelay(true)?;
            tasks.spawn(async move { load.connection(stream, seed as u64, batches).await });
        }
        let mut measured = Measured::default();
        while let Some(done) = tasks.join_next().await {
            let one = done.map_err(io::Error::other)??;
            measured.requests += one.requests;
            measured.failures += one.failures;
            measured.latencies.extend(one.latencies);
        }
        measured.elapsed = start.elapsed();
        measured.latencies.sort();
        Ok(measured)
    }

    async fn connection(&self, mut stream: TcpStream, seed: u64, batches: usize) -> io::Result<Measured> {
        let mut rng = SmallRng::seed_from_u64(seed);
        let value = vec![b'x'; self.value_len];
        let mut measured = Measured::default();
        let mut out = Vec::new();
        let mut buffer = BytesMut::new();
        for _ in 0..batches {
            out.clear();
            for _ in 0..self.pipeline {
                self.command(rng.random_range(0..self.keys), &value, &mut out);
            }
            if let Some(replicas) = self.wait_for_replicas {
                encode(&["WAIT", &replicas.to_string(), "0"], &mut out);
            }
            let sent = Instant::now();
            stream.write_all(&out).await?;
            measured.failures += self.replies(&mut stream, &mut buffer).await?;
            measured.latencies.push(sent.elapsed());
            measured.requests += self.pipeline;
        }
        Ok(measured)
    }

    fn command(&self, key: usize, value: &[u8], out: &mut Vec<u8>) {
        let key = key_name(key);
        match self.command {
            Command::Get => encode(&[b"GET", key.as_bytes()], out),
            Command::Set => encode(&[b"SET", key.as_bytes(), value], out),
        }
    }

    /// Reads one pipeline's replies; how many of them were not what was asked for.
    async fn replies(&self, stream: &mut TcpStream, buffer: &mut BytesMut) -> io::Result<usize> {
        let mut missing = self.pipeline + usize::from(self.wait_for_replicas.is_some());
        let mut failures = 0;
        while 0 < missing {
            let Some(reply) = split_frame(buffer).map_err(io::Error::other)? else {
                if stream.read_buf(buffer).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                continue;
            };
            missing -= 1;
            let wanted = self.wait_for_replicas.filter(|_| missing == 0);
            let too_few = wanted.is_some_and(|replicas| reply.integer() < i64::try_from(replicas).ok());
            failures += usize::from(reply.is_error() || too_few);
        }
        Ok(failures)
    }
}

/// The name that `valkey-benchmark` gives to its keys.
fn key_name(key: usize) -> String {
    format!("key:{key:012}")
}

/// Sets every key of the keyspace once.
pub fn fill(addr: &str, keys: usize, value_len: usize) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        const BATCH: usize = 1000;
        let value = vec![b'x'; value_len];
        let mut stream = TcpStream::connect(addr).await?;
        let mut buffer = BytesMut::new();
        for first in (0..keys).step_by(BATCH) {
            let batch = first..(first + BATCH).min(keys);
            let load = Load {
                command: Command::Set,
                connections: 1,
                pipeline: batch.len(),
                requests: batch.len(),
                value_len,
                keys,
                wait_for_replicas: None,
            };
            let mut out = Vec::new();
            batch.for_each(|key| load.command(key, &value, &mut out));
            stream.write_all(&out).await?;
            let failures = load.replies(&mut stream, &mut buffer).await?;
            if 0 < failures {
                return Err(io::Error::other(format!("{failures} of {BATCH} SETs failed")));
            }
        }
        Ok(())
    })
}

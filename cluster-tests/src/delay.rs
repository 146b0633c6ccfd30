//! Delays packets between the hosts of a bridge: `iptables` hands them to a queue (NFQUEUE), from which a thread lets
//! them go later.
//!
//! The delay wanders within its range, as it does in a network with queues: packets stay in order, and delays of
//! neighbours are alike. Nothing is looked at or changed. Needs root, `iptables`, and a kernel with NFQUEUE and
//! `br_netfilter`.
#![allow(clippy::disallowed_methods, reason = "a shell: sleeps")]

use std::collections::VecDeque;
use std::fs;
use std::io::ErrorKind;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nfq::{Message, Queue, Verdict};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::hosts::{Hosts, run};

/// How often another delay is chosen.
const WANDER: Duration = Duration::from_millis(50);
const POLL: Duration = Duration::from_micros(500);
/// Packets under way.
const QUEUE_LEN: u32 = 200_000;
/// Whether bridged packets pass `iptables`.
const BRIDGED: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// Packets are delayed as long as this lives.
#[derive(Debug)]
pub struct Delay {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), String>>>,
    rule: Vec<String>,
}

impl Delay {
    /// Delays every packet between hosts by a time within `range` (milliseconds).
    ///
    /// # Errors
    /// What `iptables` or the kernel say.
    pub fn start(hosts: &Hosts, range: RangeInclusive<u64>, seed: u64) -> Result<Self, String> {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let Hosts::Namespaces(network) = hosts else {
            return Err("packets on the loopback address cannot be delayed".into());
        };
        let process = u16::try_from(std::process::id() % 30_000).expect("it is small");
        let number = process * 2 + NEXT.fetch_add(1, Ordering::Relaxed) % 2;
        if fs::read(BRIDGED).is_ok_and(|value| !value.starts_with(b"1")) {
            fs::write(BRIDGED, "1").map_err(|e| format!("{BRIDGED}: {e}"))?;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, opened) = mpsc::channel();
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || match open(number) {
            Ok(queue) => {
                drop(sender.send(Ok(())));
                forward(queue, number, range, &stopped, SmallRng::seed_from_u64(seed))
            }
            Err(error) => {
                drop(sender.send(Err(format!("NFQUEUE: {error}"))));
                Ok(())
            }
        });
        opened.recv().map_err(|_| "the queue's thread has ended")??;
        let bridge = network.bridge();
        let rule = ["FORWARD", "-i", &bridge, "-o", &bridge, "-j", "NFQUEUE", "--queue-num"];
        let mut rule: Vec<String> = rule.map(str::to_owned).to_vec();
        rule.extend([number.to_string(), "--queue-bypass".to_owned()]);
        let delay = Delay { stop, thread: Some(thread), rule };
        delay.iptables("-I")?;
        Ok(delay)
    }

    fn iptables(&self, action: &str) -> Result<(), String> {
        let mut args = vec!["-w", action];
        args.extend(self.rule.iter().map(String::as_str));
        run("iptables", &args)
    }
}

impl Delay {
    /// Lets packets go at once again.
    ///
    /// # Errors
    /// Why they were not delayed all the time.
    pub fn end(mut self) -> Result<(), String> {
        self.stop()
    }

    fn stop(&mut self) -> Result<(), String> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        // The rule first: a rule without a queue lets packets pass, a queue without a reader keeps them.
        let removed = self.iptables("-D");
        self.stop.store(true, Ordering::Relaxed);
        thread.join().map_err(|_| "the queue's thread has panicked".to_owned())?.and(removed)
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("{error}");
        }
    }
}

fn open(number: u16) -> std::io::Result<Queue> {
    let mut queue = Queue::open()?;
    queue.bind(number)?;
    queue.set_copy_range(number, 0)?;
    queue.set_queue_max_len(number, QUEUE_LEN)?;
    queue.set_recv_gso(number, true)?;
    queue.set_fail_open(number, true)?;
    queue.set_nonblocking(true);
    Ok(queue)
}

/// Lets packets go when they are due; at the end all that are left.
fn forward(
    mut queue: Queue,
    number: u16,
    range: RangeInclusive<u64>,
    stop: &AtomicBool,
    mut rng: SmallRng,
) -> Result<(), String> {
    let mut result = Ok(());
    let mut waiting: VecDeque<(Instant, Message)> = VecDeque::new();
    let mut chosen = (Instant::now(), Duration::from_millis(rng.random_range(range.clone())));
    let release = |queue: &mut Queue, mut message: Message| {
        message.set_verdict(Verdict::Accept);
        // A packet of a host that is gone.
        drop(queue.verdict(message));
    };
    while !stop.load(Ordering::Relaxed) {
        let mut is_idle = true;
        match queue.recv() {
            Ok(message) => {
                is_idle = false;
                let now = Instant::now();
                if WANDER <= now - chosen.0 {
                    chosen = (now, Duration::from_millis(rng.random_range(range.clone())));
                }
                let due = now + chosen.1;
                let due = waiting.back().map_or(due, |(last, _)| due.max(*last));
                waiting.push_back((due, message));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // A packet was gone when its verdict came, as when its interface is taken down.
            Err(error) if error.kind() == ErrorKind::NotFound => is_idle = false,
            Err(error) => {
                result = Err(format!("the delay of packets ended: {error}"));
                break;
            }
        }
        while waiting.front().is_some_and(|(due, _)| *due <= Instant::now()) {
            let (_, message) = waiting.pop_front().expect("just seen");
            release(&mut queue, message);
        }
        if is_idle {
            thread::sleep(POLL);
        }
    }
    waiting.into_iter().for_each(|(_, message)| release(&mut queue, message));
    drop(queue.unbind(number));
    result
}

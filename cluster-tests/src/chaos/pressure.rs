//! Load beside the recorded clients: connections that send pipelines as fast as they are answered.
#![allow(clippy::disallowed_methods, reason = "a shell: runs clients")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::resp_client::{Connection, encode};

const PIPELINE: usize = 32;
const KEYS: u32 = 20_000;
const VALUE: [u8; 64] = [b'x'; 64];
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    answered: AtomicU64,
}

/// Running connections.
#[derive(Debug)]
pub struct Pressure {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Pressure {
    /// Each connection looks for a node that serves it.
    pub fn start(addrs: &Arc<RwLock<Vec<String>>>, connections: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let threads = (0..connections)
            .map(|number| {
                let (shared, addrs) = (shared.clone(), addrs.clone());
                thread::spawn(move || {
                    let mut rng = SmallRng::seed_from_u64(number as u64);
                    let mut at = number;
                    while !shared.stop.load(Ordering::Relaxed) {
                        let addr = {
                            let addrs = addrs.read().expect("nobody panics with this lock");
                            addrs[at % addrs.len()].clone()
                        };
                        drive(&shared, &addr, &mut rng);
                        at += 1;
                        thread::sleep(PAUSE);
                    }
                })
            })
            .collect();
        Pressure { shared, threads }
    }

    /// Commands that were answered without an error.
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Ends the connections; returns the number of answers.
    pub fn stop(self) -> u64 {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("no connection panics");
        }
        self.shared.answered.load(Ordering::Relaxed)
    }
}

/// Pipelines until a whole one is refused, or the connection breaks. Of several shards a node serves a part of the
/// keys.
fn drive(shared: &Shared, addr: &str, rng: &mut SmallRng) {
    let Ok(mut connection) = Connection::connect_within(addr, PATIENCE) else { return };
    let mut requests = Vec::new();
    while !shared.stop.load(Ordering::Relaxed) {
        requests.clear();
        for _ in 0..PIPELINE {
            let key = format!("load:{}", rng.random_range(0..KEYS));
            if rng.random_bool(0.5) {
                encode(&[b"SET".as_slice(), key.as_bytes(), &VALUE], &mut requests);
            } else {
                encode(&[b"GET".as_slice(), key.as_bytes()], &mut requests);
            }
        }
        connection.send_raw(&requests);
        let mut answered = 0;
        for _ in 0..PIPELINE {
            match connection.reply() {
                Ok(reply) => answered += u64::from(!reply.is_error()),
                Err(_) => return,
            }
        }
        shared.answered.fetch_add(answered, Ordering::Relaxed);
        if answered == 0 {
            return;
        }
    }
}

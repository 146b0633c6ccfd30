//! Values of 10 to 60 MB, written one after another while other clients go on: what was acknowledged has to be there in
//! the end. Then they are deleted, for the disks are small.
#![allow(clippy::disallowed_methods, reason = "a shell: runs a client")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::client::{ClusterClient, Outcome};

/// How long the client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(50);
/// By then everything can be read and deleted.
const DEADLINE: Duration = Duration::from_secs(30);
const VALUES_MAX: u64 = 2;

/// A client that writes.
#[derive(Debug)]
pub(super) struct LargeValues {
    stop: Arc<AtomicBool>,
    client: JoinHandle<Result<(), String>>,
}

impl LargeValues {
    pub(super) fn start(addrs: Arc<RwLock<Vec<String>>>, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = stop.clone();
        let client = thread::spawn(move || write(ClusterClient::new(addrs, PATIENCE), seed, &is_over));
        LargeValues { stop, client }
    }

    /// # Errors
    /// An acknowledged value is gone, or cannot be read or deleted.
    pub(super) fn end(self) -> Result<(), String> {
        self.stop.store(true, Ordering::Relaxed);
        self.client.join().map_err(|_| "the client of large values panicked".to_owned())?
    }
}

fn write(mut client: ClusterClient, seed: u64, stop: &AtomicBool) -> Result<(), String> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut sent = Vec::new();
    for n in 0..VALUES_MAX {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (key, length) = (format!("large:{seed}:{n}"), rng.random_range(10..=60) << 20);
        let value = "x".repeat(length);
        let is_acknowledged = matches!(client.call(&key, &["SET", &key, &value]), Outcome::Answered(_));
        sent.push((key, length, is_acknowledged));
        thread::sleep(PAUSE);
    }
    let end = Instant::now() + DEADLINE;
    for (key, length, is_acknowledged) in sent {
        let found = ask(&mut client, end, &key, &["STRLEN", &key])?;
        if is_acknowledged && usize::try_from(found) != Ok(length) {
            return Err(format!("{key} was acknowledged with {length} bytes, and has {found}"));
        }
        ask(&mut client, end, &key, &["DEL", &key])?;
    }
    Ok(())
}

fn ask(client: &mut ClusterClient, end: Instant, key: &str, command: &[&str]) -> Result<i64, String> {
    while Instant::now() < end {
        if let Outcome::Answered(frame) = client.call(key, command)
            && let Some(number) = frame.integer()
        {
            return Ok(number);
        }
        thread::sleep(PAUSE);
    }
    Err(format!("{}: no answer", command.join(" ")))
}

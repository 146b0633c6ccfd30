//! What happens by itself: keys expire, idle clients are closed.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::clock;
use crate::execute::Executor;
use crate::server::Server;

/// How often slots are looked at for keys that have expired.
const EXPIRE_EVERY: Duration = Duration::from_millis(100);

/// Runs until the program ends.
pub async fn run(server: Arc<Server>) {
    let mut executor = Executor::new(Arc::clone(&server));
    server.memory_startup.store(crate::process::allocated(), Ordering::Relaxed);
    let mut interval = tokio::time::interval(EXPIRE_EVERY);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let paused = !server.pause.is_over(clock::unix_millis().0);
        if !paused && server.active_expire.load(Ordering::Relaxed) {
            executor.expire_cycle();
        }
        close_idle_clients(&server);
        server.rates.sample(clock::unix_millis().0, &server.stats);
        server.memory_peak.fetch_max(crate::process::allocated(), Ordering::Relaxed);
    }
}

fn close_idle_clients(server: &Server) {
    let Some(timeout) = server.settings().timeout else { return };
    let oldest = clock::unix_millis().0 - i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX);
    for client in server.clients.all() {
        let d = client.description.lock();
        let waits = d.blocked || d.channels + d.patterns + d.sharded > 0;
        if !waits && client.last_interaction.load(Ordering::Relaxed) < oldest {
            client.kill();
        }
    }
}

//! What happens by itself: keys expire, memory is measured and kept within its limit, clients are closed that idle, do
//! not read what they are sent, or take too much memory.
//!
//! What needs keys has a thread of its own (`keep_keyspace`): a command may hold their slots for as long as it takes, and
//! nothing on the control runtime waits for that.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use keyward_proto::time::Monotonic;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::clock;
use crate::execute::{Eviction, Executor, ExpiryCycle};
use crate::observe::latency::Sample;
use crate::server::Server;
use crate::stats::ThreadStats;

/// How often slots are looked at for keys that have expired, while there is no more to do.
const REGULAR: Duration = Duration::from_millis(100);
/// How often the memory in use is looked at while it is limited.
const MEMORY: Duration = Duration::from_millis(10);
/// How long to rest between two bursts of work that is due.
const REST: Duration = Duration::from_millis(1);
/// How long one burst of expiry may be; each step of `active-expire-effort` adds a part of it.
const EXPIRE_MAX: Duration = Duration::from_millis(2);
/// How long one burst of eviction may be.
const EVICT_MAX: Duration = Duration::from_millis(1);

/// Starts what runs until the program ends; call it on the control runtime.
///
/// # Errors
/// The system refuses a thread.
pub(crate) fn start(server: &Arc<Server>) -> std::io::Result<()> {
    let keeper = Arc::clone(server);
    std::thread::Builder::new().name("keyspace".into()).spawn(move || keep_keyspace(&keeper))?;
    tokio::spawn(run(Arc::clone(server)));
    Ok(())
}

/// Whatever needs no key.
async fn run(server: Arc<Server>) {
    let stats = server.stats.add_thread();
    let mut over_soft_limit = OverSoftLimit::default();
    let mut oom_score = crate::process::OomScoreOfProcess::default();
    server.memory.set_startup(crate::process::allocated());
    let (mut regular, mut memory) = (clock::monotonic(), clock::monotonic());
    let mut corrected = 0;
    loop {
        let now = clock::monotonic();
        let is_regular = regular <= now;
        let settings = server.settings();
        if is_regular {
            regular = now + REGULAR;
            server.saves.tick(&server);
            server.aof.tick(&server);
            close_idle_clients(&server, now);
            let closed = close_slow_readers(&server, &mut over_soft_limit, now);
            stats.output_buffer_disconnections.add(closed);
            server.stats.rates.sample(now, &server.stats);
            oom_score.apply(settings.oom_scores().map(|scores| scores.of(server.shared.gate.state())));
        }
        if is_regular || memory <= now {
            memory = now + MEMORY;
            // The allocator's total is not free: an idle server is measured now and then.
            if is_regular || server.memory.figure() != corrected {
                server.correct_memory();
                corrected = server.memory.figure();
            }
            server.memory.watch_limit(settings.maxmemory, now);
            limit_clients(&server, settings.maxmemory_clients(), &stats);
        }
        let limits_memory = settings.maxmemory != 0 || settings.maxmemory_clients() != 0;
        let next = if limits_memory { regular.min(memory) } else { regular };
        tokio::time::sleep(clock::until(next).max(REST)).await;
    }
}

/// Keys expire and are evicted: on a thread of its own, as it waits for slots that commands hold, and for commands that
/// keep the world from being stopped.
fn keep_keyspace(server: &Arc<Server>) {
    let mut executor = Executor::new(Arc::clone(server), SmallRng::from_os_rng());
    let (mut expire_at, mut more_expires) = (clock::monotonic(), false);
    loop {
        let now = clock::monotonic();
        let settings = server.settings();
        let mut more_evictions = false;
        if server.pause.is_over(now) {
            more_evictions = executor.evict_cycle(EVICT_MAX) == Eviction::Running;
            note_latency(server, "eviction-cycle", now);
            let now = clock::monotonic();
            if (expire_at <= now || more_expires) && server.active_expire.load(Ordering::Relaxed) {
                let time_max = EXPIRE_MAX + EXPIRE_MAX / 2 * (settings.expire_effort - 1);
                more_expires = executor.expire_cycle(time_max) == ExpiryCycle::MoreDue;
                note_latency(server, "expire-cycle", now);
            }
        }
        executor.limit_tracked_keys();
        if expire_at <= now {
            expire_at = now + REGULAR;
        }
        let next = if settings.maxmemory == 0 { expire_at } else { expire_at.min(now + MEMORY) };
        std::thread::sleep(if more_expires || more_evictions { REST } else { clock::until(next).max(REST) });
    }
}

/// What has taken long since then is an event of the latency monitor.
fn note_latency(server: &Server, event: &'static str, since: Monotonic) {
    let elapsed = clock::monotonic().since(since);
    let threshold = server.settings().latency_threshold_millis;
    let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    if threshold != 0 && threshold <= millis {
        let unix_seconds = clock::unix_millis().0 / 1000;
        server.latency.note(event, Sample { unix_seconds, millis });
    }
}

fn close_idle_clients(server: &Server, now: Monotonic) {
    let Some(timeout) = server.settings().timeout else { return };
    for client in server.clients.all() {
        let d = client.description.lock();
        let waits = d.blocked || d.monitor || d.channels + d.patterns + d.sharded > 0;
        if !waits && timeout < client.idle(now) {
            client.kill();
        }
    }
}

/// Since when clients have been over the soft limit of their output, by their IDs.
type OverSoftLimit = HashMap<u64, Monotonic>;

/// Closes clients that have been over the soft limit of `client-output-buffer-limit` for too long. Returns how many.
fn close_slow_readers(server: &Server, over_since: &mut OverSoftLimit, now: Monotonic) -> u64 {
    let settings = server.settings();
    let (normal, pubsub) = (settings.output_limits.normal, settings.output_limits.pubsub);
    if normal.soft_bytes == 0 && pubsub.soft_bytes == 0 {
        over_since.clear();
        return 0;
    }
    let mut closed = 0;
    let mut over_still = OverSoftLimit::new();
    for client in server.clients.all() {
        let waiting = client.output_buffer_len.load(Ordering::Relaxed);
        if waiting <= normal.soft_bytes.min(pubsub.soft_bytes) {
            continue;
        }
        let subscriptions = {
            let d = client.description.lock();
            d.channels + d.patterns + d.sharded
        };
        let limit = settings.output_limits.of_client(subscriptions);
        if limit.soft_bytes == 0 || waiting <= limit.soft_bytes {
            continue;
        }
        let since = over_since.get(&client.id).copied().unwrap_or(now);
        over_still.insert(client.id, since);
        if Duration::from_secs(limit.soft_seconds) <= now.since(since) && since < now {
            tracing::warn!(
                client = client.id,
                "closed: over the soft limit of its output buffer for too long"
            );
            client.kill();
            closed += 1;
        }
    }
    *over_since = over_still;
    closed
}

/// `maxmemory-clients`: closes the clients that take most until all together take less. What those take that were
/// closed before is on its way to be freed.
fn limit_clients(server: &Server, limit: usize, stats: &ThreadStats) {
    if limit == 0 {
        return;
    }
    let mut clients: Vec<_> =
        server.clients.all().into_iter().map(|client| (client.memory_bytes(), client)).collect();
    let mut total: usize = clients.iter().map(|(bytes, _)| bytes).sum();
    if total <= limit {
        return;
    }
    clients.retain(|(_, client)| !client.description.lock().no_evict);
    clients.sort_unstable_by_key(|(bytes, _)| *bytes);
    while limit < total
        && let Some((bytes, client)) = clients.pop()
    {
        tracing::info!(client = client.id, bytes, "closed: clients take more than maxmemory-clients");
        client.kill();
        stats.evicted_clients.add(1);
        total -= bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestNode;

    #[test]
    fn a_client_is_closed_after_its_time_over_the_soft_limit() {
        let mut node = TestNode::with_arguments(&["--client-output-buffer-limit", "pubsub 0 1kb 2"]);
        node.run("SUBSCRIBE a");
        let client = Arc::clone(&node.session.client);
        let server = Arc::clone(node.executor.server());
        let mut over_since = OverSoftLimit::default();
        // (milliseconds, bytes that wait, whether it is closed now)
        for (now, waiting, closed) in [
            (1000, 2000, 0),
            (2999, 2000, 0),
            (3000, 1024, 0),
            (4000, 2000, 0),
            (5999, 2000, 0),
            (6000, 2000, 1),
        ] {
            client.output_buffer_len.store(waiting, Ordering::Relaxed);
            let at = Monotonic::ZERO + Duration::from_millis(now);
            assert_eq!(close_slow_readers(&server, &mut over_since, at), closed, "at {now}");
        }
        assert!(client.is_killed());
    }

    #[test]
    fn nobody_is_closed_for_what_a_closed_client_still_takes() {
        let node = TestNode::new();
        let others: Vec<TestNode> = (0..3).map(|_| node.another_client()).collect();
        let server = Arc::clone(node.executor.server());
        let stats = server.stats.add_thread();
        let take = |node: &TestNode, bytes: usize| {
            node.session.client.query_buffer_len.store(bytes, Ordering::Relaxed);
        };
        take(&node, 3_000_000);
        others.iter().for_each(|other| take(other, 200_000));
        for _ in 0..3 {
            limit_clients(&server, 1_000_000, &stats);
        }
        assert!(node.session.client.is_killed());
        assert!(others.iter().all(|other| !other.session.client.is_killed()));
        assert_eq!(stats.evicted_clients.get(), 1);
    }

    #[test]
    fn a_client_is_closed_after_its_timeout() {
        let mut node = TestNode::with_arguments(&["--timeout", "10"]);
        node.run("PING");
        let client = Arc::clone(&node.session.client);
        let server = Arc::clone(node.executor.server());
        let at = |seconds: u64| Monotonic::ZERO + Duration::from_secs(seconds);
        client.note_interaction(at(5));
        for (now, killed) in [(4, false), (15, false), (16, true)] {
            close_idle_clients(&server, at(now));
            assert_eq!(client.is_killed(), killed, "at {now}");
        }
    }

    #[test]
    fn without_a_soft_limit_nobody_is_closed() {
        let node = TestNode::with_arguments(&["--client-output-buffer-limit", "pubsub 0 1kb 0"]);
        let server = Arc::clone(node.executor.server());
        node.session.client.output_buffer_len.store(1 << 30, Ordering::Relaxed);
        let mut over_since = OverSoftLimit::default();
        for seconds in [1, 10_000] {
            let at = Monotonic::ZERO + Duration::from_secs(seconds);
            assert_eq!(close_slow_readers(&server, &mut over_since, at), 0);
        }
    }
}

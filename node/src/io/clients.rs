//! The connected clients as others see them: CLIENT LIST, CLIENT KILL, messages pushed from other threads.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use keyward_proto::resp::{HTTP_WARNING, HttpWarnings, Version};
use keyward_proto::time::Monotonic;
use keyward_proto::topology::Transport;
use keyward_replication::reply::ReplyCondition;
use keyward_store::DbIndex;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::acl::DEFAULT;
use crate::blocking::{Unblock, Waiter};
use crate::command::table::{ROWS, Row};

/// What CLIENT LIST shows; its connection's thread writes it when it changes.
#[derive(Debug, Clone, Default)]
pub struct Description {
    pub name: Box<[u8]>,
    pub lib_name: Box<[u8]>,
    pub lib_version: Box<[u8]>,
    pub user: Arc<[u8]>,
    pub db: DbIndex,
    pub version: Version,
    pub channels: usize,
    pub patterns: usize,
    pub sharded: usize,
    /// Commands queued by MULTI.
    pub multi: Option<usize>,
    /// Bytes of their arguments.
    pub multi_len_bytes: usize,
    pub watched: usize,
    pub readonly: bool,
    pub no_evict: bool,
    pub no_touch: bool,
    pub monitor: bool,
    /// CLIENT TRACKING.
    pub tracking: bool,
    pub broadcasts: bool,
    /// Who is told in its place, and whether that one is gone.
    pub redirect: Option<u64>,
    pub tracking_broken: bool,
    pub blocked: bool,
    pub capa_redirect: bool,
}

/// A message from another thread.
#[derive(Debug)]
pub struct Push {
    pub message: Bytes,
    /// A keyspace event tells of a write and leaves with it.
    pub condition: ReplyCondition,
}

/// Messages from other threads for one client, bounded by `client-output-buffer-limit pubsub`.
#[derive(Debug, Default)]
struct Pushes {
    queue: VecDeque<Push>,
    len_bytes: usize,
}

/// A connected client. Shared between its connection and whoever lists, kills or pushes to it.
#[derive(Debug)]
pub struct Client {
    pub id: u64,
    pub address: String,
    pub local_address: String,
    /// Which port it came to.
    pub transport: Transport,
    pub fd: AtomicI32,
    created_at: Monotonic,
    /// Nanoseconds, as of [`Monotonic`].
    last_interaction: AtomicU64,
    pub description: Mutex<Description>,
    /// Its number and one; zero before the first.
    last_command: AtomicUsize,
    pushes: Mutex<Pushes>,
    has_pushes: AtomicBool,
    killed: AtomicBool,
    close_after_reply: AtomicBool,
    /// It came by the administrators' port.
    is_administrator: AtomicBool,
    /// What the client waits for, for CLIENT UNBLOCK.
    pub waiter: Mutex<Option<Arc<Waiter>>>,
    pub query_buffer_len: AtomicUsize,
    pub output_buffer_len: AtomicUsize,
    pub net_in_bytes: AtomicU64,
    pub net_out_bytes: AtomicU64,
    pub commands: AtomicU64,
    /// Wakes the connection.
    pub wake: Arc<Notify>,
}

impl Client {
    fn new(
        id: u64,
        address: String,
        local_address: String,
        transport: Transport,
        now: Monotonic,
    ) -> Arc<Client> {
        Arc::new(Client {
            id,
            address,
            local_address,
            transport,
            fd: AtomicI32::new(-1),
            created_at: now,
            last_interaction: AtomicU64::new(now.as_nanos()),
            description: Mutex::new(Description { user: DEFAULT.into(), ..Description::default() }),
            last_command: AtomicUsize::new(0),
            pushes: Mutex::default(),
            has_pushes: AtomicBool::new(false),
            killed: AtomicBool::new(false),
            close_after_reply: AtomicBool::new(false),
            is_administrator: AtomicBool::new(false),
            waiter: Mutex::default(),
            query_buffer_len: AtomicUsize::new(0),
            output_buffer_len: AtomicUsize::new(0),
            net_in_bytes: AtomicU64::new(0),
            net_out_bytes: AtomicU64::new(0),
            commands: AtomicU64::new(0),
            wake: Arc::new(Notify::new()),
        })
    }

    /// In whose name effects of the log are applied: it is connected to nothing.
    pub fn detached() -> Arc<Client> {
        Client::new(0, String::new(), String::new(), Transport::Plain, Monotonic::ZERO)
    }

    pub fn age(&self, now: Monotonic) -> Duration {
        now.since(self.created_at)
    }

    #[inline]
    pub fn note_interaction(&self, now: Monotonic) {
        self.last_interaction.store(now.as_nanos(), Ordering::Relaxed);
    }

    /// How long ago it last sent something.
    pub fn idle(&self, now: Monotonic) -> Duration {
        now.since(Monotonic::from_nanos(self.last_interaction.load(Ordering::Relaxed)))
    }

    /// Queues a message. False: more than `limit_bytes` (0: no limit) would wait, and the client is closed because it
    /// does not read.
    #[must_use]
    pub fn push(&self, push: Push, limit_bytes: usize) -> bool {
        let mut pushes = self.pushes.lock();
        pushes.len_bytes += push.message.len();
        let waiting = pushes.len_bytes + self.output_buffer_len.load(Ordering::Relaxed);
        if limit_bytes != 0 && limit_bytes < waiting {
            let dropped = std::mem::take(&mut pushes.queue);
            drop(pushes);
            drop(dropped);
            tracing::warn!(client = self.id, "closed: it does not read its messages fast enough");
            self.kill();
            return false;
        }
        pushes.queue.push_back(push);
        self.has_pushes.store(true, Ordering::Release);
        drop(pushes);
        self.wake.notify_one();
        true
    }

    /// About what it takes, with what it has sent and what it has not yet received.
    pub fn memory_bytes(&self) -> usize {
        let buffers =
            self.query_buffer_len.load(Ordering::Relaxed) + self.output_buffer_len.load(Ordering::Relaxed);
        let queued = self.description.lock().multi_len_bytes + self.pushes.lock().len_bytes;
        size_of::<Client>() + buffers + queued
    }

    /// Messages that wait, oldest first.
    #[inline]
    pub fn take_pushes(&self) -> VecDeque<Push> {
        if !self.has_pushes.load(Ordering::Acquire) {
            return VecDeque::new();
        }
        let mut pushes = self.pushes.lock();
        self.has_pushes.store(false, Ordering::Release);
        pushes.len_bytes = 0;
        std::mem::take(&mut pushes.queue)
    }

    /// Closes the connection at once.
    pub fn kill(&self) {
        self.killed.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    pub fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Acquire)
    }

    /// The client kills itself: its connection is closed once the reply has left.
    pub fn kill_after_reply(&self) {
        self.close_after_reply.store(true, Ordering::Release);
    }

    pub fn closes_after_reply(&self) -> bool {
        self.close_after_reply.load(Ordering::Acquire)
    }

    /// Ends a blocking command; whether the client was blocked.
    pub fn unblock(&self, how: Unblock) -> bool {
        let waiter = self.waiter.lock().clone();
        waiter.is_some_and(|waiter| waiter.unblock(how))
    }

    #[inline]
    pub fn set_last_command(&self, row: &'static Row) {
        self.last_command.store(row.id.index() + 1, Ordering::Relaxed);
    }

    /// Name of the last command, e.g. `client|list`; `NULL` before the first.
    pub fn last_command(&self) -> &'static str {
        let number = self.last_command.load(Ordering::Relaxed);
        let found = number.checked_sub(1).and_then(|index| ROWS.get(index));
        found.map_or("NULL", |r| r.name)
    }
}

/// Whether an address, as in [`Client::address`], is this host's own.
pub fn is_loopback(address: &str) -> bool {
    let ip = address.parse().map(|a: std::net::SocketAddr| a.ip().to_canonical());
    ip.is_ok_and(|ip| ip.is_loopback())
}

/// What all clients have and do together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    pub connected: usize,
    pub blocked: usize,
    /// Clients with subscriptions.
    pub subscribers: usize,
    /// Clients that watch keys, and these keys.
    pub watching: usize,
    pub watched: usize,
    /// Keys for which clients wait.
    pub waiting_keys: usize,
    pub query_buffer_max: usize,
    pub output_buffer_max: usize,
    pub memory_bytes: usize,
}

impl Summary {
    fn add(&mut self, client: &Client) {
        self.connected += 1;
        let d = client.description.lock();
        self.blocked += usize::from(d.blocked);
        self.subscribers += usize::from(d.channels + d.patterns + d.sharded > 0);
        self.watching += usize::from(d.watched > 0);
        self.watched += d.watched;
        drop(d);
        self.waiting_keys += client.waiter.lock().as_ref().map_or(0, |w| w.keys.len());
        let (query, output) = (&client.query_buffer_len, &client.output_buffer_len);
        self.query_buffer_max = query.load(Ordering::Relaxed).max(self.query_buffer_max);
        self.output_buffer_max = output.load(Ordering::Relaxed).max(self.output_buffer_max);
        self.memory_bytes += client.memory_bytes();
    }
}

/// A look at each of so many clients costs next to nothing.
const FEW: usize = 100;
/// With more clients a summary may be so old.
const SUMMARY_AGE_MAX: Duration = Duration::from_millis(100);

/// All connected clients, in order of their IDs.
#[derive(Debug, Default)]
pub struct Clients {
    clients: Mutex<BTreeMap<u64, Arc<Client>>>,
    summary: Mutex<Option<(Monotonic, Summary)>>,
    next_id: AtomicU64,
    count: AtomicUsize,
    administrators: AtomicUsize,
    http_warnings: Mutex<HttpWarnings>,
}

impl Clients {
    pub fn add(
        &self,
        address: String,
        local_address: String,
        transport: Transport,
        now: Monotonic,
    ) -> Arc<Client> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed) + 1;
        let client = Client::new(id, address, local_address, transport, now);
        self.clients.lock().insert(client.id, Arc::clone(&client));
        self.count.fetch_add(1, Ordering::Relaxed);
        client
    }

    pub fn remove(&self, id: u64) {
        let removed = self.clients.lock().remove(&id);
        if let Some(client) = removed {
            self.count.fetch_sub(1, Ordering::Relaxed);
            let counts = usize::from(client.is_administrator.load(Ordering::Relaxed));
            self.administrators.fetch_sub(counts, Ordering::Relaxed);
        }
    }

    /// It came by the administrators' port, so it does not count for `maxclients`. Once for each client.
    pub fn note_administrator(&self, client: &Client) {
        client.is_administrator.store(true, Ordering::Relaxed);
        self.administrators.fetch_add(1, Ordering::Relaxed);
    }

    /// What `maxclients` is compared with.
    pub fn len_without_administrators(&self) -> usize {
        self.len().saturating_sub(self.administrators.load(Ordering::Relaxed))
    }

    /// Connections that are open, of killed clients too.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Says that a client's connection was closed because it speaks HTTP, but not more often than is of use.
    pub fn warn_of_http(&self, now: Monotonic, address: &str) {
        if self.http_warnings.lock().is_due(now) {
            tracing::warn!(client = address, "{HTTP_WARNING}");
        }
    }

    /// A client that has not been killed: who killed one finds it gone, although its own thread closes it later.
    pub fn get(&self, id: u64) -> Option<Arc<Client>> {
        self.clients.lock().get(&id).filter(|client| !client.is_killed()).cloned()
    }

    /// Of all clients; a little old if there are many.
    pub fn summary(&self, now: Monotonic) -> Summary {
        let mut last = self.summary.lock();
        if let Some((at, summary)) = &*last
            && FEW < self.len()
            && now.since(*at) < SUMMARY_AGE_MAX
        {
            return *summary;
        }
        let mut summary = Summary::default();
        self.all().iter().for_each(|client| summary.add(client));
        *last = Some((now, summary));
        summary
    }

    /// All but those that were killed: see [`Clients::get`].
    pub fn all(&self) -> Vec<Arc<Client>> {
        self.clients.lock().values().filter(|client| !client.is_killed()).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn administrators_do_not_count() {
        let clients = Clients::default();
        let add = || clients.add("1".into(), "2".into(), Transport::Plain, Monotonic::ZERO);
        let (one, other) = (add(), add());
        clients.note_administrator(&one);
        assert_eq!((clients.len(), clients.len_without_administrators()), (2, 1));
        clients.remove(one.id);
        clients.remove(one.id);
        assert_eq!((clients.len(), clients.len_without_administrators()), (1, 1));
        clients.remove(other.id);
        assert_eq!((clients.len(), clients.len_without_administrators()), (0, 0));
    }

    #[test]
    fn a_summary_is_exact_for_few_clients_and_a_little_old_for_many() {
        let clients = Clients::default();
        let address = || "127.0.0.1:1".to_owned();
        let add = || clients.add(address(), address(), Transport::Plain, Monotonic::ZERO);
        let at = |millis: u64| Monotonic::from_nanos(millis * 1_000_000);
        let few: Vec<_> = (0..FEW).map(|_| add()).collect();
        for (client, blocked) in few.iter().zip(1..4) {
            client.description.lock().blocked = true;
            client.description.lock().watched = 2;
            let summary = clients.summary(at(5));
            assert_eq!((summary.blocked, summary.watching, summary.watched), (blocked, blocked, 2 * blocked));
            assert!(FEW * size_of::<Client>() <= summary.memory_bytes);
        }
        add().description.lock().blocked = true;
        assert_eq!(clients.summary(at(6)).blocked, 3);
        assert_eq!(clients.summary(at(105)).blocked, 4);
    }
}

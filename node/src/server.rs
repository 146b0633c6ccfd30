//! What all threads of a node share.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};

use crate::bus::Bus;
use crate::clients::Clients;
use crate::config::{Config, Settings};
use crate::gate::Gate;
use crate::keyspace::Keyspace;
use crate::keyspace::world::World;
use crate::log::WriteLog;
use crate::notify::Event;
use crate::pubsub::PubSub;
use crate::replication::Shared;
use crate::routing::Routing;
use crate::stats::Stats;

/// See the module documentation.
#[derive(Debug)]
pub struct Server {
    pub keyspace: Keyspace,
    pub world: World,
    /// The write log and the gate.
    pub shared: Arc<Shared>,
    pub clients: Clients,
    pub pubsub: PubSub,
    pub stats: Stats,
    /// Changed by CONFIG SET only; threads read [`Server::settings`] when the version has moved.
    config: Mutex<Config>,
    settings: RwLock<Arc<Settings>>,
    routing: RwLock<Arc<Routing>>,
    /// Grows with each change of settings or routing, so that threads keep a copy and compare one number.
    version: AtomicU64,
    pub pause: Pause,
    /// Milliseconds since the Unix epoch.
    pub started_at: i64,
    /// 40 hexadecimal digits, new at each start.
    pub run_id: String,
    /// Asks the program to end.
    pub shutdown: crate::shutdown::Shutdown,
    /// Carries messages to other nodes; set once when the node runs with sentinels.
    pub bus: OnceLock<Bus>,
    /// DEBUG SET-ACTIVE-EXPIRE.
    pub active_expire: AtomicBool,
}

/// CLIENT PAUSE: until when which commands wait.
#[derive(Debug, Default)]
pub struct Pause {
    /// Milliseconds since the Unix epoch; zero: no pause.
    until: AtomicI64,
    writes_only: AtomicBool,
}

impl Pause {
    pub fn set(&self, until: i64, writes_only: bool) {
        self.writes_only.store(writes_only, Ordering::Release);
        self.until.store(until, Ordering::Release);
    }

    /// Until when a command has to wait, if it has.
    #[inline]
    pub fn applies(&self, now: i64, is_write: bool) -> Option<i64> {
        let until = self.until.load(Ordering::Acquire);
        (now < until && (is_write || !self.writes_only.load(Ordering::Acquire))).then_some(until)
    }

    /// Until when commands of some kind wait, and whether only writes do.
    pub fn state(&self) -> (i64, bool) {
        (self.until.load(Ordering::Acquire), self.writes_only.load(Ordering::Acquire))
    }
}

impl Server {
    /// # Errors
    /// Settings that contradict each other.
    pub fn new(config: Config, now: i64, run_id: String) -> Result<Arc<Server>, String> {
        let settings = config.settings()?;
        let alone = settings.sentinels.is_empty();
        let gate = if alone { Gate::alone() } else { Gate::replicated() };
        let log = WriteLog::new(settings.backlog_len_bytes);
        Ok(Arc::new(Server {
            keyspace: Keyspace::default(),
            world: World::default(),
            shared: Shared::new(log, gate),
            clients: Clients::default(),
            pubsub: PubSub::default(),
            stats: Stats::default(),
            config: Mutex::new(config),
            settings: RwLock::new(Arc::new(settings)),
            routing: RwLock::default(),
            version: AtomicU64::new(1),
            pause: Pause::default(),
            started_at: now,
            run_id,
            shutdown: crate::shutdown::Shutdown::default(),
            bus: OnceLock::new(),
            active_expire: AtomicBool::new(true),
        }))
    }

    #[inline]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read())
    }

    pub fn routing(&self) -> Arc<Routing> {
        Arc::clone(&self.routing.read())
    }

    pub fn set_routing(&self, routing: Routing) {
        *self.routing.write() = Arc::new(routing);
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    /// CONFIG SET.
    ///
    /// # Errors
    /// The text behind `ERR `.
    pub fn configure(&self, pairs: &[(String, String)]) -> Result<(), String> {
        let mut config = self.config.lock();
        config.set(pairs)?;
        *self.settings.write() = Arc::new(config.settings()?);
        self.version.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// Reads the configuration.
    pub fn with_config<R>(&self, read: impl FnOnce(&Config) -> R) -> R {
        read(&self.config.lock())
    }

    /// PUBLISH and SPUBLISH: to the subscribers of this node, whose number is returned, and of the other nodes.
    pub fn publish(&self, channel: &[u8], payload: &[u8], sharded: bool) -> usize {
        if let Some(bus) = self.bus.get() {
            bus.publish(channel, payload, sharded);
        }
        self.pubsub.publish(channel, payload, sharded, self.settings().output_limit_pubsub)
    }

    /// Publishes a keyspace event to the channels that `notify-keyspace-events` asks for.
    pub fn publish_event(&self, event: &Event, settings: &Settings) {
        let limit = settings.output_limit_pubsub;
        if settings.notify_keyspace_events.keyspace() {
            let channel = [format!("__keyspace@{}__:", event.db).as_bytes(), &event.key].concat();
            self.pubsub.publish(&channel, event.event.as_bytes(), false, limit);
        }
        if settings.notify_keyspace_events.keyevent() {
            let channel = format!("__keyevent@{}__:{}", event.db, event.event);
            self.pubsub.publish(channel.as_bytes(), &event.key, false, limit);
        }
    }

    /// Replicas that hold the log up to this index: WAIT.
    pub fn replicas_holding(&self, _index: u64) -> usize {
        0
    }
}

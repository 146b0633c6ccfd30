//! Executes commands: finds the row, checks whether the command may run here and now, locks its slots, calls it,
//! and hands its effects to the write log.
//!
//! Synchronous, and the same for a client's request, a command of a transaction, a waiting command that is served,
//! and an entry of the log that a replica applies. The order within one command:
//! 1. checks that need no lock (arity, authentication, role, slot ownership, lease);
//! 2. lock the slots of its keys, call its function;
//! 3. append its effects to the log under these locks, so that the log's order is the order of execution per slot;
//! 4. unlock; serve clients that waited for what it pushed; publish keyspace events.

mod admit;
mod apply;
mod batch;
mod call;
mod eviction;
mod expiry;
mod lookahead;
mod meanwhile;
mod progress;
mod script;
mod timing;
mod transaction;
mod waiters;

use std::sync::Arc;
use std::time::Duration;

use keyward_commands::DataLimits;
use keyward_proto::ids::Position;
use keyward_proto::resp::Output;
use keyward_proto::slot::Slot;
use keyward_proto::time::Monotonic;
use keyward_store::world;
use parking_lot::RawMutex;
use parking_lot::lock_api::ArcMutexGuard;
use rand::rngs::SmallRng;

use crate::admin::Request;
use crate::blocking::Blocked;
use crate::clock::Clock;
use crate::config::Settings;
use crate::io::session::Session;
use crate::pubsub::Kind;
use crate::routing::{Owner, Routing};
use crate::server::Server;
use crate::stats::ThreadStats;
pub use admit::{Moment, Patience};
pub use eviction::Eviction;
pub use expiry::ExpiryCycle;
use lookahead::Lookahead;
pub use meanwhile::Meanwhile;
pub use progress::BatchEnd;

/// Writes are held back while more of the write log than this waits for the disk.
pub const UNWRITTEN_BYTES_MAX: u64 = 64 << 20;

/// Why nothing more may be executed for the client for now.
#[derive(Debug)]
pub enum Stop {
    /// The node may not execute now (no lease, hand-off, change of term): try again when the gate changes, at most
    /// until `grace` has passed.
    NotNow,
    /// CLIENT PAUSE until this time.
    Paused(Monotonic),
    /// The command waits for keys, at most so long; it goes on with the next request.
    Blocked(Blocked, Option<Duration>),
    /// WAIT.
    WaitReplicas {
        written: Position,
        replicas: u64,
        timeout: Option<Duration>,
    },
    /// WAITAOF.
    WaitDisk {
        written: Position,
        replicas: u64,
        timeout: Option<Duration>,
    },
    /// This reply after this time.
    Sleep(Duration, &'static [u8]),
    Await(Request),
    Download,
    Close,
}

/// Executes commands on one thread.
#[derive(Debug)]
pub struct Executor {
    server: Arc<Server>,
    clock: Clock,
    safepoint: world::Safepoint,
    pub stats: Arc<ThreadStats>,
    settings: Arc<Settings>,
    routing: Arc<Routing>,
    version: u64,
    /// When the batch began.
    moment: Moment,
    /// The batch has had a safepoint in its middle.
    reopened: bool,
    rng: SmallRng,
    lookahead: Lookahead,
    timing: timing::Timing,
    /// Zero: no limit.
    maxmemory: usize,
    /// What the settings say to commands.
    limits: DataLimits,
    evictor: eviction::Evictor,
    expirer: expiry::Expirer,
}

impl Executor {
    /// `rng`: for what a command draws, and for eviction.
    pub fn new(server: Arc<Server>, rng: SmallRng) -> Self {
        Executor {
            clock: server.clock.clone(),
            safepoint: server.world.add_thread(),
            stats: server.stats.add_thread(),
            settings: server.settings(),
            routing: server.routing(),
            version: 0,
            moment: Moment::NONE,
            reopened: false,
            rng,
            lookahead: Lookahead::default(),
            timing: timing::Timing::new(&server),
            maxmemory: 0,
            limits: server.settings().data_limits(),
            evictor: eviction::Evictor::default(),
            expirer: expiry::Expirer::default(),
            server,
        }
    }

    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    pub fn settings(&mut self) -> &Settings {
        self.refresh();
        &self.settings
    }

    #[inline]
    fn refresh(&mut self) {
        let version = self.server.version();
        if version != self.version {
            self.settings = self.server.settings();
            self.routing = self.server.routing();
            self.maxmemory = self.settings.maxmemory;
            self.limits = self.settings.data_limits();
            self.timing.attention = timing::Attention::of(&self.settings, &self.server);
            self.version = version;
        }
    }

    /// Whether a client is to look for the primary elsewhere, although it has not asked for anything: outside cluster mode,
    /// at the end of a term.
    #[inline]
    pub fn sends_away(&mut self, session: &Session) -> bool {
        session.has_outlived_a_term(self.server.shared.gate.ended_terms()) && self.is_misled(session)
    }

    #[cold]
    fn is_misled(&mut self, session: &Session) -> bool {
        self.refresh();
        !self.settings.cluster_enabled && !session.may_outlive_a_term(&self.settings)
    }

    /// Until the guard is dropped nobody stops the world. For changes that no batch makes.
    pub fn enter(&self) -> ArcMutexGuard<RawMutex, ()> {
        self.safepoint.lock_arc()
    }

    /// Ends the subscriptions to shard channels whose slots this shard does not have any more; writes what the client
    /// is told.
    pub fn drop_lost_shard_channels(&mut self, session: &mut Session, out: &mut Output) {
        self.refresh();
        if !self.settings.cluster_enabled {
            return;
        }
        let lost = |channel: &[u8]| self.routing.owner(Slot::of(channel)) != Owner::Mine;
        let channels: Vec<Box<[u8]>> =
            session.subscriptions.sharded.iter().filter(|c| lost(c)).cloned().collect();
        for channel in channels {
            session.subscriptions.sharded.remove(&channel);
            self.server.pubsub.unsubscribe(Kind::Sharded, &channel, session.client.id);
            let mut writer = out.writer(session.version);
            writer.push(3);
            writer.bulk_str("sunsubscribe");
            writer.bulk(&channel);
            writer.len(session.subscriptions.sharded.len());
        }
        session.describe();
    }

    /// Ends a session: its watches and subscriptions are removed.
    pub fn end_session(&self, session: &mut Session) {
        for key in session.take_watched() {
            let runs = &self.server.scripts.runs;
            // What stays there in a busy script's slot is harmless: the client is gone.
            if let Some(mut state) = self.server.keyspace.lock_unless(Slot::of(&key.1), || runs.is_busy()) {
                state.unwatch(&key, session.client.id);
            }
        }
        self.server.pubsub.end(session);
        if session.is_monitor {
            self.server.end_monitoring(&session.client);
        }
        if session.tracking.is_some() {
            self.server.tracking.remove(session.client.id, &self.server.keyspace.tracking);
        }
    }
}

//! What all threads of a node share.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use keyward_proto::ids::{LogIndex, Position};
use keyward_proto::slot::Slot;
use keyward_proto::time::{Monotonic, UnixMillis};
use keyward_proto::topology::Node;
use keyward_replication::core::node_core::RoleStatus;
use keyward_replication::gate::{Gate, GateState};
use keyward_replication::log::WriteLog;
use keyward_replication::reply::ReplyCondition;
use keyward_store::Keyspace;
use keyward_store::events::Event;
use keyward_store::eviction::SharedWeights;
use keyward_store::tracking::Changes;
use keyward_store::world::World;
use parking_lot::{Mutex, RwLock};

use crate::acl::{User, Users};
use crate::clock::Clock;
use crate::config::{Config, Consequence, Settings};
use crate::io::clients::{Client, Clients};
use crate::io::pause::Pause;
use crate::io::pulse::Pulse;
use crate::lazyfree::Lazyfree;
use crate::memory::UsedMemory;
use crate::message::{ChannelKind, Message};
use crate::pubsub::{Kind, PubSub, To};
use crate::refusals::Refusals;
use crate::relay::queue::Relay;
use crate::replication::{Replication, Shared};
use crate::routing::Routing;
use crate::snapshot::saves::Saves;
use crate::snapshot::stream::Snapshots;
use crate::stats::{ControlDelay, Stats};
use crate::tracking::{Cause, TrackingClients};

/// See the module documentation.
#[derive(Debug)]
pub struct Server {
    /// By which commands are executed.
    pub clock: Clock,
    pub keyspace: Keyspace,
    pub world: World,
    /// The write log and the gate.
    pub shared: Arc<Shared>,
    pub clients: Clients,
    pub pubsub: PubSub,
    pub stats: Stats,
    pub refusals: Refusals,
    pub control_delay: ControlDelay,
    /// Of the I/O threads, when they have started.
    pub io_pulses: OnceLock<Vec<Arc<Pulse>>>,
    pub memory: Arc<UsedMemory>,
    pub lazyfree: Lazyfree,
    /// By which slots are drawn for eviction.
    pub eviction_weights: SharedWeights,
    /// Changed by CONFIG SET only; threads read [`Server::settings`] when the version has moved.
    config: Mutex<Config>,
    settings: RwLock<Arc<Settings>>,
    routing: RwLock<Arc<Routing>>,
    /// Grows with each change of settings or routing, so that threads keep a copy and compare one number.
    version: AtomicU64,
    /// Of how many ended terms the clients know.
    told_of_terms: AtomicU64,
    pub pause: Pause,
    pub started_at: Monotonic,
    /// 40 hexadecimal digits, new at each start.
    pub run_id: String,
    /// Asks the program to end.
    pub shutdown: crate::shutdown::Shutdown,
    /// Set once when the node runs with sentinels.
    pub replication: OnceLock<Arc<Replication>>,
    /// Carries messages to other nodes; set once when the node runs with sentinels.
    pub relay: OnceLock<Relay>,
    /// DEBUG SET-ACTIVE-EXPIRE.
    pub active_expire: AtomicBool,
    pub snapshots: Snapshots,
    pub saves: Saves,
    /// False from the begin of a full sync until the keyspace is of one moment again.
    complete: AtomicBool,
    me: Weak<Server>,
    /// The write log on disk.
    pub aof: crate::aof::state::Aof,
    /// The loading of the data at the start.
    pub loading: crate::loading::Loading,
    pub last_load: crate::loading::LastLoad,
    pub scripts: crate::scripts::Scripts,
    pub tls: crate::tls::Tls,
    pub(crate) command_logs: crate::observe::commandlog::CommandLogs,
    pub(crate) latency: crate::observe::latency::LatencyMonitor,
    pub(crate) monitors: crate::observe::monitor::Monitors,
    pub(crate) tracking: TrackingClients,
}

/// Another node of the shard, as the topology has it.
#[derive(Debug)]
pub struct Replica<'a> {
    pub node: &'a Node,
    pub in_sync: bool,
    /// What of the log it holds.
    pub held: u64,
    /// Since it was last heard.
    pub lag_seconds: u64,
}

impl Server {
    /// # Errors
    /// Settings that contradict each other.
    pub fn new(
        config: Config,
        clock: Clock,
        now: UnixMillis,
        started_at: Monotonic,
        run_id: String,
    ) -> Result<Arc<Server>, String> {
        let settings = config.settings()?;
        let alone = settings.sentinels.is_empty();
        let gate = if alone { Gate::standalone() } else { Gate::replicated() };
        let log = WriteLog::new(settings.backlog_len_bytes);
        let memory: Arc<UsedMemory> = Arc::default();
        Ok(Arc::new_cyclic(|me| Server {
            clock,
            keyspace: Keyspace::default(),
            world: World::default(),
            shared: Shared::new(log, gate),
            clients: Clients::default(),
            pubsub: PubSub::default(),
            stats: Stats::default(),
            refusals: Refusals::default(),
            control_delay: ControlDelay::default(),
            io_pulses: OnceLock::new(),
            lazyfree: Lazyfree::new(Arc::clone(&memory)),
            memory,
            eviction_weights: SharedWeights::default(),
            config: Mutex::new(config),
            settings: RwLock::new(Arc::new(settings)),
            routing: RwLock::default(),
            version: AtomicU64::new(1),
            told_of_terms: AtomicU64::new(0),
            pause: Pause::default(),
            started_at,
            run_id,
            shutdown: crate::shutdown::Shutdown::default(),
            replication: OnceLock::new(),
            relay: OnceLock::new(),
            active_expire: AtomicBool::new(true),
            snapshots: Snapshots::default(),
            saves: Saves::new(now.0 / 1000, started_at),
            complete: AtomicBool::new(true),
            me: Weak::clone(me),
            aof: crate::aof::state::Aof::default(),
            loading: crate::loading::Loading::default(),
            last_load: crate::loading::LastLoad::default(),
            scripts: crate::scripts::Scripts::default(),
            tls: crate::tls::Tls::default(),
            command_logs: crate::observe::commandlog::CommandLogs::default(),
            latency: crate::observe::latency::LatencyMonitor::default(),
            monitors: crate::observe::monitor::Monitors::default(),
            tracking: TrackingClients::default(),
        }))
    }

    /// For a thread that outlives a command.
    pub fn shared_self(&self) -> Option<Arc<Server>> {
        self.me.upgrade()
    }

    /// A full sync begins: the keyspace is a mixture from now on.
    pub fn note_incomplete(&self) {
        self.complete.store(false, Ordering::Release);
    }

    /// The keyspace is of one moment again.
    pub fn note_complete(&self) {
        self.complete.store(true, Ordering::Release);
    }

    /// The keyspace was loaded and contains the log up to here. Which slots were written by what may not be committed is
    /// not known any more, so a read of any of them waits for all of it.
    pub fn note_loaded(&self, applied: LogIndex) {
        self.shared.set_applied(applied);
        Slot::all().for_each(|slot| self.keyspace.note_written(slot, applied));
    }

    /// Whether the keyspace is of one moment, so that a snapshot of it makes sense.
    pub fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire) && self.shared.gate.state() != GateState::Loading
    }

    /// The entry of the write log up to which the keyspace contains everything. Only exact while the world is stopped.
    pub fn executed_position(&self) -> Position {
        let applied = self.shared.applied();
        let log = self.shared.log.lock();
        let index = log.executed().max(applied);
        Position { term: log.term_at(index).unwrap_or_default(), index }
    }

    /// Why the write log does not get to the disk.
    pub fn disk_error(&self) -> String {
        self.aof.status().error.unwrap_or_default()
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
        self.pubsub.wake_sharded();
        self.shared.gate.notify();
    }

    /// CONFIG SET.
    ///
    /// # Errors
    /// The text behind `ERR `.
    pub fn configure(&self, pairs: &[(String, String)]) -> Result<(), String> {
        let mut config = self.config.lock();
        let mut next = config.clone();
        let consequences = next.set(pairs)?;
        let settings = next.settings()?;
        if consequences.contains(&Consequence::CheckClients) {
            check_clients(settings.maxclients)?;
        }
        let tls = self.tls.prepare(pairs, &self.settings(), &settings)?;
        let loglevel = settings.loglevel;
        *config = next;
        *self.settings.write() = Arc::new(settings);
        self.version.fetch_add(1, Ordering::AcqRel);
        self.tls.change(tls);
        drop(config);
        for consequence in consequences {
            match consequence {
                // Done before.
                Consequence::CheckClients | Consequence::ListenTls => {}
                Consequence::LoadTls => {
                    if let Some(replication) = self.replication.get() {
                        replication.use_tls(self.settings().tls_options());
                    }
                }
                Consequence::SetLogForm => crate::logging::set_form(&self.settings()),
                Consequence::SetLogLevel => crate::logging::set_level(loglevel),
                Consequence::SwitchWriteLog => {
                    if let Some(server) = self.shared_self() {
                        self.aof.switch(&server);
                    }
                }
            }
        }
        Ok(())
    }

    /// Changes the users, if `change` does not fail. Connections end whose users are gone, or may not hear any more what
    /// they have subscribed to; that of `client`, for which it is done, gets its reply first.
    ///
    /// # Errors
    /// Those of `change`.
    pub(crate) fn change_users<R, E>(
        &self,
        client: u64,
        change: impl FnOnce(&mut Users, &Settings) -> Result<R, E>,
    ) -> Result<R, E> {
        let mut config = self.config.lock();
        let before = Arc::clone(config.users());
        let mut users = Users::clone(&before);
        let current = self.settings();
        let result = change(&mut users, &current)?;
        config.set_users(users);
        let mut settings = Settings::clone(&current);
        settings.users = Arc::clone(config.users());
        *self.settings.write() = Arc::new(settings);
        self.version.fetch_add(1, Ordering::AcqRel);
        // Nobody can have become another user of the same name yet.
        self.end_without_rights(&before, config.users(), client);
        Ok(result)
    }

    fn end_without_rights(&self, before: &Users, users: &Users, own: u64) {
        let end = |client: &Client| {
            if client.id == own { client.kill_after_reply() } else { client.kill() }
        };
        let same = |old: &User| users.get(old.name()).filter(|new| new.number() == old.number()).cloned();
        for old in before.iter() {
            let of_user = |client: &Client| client.description.lock().user == *old.name();
            match same(old) {
                None => self.clients.all().iter().filter(|c| of_user(c)).for_each(|client| end(client)),
                Some(new) if new == *old => {}
                Some(new) => {
                    let of_user: BTreeSet<u64> =
                        self.clients.all().iter().filter(|c| of_user(c)).map(|c| c.id).collect();
                    let hears = |kind: Kind, channel: &[u8]| match kind {
                        Kind::Pattern => new.allows_pattern(channel),
                        Kind::Channel | Kind::Sharded => new.allows_channel(channel),
                    };
                    self.pubsub.visit(|client, kind, channel| {
                        if of_user.contains(&client.id) && !hears(kind, channel) {
                            end(client);
                        }
                    });
                }
            }
        }
    }

    /// Reads the configuration.
    pub fn with_config<R>(&self, read: impl FnOnce(&Config) -> R) -> R {
        read(&self.config.lock())
    }

    /// PUBLISH and SPUBLISH: to the subscribers of this node, whose number is returned, and of the other nodes.
    pub fn publish(&self, channel: &[u8], payload: &[u8], kind: ChannelKind) -> usize {
        if let Some(relay) = self.relay.get() {
            relay.publish(Message::new(channel, payload, kind), ReplyCondition::default());
        }
        self.publish_here((channel, payload), kind, To::All, ReplyCondition::default())
    }

    /// A message that another node has passed on, or that is on its way there.
    pub fn publish_here(
        &self,
        message: (&[u8], &[u8]),
        kind: ChannelKind,
        to: To,
        condition: ReplyCondition,
    ) -> usize {
        let limit = self.settings().output_limits.pubsub.hard_bytes;
        self.pubsub.publish(message, kind, to, condition, limit)
    }

    /// What a transaction has published, when its effects are in the log. Its own client has got it with its reply.
    pub fn publish_committed(&self, message: Message, publisher: u64, condition: ReplyCondition) {
        let to = To::AllBut(publisher);
        self.publish_here((&message.channel, &message.payload), message.kind, to, condition);
        if let Some(relay) = self.relay.get() {
            relay.publish(message, condition);
        }
    }

    /// Publishes a keyspace event to the channels that `notify-keyspace-events` asks for; it leaves with the
    /// write that it tells of, under this condition.
    pub fn publish_event(&self, event: &Event, condition: ReplyCondition, settings: &Settings) {
        let limit = settings.output_limits.pubsub.hard_bytes;
        if settings.keys.events.keyspace() {
            let channel = [format!("__keyspace@{}__:", event.db).as_bytes(), &event.key].concat();
            let message = (channel.as_slice(), event.event.as_bytes());
            self.pubsub.publish(message, ChannelKind::Global, To::All, condition, limit);
        }
        if settings.keys.events.keyevent() {
            let channel = format!("__keyevent@{}__:{}", event.db, event.event);
            let message = (channel.as_bytes(), &*event.key);
            self.pubsub.publish(message, ChannelKind::Global, To::All, condition, limit);
        }
    }

    /// The other nodes of this node's shard.
    pub fn replicas<'a>(&self, routing: &'a Routing) -> Vec<Replica<'a>> {
        let Some(shard) = routing.my_shard() else { return Vec::new() };
        let others = routing.topology.members(&shard.id).filter(|n| Some(&n.id) != routing.me.as_ref());
        let status = self.replication.get().map(|r| r.status());
        let links = match status.as_ref().map(|s| &s.role) {
            Some(RoleStatus::Primary { links, .. }) => links.as_slice(),
            Some(RoleStatus::Replica { .. } | RoleStatus::None) | None => &[],
        };
        let now = self.clock.monotonic();
        let replica = |node: &'a Node| {
            let link = links.iter().find(|link| link.node == node.id);
            Replica {
                node,
                in_sync: shard.in_sync.contains(&node.id),
                held: link.map_or(0, |link| link.held.get()),
                lag_seconds: link.map_or(0, |link| now.since(link.heard_at).as_secs()),
            }
        };
        others.map(replica).collect()
    }

    /// How many I/O threads make no step, and for how many microseconds the one has not that is still for longest.
    pub fn still_io_threads(&self) -> [u64; 2] {
        let pulses = self.io_pulses.get().into_iter().flatten().map(|pulse| &**pulse);
        crate::io::pulse::still(pulses, self.clock.monotonic())
    }

    /// Brings the figure of the memory in use up to date with the allocator's own.
    pub fn correct_memory(&self) {
        let before = self.memory.figure();
        let log = self.shared.log.lock().allocated_bytes();
        self.memory.correct(before, crate::process::allocated(), log);
    }

    /// Tells clients that keep values themselves what has changed.
    #[cold]
    pub(crate) fn tell_changes(&self, changes: &Changes, cause: Cause) {
        let limit = self.settings().output_limits.normal.hard_bytes;
        self.tracking.tell(&self.clients, changes, cause, limit);
    }

    /// MONITOR. Threads learn of it before their next batches.
    pub(crate) fn begin_monitoring(&self, client: &Arc<Client>) {
        self.monitors.add(client);
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn end_monitoring(&self, client: &Client) {
        self.monitors.remove(client.id);
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    /// CONFIG RESETSTAT.
    pub fn reset_stats(&self) {
        self.stats.reset();
        self.refusals.reset_stats();
        self.control_delay.reset();
        self.memory.reset_stats();
        self.lazyfree.reset_stats();
        self.pubsub.disconnections.store(0, Ordering::Relaxed);
    }

    /// Wakes all clients when a term has ended in which this node was the primary, and they have no other way to learn of
    /// it: their connections look whether they end.
    pub fn tell_of_ended_terms(&self) {
        let ended_terms = self.shared.gate.ended_terms();
        if self.told_of_terms.fetch_max(ended_terms, Ordering::AcqRel) < ended_terms
            && !self.settings().cluster_enabled
        {
            let clients = self.clients.all();
            tracing::info!(
                clients = clients.len(),
                "this node is not the primary any more: its clients look for another"
            );
            clients.iter().for_each(|client| client.wake.notify_one());
        }
    }

    /// Whether this node's disk has kept this entry for sure: WAITAOF.
    pub fn has_synced(&self, written: Position) -> bool {
        self.shared.log.lock().has_synced(written)
    }

    /// Replicas that hold this entry: WAIT. None does if it is not in the history any more.
    pub fn replicas_holding(&self, written: Position) -> usize {
        let Some(replication) = self.replication.get() else { return 0 };
        let is_ours = self.shared.log.lock().has(written);
        if is_ours { replication.acked_replicas(written.index) } else { 0 }
    }
}

/// Whether the system would let this process serve so many clients.
fn check_clients(wanted: usize) -> Result<(), String> {
    let allowed = crate::process::clients_allowed(wanted);
    if allowed == wanted {
        return Ok(());
    }
    Err(format!(
        "CONFIG SET failed (possibly related to argument 'maxclients') - \
         The operating system is not able to handle the specified number of clients, try with {allowed}"
    ))
}

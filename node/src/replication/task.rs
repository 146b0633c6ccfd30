//! The task that owns the node core: one queue of inputs in, one step each, its actions out.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use keyward_net::bus::Bus;
use keyward_net::flight::Flights;
use keyward_proto::flight::Occasion;
use keyward_proto::ids::{Incarnation, LogIndex, NodeId, Term};
use keyward_proto::peer::Complaints;
use keyward_proto::rpc;
use keyward_proto::slot::SLOT_COUNT;
use keyward_proto::time::Monotonic;
use keyward_proto::topology::Topology;
use keyward_replication::core::Config;
use keyward_replication::core::messages::{
    Ack, Action, Event, HandoffError, HandoffToken, Hello, LinkId, Start, SyncKind, UplinkId,
};
use keyward_replication::core::node_core::{NodeCore, RoleStatus, Status};
use keyward_replication::core::received::Resume;
use keyward_replication::core::requests::Kind;
use keyward_replication::core::stream::APPEND_BYTES;
use keyward_replication::gate::GateState;
use keyward_replication::recorder::{Recorder, Standing};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use super::applier::Applier;
use super::applying::ApplierRequest;
use super::link::{self, Uplink};
use super::news::News;
use super::quiescing::Quiescing;
use super::sender::{self, Outbox, Outlet, Signals};
use super::shared::{Engine, Shared};
use super::wire;
use crate::clock;
use crate::logging;
use crate::sentinels::Sentinels;

/// Acknowledgements that may wait for their stream; later ones contain what earlier ones say.
const ACKS_LEN: usize = 256;
/// Inputs handled before the task lets others run.
const BATCH_LEN: usize = 64;

/// Who waits for the end of a hand-off.
pub(crate) type HandoffAnswer = oneshot::Sender<Result<(), HandoffError>>;

pub(crate) enum Input {
    Core(Event),
    LinkOpened(LinkId, Box<Hello>, Outbox),
    NodeStatus(oneshot::Sender<rpc::NodeStatus>),
    /// `term`: the one that the asker knows.
    Handoff {
        term: Option<Term>,
        target: Option<NodeId>,
        answer: HandoffAnswer,
    },
}

/// What the task shows to others.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) topology: watch::Sender<Arc<Topology>>,
    pub(crate) status: watch::Sender<Arc<Status>>,
    /// What each replica holds. Held for an instant, by the task and by WAIT.
    pub(crate) held: Mutex<Vec<LogIndex>>,
    /// Grows with each acknowledgement while anybody listens.
    pub(crate) acks: watch::Sender<u64>,
}

struct LinkHandle {
    /// Of the replica, for the log.
    name: String,
    outlet: Outlet,
    sender: Option<LinkSender>,
}

/// The task that sends to a replica.
struct LinkSender {
    task: AbortHandle,
    wake: Arc<Notify>,
    /// When the replica was last heard, for what is sent to it.
    heard_at: Arc<AtomicU64>,
}

struct UplinkHandle {
    acks: mpsc::Sender<rpc::FollowRequest>,
    task: AbortHandle,
}

pub(crate) struct Task {
    pub(crate) core: NodeCore,
    pub(crate) bus: Bus,
    pub(crate) config: Config,
    pub(crate) me: NodeId,
    pub(crate) incarnation: Incarnation,
    pub(crate) shared: Arc<Shared>,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) sentinels: Arc<Sentinels>,
    pub(crate) applier: Arc<Applier>,
    pub(crate) inputs: mpsc::Sender<Input>,
    pub(crate) shown: Arc<Shown>,
    recorder: Recording,
    flights: Arc<Flights>,
    links: BTreeMap<LinkId, LinkHandle>,
    uplinks: BTreeMap<UplinkId, UplinkHandle>,
    complaints: Arc<Mutex<Complaints>>,
    quiescing: Arc<Quiescing>,
    handoffs: BTreeMap<u64, HandoffAnswer>,
    next_token: u64,
    /// What the sentinels were asked for, and what they said: for the log.
    asked: News,
    answered: Arc<Mutex<News>>,
    takeover: Takeover,
    /// Last logged.
    role: (RoleStatus, Term),
    /// Last logged of a full sync.
    full_sync_tenth: usize,
}

/// What the task remembers, for whoever wants to know; nothing before it runs. Held for an instant.
pub(crate) type Recording = Arc<Mutex<Option<Recorder>>>;

/// The last term in which this node became the primary, and how long it took then until it served.
#[derive(Debug, Clone, Copy, Default)]
struct Takeover {
    term: Term,
    began: Monotonic,
    served: Option<Duration>,
}

/// What a task is made of.
pub(crate) struct Parts {
    pub(crate) bus: Bus,
    pub(crate) config: Config,
    pub(crate) me: NodeId,
    pub(crate) incarnation: Incarnation,
    pub(crate) shared: Arc<Shared>,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) sentinels: Arc<Sentinels>,
    pub(crate) inputs: mpsc::Sender<Input>,
    pub(crate) shown: Arc<Shown>,
    /// Up to where the keyspace contains the log.
    pub(crate) applied: LogIndex,
    pub(crate) recorder: Recording,
    pub(crate) flights: Arc<Flights>,
}

impl Task {
    pub(crate) fn new(parts: Parts) -> std::io::Result<Task> {
        let Parts { bus, config, me, incarnation, shared, engine, sentinels, inputs, shown, applied, .. } =
            parts;
        let core = {
            let log = shared.log.lock();
            let begin =
                Recorder::new(clock::monotonic(), (me.clone(), incarnation), &config, (log.last(), applied));
            *parts.recorder.lock() = Some(begin);
            NodeCore::new(config.clone(), me.clone(), incarnation, &log, applied, clock::monotonic())
        };
        let applier = Applier::start(Arc::clone(&shared), Arc::clone(&engine), applied)?;
        Ok(Task {
            core,
            bus,
            config,
            me,
            incarnation,
            shared,
            engine,
            sentinels,
            applier,
            inputs,
            shown,
            recorder: parts.recorder,
            flights: parts.flights,
            links: BTreeMap::new(),
            uplinks: BTreeMap::new(),
            complaints: Arc::default(),
            quiescing: Arc::default(),
            handoffs: BTreeMap::new(),
            next_token: 0,
            asked: News::default(),
            answered: Arc::default(),
            takeover: Takeover::default(),
            role: (RoleStatus::None, Term::ZERO),
            full_sync_tenth: 0,
        })
    }

    /// Runs until every sender of inputs but its own is gone, or the node is superseded.
    pub(crate) async fn run(mut self, mut inputs: mpsc::Receiver<Input>) {
        let progress = Arc::clone(&self.applier.progress);
        loop {
            let pause = clock::until(self.core.next_deadline(clock::monotonic()));
            tokio::select! {
                input = inputs.recv() => {
                    let Some(input) = input else { break };
                    self.handle(input);
                    for _ in 1..BATCH_LEN {
                        let Ok(input) = inputs.try_recv() else { break };
                        self.handle(input);
                    }
                }
                () = progress.notified() => {
                    if self.shared.apply_failure.get().is_some() {
                        self.step(Event::ApplyFailed);
                    }
                    let applied = self.applier.applied();
                    self.step(Event::Applied { epoch: applied.epoch, index: applied.index });
                }
                () = self.shared.durable_changed.notified() => self.step(Event::DurableAdvanced),
                () = tokio::time::sleep(pause) => self.tick(),
            }
        }
        self.applier.stop();
    }

    fn tick(&mut self) {
        self.step(Event::Tick);
        self.show_status();
    }

    fn handle(&mut self, input: Input) {
        match input {
            Input::Core(event) => {
                let opens = matches!(event, Event::TopologyChanged(_));
                let heard = match &event {
                    Event::AckReceived(link, _) => Some(*link),
                    _ => None,
                };
                let closed = match &event {
                    Event::LinkClosed(link) => Some(*link),
                    _ => None,
                };
                self.step(event);
                if let Some(sender) = heard.and_then(|link| self.links.get(&link)?.sender.as_ref()) {
                    sender.heard_at.store(clock::monotonic().as_nanos(), Ordering::Relaxed);
                }
                if let Some(link) = closed {
                    self.close_link(link);
                }
                if opens {
                    self.show_status();
                }
            }
            Input::LinkOpened(link, hello, outbox) => {
                let name = self.core.topology().node_name(&hello.node);
                tracing::info!("the replica {name} connects; it holds the log up to {}", hello.last);
                let append_bytes = if hello.takes_parts { APPEND_BYTES } else { usize::MAX };
                let outlet = Outlet { outbox, append_bytes };
                self.links.insert(link, LinkHandle { name, outlet, sender: None });
                self.step(Event::HelloReceived(link, *hello));
            }
            Input::NodeStatus(answer) => {
                if answer.send(self.node_status()).is_err() {
                    tracing::debug!("nobody waits for the status any more");
                }
            }
            Input::Handoff { term, target, answer } => {
                if term.is_some_and(|t| t != self.shared.sending_term()) {
                    if answer.send(Err(HandoffError::NotPrimary)).is_err() {
                        tracing::debug!("nobody waits for the hand-off any more");
                    }
                    return;
                }
                self.next_token += 1;
                self.handoffs.insert(self.next_token, answer);
                self.step(Event::HandoffRequested(HandoffToken(self.next_token), target));
            }
        }
    }

    fn step(&mut self, event: Event) {
        let is_ack = matches!(event, Event::AckReceived(..));
        let mut actions = Vec::new();
        let clocks = clock::both();
        let now = clocks.monotonic;
        if let Some(apart) = self.core.read_clocks(clocks) {
            tracing::warn!(
                "the clocks have moved apart by {apart:?}: this machine was halted, or its wall clock was set; leases \
                 from before do not count"
            );
        }
        if let Some(recorder) = &mut *self.recorder.lock() {
            recorder.heard(now, &event);
        }
        let committed = self.shared.gate.commit_index();
        let topology_version = self.core.topology().version;
        let (view, last, log_moved) = {
            let mut log = self.shared.log.lock();
            let before = log.last();
            self.core.step(now, event, &mut log, &mut actions);
            let view = self.core.view(&log);
            // Under the lock: see the fields' documentation.
            self.shared.gate.set_auto_commit(&view);
            self.shared.set_sending_term(view.sending_term);
            self.shared.set_lease(self.core.lease());
            (view, log.last(), before != log.last())
        };
        if log_moved {
            self.shared.wake_disk_writer();
        }
        let state = self.shared.gate.state();
        self.shared.gate.publish(&view, now);
        if topology_version < self.core.topology().version {
            self.note_leading(now);
        }
        if state != view.state {
            logging::set_role(view.state);
            if view.state == GateState::Primary {
                self.takeover.served.get_or_insert(now.since(self.takeover.began));
            }
            self.tell_gate(view.state);
        }
        if committed < view.commit && view.state != GateState::Replica {
            self.wake_senders();
        }
        if is_ack {
            self.show_acks();
        }
        if topology_version < self.core.topology().version {
            self.shown.topology.send_replace(Arc::clone(self.core.topology()));
        }
        self.record(now, Standing { core: &self.core, view: &view, last }, &actions);
        for action in actions {
            self.act(action);
        }
    }

    fn record(&self, now: Monotonic, standing: Standing<'_>, actions: &[Action]) {
        let mut recorder = self.recorder.lock();
        let occasion = recorder.as_mut().map(|recorder| recorder.did(now, standing, actions));
        if occasion == Some(Occasion::Failover) {
            self.flights.occasion();
        }
    }

    /// The topology has changed: it may say that this node leads in another term.
    fn note_leading(&mut self, now: Monotonic) {
        let shard = self.core.topology().shard_of(&self.me);
        let Some(shard) = shard.filter(|shard| shard.primary.as_ref() == Some(&self.me)) else { return };
        if self.takeover.term != shard.term {
            self.takeover = Takeover { term: shard.term, began: now, served: None };
        }
    }

    /// When clients are served by this node, and when that ends for a hand-off: how long one takes lies in between.
    fn tell_gate(&self, state: GateState) {
        let topology = self.core.topology();
        let name =
            || topology.shard_of(&self.me).map(|shard| topology.shard_name(&shard.id)).unwrap_or_default();
        match state {
            GateState::Primary => tracing::info!("this node serves as the primary of {}", name()),
            GateState::Holding if !self.handoffs.is_empty() => {
                tracing::info!("commands wait for the hand-off of {}", name());
            }
            GateState::InDoubt => {
                tracing::info!(
                    "what this node has executed last may not be in the history: reads wait until that is known"
                );
            }
            GateState::Holding
            | GateState::Undecided
            | GateState::Replica
            | GateState::NoPrimary
            | GateState::Loading => {}
        }
    }

    /// The commit index is news for the replicas, too.
    fn wake_senders(&self) {
        for sender in self.links.values().filter_map(|l| l.sender.as_ref()) {
            sender.wake.notify_one();
        }
    }

    fn show_acks(&self) {
        {
            let mut held = self.shown.held.lock();
            held.clear();
            held.extend(self.core.held_by_replicas().map(|(_, index)| index));
        }
        if self.shown.acks.receiver_count() > 0 {
            self.shown.acks.send_modify(|n| *n += 1);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Quiesce(id) => self.quiescing.ask(id, &self.engine, &self.inputs),
            Action::ApplyUpTo { after, index } => self.applier.apply_up_to(after, index),
            Action::ClearKeyspace { epoch } => {
                tracing::info!("a full sync begins: the keyspace is emptied");
                self.applier.request(ApplierRequest::Clear { epoch });
            }
            Action::KeepSlots(slots) => {
                tracing::info!("the full sync goes on with the slots that are missing");
                self.applier.request(ApplierRequest::KeepSlots(slots));
            }
            Action::ApplySnapshot(parts) => {
                self.show_full_sync();
                self.applier.request(ApplierRequest::Snapshot(parts));
            }
            Action::FinishSnapshot { from, indexes } => {
                self.applier.request(ApplierRequest::Finish { from, indexes })
            }
            Action::ForgetSlotIndexes => {
                tracing::info!("the full sync is complete");
                self.applier.request(ApplierRequest::ForgetSlotIndexes);
            }
            Action::Connect { uplink, host, port, hello } => self.connect(uplink, host, port, *hello),
            Action::SendAck(uplink, ack) => self.send_ack(uplink, ack),
            Action::Disconnect(uplink) => {
                if let Some(handle) = self.uplinks.remove(&uplink) {
                    handle.task.abort();
                }
            }
            Action::StartLink(link, start, resume) => self.start_link(link, start, resume),
            Action::Reject { link, term, reason } => self.reject(link, term, reason),
            Action::CloseLink(link) => self.close_link(link),
            Action::Ask(id, request) => {
                let line = request.describe(self.core.topology());
                // After a change of the topology it is another story.
                let story = format!("{} {line}", self.core.topology().version);
                if self.asked.is_news(&story, clock::monotonic()) {
                    tracing::info!("{line}");
                }
                let kind = Kind::of(&request);
                let silence = match self.status().role {
                    RoleStatus::Replica { silence, .. } => silence,
                    RoleStatus::Primary { .. } | RoleStatus::None => Duration::ZERO,
                };
                let request = wire::control_request(&self.me, request, silence);
                let (sentinels, inputs) = (Arc::clone(&self.sentinels), self.inputs.clone());
                let answered = Arc::clone(&self.answered);
                tokio::spawn(async move {
                    let (outcome, topology) = sentinels.ask(kind, request).await;
                    let answer = format!("{story}: {outcome}");
                    if answered.lock().is_news(&answer, clock::monotonic()) {
                        tracing::info!("{outcome}");
                    }
                    if let Some(topology) = topology {
                        send(&inputs, Event::TopologyChanged(topology)).await;
                    }
                    send(&inputs, Event::RequestAnswered(id, outcome)).await;
                });
            }
            Action::HandoffEnded(HandoffToken(token), result) => {
                match &result {
                    Ok(()) => tracing::info!("the hand-off is done"),
                    Err(error) => tracing::info!("no hand-off: {error}"),
                }
                if let Some(answer) = self.handoffs.remove(&token)
                    && answer.send(result).is_err()
                {
                    tracing::debug!("nobody waits for the hand-off any more");
                }
            }
            Action::Suspects(node, suspicion) => {
                let name = self.core.topology().node_name(&node);
                tracing::warn!("going on without {name}: {suspicion}");
            }
            Action::HoldsUp(node, held_up) => self.tell_laggard(&node, held_up),
            Action::Superseded => {
                tracing::error!("another process runs with this node's identity: this one serves no more");
            }
            Action::Forgotten => tracing::error!(
                "the sentinels do not know this node's shard: they have lost their directories. What is served goes on, but \
                 nobody is replaced; when all nodes have what they hold on disk (appendonly), restart them, and \
                 `keyward-sentinel adopt` goes on with it"
            ),
            Action::LeftBehind => tracing::error!(
                "the sentinels have lost their directories and have adopted this node's shard without it: it serves no more. \
                 Restart it"
            ),
        }
    }

    fn tell_laggard(&self, node: &NodeId, held_up: Duration) {
        let seconds = held_up.as_secs_f32();
        if *node == self.me {
            tracing::warn!(
                "this node's disk has held writes up for {seconds:.1} s: another node is to be the primary"
            );
        } else {
            let name = self.core.topology().node_name(node);
            tracing::warn!("{name} answers, but has held writes up for {seconds:.1} s: going on without it");
        }
    }

    /// A line for each tenth of the slots.
    fn show_full_sync(&mut self) {
        let Some((slots, bytes)) = self.core.full_sync_progress() else { return };
        let tenth = slots * 10 / usize::from(SLOT_COUNT);
        if self.full_sync_tenth != tenth {
            self.full_sync_tenth = tenth;
            tracing::info!(slots, bytes, "full sync: {} % of the slots have arrived", tenth * 10);
        }
    }

    fn connect(&mut self, id: UplinkId, host: String, port: u16, hello: Hello) {
        self.uplinks.retain(|_, u| !u.task.is_finished());
        let (acks, receiver) = mpsc::channel(ACKS_LEN);
        let connect_timeout = self.config.grace;
        let (complaints, requests) = (Arc::clone(&self.complaints), (acks.clone(), receiver));
        let bus = self.bus.clone();
        let uplink = Uplink { bus, id, host, port, hello, connect_timeout, complaints, requests };
        let (applier, engine) = (Arc::clone(&self.applier), Arc::clone(&self.engine));
        let run = link::run_uplink(uplink, self.inputs.clone(), applier, engine);
        let task = tokio::spawn(run).abort_handle();
        self.uplinks.insert(id, UplinkHandle { acks, task });
    }

    fn send_ack(&self, uplink: UplinkId, ack: Ack) {
        // A full queue is as good as a lost acknowledgement: the next one says more.
        if let Some(handle) = self.uplinks.get(&uplink)
            && handle.acks.try_send(wire::follow_ack(ack)).is_err()
        {
            tracing::debug!("an acknowledgement is dropped");
        }
    }

    fn start_link(&mut self, link: LinkId, start: Start, resume: Option<Resume>) {
        let Some(handle) = self.links.get_mut(&link) else { return };
        let count = match start.sync {
            SyncKind::Full | SyncKind::Resume(_) => &self.shared.full_syncs,
            SyncKind::Partial(_) => &self.shared.partial_syncs,
        };
        count.fetch_add(1, Ordering::Relaxed);
        let what = match start.sync {
            SyncKind::Partial(from) => format!("the log from {from} on"),
            SyncKind::Full => "everything: a full sync begins".to_owned(),
            SyncKind::Resume(from) => format!("the slots that it lacks, and the log from {from} on"),
        };
        tracing::info!("the replica {} gets {what}", handle.name);
        let wake = Arc::new(Notify::new());
        let outlet = handle.outlet.clone();
        let (shared, engine) = (Arc::clone(&self.shared), Arc::clone(&self.engine));
        let (config, inputs) = (self.config.clone(), self.inputs.clone());
        let heard_at = Arc::new(AtomicU64::new(clock::monotonic().as_nanos()));
        let signals = Signals { wake: Arc::clone(&wake), heard_at: Arc::clone(&heard_at) };
        let task = tokio::spawn(async move {
            sender::run(shared, engine, (link, start, resume), &config, outlet, signals).await;
            send(&inputs, Event::LinkClosed(link)).await;
        });
        handle.sender = Some(LinkSender { task: task.abort_handle(), wake, heard_at });
    }

    fn reject(&mut self, link: LinkId, term: Term, reason: &'static str) {
        if let Some(handle) = self.links.remove(&link)
            && handle.outlet.outbox.try_send(Ok(wire::rejection(term, reason))).is_err()
        {
            tracing::debug!("a rejected replica is gone already");
        }
    }

    /// The stream ends when the last holder of its outbox is gone.
    fn close_link(&mut self, link: LinkId) {
        if let Some(sender) = self.links.remove(&link).and_then(|l| l.sender) {
            sender.task.abort();
        }
    }

    fn status(&self) -> Status {
        let log = self.shared.log.lock();
        self.core.status(clock::monotonic(), &log)
    }

    fn node_status(&self) -> rpc::NodeStatus {
        let status = self.status();
        let shard = self.core.topology().nodes.get(&self.me).and_then(|n| n.shard.as_ref());
        let (keys, figures) = (self.engine.key_count(), self.engine.figures());
        wire::node_status(&status, &self.me, self.incarnation, shard, keys, figures, self.takeover.served)
    }

    fn show_status(&mut self) {
        let status = self.status();
        let role = (outline(&status.role), status.term);
        if role != self.role {
            let words = self.describe_role(&status.role);
            tracing::info!(term = %status.term, last = %status.last, commit = %status.commit, "{words}");
            self.role = role;
        }
        self.shown.status.send_replace(Arc::new(status));
    }
}

impl Task {
    /// For the log: what this node is now.
    fn describe_role(&self, role: &RoleStatus) -> String {
        let topology = self.core.topology();
        let shard = topology.shard_of(&self.me);
        let name = shard.map(|shard| topology.shard_name(&shard.id)).unwrap_or_default();
        match role {
            RoleStatus::None if shard.is_none() => "this node is a spare: it belongs to no shard".into(),
            RoleStatus::None => format!("this node has no role in {name} at the moment"),
            RoleStatus::Primary { .. } => format!("this node is the primary of {name}"),
            RoleStatus::Replica { primary, linked, full_sync, .. } => {
                let link = match (linked, full_sync) {
                    (false, _) => "not connected to it",
                    (true, true) => "a full sync runs",
                    (true, false) => "follows it",
                };
                format!("this node is a replica of {} in {name}: {link}", topology.node_name(primary))
            }
        }
    }
}

/// A role without what changes all the time.
fn outline(role: &RoleStatus) -> RoleStatus {
    match role.clone() {
        RoleStatus::None => RoleStatus::None,
        RoleStatus::Primary { .. } => RoleStatus::Primary { links: Vec::new(), leases: Vec::new() },
        RoleStatus::Replica { primary, linked, full_sync, .. } => RoleStatus::Replica {
            primary,
            linked,
            opened_at: None,
            full_sync,
            full_sync_progress: None,
            silence: Duration::ZERO,
            cut_off: false,
        },
    }
}

pub(crate) async fn send(inputs: &mpsc::Sender<Input>, event: Event) {
    if inputs.send(Input::Core(event)).await.is_err() {
        tracing::debug!("the replication task has ended");
    }
}

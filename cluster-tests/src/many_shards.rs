//! Many shards that fail together, in virtual time: what it costs the sentinels, and how long until all serve again.
//!
//! Real are the rules: the topology's state machine, the coordinator of failovers, the batches of proposals, the
//! encoding of what nodes are told. Modelled are the times, as [`Times`] has them: the leader handles one message
//! after another on one core, Raft commits one entry at a time. Nobody is silent, so no timer ends. What must come out: the number of Raft entries does
//! not grow with the number of shards that fail, and messages grow only by those of the failed shards themselves.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use keyward_proto::ids::{Incarnation, NodeId, Position, ShardId, Term};
use keyward_proto::time::Monotonic;
use keyward_proto::topology::{Shape, Shard, Topology};
use keyward_sentinel::rules::coordinator::{
    self, Action, Coordinator, Observed, ProposalId, Request, Settlement, Ticket,
};
use keyward_sentinel::rules::failover::{Answer, NodeState, Role, Trigger};
use keyward_sentinel::rules::formation::Arrivals;
use keyward_sentinel::rules::health::Health;
use keyward_sentinel::rules::inquiry::Question;
use keyward_sentinel::rules::placement;
use keyward_sentinel::rules::publication::Publications;
use keyward_sentinel::rules::topology::{
    Batch, InSyncChange, Outcome, Registration, TopologyCommand, apply_batch,
};
use keyward_sentinel::shell::proposals::BATCH_MAX;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// What the model assumes; microseconds.
#[derive(Debug, Clone)]
pub struct Times {
    /// One way, least and most.
    pub network: (u64, u64),
    /// An entry on the disks of a majority.
    pub raft_commit: u64,
    /// The leader's processor for one message, in or out.
    pub message: u64,
    /// From a primary's death until its replica knows, least and most: the kernel refuses its connection.
    pub notice: (u64, u64),
    /// From a node's restart until it has caught up, least and most.
    pub catch_up: (u64, u64),
}

impl Default for Times {
    fn default() -> Times {
        Times {
            network: (200, 600),
            raft_commit: 5000,
            message: 30,
            notice: (1000, 10_000),
            catch_up: (200_000, 400_000),
        }
    }
}

/// What shall happen.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub shards: u32,
    /// Primaries that die at once.
    pub failing: usize,
    /// Commands that share a Raft entry at most.
    pub batch_max: usize,
    pub seed: u64,
    pub times: Times,
}

impl Scenario {
    pub fn new(shards: u32, failing: usize) -> Scenario {
        Scenario { shards, failing, batch_max: BATCH_MAX, seed: 1, times: Times::default() }
    }
}

/// What it took: until the last of the failed shards served again, and until the restarted nodes were in sync.
#[derive(Debug, Clone, Default)]
pub struct Report {
    pub service: Cost,
    pub redundancy: Cost,
}

#[derive(Debug, Clone, Default)]
pub struct Cost {
    pub time: Duration,
    pub entries: usize,
    /// Between nodes and the leading sentinel, without the topology's updates.
    pub messages: usize,
    /// Sent to nodes by all sentinels when the topology had changed.
    pub updates: usize,
    pub update_bytes: usize,
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.time.as_secs_f64() * 1e3;
        let mib = self.update_bytes as f64 / f64::from(1 << 20);
        write!(f, "{ms:.1} | {} | {} | {} | {mib:.1}", self.entries, self.messages, self.updates)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Complaint(ShardId),
    Answered(ShardId, Question),
    /// The entry that is under way.
    Committed,
    /// The new primary has its answer.
    Serves(ShardId),
    Registration(NodeId),
    /// A primary wants a member to go or to come.
    Change(ShardId, Member),
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Member {
    Goes(NodeId),
    Comes(NodeId),
}

struct World {
    scenario: Scenario,
    random: StdRng,
    topology: Arc<Topology>,
    publications: Publications,
    raft_index: u64,
    now: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    sequence: u64,
    /// The leader's processor.
    busy_until: u64,
    waiting: Vec<TopologyCommand>,
    under_way: Option<Batch>,
    coordinator: Coordinator,
    tickets: u64,
    proposals: BTreeMap<ShardId, ProposalId>,
    dead: BTreeSet<NodeId>,
    starts: u64,
    cost: Cost,
    serving: usize,
}

/// Runs it to its end.
///
/// # Panics
/// When a rule refuses what the model expects to work.
pub fn run(scenario: &Scenario) -> Report {
    let mut world = World::new(scenario.clone());
    let failed = world.kill_primaries();
    world.run_until(|world| world.serving == failed.len());
    let service = world.take_cost(0);
    let began = world.now;
    for node in failed {
        let at = world.between((0, 100_000));
        world.dead.remove(&node);
        world.send_in(at, Event::Registration(node));
    }
    world.run_until(|world| world.is_redundant());
    Report { service, redundancy: world.take_cost(began) }
}

impl World {
    /// All shards formed, with two members in sync each.
    fn new(scenario: Scenario) -> World {
        let mut world = World {
            random: StdRng::seed_from_u64(scenario.seed),
            topology: Arc::default(),
            publications: Publications::default(),
            raft_index: 0,
            now: 0,
            events: BinaryHeap::new(),
            sequence: 0,
            busy_until: 0,
            waiting: Vec::new(),
            under_way: None,
            coordinator: Coordinator::default(),
            tickets: 0,
            proposals: BTreeMap::new(),
            dead: BTreeSet::new(),
            starts: 0,
            cost: Cost::default(),
            serving: 0,
            scenario,
        };
        let shape = Shape { shards: world.scenario.shards, replicas_per_shard: 1, ..Shape::default() };
        world.apply(vec![TopologyCommand::SetShape { shape }]);
        let nodes = (0..world.scenario.shards * 2).map(|_| NodeId::from_random(world.random.random()));
        let nodes: Vec<NodeId> = nodes.collect();
        let registrations = nodes.iter().map(|id| world.registration(id)).collect();
        world.apply(registrations);
        let mut random = StdRng::seed_from_u64(world.scenario.seed);
        let new_shard = || ShardId::from_random(random.random());
        let placed =
            placement::all(&world.topology, &BTreeSet::new(), Arrivals::Expected, new_shard, usize::MAX);
        world.apply(placed);
        let comes: Vec<TopologyCommand> = nodes
            .iter()
            .filter_map(|id| {
                let shard = world.topology.shard_of(id)?;
                (!shard.in_sync.contains(id)).then(|| world.change(shard, &Member::Comes(id.clone())))?
            })
            .collect();
        world.apply(comes);
        world.publications.update(None, &world.topology);
        world.cost = Cost::default();
        world
    }

    fn registration(&mut self, id: &NodeId) -> TopologyCommand {
        self.starts += 1;
        let known = self.topology.nodes.get(id);
        TopologyCommand::RegisterNode(Registration {
            start_nonce: self.starts,
            follows: known.map_or(Incarnation::ZERO, |node| node.incarnation),
            host: "node.example.net".into(),
            port: 6379,
            bus_port: 16379,
            cluster_enabled: true,
            program_version: env!("CARGO_PKG_VERSION").into(),
            ..Registration::new(id.clone())
        })
    }

    fn change(&self, shard: &Shard, member: &Member) -> Option<TopologyCommand> {
        let change = match member {
            Member::Goes(node) => InSyncChange::Remove(BTreeSet::from([node.clone()])),
            Member::Comes(node) => InSyncChange::Add {
                node: node.clone(),
                incarnation: self.topology.nodes.get(node)?.incarnation,
            },
        };
        Some(TopologyCommand::ChangeInSync {
            shard: shard.id.clone(),
            primary: shard.primary.clone()?,
            term: shard.term,
            in_sync_version: shard.in_sync_version,
            change,
            committed: Position::ZERO,
        })
    }

    fn between(&mut self, (least, most): (u64, u64)) -> u64 {
        self.random.random_range(least..=most)
    }

    /// Something arrives after a while and a way over the network.
    fn send_in(&mut self, micros: u64, event: Event) {
        let at = self.now.max(self.busy_until) + micros + self.between(self.scenario.times.network);
        self.sequence += 1;
        self.events.push(Reverse((at, self.sequence, event)));
    }

    /// The leader receives or sends messages.
    fn handle(&mut self, messages: usize) {
        self.cost.messages += messages;
        self.busy_until = self.busy_until.max(self.now) + self.scenario.times.message * messages as u64;
    }

    fn kill_primaries(&mut self) -> Vec<NodeId> {
        let topology = Arc::clone(&self.topology);
        let shards: Vec<&Shard> = topology.shards.values().take(self.scenario.failing).collect();
        shards
            .into_iter()
            .filter_map(|shard| {
                let primary = shard.primary.clone()?;
                self.dead.insert(primary.clone());
                let notice = self.between(self.scenario.times.notice);
                self.send_in(notice, Event::Complaint(shard.id.clone()));
                Some(primary)
            })
            .collect()
    }

    fn run_until(&mut self, is_done: impl Fn(&World) -> bool) {
        while !is_done(self) {
            let Reverse((at, _, event)) =
                self.events.pop().expect("something is under way until all is done");
            self.now = at;
            self.step(event);
        }
    }

    fn is_redundant(&self) -> bool {
        self.topology.shards.values().all(|shard| shard.in_sync.len() == 2 && shard.restarted.is_empty())
    }

    fn take_cost(&mut self, since: u64) -> Cost {
        Cost { time: Duration::from_micros(self.now - since), ..std::mem::take(&mut self.cost) }
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Complaint(shard) => {
                self.handle(1);
                self.complain(shard);
            }
            Event::Answered(shard, question) => {
                self.handle(1);
                let answer = self.answer(&question.node);
                self.coordinate(coordinator::Event::Answered(shard, question, answer));
            }
            Event::Committed => {
                let batch = self.under_way.take().expect("the entry that is under way");
                self.commit(batch);
            }
            Event::Serves(_) => self.serving += 1,
            Event::Registration(node) => {
                self.handle(1);
                let command = self.registration(&node);
                self.propose(command);
            }
            Event::Change(shard, member) => {
                self.handle(1);
                let shard = self.topology.shards.get(&shard).expect("a shard of this topology");
                let command = self.change(shard, &member).expect("the shard has a primary");
                self.propose(command);
            }
        }
    }

    fn answer(&self, node: &NodeId) -> Answer {
        if self.dead.contains(node) {
            return Answer::Refused;
        }
        let term = self.topology.shard_of(node).map_or(Term::ZERO, |shard| shard.term);
        Answer::Status(NodeState {
            incarnation: self.topology.nodes.get(node).map_or(Incarnation::ZERO, |n| n.incarnation),
            role: Role::Replica,
            term,
            last: Position::ZERO,
            usable: true,
            leases: BTreeSet::new(),
            cut_off: false,
        })
    }

    fn complain(&mut self, id: ShardId) {
        let shard = self.topology.shards.get(&id).expect("a shard of this topology");
        let reporter = shard.in_sync.iter().find(|node| !self.dead.contains(*node)).expect("one is alive");
        let (term, trigger) = (shard.term, Trigger::Complaint { reporter: reporter.clone() });
        self.tickets += 1;
        let request = Request::Failover { shard: id, term, trigger };
        self.coordinate(coordinator::Event::Requested(Ticket(self.tickets), request));
    }

    fn coordinate(&mut self, event: coordinator::Event) {
        let (now, health, mut actions) =
            (Monotonic::from_nanos(self.now * 1000), Health::default(), Vec::new());
        let view = Observed { me: 1, topology: &self.topology, health: &health };
        self.coordinator.step(now, view, event, &mut actions);
        for action in actions {
            match action {
                Action::Ask(shard, question) => {
                    self.handle(1);
                    let there = self.between(self.scenario.times.network);
                    self.send_in(there, Event::Answered(shard, question));
                }
                Action::Propose(proposal) => {
                    self.proposals.insert(proposal.change.shard.clone(), proposal.id);
                    self.propose(TopologyCommand::ReplacePrimary(proposal.change));
                }
                Action::Settle(_, Settlement::Replaced(replaced)) => {
                    self.answered();
                    self.send_in(0, Event::Serves(replaced.change.shard));
                }
                Action::AskAgain(..) | Action::Settle(..) => panic!("the primary is dead, but {action:?}"),
            }
        }
    }

    /// The answer to whoever asked.
    fn answered(&mut self) {
        self.handle(1);
    }

    fn propose(&mut self, command: TopologyCommand) {
        self.waiting.push(command);
        self.write();
    }

    /// As `keyward_sentinel::shell::proposals`: what waits when the last entry is done goes into the next one.
    fn write(&mut self) {
        if self.under_way.is_some() || self.waiting.is_empty() {
            return;
        }
        let rest = self.waiting.split_off(self.waiting.len().min(self.scenario.batch_max));
        let commands = std::mem::replace(&mut self.waiting, rest);
        self.under_way = Some(Batch { commands });
        self.sequence += 1;
        let at = self.now.max(self.busy_until) + self.scenario.times.raft_commit;
        self.events.push(Reverse((at, self.sequence, Event::Committed)));
    }

    fn commit(&mut self, batch: Batch) {
        let commands = batch.commands.clone();
        self.apply(commands);
        for command in batch.commands {
            match command {
                TopologyCommand::ReplacePrimary(change) => {
                    let id = self.proposals.remove(&change.shard).expect("it was proposed");
                    self.coordinate(coordinator::Event::Decided(change.shard, id, Ok(())));
                }
                TopologyCommand::RegisterNode(registration) => {
                    self.answered();
                    let id = registration.id;
                    let Some(shard) = self.topology.shard_of(&id) else { continue };
                    let (shard, restarted) = (shard.id.clone(), shard.restarted.contains(&id));
                    if restarted {
                        self.send_in(0, Event::Change(shard.clone(), Member::Goes(id.clone())));
                    }
                    let caught_up = self.between(self.scenario.times.catch_up);
                    self.send_in(caught_up, Event::Change(shard, Member::Comes(id)));
                }
                TopologyCommand::ChangeInSync { .. } => self.answered(),
                TopologyCommand::FormShards { .. }
                | TopologyCommand::AssignNode { .. }
                | TopologyCommand::ForgetNode { .. }
                | TopologyCommand::AnnounceSentinel { .. }
                | TopologyCommand::SetSentinels { .. }
                | TopologyCommand::AnnounceLoading { .. }
                | TopologyCommand::SetShape { .. }
                | TopologyCommand::SetMinInSync { .. } => {}
            }
        }
        self.write();
    }

    /// One entry; every node is told what it has changed.
    fn apply(&mut self, commands: Vec<TopologyCommand>) {
        self.raft_index += 1;
        let known = self.topology.key();
        let mut topology = Topology::clone(&self.topology);
        for result in apply_batch(&mut topology, self.raft_index, Batch { commands }) {
            match result {
                Ok(Outcome::Changed | Outcome::Registered { .. } | Outcome::Unchanged) => {}
                Err(refusal) => panic!("refused: {refusal}"),
            }
        }
        self.topology = Arc::new(topology);
        let update = self.publications.update(known.as_ref(), &self.topology);
        let watchers = self.topology.nodes.len() - self.dead.len();
        self.cost.entries += 1;
        self.cost.updates += watchers;
        self.cost.update_bytes += watchers * (update.topology.len() + update.delta.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raft_entries_do_not_grow_with_the_shards_that_fail() {
        let few = run(&Scenario::new(200, 6));
        let many = run(&Scenario::new(200, 60));
        assert!(many.service.entries <= few.service.entries + 2, "{few:?} {many:?}");
        assert!(many.service.time < few.service.time * 2, "{few:?} {many:?}");
        // A complaint, two questions, two answers, a reply.
        assert_eq!(many.service.messages, 60 * 6);
        assert!(many.redundancy.entries < 150, "{many:?}");
    }

    #[test]
    fn without_batches_they_would() {
        let alone = run(&Scenario { batch_max: 1, ..Scenario::new(200, 60) });
        assert_eq!(alone.service.entries, 60);
    }
}

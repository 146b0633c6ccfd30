//! Tests of commands: requests in, replies and effects out, without a socket.
//!
//! [`TestNode`] is a server whose one client lives in the test. [`check`] runs `(request, reply)` pairs on a fresh
//! one. Requests are written as in an inline command, with quotes where needed; they reach the command as a RESP
//! array. A [`TestNode::replicated`] one logs its effects, and [`TestNode::replica`] applies them to another.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::BytesMut;
use keyward_proto::entry::{effects, frames};
use keyward_proto::ids::{Incarnation, LogIndex, NodeId, Position, ShardId, Term};
use keyward_proto::resp::Output;
use keyward_proto::resp::reply::write_command;
use keyward_proto::resp::{
    Args, Batch, RequestReader, Version,
    request::{Limits, split_words},
};
use keyward_proto::slot::Slot;
use keyward_proto::time::{Monotonic, UnixMillis};
use keyward_proto::topology::{Node, Shard, SlotRange, Topology, Transport};
use keyward_replication::gate::{GateState, GateView};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::clock::Clock;
use crate::config::Config;
use crate::execute::{Executor, Patience, Stop};
use crate::io::session::Session;
use crate::routing::Routing;
use crate::server::Server;

/// See the module documentation.
pub(crate) struct TestNode {
    pub executor: Executor,
    pub session: Session,
    /// Why the last batch stopped.
    pub stop: Option<Stop>,
    next_effect: LogIndex,
}

impl TestNode {
    /// A node alone: it logs nothing.
    pub(crate) fn new() -> TestNode {
        TestNode::with_arguments(&[])
    }

    /// A primary that logs its effects.
    pub(crate) fn replicated() -> TestNode {
        let node = TestNode::with_arguments(&["--sentinels", "localhost:1"]);
        node.publish(GateState::Primary, 0);
        node
    }

    /// The node has ended a term, and is the primary again.
    pub(crate) fn begin_generation(&self, generation: u64) {
        self.publish(GateState::Primary, generation);
    }

    /// Shows this in its gate.
    pub(crate) fn publish(&self, state: GateState, generation: u64) {
        let gate = &self.executor.server().shared.gate;
        let view = GateView {
            state,
            term: Term::new(1),
            commit: LogIndex::ZERO,
            lease_until: Monotonic::from_nanos(u64::MAX),
            writable: true,
            generation,
            ended_commit: LogIndex::ZERO,
            ended_terms: 0,
            auto_commit: false,
            sending_term: Term::new(1),
        };
        gate.publish(&view, Monotonic::ZERO);
    }

    pub(crate) fn with_arguments(arguments: &[&str]) -> TestNode {
        let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
        let config = Config::from_arguments(&arguments).unwrap();
        TestNode::on(
            Server::new(config, Clock::System, UnixMillis(0), Monotonic::ZERO, "0".repeat(40)).unwrap(),
        )
    }

    /// Another client of the same server.
    pub(crate) fn another_client(&self) -> TestNode {
        TestNode::on(Arc::clone(self.executor.server()))
    }

    fn on(server: Arc<Server>) -> TestNode {
        let client =
            server.clients.add("127.0.0.1:1".into(), "127.0.0.1:2".into(), Transport::Plain, Monotonic::ZERO);
        TestNode {
            executor: Executor::new(server, SmallRng::seed_from_u64(1)),
            session: Session::new(client),
            stop: None,
            next_effect: LogIndex::new(1),
        }
    }

    pub(crate) fn resp3(mut self) -> TestNode {
        self.session.version = Version::Resp3;
        self
    }

    /// The reply to a request; bytes that are no UTF-8 are replaced.
    pub(crate) fn run(&mut self, request: &str) -> String {
        let words = words(request);
        self.run_words(&words.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    pub(crate) fn run_words(&mut self, words: &[&[u8]]) -> String {
        String::from_utf8_lossy(&self.run_raw(words)).into_owned()
    }

    /// The exact bytes of the reply.
    pub(crate) fn run_raw(&mut self, words: &[&[u8]]) -> Vec<u8> {
        let mut buffer = BytesMut::new();
        write_command(&mut buffer, words);
        let mut batch = Batch::default();
        let (_, parsed) = RequestReader::default().parse(&buffer, &Limits::default(), 1, &mut batch);
        parsed.unwrap();
        let mut out = Output::default();
        let end =
            self.executor.run_batch(&mut self.session, &batch, &buffer, 0, Patience::Exhausted, &mut out);
        self.stop = end.stop;
        out.to_vec()
    }

    /// The effects since the last call, words joined by spaces.
    pub(crate) fn effects(&mut self) -> Vec<String> {
        let mut found = Vec::new();
        self.visit_effects(&mut |_, _, args| {
            let words: Vec<_> = args.iter().map(|a| String::from_utf8_lossy(a).into_owned()).collect();
            found.push(words.join(" "));
        });
        found
    }

    fn visit_effects(&mut self, visit: &mut dyn FnMut(Option<Slot>, u16, Args<'_>)) {
        let shared = Arc::clone(&self.executor.server().shared);
        let mut log = shared.log.lock();
        loop {
            let slice = log.read_from(self.next_effect, 1 << 20).unwrap();
            if slice.count == 0 {
                return;
            }
            self.next_effect = slice.last().index.next();
            for effect in frames(&slice.bytes).flat_map(effects) {
                let mut batch = Batch::default();
                let limits = Limits::default();
                RequestReader::default().parse(effect.command, &limits, 1, &mut batch).1.unwrap();
                visit(effect.slot, effect.db, batch.args(effect.command, 0));
            }
        }
    }

    /// A fresh node that has applied every effect since the last call of this or [`TestNode::effects`].
    pub(crate) fn replica(&mut self) -> TestNode {
        let mut replica = TestNode::new();
        self.apply_effects_to(&mut replica);
        replica.session.db = 0;
        replica
    }

    /// This node applies what the other has done since the last call of this or [`TestNode::effects`].
    pub(crate) fn apply_effects_to(&mut self, replica: &mut TestNode) {
        let TestNode { executor, session, .. } = replica;
        self.visit_effects(&mut |slot, db, args| {
            executor
                .apply_locked(session, slot.map(|s| vec![s]), LogIndex::ZERO, |apply| apply(db, args))
                .expect("an effect of this version");
        });
    }
}

/// Runs requests on a fresh node and compares the replies.
#[track_caller]
pub(crate) fn check(steps: &[(&str, &str)]) {
    check_on(&mut TestNode::new(), steps);
}

#[track_caller]
pub(crate) fn check_on(node: &mut TestNode, steps: &[(&str, &str)]) {
    for (request, reply) in steps {
        assert_eq!(node.run(request), *reply, "{request}");
    }
}

/// Splits a line into its words as an inline request.
fn words(line: &str) -> Vec<Vec<u8>> {
    split_words(line.as_bytes()).unwrap()
}

#[test]
fn an_effect_reaches_a_replica() {
    let mut node = TestNode::replicated();
    check_on(&mut node, &[("SET a \"b c\"", "+OK\r\n"), ("GET a", "$3\r\nb c\r\n")]);
    assert_eq!(node.replica().run("GET a"), "$3\r\nb c\r\n");
    check_on(&mut node, &[("RPUSH l x", ":1\r\n")]);
    assert_eq!(node.effects(), ["RPUSH l x"]);
    check(&[("GET a", "$-1\r\n")]);
}

/// Node 1 is the primary of the lower half of the slots, node 2 its replica, and `third` is the primary of the upper
/// half. Seen by node `me`.
pub(crate) fn two_shards(me: u8, third: Option<u8>) -> Routing {
    let id = |number| NodeId::from_random([number; 20]);
    let shards = [ShardId::from_random([1; 20]), ShardId::from_random([2; 20])];
    let node = |number: u8, shard: usize| Node {
        incarnation: Incarnation::new(1),
        host: format!("host{number}"),
        port: 6379,
        bus_port: 16379,
        shard: Some(shards[shard].clone()),
        cluster_enabled: true,
        ..Node::new(id(number))
    };
    let nodes = [node(1, 0), node(2, 0), node(3, 1)];
    let shard = |at: usize, primary: Option<u8>, first, last| Shard {
        id: shards[at].clone(),
        slots: vec![SlotRange { first: Slot::new(first).unwrap(), last: Slot::new(last).unwrap() }],
        term: Term::new(1),
        primary: primary.map(id),
        in_sync: Default::default(),
        restarted: Default::default(),
        in_sync_version: 1,
        previous_primary_gone: false,
        predecessor_gone: false,
        handoff_position: Position::default(),
        absent: Default::default(),
    };
    let shards = [shard(0, Some(1), 0, 8191), shard(1, third, 8192, 16383)];
    let topology = Topology {
        nodes: nodes.into_iter().map(|n| (n.id.clone(), n)).collect(),
        shards: BTreeMap::from(shards.map(|s| (s.id.clone(), s))),
        ..Topology::default()
    };
    Routing::new(Arc::new(topology), id(me))
}

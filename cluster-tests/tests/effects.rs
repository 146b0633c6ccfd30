//! What an effect does depends on no setting of the node that applies it: otherwise replicas with other settings than their
//! primary's, as during a rolling change, would differ from it, or refuse what it did.
//!
//! Random commands run on a primary; its log, and its slots as a full sync sends them, are applied to nodes of which each
//! setting is at one of its extremes. Which settings there are is asked of the node, so new ones are tested, too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use cluster_tests::compare::generator::{Action, Client, Generator};
use keyward_node::clock::Clock;
use keyward_node::config::Config;
use keyward_node::engine::KeyspaceEngine;
use keyward_node::execute::{Executor, Patience};
use keyward_node::io::session::Session;
use keyward_node::replication::Engine;
use keyward_node::server::Server;
use keyward_proto::entry::frames;
use keyward_proto::ids::{LogIndex, Term};
use keyward_proto::resp::reply::write_command;
use keyward_proto::resp::{Batch, Limits, Output, RequestReader};
use keyward_proto::slot::Slot;
use keyward_proto::time::{Monotonic, UnixMillis};
use keyward_proto::topology::Transport;
use keyward_replication::gate::{GateState, GateView};
use keyward_store::rebuild::rebuild;
use rand::SeedableRng;
use rand::rngs::SmallRng;

const ROUNDS: u64 = 5;
const SEQUENCES: u64 = 10;
const LENGTH: usize = 50;

/// Whoever sets these has the test's process, or its connection, do something else.
const LEFT_ALONE: [&str; 8] = [
    "appendonly",
    "bind",
    "dir",
    "logfile",
    "maxclients",
    "oom-score-adj",
    "oom-score-adj-values",
    "requirepass",
];

/// The first that is accepted is set.
const LOW: [&str; 7] = ["1", "0", "1048576", "-5", "no", "volatile-lru", ""];
const HIGH: [&str; 11] = [
    "9223372036854775807",
    "4294967295",
    "2147483647",
    "1073741824",
    "65535",
    "1000",
    "100",
    "10",
    "yes",
    "allkeys-lfu",
    "KEA",
];

/// Up to and beyond what the settings allow to clients.
const EXTREME: [&str; 14] = [
    "SETRANGE big 3000000 x",
    "APPEND big yy",
    "SETBIT bits 20000000 1",
    "RPUSH long {v}",
    "RPUSH long {v} {v} {v}",
    "LSET long 0 {v}",
    "SADD numbers 1 2 3 4 5",
    "SADD numbers six",
    "HSET h f {v} g h",
    "ZADD z 1 {v} 2 b",
    "SET moved x",
    "MOVE moved 15",
    "COPY big other DB 9",
    "SWAPDB 9 15",
];

struct Node {
    server: Arc<Server>,
    executor: Executor,
    session: Session,
}

impl Node {
    fn new(arguments: &[&str]) -> Node {
        let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
        let config = Config::from_arguments(&arguments).expect("such directives exist");
        let server = Server::new(config, Clock::System, UnixMillis(0), Monotonic::ZERO, "0".repeat(40))
            .expect("the directives do not contradict each other");
        let client =
            server.clients.add("127.0.0.1:1".into(), "127.0.0.1:2".into(), Transport::Plain, Monotonic::ZERO);
        let executor = Executor::new(Arc::clone(&server), SmallRng::seed_from_u64(1));
        Node { server, executor, session: Session::new(client) }
    }

    fn primary() -> Node {
        let node = Node::new(&["--sentinels", "localhost:1"]);
        let view = GateView {
            state: GateState::Primary,
            term: Term::new(1),
            commit: LogIndex::ZERO,
            lease_until: Monotonic::from_nanos(u64::MAX),
            writable: true,
            generation: 0,
            ended_commit: LogIndex::ZERO,
            ended_terms: 0,
            auto_commit: false,
            sending_term: Term::new(1),
        };
        node.server.shared.gate.publish(&view, Monotonic::ZERO);
        node
    }

    /// Each of its settings is one of `values`.
    fn extreme(databases: &str, values: &[&str]) -> Node {
        let mut node = Node::new(&["--databases", databases]);
        let listed = node.run_line("CONFIG GET *");
        let names: Vec<&str> = listed.split("\r\n").skip(2).step_by(4).collect();
        let settable = names.into_iter().filter(|name| !LEFT_ALONE.contains(name));
        let mut set = 0;
        for name in settable {
            let accepted =
                |node: &mut Node, value: &str| node.run(&["CONFIG", "SET", name, value]) == "+OK\r\n";
            set += usize::from(values.iter().any(|value| accepted(&mut node, value)));
        }
        assert!(40 < set, "only {set} settings can be set");
        node
    }

    fn run_line(&mut self, line: &str) -> String {
        self.run(&line.split(' ').collect::<Vec<_>>())
    }

    fn run(&mut self, words: &[&str]) -> String {
        String::from_utf8_lossy(&self.run_raw(&words.iter().map(|w| w.as_bytes()).collect::<Vec<_>>()))
            .into_owned()
    }

    fn run_raw(&mut self, words: &[&[u8]]) -> Vec<u8> {
        let mut buffer = BytesMut::new();
        write_command(&mut buffer, words);
        let mut batch = Batch::default();
        RequestReader::default().parse(&buffer, &Limits::default(), 1, &mut batch).1.expect("a request");
        let mut out = Output::default();
        let (session, patience) = (&mut self.session, Patience::Exhausted);
        let _end = self.executor.run_batch(session, &batch, &buffer, 0, patience, &mut out);
        out.to_vec()
    }

    /// What the keyspace means, however it is encoded.
    fn contents(&self) -> BTreeMap<(u16, Vec<u8>), Value> {
        let mut contents: BTreeMap<_, Value> = BTreeMap::new();
        for slot in Slot::all() {
            let state = self.server.keyspace.lock(slot);
            for (db, table) in state.dbs() {
                for entry in table.iter() {
                    let value = contents.entry((db, entry.key().to_vec())).or_default();
                    rebuild(entry, &mut |words| value.take(words));
                }
            }
        }
        contents
    }
}

/// The commands that make a value, elements without an order by themselves.
#[derive(Debug, Default, PartialEq)]
struct Value {
    ordered: Vec<Vec<u8>>,
    unordered: BTreeSet<Vec<Vec<u8>>>,
}

impl Value {
    fn take(&mut self, words: &[&[u8]]) {
        let owned = |words: &[&[u8]]| words.iter().map(|w| w.to_vec()).collect::<Vec<_>>();
        let (name, elements) = (words[0], words.get(2..).unwrap_or_default());
        let unit = match name {
            b"SADD" => 1,
            b"HSET" | b"ZADD" => 2,
            _ => return self.ordered.extend(owned(elements)),
        };
        let mut units = elements.chunks(unit).map(owned).collect::<Vec<_>>();
        // As in Valkey, a compact sorted set has no negative zero, and a large one has: the same number.
        let is_negative_zero = |unit: &&mut Vec<Vec<u8>>| name == b"ZADD" && unit[0] == b"-0";
        units.iter_mut().filter(is_negative_zero).for_each(|unit| unit[0] = b"0".to_vec());
        self.unordered.extend(units);
    }
}

/// The commands of a round, for one connection.
fn commands(generator: &Generator, round: u64) -> Vec<Vec<Vec<u8>>> {
    let numbers = round * SEQUENCES..(round + 1) * SEQUENCES;
    let actions = numbers.flat_map(|n| generator.sequence(7, n, LENGTH)).flat_map(|step| step.actions);
    let random = actions.filter_map(|action| match action {
        Action::Command(Client::Main | Client::Second, args) => Some(args),
        _ => None,
    });
    let long = "v".repeat(10_000);
    let words = |line: &&str| line.split(' ').map(|word| word.replace("{v}", &long).into_bytes()).collect();
    // The random ones may end inside MULTI.
    let outside = std::iter::once(vec![b"DISCARD".to_vec()]);
    random.chain(outside).chain(EXTREME.iter().map(words)).collect()
}

/// Applies what is in the primary's log from `next` on; returns what comes next then.
fn apply(primary: &Node, engines: &[KeyspaceEngine], next: LogIndex) -> LogIndex {
    let mut next = next;
    loop {
        let slice = primary.server.shared.log.lock().read_from(next, 1 << 24).expect("it is in memory");
        if slice.count == 0 {
            return next;
        }
        for payload in frames(&slice.bytes) {
            for engine in engines {
                assert_eq!(engine.apply(next, payload), Ok(()), "{}", String::from_utf8_lossy(payload));
            }
            next = next.next();
        }
    }
}

/// A slot as a full sync sends it.
fn payloads(source: &KeyspaceEngine, primary: &Node, slot: Slot) -> Vec<Bytes> {
    if let Some(read) = source.read_slot(slot, &primary.server.shared) {
        return Vec::from_iter(Some(read.payload).filter(|payload| !payload.is_empty()));
    }
    let mut reader = source.read_large_slots(&[slot]);
    let mut payloads = Vec::new();
    loop {
        let parts = reader.next_parts().expect("a snapshot");
        if parts.is_empty() {
            return payloads;
        }
        payloads.extend(parts.into_iter().map(|part| part.payload));
    }
}

#[test]
fn effects_and_slots_come_to_the_same_under_all_settings() {
    let mut replicas = [Node::extreme("1", &LOW), Node::extreme("10000", &HIGH)];
    let [lowest, highest] = &mut replicas;
    // That the settings bite.
    assert!(lowest.run_line("SETRANGE k 3000000 x").starts_with("-ERR string exceeds"));
    assert!(lowest.run_line("SELECT 1").starts_with("-ERR"));
    let encodings = [lowest, highest].map(|node| {
        node.run_line("SADD s a b c");
        node.run_line("OBJECT ENCODING s")
    });
    assert_ne!(encodings[0], encodings[1]);

    let skip: Vec<String> = ["connection", "server", "CLIENT", "DEBUG"].map(str::to_owned).into();
    let generator = Generator::new(&[], &skip).expect("there are others");
    let engine_of = |node: &Node| KeyspaceEngine::new(Arc::clone(&node.server), SmallRng::seed_from_u64(2));
    let engines = [engine_of(&replicas[0]), engine_of(&replicas[1])];
    let (mut effects, mut keys) = (0, 0);
    for round in 0..ROUNDS {
        engines.iter().for_each(Engine::clear);
        let mut primary = Node::primary();
        let mut next = LogIndex::new(1);
        for command in commands(&generator, round) {
            primary.run_raw(&command.iter().map(Vec::as_slice).collect::<Vec<_>>());
            let applied = apply(&primary, &engines, next);
            effects += applied.get() - next.get();
            next = applied;
        }
        let expected = primary.contents();
        keys += expected.len();
        let check = |what| {
            for replica in &replicas {
                let found = replica.contents();
                let differing = expected.iter().find(|(key, value)| found.get(key) != Some(value));
                let differing = differing.map(|(key, value)| (key, value, found.get(key)));
                assert!(
                    differing.is_none() && found.len() == expected.len(),
                    "{what}, round {round}: {differing:?}"
                );
            }
        };
        check("the log");
        engines.iter().for_each(Engine::clear);
        let source = engine_of(&primary);
        for slot in Slot::all() {
            for payload in payloads(&source, &primary, slot) {
                engines.iter().for_each(|engine| engine.apply_snapshot(slot, &payload).expect("it is known"));
            }
        }
        check("a full sync");
    }
    assert!(500 < effects && 50 < keys, "{effects} effects, {keys} keys");
}

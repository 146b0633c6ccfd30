//! Questions to a node over real sockets: which connections they use, whom they go through, and what becomes of the
//! answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::harness::{Group, TestNode, bus, eventually, id, three_in_sync};
use keyward_net::flight::Keeping;
use keyward_proto::ids::Incarnation;
use keyward_proto::rpc;
use keyward_proto::topology::{Node, Topology};
use keyward_sentinel::config::{Config, parse};
use keyward_sentinel::rules::failover::Answer;
use keyward_sentinel::shell::connections::Connections;
use keyward_sentinel::shell::flight::Flight;
use keyward_sentinel::shell::sentinel::Sentinel;
use keyward_sentinel::shell::{probe, questions};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Long enough for a busy machine; whoever does not answer at all costs as much.
const LIMIT: Duration = Duration::from_secs(8);

/// A wire to a node, on which connections can get stuck as they do in a partition: nothing comes through, and nothing
/// is closed.
struct Wire {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    /// Connections up to this number are stuck.
    stuck: watch::Sender<usize>,
}

impl Wire {
    async fn to(node: SocketAddr) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let (stuck, watched) = watch::channel(0);
        let count = accepted.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = count.fetch_add(1, Ordering::SeqCst) + 1;
                tokio::spawn(carry(client, node, number, watched.clone()));
            }
        });
        Wire { address, accepted, stuck }
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    fn get_stuck(&self) {
        self.stuck.send_replace(self.accepted());
    }
}

async fn carry(mut client: TcpStream, node: SocketAddr, number: usize, mut stuck: watch::Receiver<usize>) {
    if number <= *stuck.borrow() {
        return std::future::pending().await;
    }
    let Ok(mut server) = TcpStream::connect(node).await else { return };
    let gets_stuck = async { drop(stuck.wait_for(|last| number <= *last).await) };
    let is_stuck = tokio::select! {
        biased;
        () = gets_stuck => true,
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => false,
    };
    if is_stuck {
        std::future::pending::<()>().await;
    }
}

/// Node `n` as the topology has it.
fn node_at(n: u8, address: SocketAddr, incarnation: u64) -> Node {
    Node {
        incarnation: Incarnation::new(incarnation),
        start_nonce: 1,
        host: address.ip().to_string(),
        port: address.port(),
        bus_port: address.port(),
        cluster_enabled: true,
        ..Node::new(id(n))
    }
}

async fn ask(connections: &Connections, node: &Node) -> Answer {
    probe::ask(connections, &Topology::default(), node, LIMIT).await.answer
}

fn incarnation(answer: &Answer) -> Option<u64> {
    match answer {
        Answer::Status(state) => Some(state.incarnation.get()),
        Answer::Refused | Answer::Silent => None,
    }
}

#[tokio::test]
async fn one_connection_serves_all_questions_until_the_node_moves_or_leaves() {
    let server = TestNode::start(1).await;
    let wire = Wire::to(server.address).await;
    let connections = Connections::new(bus());
    let node = node_at(1, wire.address, 0);
    for _ in 0..5 {
        assert_eq!(incarnation(&ask(&connections, &node).await), Some(0));
    }
    assert_eq!(wire.accepted(), 1);

    let mut topology = Topology::default();
    topology.nodes.insert(id(1), node.clone());
    connections.follow(&topology);
    assert!(connections.take(&node).is_some_and(|client| {
        connections.keep(&node, client);
        true
    }));
    let moved = node_at(1, server.address, 0);
    assert!(connections.take(&moved).is_none(), "it leads to another address");
    ask(&connections, &node).await;
    assert!(connections.take(&node_at(1, wire.address, 1)).is_none(), "it leads to an earlier process");
    ask(&connections, &node).await;
    connections.follow(&Topology::default());
    assert!(connections.take(&node).is_none(), "the node has left");
}

#[tokio::test]
async fn questions_at_the_same_time_have_connections_of_their_own() {
    let server = TestNode::start(1).await;
    let wire = Wire::to(server.address).await;
    let connections = Connections::new(bus());
    let node = node_at(1, wire.address, 0);
    let answers = tokio::join!(ask(&connections, &node), ask(&connections, &node));
    assert_eq!((incarnation(&answers.0), incarnation(&answers.1)), (Some(0), Some(0)));
    assert_eq!(wire.accepted(), 2);
    ask(&connections, &node).await;
    assert_eq!(wire.accepted(), 2, "one of them was kept");
}

#[tokio::test]
async fn a_process_that_ends_is_known_to_be_dead_at_once() {
    let mut server = TestNode::start(1).await;
    let connections = Connections::new(bus());
    let node = node_at(1, server.address, 0);
    assert_eq!(incarnation(&ask(&connections, &node).await), Some(0));
    server.stop().await;
    let start = Instant::now();
    assert_eq!(ask(&connections, &node).await, Answer::Refused);
    assert!(start.elapsed() < LIMIT / 8, "nobody waits for the kept connection: {:?}", start.elapsed());
    assert!(connections.take(&node).is_none());
}

#[tokio::test]
async fn another_process_at_the_address_answers_for_itself() {
    let mut server = TestNode::start(1).await;
    let connections = Connections::new(bus());
    let node = node_at(1, server.address, 0);
    assert_eq!(incarnation(&ask(&connections, &node).await), Some(0));
    server.serve_again().await;
    server.state.lock().incarnation = 7;
    assert_eq!(incarnation(&ask(&connections, &node).await), Some(7), "it says that it has restarted");
    assert!(connections.take(&node).is_none(), "the topology does not know that process");

    let other = node_at(2, server.address, 7);
    assert_eq!(ask(&connections, &other).await, Answer::Refused, "node 2 is not there");
    assert!(connections.take(&other).is_none());
}

#[tokio::test]
async fn a_kept_connection_proves_nothing_but_life() {
    let server = TestNode::start(1).await;
    let connections = Connections::new(bus());
    let known = node_at(1, server.address, 0);
    assert_eq!(incarnation(&ask(&connections, &known).await), Some(0));
    // As if the connection that is kept for node 2 led to node 1.
    let other = TestNode::start(2).await;
    let node = node_at(2, other.address, 0);
    connections.keep(&node, connections.take(&known).unwrap());
    assert_eq!(incarnation(&ask(&connections, &node).await), Some(0), "over a new connection");
    assert!(connections.take(&node).is_some());
}

#[tokio::test]
async fn a_stuck_connection_costs_little_and_a_silent_node_no_more_than_the_limit() {
    let server = TestNode::start(1).await;
    let wire = Wire::to(server.address).await;
    let connections = Connections::new(bus());
    let node = node_at(1, wire.address, 0);
    assert_eq!(incarnation(&ask(&connections, &node).await), Some(0));
    wire.get_stuck();
    let start = Instant::now();
    assert_eq!(incarnation(&ask(&connections, &node).await), Some(0), "a new connection works");
    assert!(start.elapsed() < LIMIT / 2, "{:?}", start.elapsed());
    assert_eq!(wire.accepted(), 2);

    wire.stuck.send_replace(usize::MAX);
    let limit = Duration::from_millis(200);
    let start = Instant::now();
    let report = probe::ask(&connections, &Topology::default(), &node, limit).await;
    assert_eq!(report.answer, Answer::Silent);
    assert!(limit <= start.elapsed());
    assert!(connections.take(&node).is_none(), "the next question starts anew");
    wire.get_stuck();
    assert_eq!(incarnation(&ask(&connections, &node).await), Some(0));
}

/// A sentinel beside the group, which knows the group's topology, but node 2 at an address of its own.
fn outsider(topology: &Topology, node_2: SocketAddr) -> (Sentinel, Node) {
    let args = ["keyward-sentinel", "--name", "s9", "--initial", "s9=127.0.0.1:1"].map(String::from);
    let config = Config::new(parse(args).unwrap()).unwrap();
    let mut topology = topology.clone();
    let node = topology.nodes.get_mut(&id(2)).unwrap();
    node.bus_port = node_2.port();
    let node = node.clone();
    let (_, watched) = watch::channel(Arc::new(topology));
    let flight = Arc::new(Flight::new("s9", &Keeping { dir: "".into(), files_max: 0 }));
    (Sentinel::new(config, bus(), flight, watched, mpsc::channel(1).0, mpsc::channel(1).0), node)
}

async fn ask_also_through_others(topology: &Topology, node_2: SocketAddr, limit: Duration) -> Answer {
    let (sentinel, node) = outsider(topology, node_2);
    questions::ask(&sentinel, &sentinel.current(), [&node], limit).await.remove(&node.id).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_sentinel_passes_on_what_a_node_says_of_itself_and_nothing_else() {
    let group = Group::start(3).await;
    let mut nodes = three_in_sync(&group).await;
    let topology = group.topology().await;
    let silent = Wire::to(nodes[1].address).await;
    silent.stuck.send_replace(usize::MAX);

    let answers = async || {
        let answer = ask_also_through_others(&topology, silent.address, LIMIT).await;
        incarnation(&answer)
    };
    let known = topology.nodes[&id(2)].incarnation;
    assert_eq!(eventually("an answer", answers).await, known.get());

    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let refused = ask_also_through_others(&topology, nobody, LIMIT).await;
    assert_eq!(refused, Answer::Refused, "this sentinel's own connection is proof");

    let limit = Duration::from_millis(400);
    nodes[1].state.lock().incarnation = known.get() + 1;
    let other_process = ask_also_through_others(&topology, silent.address, limit).await;
    assert_eq!(other_process, Answer::Silent, "proves nothing about the one that is meant");
    nodes[1].state.lock().incarnation = known.get();
    assert_eq!(eventually("an answer", answers).await, known.get());
    nodes[1].stop().await;
    let refused_there = ask_also_through_others(&topology, silent.address, limit).await;
    assert_eq!(refused_there, Answer::Silent, "a refusal elsewhere is no proof");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_is_passed_on_only_for_a_process_that_is_known() {
    let group = Group::start(1).await;
    let nodes = three_in_sync(&group).await;
    let ask = async |n: u8, incarnation: u64, limit: Duration| {
        let limit_nanos = u64::try_from(limit.as_nanos()).unwrap();
        let request = rpc::AskNodeRequest { node_id: id(n).to_string(), incarnation, limit_nanos };
        group.control(0).ask_node(request).await.unwrap().into_inner().status
    };
    let incarnation = nodes[1].state.lock().incarnation;
    let status = eventually("an answer", async || ask(2, incarnation, LIMIT).await).await;
    assert_eq!(status.node_id, id(2).to_string());
    assert_eq!(ask(2, incarnation + 1, LIMIT).await, None);
    assert_eq!(ask(9, incarnation, LIMIT).await, None);
}

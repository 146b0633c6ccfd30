//! Sentinels on free loopback ports, and nodes that only answer questions.
#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    missing_debug_implementations,
    reason = "a test may panic, and exports nothing"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use keyward_net::bus::Bus;
use keyward_proto::bus::Identity;
use keyward_proto::format::FORMAT;
use keyward_proto::ids::NodeId;
use keyward_proto::rpc;
use keyward_proto::rpc::control_client::ControlClient;
use keyward_proto::rpc::node_control_server::{NodeControl, NodeControlServer};
use keyward_proto::rpc::raft_client::RaftClient;
use keyward_proto::rpc::{admin_reply, admin_request};
use keyward_proto::topology::delta::Delta;
use keyward_proto::topology::{Shard, Topology};
use keyward_sentinel::config::{Config, parse};
use keyward_sentinel::shell::channel::endpoint;
use keyward_sentinel::shell::runtime::{RunError, run};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status, Streaming};

pub const LIMIT: Duration = Duration::from_secs(30);

pub fn id(n: u8) -> NodeId {
    NodeId::from_random([n; 20])
}

/// Repeats until there is a result; panics after [`LIMIT`].
pub async fn eventually<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    while Instant::now() < deadline {
        if let Some(result) = attempt().await {
            return result;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited too long for {what}");
}

/// Nobody has a secret on this machine.
pub fn bus() -> Bus {
    Bus::new(Identity::operator(), None)
}

fn lazy(address: &str) -> Option<Channel> {
    endpoint(address).map(|endpoint| bus().connect_lazy(&endpoint))
}

async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), RunError>>,
}

/// Sentinels s1, s2 ... in one process.
pub struct Group {
    dir: tempfile::TempDir,
    ports: Vec<(u16, u16)>,
    initial: String,
    extra: Vec<String>,
    running: Vec<Option<Running>>,
}

/// Follows the topology as a node does.
pub struct Watch {
    updates: Streaming<rpc::TopologyUpdate>,
    topology: Topology,
}

impl Watch {
    /// What it knows after the next update.
    pub async fn next(&mut self) -> Topology {
        let update = self.updates.message().await.unwrap().unwrap();
        if !update.topology.is_empty() {
            self.topology = serde_json::from_slice(&update.topology).unwrap();
        } else if !update.delta.is_empty() {
            let delta: Delta = serde_json::from_slice(&update.delta).unwrap();
            self.topology = delta.apply(&self.topology).expect("a stream's deltas fit what it brought");
        }
        self.topology.clone()
    }
}

impl Group {
    pub async fn start(size: usize) -> Group {
        Group::start_with(size, &[]).await
    }

    pub async fn start_with(size: usize, extra: &[&str]) -> Group {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        // Only the first test of the process can set it.
        drop(tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init());
        let mut ports = Vec::new();
        for _ in 0..size {
            ports.push((free_port().await, free_port().await));
        }
        let member = |(n, (_, bus)): (usize, &(u16, u16))| format!("s{}=127.0.0.1:{bus}", n + 1);
        let initial = ports.iter().enumerate().map(member).collect::<Vec<_>>().join(",");
        let mut group = Group {
            dir: tempfile::tempdir().unwrap(),
            running: (0..size).map(|_| None).collect(),
            extra: extra.iter().map(|s| (*s).to_owned()).collect(),
            ports,
            initial,
        };
        (0..size).for_each(|n| group.restart(n));
        eventually("a leader and all announcements", async || {
            let topology = group.try_topology().await?;
            (topology.sentinels.len() == size).then_some(())
        })
        .await;
        group
    }

    fn dir_of(&self, n: usize) -> std::path::PathBuf {
        self.dir.path().join(format!("s{}", n + 1))
    }

    pub fn restart(&mut self, n: usize) {
        let (port, bus_port) = self.ports[n];
        let mut args: Vec<String> = ["keyward-sentinel", "--bind", "127.0.0.1"].map(String::from).into();
        args.extend(["--dir".into(), self.dir_of(n).display().to_string()]);
        args.extend(["--port".into(), port.to_string(), "--bus-port".into(), bus_port.to_string()]);
        args.extend(["--name".into(), format!("s{}", n + 1), "--initial".into(), self.initial.clone()]);
        args.extend(self.extra.iter().cloned());
        let config = Config::new(parse(args).unwrap()).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(run(config, async move {
            drop(stopped.await);
        }));
        self.running[n] = Some(Running { stop, task });
    }

    pub async fn kill(&mut self, n: usize) {
        let running = self.running[n].take().unwrap();
        drop(running.stop);
        running.task.await.unwrap().unwrap();
    }

    pub fn wipe(&self, n: usize) {
        std::fs::remove_dir_all(self.dir_of(n)).unwrap();
    }

    pub fn alive(&self) -> usize {
        self.running.iter().position(Option::is_some).unwrap()
    }

    pub fn port(&self, n: usize) -> u16 {
        self.ports[n].0
    }

    pub fn bus_address(&self, n: usize) -> String {
        format!("127.0.0.1:{}", self.ports[n].1)
    }

    pub fn control(&self, n: usize) -> ControlClient<Channel> {
        ControlClient::new(lazy(&self.bus_address(n)).unwrap())
    }

    pub fn raft(&self, n: usize) -> RaftClient<Channel> {
        RaftClient::new(lazy(&self.bus_address(n)).unwrap())
    }

    pub async fn watch(&self, n: usize) -> Watch {
        let request = rpc::WatchRequest::default();
        let updates = self.control(n).watch_topology(request).await.unwrap().into_inner();
        Watch { updates, topology: Topology::default() }
    }

    async fn try_topology(&self) -> Option<Topology> {
        let request = rpc::WatchRequest::default();
        let watched = async {
            let mut stream = self.control(self.alive()).watch_topology(request).await.ok()?.into_inner();
            let update = stream.message().await.ok()??;
            serde_json::from_slice(&update.topology).ok()
        };
        timeout(Duration::from_secs(2), watched).await.ok()?
    }

    pub async fn topology(&self) -> Topology {
        eventually("a topology", async || self.try_topology().await).await
    }

    pub async fn admin(&self, command: admin_request::Command) -> admin_reply::Outcome {
        let request = rpc::AdminRequest { command: Some(command) };
        self.control(self.alive()).admin(request).await.unwrap().into_inner().outcome.unwrap()
    }

    /// The sentinel that leads.
    pub async fn leader(&self) -> usize {
        eventually("a leader", async || {
            let status = admin_request::Command::Status(rpc::StatusCommand::default());
            let admin_reply::Outcome::Status(body) = self.admin(status).await else { return None };
            let report: serde_json::Value = serde_json::from_slice(&body).ok()?;
            let leader = report["sentinels"].as_array()?.iter().find(|s| s["leader"] == true)?;
            let name = leader["name"].as_str()?;
            name.strip_prefix('s')?.parse::<usize>().ok().map(|n| n - 1)
        })
        .await
    }
}

#[derive(Debug, Default)]
pub struct NodeAnswers {
    pub incarnation: u64,
    pub role: String,
    pub term: u64,
    pub last: (u64, u64),
    pub leases: Vec<String>,
    pub handoffs: Vec<rpc::StartHandoffRequest>,
}

/// Answers Status as it is told to.
pub struct TestNode {
    pub n: u8,
    pub address: SocketAddr,
    pub state: Arc<Mutex<NodeAnswers>>,
    nonce: u64,
    server: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

struct Answering {
    n: u8,
    state: Arc<Mutex<NodeAnswers>>,
}

#[tonic::async_trait]
impl NodeControl for Answering {
    async fn status(&self, _: Request<rpc::StatusRequest>) -> Result<Response<rpc::NodeStatus>, Status> {
        let state = self.state.lock();
        Ok(Response::new(rpc::NodeStatus {
            node_id: id(self.n).to_string(),
            incarnation: state.incarnation,
            role: state.role.clone(),
            term: state.term,
            last: Some(rpc::Position { term: state.last.0, index: state.last.1 }),
            consistent: true,
            leases: state.leases.clone(),
            ..rpc::NodeStatus::default()
        }))
    }

    async fn publish(
        &self,
        _: Request<Streaming<rpc::PublishRequest>>,
    ) -> Result<Response<rpc::PublishReply>, Status> {
        Ok(Response::new(rpc::PublishReply {}))
    }

    async fn start_handoff(
        &self,
        request: Request<rpc::StartHandoffRequest>,
    ) -> Result<Response<rpc::ChangeReply>, Status> {
        self.state.lock().handoffs.push(request.into_inner());
        Ok(Response::new(rpc::ChangeReply { accepted: true, ..rpc::ChangeReply::default() }))
    }
}

impl TestNode {
    pub async fn start(n: u8) -> TestNode {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(NodeAnswers { role: "none".into(), ..NodeAnswers::default() }));
        let mut node = TestNode { n, address, state, nonce: 1, server: None };
        node.serve(listener);
        node
    }

    fn serve(&mut self, listener: TcpListener) {
        let (stop, stopped) = oneshot::channel::<()>();
        let service = NodeControlServer::new(Answering { n: self.n, state: self.state.clone() });
        let server = Server::builder()
            .add_service(service)
            // Connections end too, as they do with a process.
            .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), async {
                drop(stopped.await);
            });
        let task = tokio::spawn(async move { server.await.unwrap() });
        self.server = Some((stop, task));
    }

    /// From now on connections are refused.
    pub async fn stop(&mut self) {
        if let Some((stop, task)) = self.server.take() {
            drop(stop);
            task.await.unwrap();
        }
    }

    /// Another process at the same address.
    pub async fn serve_again(&mut self) {
        self.stop().await;
        let listener = eventually("the port", async || TcpListener::bind(self.address).await.ok()).await;
        self.nonce += 1;
        // It has not registered.
        self.state.lock().incarnation = 0;
        self.serve(listener);
    }

    pub async fn restart(&mut self, group: &Group) {
        self.serve_again().await;
        self.register(group).await;
    }

    pub async fn register(&self, group: &Group) -> rpc::RegisterReply {
        let mut request = rpc::RegisterRequest {
            node_id: id(self.n).to_string(),
            port: u32::from(self.address.port()),
            bus_port: u32::from(self.address.port()),
            replica_priority: 100,
            start_nonce: self.nonce,
            format: FORMAT,
            ..rpc::RegisterRequest::default()
        };
        let last = group.running.len() - 1;
        let mut reply = group.control(last).register(request.clone()).await.unwrap().into_inner();
        if reply.incarnation == 0 {
            request.known_incarnation = reply.known_incarnation;
            reply = group.control(last).register(request).await.unwrap().into_inner();
        }
        self.state.lock().incarnation = reply.incarnation;
        reply
    }

    /// As the primary of its shard, until this sentinel's topology is recent enough for the change to be accepted.
    pub async fn add_in_sync(&self, group: &Group, replica: &TestNode) -> Topology {
        eventually("the replica in sync", async || {
            let topology = group.topology().await;
            let shard = topology.shard_of(&id(self.n))?;
            if shard.in_sync.contains(&id(replica.n)) {
                return Some(topology);
            }
            self.propose_in_sync(group, shard, replica).await;
            None
        })
        .await
    }

    async fn propose_in_sync(&self, group: &Group, shard: &Shard, replica: &TestNode) -> rpc::ChangeReply {
        let request = rpc::ChangeInSyncRequest {
            shard_id: shard.id.to_string(),
            primary: id(self.n).to_string(),
            term: shard.term.get(),
            in_sync_version: shard.in_sync_version,
            add: id(replica.n).to_string(),
            add_incarnation: replica.state.lock().incarnation,
            ..Default::default()
        };
        group.control(group.alive()).change_in_sync(request).await.unwrap().into_inner()
    }
}

/// Three nodes registered, all in sync, node 1 primary.
pub async fn three_in_sync(group: &Group) -> [TestNode; 3] {
    let nodes = [TestNode::start(1).await, TestNode::start(2).await, TestNode::start(3).await];
    for node in &nodes {
        node.register(group).await;
    }
    for replica in [1, 2] {
        nodes[0].add_in_sync(group, &nodes[replica]).await;
    }
    nodes
}

//! Two and three nodes in one process, over real gRPC, with a sentinel that decides at once.

#![allow(clippy::disallowed_methods, reason = "tests of the shells")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use keyward_net::bus::Bus;
use keyward_net::flight::Keeping;
use keyward_proto::bus::Identity;
use keyward_proto::entry::effects;
use keyward_proto::format::FORMAT;
use keyward_proto::ids::{Incarnation, LogIndex, NodeId, Position, ShardId, Term};
use keyward_proto::rpc;
use keyward_proto::rpc::control_server::{Control, ControlServer};
use keyward_proto::slot::Slot;
use keyward_proto::topology::{Node, Shard, Topology};
use keyward_replication::core::Config;
use keyward_replication::core::full_sync::SlotSnapshot;
use keyward_replication::core::messages::HandoffError;
use keyward_replication::core::received::SlotSet;
use keyward_replication::gate::{Gate, GateState};
use keyward_replication::log::WriteLog;
use keyward_store::effects::EffectBuffer;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

use super::*;
use crate::clock;
use crate::sentinels::Announce;

/// Decides as a sentinel would, without a quorum and without asking anybody.
#[derive(Clone)]
struct OneSentinel {
    topology: Arc<watch::Sender<Topology>>,
}

impl OneSentinel {
    async fn start() -> (OneSentinel, String) {
        let sentinel = OneSentinel { topology: Arc::new(watch::Sender::new(Topology::default())) };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tonic::transport::Server::builder().add_service(ControlServer::new(sentinel.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        (sentinel, address)
    }

    fn json(&self) -> Bytes {
        serde_json::to_vec(&*self.topology.borrow()).unwrap().into()
    }

    fn change(&self, change: impl FnOnce(&mut Shard) -> bool) -> rpc::ChangeReply {
        let mut accepted = false;
        self.topology.send_modify(|topology| {
            accepted = change(topology.shards.values_mut().next().unwrap());
            topology.version += u64::from(accepted);
            topology.check_invariants();
        });
        rpc::ChangeReply {
            accepted,
            reason: "stale".into(),
            update: Some(rpc::TopologyUpdate { topology: self.json(), delta: Bytes::new() }),
            challenge: 0,
        }
    }

    fn shard(&self) -> Shard {
        self.topology.borrow().shards.values().next().unwrap().clone()
    }
}

fn id(text: &str) -> NodeId {
    NodeId::parse(text).unwrap()
}

#[tonic::async_trait]
impl Control for OneSentinel {
    type WatchTopologyStream = ReceiverStream<Result<rpc::TopologyUpdate, Status>>;

    async fn register(
        &self,
        request: Request<rpc::RegisterRequest>,
    ) -> Result<Response<rpc::RegisterReply>, Status> {
        let request = request.into_inner();
        let node = id(&request.node_id);
        let mut incarnation = Incarnation::ZERO;
        self.topology.send_modify(|topology| {
            topology.version += 1;
            incarnation = Incarnation::new(topology.version);
            let shard = ShardId::from_random([9; 20]);
            topology.shards.entry(shard.clone()).or_insert_with(|| Shard {
                id: shard.clone(),
                slots: Vec::new(),
                term: Term::new(1),
                primary: Some(node.clone()),
                in_sync: [node.clone()].into(),
                restarted: Default::default(),
                in_sync_version: 1,
                previous_primary_gone: true,
                predecessor_gone: true,
                handoff_position: Position::ZERO,
                absent: Default::default(),
            });
            let entry = Node {
                incarnation,
                start_nonce: request.start_nonce,
                host: request.host,
                port: request.port as u16,
                bus_port: request.bus_port as u16,
                replica_priority: request.replica_priority,
                shard: Some(shard),
                cluster_enabled: true,
                ..Node::new(node.clone())
            };
            topology.nodes.insert(node, entry);
        });
        Ok(Response::new(rpc::RegisterReply {
            incarnation: incarnation.get(),
            topology: self.json(),
            known_incarnation: incarnation.get(),
            format: FORMAT,
        }))
    }

    async fn announce_loading(
        &self,
        _: Request<rpc::LoadingRequest>,
    ) -> Result<Response<rpc::ChangeReply>, Status> {
        Err(Status::unimplemented("all its nodes are empty"))
    }

    async fn watch_topology(
        &self,
        _: Request<rpc::WatchRequest>,
    ) -> Result<Response<Self::WatchTopologyStream>, Status> {
        let (updates, receiver) = mpsc::channel(4);
        let mut changes = self.topology.subscribe();
        let sentinel = self.clone();
        tokio::spawn(async move {
            while updates
                .send(Ok(rpc::TopologyUpdate { topology: sentinel.json(), ..Default::default() }))
                .await
                .is_ok()
            {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn report_status(
        &self,
        request: Request<Streaming<rpc::NodeStatus>>,
    ) -> Result<Response<rpc::ReportReply>, Status> {
        let mut statuses = request.into_inner();
        while statuses.message().await?.is_some() {}
        Ok(Response::new(rpc::ReportReply {}))
    }

    async fn change_in_sync(
        &self,
        request: Request<rpc::ChangeInSyncRequest>,
    ) -> Result<Response<rpc::ChangeReply>, Status> {
        let r = request.into_inner();
        Ok(Response::new(self.change(|shard| {
            let fits = shard.in_sync_version == r.in_sync_version && shard.term.get() == r.term;
            let minimum = r.minimum.map(|minimum| minimum.nodes);
            if fits && (minimum.is_none() || minimum != shard.absent.min_in_sync) {
                shard.absent.min_in_sync = minimum.or(shard.absent.min_in_sync);
                shard.in_sync.retain(|n| !r.remove.contains(&n.to_string()));
                shard.in_sync.extend(NodeId::parse(&r.add));
                shard.in_sync_version += 1;
            }
            fits
        })))
    }

    async fn request_failover(
        &self,
        request: Request<rpc::FailoverRequest>,
    ) -> Result<Response<rpc::ChangeReply>, Status> {
        let r = request.into_inner();
        Ok(Response::new(self.change(|shard| {
            let fits = shard.term.get() == r.term && shard.in_sync.contains(&id(&r.reporter));
            if fits {
                shard.term = shard.term.next();
                let old = shard.primary.replace(id(&r.reporter)).unwrap();
                shard.in_sync.remove(&old);
                shard.in_sync_version += 1;
                shard.previous_primary_gone = r.primary_dead;
            }
            fits
        })))
    }

    async fn handoff(
        &self,
        request: Request<rpc::HandoffRequest>,
    ) -> Result<Response<rpc::ChangeReply>, Status> {
        let r = request.into_inner();
        Ok(Response::new(self.change(|shard| {
            let fits = shard.term.get() == r.term && shard.in_sync_version == r.in_sync_version;
            if fits {
                shard.term = shard.term.next();
                shard.primary = Some(id(&r.target));
                shard.previous_primary_gone = true;
            }
            fits
        })))
    }

    async fn ask_node(&self, _: Request<rpc::AskNodeRequest>) -> Result<Response<rpc::AskNodeReply>, Status> {
        Err(Status::unimplemented("there is one sentinel"))
    }

    async fn admin(&self, _: Request<rpc::AdminRequest>) -> Result<Response<rpc::AdminReply>, Status> {
        Err(Status::unimplemented("nobody operates it"))
    }
}

/// A keyspace of one list of commands per slot.
#[derive(Debug, Default)]
struct Lists {
    slots: Mutex<BTreeMap<Slot, Vec<Vec<u8>>>>,
    indexes: Mutex<Option<Arc<[LogIndex]>>>,
}

impl Lists {
    fn total(&self) -> usize {
        self.slots.lock().values().map(Vec::len).sum()
    }

    fn push(&self, payload: &[u8], applies: impl Fn(Slot) -> bool) {
        for effect in effects(payload) {
            if let Some(slot) = effect.slot.filter(|s| applies(*s)) {
                self.slots.lock().entry(slot).or_default().push(effect.command.to_vec());
            }
        }
    }
}

impl Engine for Lists {
    fn apply(&self, index: LogIndex, payload: &[u8]) -> Result<(), String> {
        let indexes = self.indexes.lock().clone();
        self.push(payload, |slot| indexes.as_ref().is_none_or(|i| i[slot.index()] < index));
        Ok(())
    }

    fn clear(&self) {
        self.slots.lock().clear();
    }

    fn apply_snapshot(&self, slot: Slot, payload: &[u8]) -> Result<(), String> {
        self.push(payload, |s| s == slot);
        Ok(())
    }

    fn set_slot_indexes(&self, indexes: Option<Arc<[LogIndex]>>) {
        *self.indexes.lock() = indexes;
    }

    fn keep_slots(&self, kept: &SlotSet) {
        self.slots.lock().retain(|slot, _| kept.contains(*slot));
    }

    fn unknown_effect(&self, _: &[u8]) -> Option<String> {
        None
    }

    fn read_large_slots(&self, _: &[Slot]) -> Box<dyn LargeSlots> {
        unreachable!("no slot is large")
    }

    fn read_slot(&self, slot: Slot, shared: &Shared) -> Option<SlotSnapshot> {
        let slots = self.slots.lock();
        let index = shared.log.lock().last().index;
        let mut buffer = EffectBuffer::new();
        for command in slots.get(&slot).into_iter().flatten() {
            buffer.push(Some(slot), 0, command);
        }
        Some(SlotSnapshot { index, payload: Bytes::copy_from_slice(buffer.as_payload()) })
    }

    fn memory_bytes(&self) -> usize {
        0
    }

    fn key_count(&self) -> u64 {
        self.total() as u64
    }

    fn quiesce(&self) {
        drop(self.slots.lock());
    }
}

struct TestNode {
    shared: Arc<Shared>,
    lists: Arc<Lists>,
    replication: Arc<Replication>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl TestNode {
    /// Each node has a runtime of its own, which ends with it as a process would.
    fn start(n: u8, sentinel: &str, backlog_bytes: usize) -> TestNode {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let shared = Shared::new(WriteLog::new(backlog_bytes), Gate::replicated());
        let lists = Arc::new(Lists::default());
        let replication = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let announce = Announce {
                node_id: NodeId::from_random([n; 20]),
                host: "127.0.0.1".into(),
                port: 1,
                tls_port: 0,
                bus_port: listener.local_addr().unwrap().port(),
                hostname: String::new(),
                zone: String::new(),
                replica_priority: 100,
                cluster_enabled: true,
                detection: Default::default(),
                version: String::new(),
                databases: 1,
            };
            let options = Options {
                bus: Bus::new(Identity::node(&announce.node_id), None),
                held_slots: None,
                config: Config::default(),
                announce,
                sentinels: vec![sentinel.to_owned()],
                applied: LogIndex::ZERO,
                keeping: Keeping { dir: "".into(), files_max: 0 },
            };
            let deliver: Deliver = Arc::new(|_| {});
            Replication::start(options, listener, Arc::clone(&shared), lists.clone(), deliver).unwrap()
        });
        TestNode { shared, lists, replication, runtime: Some(runtime) }
    }

    fn serves(&self) -> bool {
        self.shared.gate.state() == GateState::Primary && self.shared.gate.lease_valid(clock::monotonic())
    }

    fn write(&self, slot: u16, command: &[u8]) -> LogIndex {
        assert!(self.serves());
        let slot = Slot::new(slot).unwrap();
        let mut buffer = EffectBuffer::new();
        buffer.push(Some(slot), 0, command);
        let mut slots = self.lists.slots.lock();
        let index = self.shared.log.lock().append(self.shared.gate.term(), buffer.as_payload());
        slots.entry(slot).or_default().push(command.to_vec());
        drop(slots);
        self.shared.notify_appended();
        index
    }

    fn end(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        self.end();
    }
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// The nodes' runtimes may not be dropped inside another one.
fn run(test: impl Future<Output = Vec<TestNode>>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    drop(runtime.block_on(test));
}

async fn start(n: u8, sentinel: &str, backlog_bytes: usize) -> TestNode {
    let sentinel = sentinel.to_owned();
    tokio::task::spawn_blocking(move || TestNode::start(n, &sentinel, backlog_bytes)).await.unwrap()
}

#[test]
fn entries_flow_and_are_committed_by_the_in_sync_set() {
    run(async {
        let (sentinel, address) = OneSentinel::start().await;
        let a = start(1, &address, 1 << 20).await;
        eventually("a serves", || a.serves()).await;
        for i in 0..100u16 {
            a.write(i, b"early");
        }
        let b = start(2, &address, 1 << 20).await;
        eventually("b is in sync", || sentinel.shard().in_sync.len() == 2).await;
        for i in 0..500u16 {
            let index = a.write(i, b"late");
            eventually("the write is committed", || index <= a.shared.gate.commit_index()).await;
            assert!(index <= b.shared.log.lock().last().index, "committed means held by b");
        }
        assert_eq!(a.replication.acked_replicas(a.shared.gate.commit_index()), 1);
        eventually("b has applied everything", || b.lists.total() == 600).await;
        assert_eq!(*a.lists.slots.lock(), *b.lists.slots.lock());
        assert_eq!(b.shared.gate.state(), GateState::Replica);
        vec![a, b]
    });
}

#[test]
fn a_replica_beyond_the_backlog_gets_a_full_sync_while_writes_go_on() {
    run(async {
        let (sentinel, address) = OneSentinel::start().await;
        let a = start(1, &address, 4 << 10).await;
        eventually("a serves", || a.serves()).await;
        for i in 0..20_000u32 {
            a.write((i % 16384) as u16, &[b'x'; 200]);
            // A reader splits the open chunk, so that the ring can drop its begin.
            a.shared.log.lock().read_from(LogIndex::new(u64::from(i) + 2), 1).unwrap();
        }
        eventually("the backlog is trimmed", || a.shared.log.lock().first_index() > LogIndex::new(1000))
            .await;
        let b = start(2, &address, 4 << 10).await;
        let mut written = 20_000;
        while sentinel.shard().in_sync.len() < 2 {
            if a.serves() {
                a.write((written % 16384) as u16, b"meanwhile");
                written += 1;
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        eventually("b has everything", || b.lists.total() == written).await;
        assert_eq!(*a.lists.slots.lock(), *b.lists.slots.lock());
        assert!(b.lists.indexes.lock().is_none());
        vec![a, b]
    });
}

#[test]
fn a_dead_primary_is_replaced_at_once_and_comes_back_as_a_replica() {
    run(async {
        let (sentinel, address) = OneSentinel::start().await;
        let mut a = start(1, &address, 1 << 20).await;
        eventually("a serves", || a.serves()).await;
        let b = start(2, &address, 1 << 20).await;
        eventually("b is in sync", || sentinel.shard().in_sync.len() == 2).await;
        let index = a.write(5, b"kept");
        eventually("the write is committed", || index <= a.shared.gate.commit_index()).await;
        let died = clock::monotonic();
        a.end();
        eventually("b serves", || b.serves()).await;
        let gap = clock::monotonic().since(died);
        assert!(gap < Config::default().grace, "the replica did not wait for the grace: {gap:?}");
        assert_eq!(b.lists.total(), 1);
        b.write(6, b"after");
        let c = start(1, &address, 1 << 20).await;
        eventually("the node is in sync again", || sentinel.shard().in_sync.len() == 2).await;
        eventually("it has everything", || c.lists.total() == 2).await;
        vec![a, b, c]
    });
}

#[test]
fn a_hand_off_moves_the_role_without_a_gap_in_the_history() {
    run(async {
        let (sentinel, address) = OneSentinel::start().await;
        let a = start(1, &address, 1 << 20).await;
        eventually("a serves", || a.serves()).await;
        let b = start(2, &address, 1 << 20).await;
        eventually("b is in sync", || sentinel.shard().in_sync.len() == 2).await;
        // Until the answer has arrived the primary knows of nobody who could take over.
        let members =
            || a.replication.topology().borrow().shards.values().map(|s| s.in_sync.len()).sum::<usize>();
        eventually("a knows it", || members() == 2).await;
        a.write(1, b"one");
        assert_eq!(a.replication.handoff(None).await, Ok(()));
        eventually("b serves", || b.serves()).await;
        b.write(1, b"two");
        eventually("a has followed", || a.lists.total() == 2).await;
        assert_eq!(
            b.replication.handoff(Some(NodeId::from_random([7; 20]))).await,
            Err(HandoffError::NoTarget)
        );
        assert_eq!(a.replication.request_failover(Demand::Handoff).await, Ok(()));
        eventually("a serves again", || a.serves()).await;
        assert_eq!(*a.lists.slots.lock(), *b.lists.slots.lock());
        vec![a, b]
    });
}

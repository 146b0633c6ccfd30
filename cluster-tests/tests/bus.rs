//! What a host that merely reaches the bus ports can do, and what one of the cluster's own processes can do that is broken
//! or taken over: nothing that ends the service.
#![allow(clippy::unwrap_used, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "a test")]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use cluster_tests::cluster::{Cluster, Mode};
use cluster_tests::processes::{CLUSTER_SECRET, SECRET_VARIABLE, Server, free_port, wait_until};
use cluster_tests::programs;
use cluster_tests::resp_client::Connection;
use cluster_tests::small::Small;
use cluster_tests::tls::{Pki, Subject, named};
use keyward_net::bus::{Bus, Encryption, SecretSource};
use keyward_net::tls::{self, TlsOptions};
use keyward_proto::bus::handshake::{GREETING_BYTES, MAGIC};
use keyward_proto::bus::rights::Role;
use keyward_proto::bus::{Identity, Peer, Secrets};
use keyward_proto::format::FORMAT;
use keyward_proto::ids::NodeId;
use keyward_proto::rpc;
use keyward_proto::rpc::control_client::ControlClient;
use keyward_proto::rpc::node_control_client::NodeControlClient;
use keyward_proto::rpc::raft_client::RaftClient;
use keyward_proto::rpc::replication_client::ReplicationClient;
use tempfile::TempDir;
use tokio_stream::StreamExt;
use tonic::Code;
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint};

const PATIENCE: Duration = Duration::from_secs(30);

/// A process of the cluster, or what has its secret.
fn somebody(role: Role, name: &str) -> Bus {
    let secrets = Secrets::parse(CLUSTER_SECRET.as_bytes()).unwrap();
    Bus::new(Identity::new(role, name).unwrap(), Some(SecretSource::Value(secrets)))
}

fn node(n: u8) -> NodeId {
    NodeId::from_random([n; 20])
}

async fn connect(bus: &Bus, address: &str) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    bus.connect(&endpoint.connect_timeout(Duration::from_secs(5))).await.unwrap()
}

fn set_and_get(cluster: &Cluster) {
    let primary = cluster.primary().expect("there is a primary");
    let reply = cluster.ask(primary, &["SET", "key", "value"]);
    assert!(format!("{reply:?}").contains("OK"), "{reply:?}");
}

/// Everybody is in sync, in the same term, under the same primary as before.
struct Undisturbed {
    changes: Option<(u64, u64)>,
    primary: Option<usize>,
}

impl Undisturbed {
    fn now(cluster: &Cluster) -> Undisturbed {
        Undisturbed { changes: cluster.changes(), primary: cluster.primary() }
    }

    fn check(&self, cluster: &Cluster) {
        assert_eq!((cluster.changes(), cluster.primary()), (self.changes, self.primary));
        set_and_get(cluster);
    }
}

#[test]
fn a_stranger_gets_a_greeting_and_nothing_else() {
    let mut cluster = Cluster::start(Mode::Replicated, &[]).unwrap();
    let undisturbed = Undisturbed::now(&cluster);
    let all: Vec<String> = cluster.all_hosts().map(|host| cluster.process(host).bus_addr()).collect();
    for address in &all {
        for said in [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), b"GET / HTTP/1.1\r\n\r\n", &[0xff; 4096]]
        {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(said).unwrap();
            let mut greeting = [0; GREETING_BYTES];
            stream.read_exact(&mut greeting).unwrap();
            assert!(greeting.starts_with(MAGIC));
            // A refusal in words, or the end.
            let mut rest = Vec::new();
            _ = stream.read_to_end(&mut rest);
            assert!(rest.len() < 256, "{}", String::from_utf8_lossy(&rest));
        }
    }
    // Many who say nothing do not keep out who belongs to the cluster.
    let silent: Vec<TcpStream> =
        (0..600 * all.len()).map(|n| TcpStream::connect(&all[n % all.len()]).unwrap()).collect();
    undisturbed.check(&cluster);
    let old = cluster.primary().unwrap();
    cluster.process(old).kill();
    cluster.wait_for_other_primary(old).unwrap();
    set_and_get(&cluster);
    drop(silent);
}

#[test]
fn operators_need_the_secret_and_are_told_so() {
    let mut cluster = Cluster::start(Mode::Replicated, &[]).unwrap();
    let bus = cluster.process(3).bus_addr();
    let program = programs::keyward("keyward-sentinel").unwrap();
    let status = |secret: Option<&str>| {
        let mut command = Command::new(&program);
        command.args(["status", "--sentinel", &bus]).env_remove(SECRET_VARIABLE);
        secret.inspect(|secret| _ = command.env(SECRET_VARIABLE, secret));
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(status(Some(CLUSTER_SECRET)), (Some(0), String::new()));
    for (secret, words) in [
        (None, "it wants the cluster secret, and this process has none"),
        (Some("another secret than it has"), "it has another cluster secret"),
        (Some("short"), "a secret has to have 16 to 1024 bytes"),
    ] {
        let (code, said) = status(secret);
        assert!(code == Some(1) && said.contains(words), "{code:?} {said}");
        assert!(!said.contains("another secret than"), "{said}");
    }
}

#[test]
fn members_do_what_is_theirs() {
    let mut cluster = Cluster::start(Mode::Replicated, &[]).unwrap();
    let undisturbed = Undisturbed::now(&cluster);
    let (sentinel, primary) = (cluster.process(3).bus_addr(), cluster.primary().unwrap());
    let primary = cluster.process(primary).bus_addr();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (a_node, a_sentinel) = (somebody(Role::Node, node(7).as_str()), somebody(Role::Sentinel, "s9"));
        let vote = rpc::RaftMessage { payload: "{}".into(), target: 1, format: FORMAT };
        let mut raft = RaftClient::new(connect(&a_node, &sentinel).await);
        let refused = raft.vote(vote).await.unwrap_err();
        assert_eq!(
            (refused.code(), refused.message()),
            (Code::PermissionDenied, "a node may not call Raft.Vote")
        );

        // In another's name.
        let mut control = ControlClient::new(connect(&a_node, &sentinel).await);
        let register = rpc::RegisterRequest {
            node_id: node(8).to_string(),
            host: "127.0.0.1".into(),
            port: 1,
            bus_port: 2,
            format: FORMAT,
            ..Default::default()
        };
        let refused = control.register(register.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        // With what would fill logs and memory.
        for host in ["a\nb".to_owned(), "x".repeat(3 << 20)] {
            let register = rpc::RegisterRequest { node_id: node(7).to_string(), host, ..register.clone() };
            assert_eq!(control.register(register).await.unwrap_err().code(), Code::InvalidArgument);
        }
        let remove = rpc::AdminRequest {
            command: Some(rpc::admin_request::Command::RemoveNode(rpc::RemoveNodeCommand {
                node: node(7).to_string(),
            })),
        };
        assert_eq!(control.admin(remove).await.unwrap_err().code(), Code::PermissionDenied);

        // A sentinel reads no log.
        let mut replication = ReplicationClient::new(connect(&a_sentinel, &primary).await);
        let nothing = tokio_stream::iter(Vec::<rpc::FollowRequest>::new());
        assert_eq!(replication.follow(nothing).await.unwrap_err().code(), Code::PermissionDenied);
        let status = NodeControlClient::new(connect(&a_sentinel, &primary).await);
        assert!(status.clone().status(rpc::StatusRequest::default()).await.is_ok());
    });
    undisturbed.check(&cluster);
}

#[test]
fn a_term_out_of_all_proportion_and_a_garbled_snapshot_end_nothing() {
    let mut cluster = Cluster::start(Mode::Replicated, &[]).unwrap();
    let undisturbed = Undisturbed::now(&cluster);
    let sentinels: Vec<String> = (3..6).map(|host| cluster.process(host).bus_addr()).collect();
    let primary = cluster.primary().unwrap();
    let replica = (primary + 1) % 3;
    let (primary, replica) = (cluster.process(primary).bus_addr(), cluster.process(replica).bus_addr());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let a_sentinel = somebody(Role::Sentinel, "s9");
        for address in &sentinels {
            let channel = connect(&a_sentinel, address).await;
            let command = Some(rpc::admin_request::Command::Identity(rpc::IdentityCommand {}));
            let mut control = ControlClient::new(channel.clone());
            let reply = control.admin(rpc::AdminRequest { command }).await.unwrap().into_inner();
            let Some(rpc::admin_reply::Outcome::Identity(identity)) = reply.outcome else {
                panic!("{reply:?}")
            };
            let vote = serde_json::json!({
                "vote": {"leader_id": {"term": u64::MAX, "node_id": 9}, "committed": false},
                "last_log_id": null,
            });
            let payload = serde_json::to_vec(&vote).unwrap().into();
            let vote = rpc::RaftMessage { payload, target: identity.sentinel_id, format: FORMAT };
            let mut raft = RaftClient::new(channel);
            let refused = raft.vote(vote).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
            // A snapshot that nobody can read would end Raft, and the sentinel with it.
            let snapshot = serde_json::json!({
                "vote": {"leader_id": {"term": 1000, "node_id": 9}, "committed": true},
                "meta": {
                    "last_log_id": null,
                    "last_membership": {"log_id": null, "membership": {"configs": [], "nodes": {}}},
                    "snapshot_id": "x",
                },
                "offset": 0,
                "data": b"garbage",
                "done": true,
            });
            let payload = serde_json::to_vec(&snapshot).unwrap().into();
            let snapshot = rpc::RaftMessage { payload, target: identity.sentinel_id, format: FORMAT };
            let refused = raft.install_snapshot(snapshot).await.unwrap_err();
            assert!(refused.message().starts_with("no snapshot: "), "{refused}");
        }
        // What a replica that is one says of a term that nobody has heard of.
        let mut asked = NodeControlClient::new(connect(&a_sentinel, &replica).await);
        let known = asked.status(rpc::StatusRequest::default()).await.unwrap().into_inner();
        let hello = rpc::FollowHello {
            node_id: known.node_id.clone(),
            incarnation: known.incarnation,
            shard_id: known.shard_id,
            term: u64::MAX,
            format: FORMAT,
            ..Default::default()
        };
        let message = Some(rpc::follow_request::Message::Hello(hello));
        let stream = tokio_stream::iter([rpc::FollowRequest { message }]);
        let bus = somebody(Role::Node, &known.node_id);
        let mut replication = ReplicationClient::new(connect(&bus, &primary).await);
        let mut answers = replication.follow(stream).await.unwrap().into_inner();
        let answer = answers.message().await.unwrap().unwrap();
        let Some(rpc::follow_response::Message::Rejected(rejected)) = answer.message else {
            panic!("{answer:?}");
        };
        assert_eq!(rejected.reason, "a term that this node has not heard of yet");
    });
    undisturbed.check(&cluster);
}

/// Also above the four megabytes that gRPC allows by itself, and those behind them come as well.
#[test]
fn large_messages_reach_the_subscribers_of_other_nodes() {
    let mut cluster = Cluster::start(Mode::Cluster, &[]).unwrap();
    let primary = cluster.primary().unwrap();
    let other = (0..3).find(|node| *node != primary).unwrap();
    let mut subscriber = Connection::connect(&cluster.process(other).addr()).unwrap();
    subscriber.call(&["SUBSCRIBE", "news"]).unwrap();
    let mut publisher = Connection::connect(&cluster.process(primary).addr()).unwrap();
    // Until the stream between the two nodes is there, nothing is delivered.
    assert!(wait_until(PATIENCE, || {
        publisher.call(&["PUBLISH", "news", "first"]).unwrap();
        subscriber.has_reply(Duration::from_millis(100))
    }));
    for message in ["x".repeat(5 << 20), "y".repeat(20 << 20), "last".to_owned()] {
        publisher.call(&["PUBLISH", "news", &message]).unwrap();
        let mut received =
            std::iter::from_fn(|| subscriber.reply().ok().map(|reply| reply.items[2].string()));
        let received = received.find(|text| text != "first").unwrap();
        assert!(received == message, "{} of {} bytes", received.len(), message.len());
    }
}

#[test]
fn the_secret_changes_while_everything_runs() {
    let secret = TempDir::new().unwrap();
    let path = secret.path().join("secret");
    let (old, new) = ("the old secret of the cluster", "the new secret of the cluster");
    fs::write(&path, old).unwrap();
    let args = || vec!["--cluster-secret-file".to_owned(), path.display().to_string()];
    let mut small = Small::start(args, args).unwrap();
    assert!(wait_until(PATIENCE, || small.accepts_writes()), "{}", small.sentinel.log_end());
    for text in [format!("{old}\n{new}\n"), format!("{new}\n{old}\n"), new.to_owned()] {
        // As a mounted file changes: in one step.
        let next = path.with_extension("next");
        fs::write(&next, text).unwrap();
        fs::rename(&next, &path).unwrap();
        for n in 0..2 {
            small.nodes[n].kill();
            small.nodes[n].restart().unwrap();
            assert!(wait_until(PATIENCE, || small.accepts_writes()), "{}", small.nodes[n].log_end());
        }
    }
    // Who has the old one only is out.
    let late =
        Bus::new(Identity::operator(), Some(SecretSource::Value(Secrets::parse(old.as_bytes()).unwrap())));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let refused = runtime.block_on(async {
        let endpoint = Endpoint::from_shared(format!("http://{}", small.sentinel.bus_addr())).unwrap();
        late.connect(&endpoint).await.unwrap_err()
    });
    assert_eq!(keyward_net::bus::refusal(&refused).unwrap(), "it has another cluster secret");
}

#[test]
fn without_a_secret_nobody_goes_beyond_this_machine() {
    let refused = |program: &str, args: &[&str]| {
        let dir = TempDir::new().unwrap();
        let output = Command::new(programs::keyward(program).unwrap())
            .args(args)
            .args(["--dir", dir.path().to_str().unwrap(), "--port", &free_port().to_string()])
            .env_remove(SECRET_VARIABLE)
            .output()
            .unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    for (program, args) in [
        ("keyward-node", &["--sentinels", "10.1.2.3:36379"][..]),
        ("keyward-node", &["--sentinels", "localhost:1", "--cluster-announce-ip", "10.1.2.3"]),
        ("keyward-sentinel", &["--initial", "s1=10.1.2.3:36379"]),
        ("keyward-sentinel", &["--announce-host", "10.1.2.3"]),
    ] {
        let said = refused(program, args);
        assert!(said.contains("10.1.2.3 is not this machine"), "{said}");
        assert!(said.contains("cluster-secret-file") && said.contains("KEYWARD_CLUSTER_SECRET"), "{said}");
    }
    let said =
        refused("keyward-node", &["--sentinels", "localhost:1", "--cluster-secret-file", "/nonexistent"]);
    assert!(said.contains("can't read the cluster secret from /nonexistent"), "{said}");
}

/// Flags of a process whose bus is encrypted with the certificate `name`.
fn encrypted(pki: &Pki, name: &str) -> Vec<String> {
    let words = [
        ("--tls-cluster", "yes".to_owned()),
        ("--tls-cert-file", pki.word(&format!("{name}.crt"))),
        ("--tls-key-file", pki.word(&format!("{name}.key"))),
        ("--tls-ca-cert-file", pki.word("ca.crt")),
    ];
    words.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
}

#[test]
fn a_cluster_speaks_tls_and_its_certificates_are_renewed_while_it_runs() {
    let dir = TempDir::new().unwrap();
    let pki = Pki::new(dir.path());
    let mut small = Small::start(|| encrypted(&pki, "server"), || encrypted(&pki, "server")).unwrap();
    assert!(wait_until(PATIENCE, || small.accepts_writes()), "{}", small.sentinel.log_end());
    let bus = small.sentinel.bus_addr();
    let status = |flags: &[String]| {
        let mut command = Command::new(programs::keyward("keyward-sentinel").unwrap());
        command.args(["status", "--sentinel", &bus]).args(flags).env(SECRET_VARIABLE, CLUSTER_SECRET);
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    pki.issue("operator", &named("somebody"));
    assert_eq!(status(&encrypted(&pki, "operator")), (true, String::new()));
    let (done, words) = status(&[]);
    assert!(!done && words.contains("a server with TLS is there: set tls-cluster"), "{words}");
    let elsewhere = TempDir::new().unwrap();
    let (done, words) = status(&encrypted(&Pki::new(elsewhere.path()), "server"));
    assert!(!done && words.contains("no connection by TLS (tls-cluster)"), "{words}");

    pki.issue("server", &named("renewed"));
    small.nodes[0].kill();
    small.nodes[0].restart().unwrap();
    assert!(wait_until(PATIENCE, || small.accepts_writes()), "{}", small.nodes[0].log_end());
    let renewed = |server: &Server| server.log().contains("the bus has a new certificate");
    // It looks when somebody connects, not more often than once a second.
    let renews = || status(&encrypted(&pki, "operator")).0 && renewed(&small.sentinel);
    assert!(wait_until(PATIENCE, renews), "{}", small.sentinel.log());

    // By another name.
    pki.issue("second", &named("second"));
    let files = ["tls-cert-file", &pki.word("second.crt"), "tls-key-file", &pki.word("second.key")];
    let command: Vec<&str> = ["CONFIG", "SET"].into_iter().chain(files).collect();
    let node = &small.nodes[0];
    let reply = Connection::connect(&node.addr()).unwrap().call(&command).unwrap();
    assert!(!reply.is_error(), "{reply:?}");
    assert!(renewed(node), "{}", node.log());
    small.nodes[1].kill();
    small.nodes[1].restart().unwrap();
    assert!(wait_until(PATIENCE, || small.accepts_writes()), "{}", small.nodes[0].log_end());
}

#[test]
fn certificates_say_who_belongs_to_the_cluster_and_who_one_may_be() {
    let dir = TempDir::new().unwrap();
    let pki = Pki::new(dir.path());
    let of = |uris: &[&str]| Subject { uris: uris.iter().map(|u| (*u).to_owned()).collect(), ..named("x") };
    pki.issue("node", &of(&["keyward:node"]));
    pki.issue("this", &of(&[&format!("keyward:node:{}", node(7))]));
    pki.issue("late", &Subject { days: Some((-3, -2)), ..named("late") });
    let encryption = |pki: &Pki, name: &str| {
        let options = TlsOptions {
            server: tls::Identity {
                certificate: Some(pki.path(&format!("{name}.crt"))),
                key: Some(pki.path(&format!("{name}.key"))),
                ..tls::Identity::default()
            },
            ca_file: Some(pki.path("ca.crt")),
            ..TlsOptions::default()
        };
        Encryption::load(options)
    };
    let bus = |me: Identity, name: &str| Bus::encrypted(me, None, Some(encryption(&pki, name).unwrap()));
    let error = encryption(&pki, "late").unwrap_err().to_string();
    assert!(error.contains("late.crt"), "{error}");
    let elsewhere = TempDir::new().unwrap();
    let other = Pki::new(elsewhere.path());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = bus(Identity::new(Role::Sentinel, "s1").unwrap(), "server");
        let mut accepted = server.incoming(listener);
        let attempt = async |client: &Bus| {
            let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
            let connected = client.connect(&endpoint.connect_timeout(Duration::from_secs(5))).await;
            connected.map(|_| ()).map_err(|error| keyward_net::bus::refusal(&error).unwrap_or_default())
        };
        let (seven, eight) = (Identity::node(&node(7)), Identity::node(&node(8)));
        for (client, name) in
            [(&seven, "node"), (&eight, "node"), (&seven, "this"), (&Identity::operator(), "server")]
        {
            assert_eq!(attempt(&bus(client.clone(), name)).await, Ok(()), "{name}");
            let peer = accepted.next().await.unwrap().unwrap().connect_info().peer;
            assert_eq!(peer, Peer::Proven(client.clone()));
        }
        for (client, name) in [(&eight, "this"), (&Identity::operator(), "node")] {
            let words = attempt(&bus(client.clone(), name)).await.unwrap_err();
            assert_eq!(words, "its certificate names somebody else");
        }
        let stranger = Bus::encrypted(seven.clone(), None, Some(encryption(&other, "server").unwrap()));
        let words = attempt(&stranger).await.unwrap_err();
        assert!(words.starts_with("no connection by TLS (tls-cluster)"), "{words}");
        // Who speaks something else is let go at once.
        assert!(attempt(&somebody(Role::Sentinel, "s2")).await.is_err());
    });
}

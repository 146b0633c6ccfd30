//! What processes show over HTTP: figures that are true, and whether they are well and ready.
#![allow(clippy::unwrap_used, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "a test")]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use cluster_tests::processes::{Server, free_port, wait_until};
use cluster_tests::resp_client::Connection;
use cluster_tests::small::Small;
use cluster_tests::tls::Pki;
use rustix::process::Signal;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);

/// Status and body.
fn ask(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// By name and labels, as they are written.
fn figures(port: u16) -> BTreeMap<String, f64> {
    let (status, body) = ask(port, "/metrics").unwrap();
    assert_eq!(status, 200);
    assert!(body.ends_with("# EOF\n"), "{body}");
    let lines = body.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

/// What Prometheus itself finds wrong with a page, where it is installed.
fn check_with_promtool(port: u16) {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else { return };
    let page = ask(port, "/metrics").unwrap().1;
    child.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.code() != Some(1), "{}", String::from_utf8_lossy(&output.stderr));
}

fn connect(server: &Server) -> Connection {
    Connection::connect(&server.addr()).unwrap()
}

fn with_metrics(ports: &RefCell<Vec<u16>>) -> Vec<String> {
    let port = free_port();
    ports.borrow_mut().push(port);
    vec!["--metrics-port".to_owned(), port.to_string()]
}

/// With all that has figures.
fn with_everything(ports: &RefCell<Vec<u16>>, pki: &Pki) -> Vec<String> {
    let on_disk = ["--appendonly", "yes"].map(str::to_owned);
    with_metrics(ports).into_iter().chain(on_disk).chain(pki.flags(free_port())).collect()
}

#[test]
fn a_node_counts_what_it_does() {
    let port = free_port();
    let server = Server::keyward(&["--metrics-port", &port.to_string(), "--appendonly", "yes"]).unwrap();
    let mut client = connect(&server);
    for n in 0..10 {
        client.call(&["SET", &format!("key{n}"), "value"]).unwrap();
    }
    client.call(&["EXPIRE", "key1", "1000"]).unwrap();
    client.call(&["GET", "key1"]).unwrap();
    client.call(&["GET", "missing"]).unwrap();
    client.call(&["LPUSH", "key1", "x"]).unwrap();
    check_with_promtool(port);
    let figures = figures(port);
    for (name, expected) in [
        ("keyward_keys{db=\"0\"}", 10.0),
        ("keyward_keys_expiring{db=\"0\"}", 1.0),
        ("keyward_keyspace_hits_total", 1.0),
        ("keyward_keyspace_misses_total", 1.0),
        ("keyward_command_seconds_count{command=\"set\"}", 10.0),
        ("keyward_command_seconds_bucket{le=\"+Inf\",command=\"get\"}", 2.0),
        ("keyward_commands_failed_total{command=\"lpush\"}", 1.0),
        ("keyward_error_replies_total{code=\"WRONGTYPE\"}", 1.0),
        ("keyward_clients_connected", 1.0),
        ("keyward_is_primary", 1.0),
        ("keyward_aof_enabled", 1.0),
        ("keyward_aof_write_ok", 1.0),
    ] {
        assert_eq!(figures.get(name), Some(&expected), "{name}");
    }
    assert!(figures["keyward_memory_used_bytes"] > 1e6);
    assert!(figures["keyward_command_seconds_sum{command=\"set\"}"] > 0.0);
    assert_eq!(ask(port, "/healthz").unwrap(), (200, "ok\n".to_owned()));
    assert_eq!(ask(port, "/readyz").unwrap(), (200, "ready: primary\n".to_owned()));
    assert_eq!(ask(port, "/nothing").unwrap().0, 404);
}

#[test]
fn whoever_asks_badly_is_answered_or_closed_and_the_next_one_served() {
    let port = free_port();
    let _server = Server::keyward(&["--metrics-port", &port.to_string()]).unwrap();
    let silent: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    for said in [b"\x16\x03\x01\x02\x00".as_slice(), b"*1\r\n$4\r\nPING\r\n", &[b'x'; 1 << 20]] {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        // It may be closed while this is sent.
        _ = stream.write_all(said);
    }
    // Whoever is silent keeps nobody out: those in front are answered for or make room, they are not waited for.
    let silent: Vec<TcpStream> =
        (0..200).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).chain(silent).collect();
    assert_eq!(ask(port, "/healthz").unwrap(), (200, "ok\n".to_owned()));
    let is_open = |stream: &&TcpStream| {
        stream.set_nonblocking(true).unwrap();
        stream.peek(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    };
    assert_eq!(silent[150..200].iter().filter(is_open).count(), 50, "the latest are there still");
    drop(silent);
    assert!(wait_until(PATIENCE, || ask(port, "/healthz").is_some_and(|(status, _)| status == 200)));
}

#[test]
fn a_cluster_shows_roles_lag_and_what_is_not_ready() {
    let dir = TempDir::new().unwrap();
    let pki = Pki::new(dir.path());
    let (sentinel_ports, node_ports) = (RefCell::default(), RefCell::default());
    let small =
        Small::start(|| with_metrics(&sentinel_ports), || with_everything(&node_ports, &pki)).unwrap();
    assert!(wait_until(PATIENCE, || small.accepts_writes()), "{}", small.sentinel.log_end());
    let (sentinel, nodes) = (sentinel_ports.borrow()[0], node_ports.borrow().clone());
    let ready = |port: u16| ask(port, "/readyz").unwrap();
    assert!(wait_until(PATIENCE, || nodes.iter().all(|port| ready(*port).0 == 200)));
    let words: BTreeSet<String> = nodes.iter().map(|port| ready(*port).1).collect();
    assert_eq!(words, BTreeSet::from(["ready: primary\n", "ready: replica\n"].map(str::to_owned)));
    assert_eq!(ready(sentinel), (200, "ready: it leads the sentinels\n".to_owned()));
    let primary = nodes.iter().position(|port| ready(*port).1.contains("primary")).unwrap();
    let replica = 1 - primary;

    let of_primary = figures(nodes[primary]);
    let named = |name: &str| {
        let found = of_primary.iter().find(|(key, _)| key.starts_with(name));
        *found.unwrap_or_else(|| panic!("{name}: {of_primary:?}")).1
    };
    assert_eq!(named("keyward_replica_in_sync{replica="), 1.0);
    assert!(named("keyward_replica_lag_entries{replica=") < 10.0);
    assert!(named("keyward_lease_margin_seconds") > 0.0);
    let of_replica = figures(nodes[replica]);
    assert_eq!((of_replica["keyward_is_primary"], of_replica["keyward_primary_linked"]), (0.0, 1.0));
    let of_sentinel = figures(sentinel);
    for (name, expected) in [
        ("keyward_shard_has_primary{shard=\"mymaster\"}", 1.0),
        ("keyward_shard_in_sync_nodes{shard=\"mymaster\"}", 2.0),
        ("keyward_raft_is_leader", 1.0),
    ] {
        assert_eq!(of_sentinel.get(name), Some(&expected), "{name}: {of_sentinel:?}");
    }
    let up = |figures: &BTreeMap<String, f64>| -> f64 {
        figures.iter().filter(|(name, _)| name.starts_with("keyward_node_up{")).map(|(_, up)| up).sum()
    };
    assert_eq!(up(&of_sentinel), 2.0);

    // What rules and dashboard speak of is there.
    let shown: BTreeSet<&str> = [&of_primary, &of_replica, &of_sentinel]
        .iter()
        .flat_map(|figures| figures.keys())
        .map(|name| name.split('{').next().unwrap())
        .collect();
    for file in ["alerts.yml", "dashboard.json"] {
        let path = format!("{}/../local/monitoring/{file}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let names: BTreeSet<&str> = words.filter(|word| word.starts_with("keyward_")).collect();
        assert!(10 < names.len(), "{file}");
        let missing: Vec<_> = names.difference(&shown).collect();
        assert!(missing.is_empty(), "{file}: {missing:?}");
    }

    // Without its replica the primary is not ready, and says why.
    small.nodes[replica].signal(Signal::STOP);
    assert!(wait_until(PATIENCE, || ready(nodes[primary]).0 == 503));
    assert!(ready(nodes[primary]).1.contains("lease"), "{:?}", ready(nodes[primary]));
    assert!(wait_until(PATIENCE, || up(&figures(sentinel)) == 1.0));
    small.nodes[replica].signal(Signal::CONT);
    assert!(wait_until(PATIENCE, || ready(nodes[primary]).0 == 200));
}

#[test]
fn lines_of_the_log_are_for_programs_if_they_are_wanted_so() {
    let server =
        Server::keyward(&["--log-format", "json", "--log-timestamp-format", "milliseconds"]).unwrap();
    let lines =
        |log: &str| log.lines().map(serde_json::from_str::<serde_json::Value>).collect::<Result<Vec<_>, _>>();
    let told = lines(&server.log()).unwrap();
    assert!(!told.is_empty());
    for line in &told {
        assert_eq!((line["pid"].as_u64(), &line["role"]), (Some(u64::from(server.pid())), &"primary".into()));
        assert!(line["timestamp"].as_str().unwrap().parse::<u64>().unwrap() > 1_700_000_000_000);
        assert!(line["level"].is_string() && line["message"].is_string());
    }
    let before = server.log().len();
    let mut client = connect(&server);
    for format in ["logfmt", "legacy"] {
        assert_eq!(client.call(&["CONFIG", "SET", "log-format", format]).unwrap().string(), "OK");
        assert_eq!(client.call(&["CONFIG", "GET", "log-format"]).unwrap().items[1].string(), format);
    }
    assert_eq!(client.call(&["CONFIG", "SET", "log-timestamp-format", "iso8601"]).unwrap().string(), "OK");
    assert_eq!(client.call(&["BGSAVE"]).unwrap().string(), "Background saving started");
    assert!(wait_until(PATIENCE, || server.log().len() > before));
    assert!(lines(&server.log()[before..]).is_err(), "for people");
}

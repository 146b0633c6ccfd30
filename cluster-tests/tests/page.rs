//! The page of the sentinels, as HTTP has it: what it serves, to whom, and what it does not let happen.
#![allow(clippy::unwrap_used, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "a test")]

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cluster_tests::cluster::{Cluster, Mode};
use cluster_tests::processes::{CLUSTER_SECRET, SECRET_VARIABLE, Server, free_port, wait_until};
use cluster_tests::programs;
use cluster_tests::small::Small;
use cluster_tests::tls::{Pki, TlsConnection};
use keyward_net::bus::{Bus, SecretSource};
use keyward_proto::bus::{Identity, Secrets};
use keyward_proto::rpc;
use keyward_proto::rpc::control_client::ControlClient;
use keyward_proto::rpc::{admin_reply, admin_request};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tonic::transport::Endpoint;

const PATIENCE: Duration = Duration::from_secs(30);
const TOKEN: &str = "a token of those who may act";
const STREAMS_MAX: usize = 64;

/// What came back.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn parse(text: &str) -> Option<Answer> {
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Answer { status, head: head.to_lowercase(), body: body.to_owned() })
    }

    fn has(&self, header: &str) -> bool {
        self.head.lines().any(|line| line == header.to_lowercase())
    }
}

fn say(host: IpAddr, port: u16, request: &str) -> Option<Answer> {
    let mut stream = TcpStream::connect((host, port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Answer::parse(&answer)
}

fn local() -> IpAddr {
    [127, 0, 0, 1].into()
}

fn get(port: u16, path: &str) -> Answer {
    say(local(), port, &format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")).unwrap()
}

fn report(port: u16) -> Value {
    let answer = get(port, "/status");
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_str(&answer.body).unwrap()
}

/// A request to hand over, with this header.
fn handoff(body: &str, authorization: Option<&str>) -> String {
    let header = authorization.map(|value| format!("Authorization: {value}\r\n")).unwrap_or_default();
    let len = body.len();
    format!("POST /handoff HTTP/1.1\r\nHost: test\r\n{header}Content-Length: {len}\r\n\r\n{body}")
}

/// Server-sent events as they come.
struct Events {
    lines: BufReader<TcpStream>,
}

impl Events {
    fn open(port: u16) -> Result<Events, Answer> {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET /events HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        let mut lines = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(lines.read_line(&mut head).unwrap(), 0, "{head}");
        }
        if head.starts_with("HTTP/1.1 200 ") {
            return Ok(Events { lines });
        }
        lines.read_to_string(&mut head).unwrap();
        Err(Answer::parse(&head).unwrap())
    }

    fn next(&mut self) -> Value {
        loop {
            let mut line = String::new();
            assert_ne!(self.lines.read_line(&mut line).unwrap(), 0, "the stream has ended");
            if let Some(json) = line.strip_prefix("data: ") {
                return serde_json::from_str(json).unwrap();
            }
        }
    }
}

impl Events {
    fn until(&mut self, is_awaited: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let report = self.next();
            if is_awaited(&report) {
                return report;
            }
            assert!(Instant::now() < end, "{report}");
        }
    }
}

/// A sentinel of its own, which serves the page.
fn sentinel(more: &[String]) -> (Server, u16) {
    let (program, page) = (programs::keyward("keyward-sentinel").unwrap(), free_port());
    let server = Server::start(&program, |port, dir| {
        let (port, dir, page) = (port.to_string(), dir.display().to_string(), page.to_string());
        let own = ["--port", &port, "--dir", &dir, "--http-port", &page].map(str::to_owned);
        own.into_iter().chain(more.iter().cloned()).collect()
    });
    (server.unwrap(), page)
}

fn token_file(dir: &Path) -> Vec<String> {
    let path = dir.join("token");
    std::fs::write(&path, format!("{TOKEN}\n").replace(' ', "-")).unwrap();
    vec!["--http-admin-token-file".to_owned(), path.display().to_string()]
}

fn bearer() -> String {
    format!("Bearer {}", TOKEN.replace(' ', "-"))
}

#[test]
fn the_page_is_in_the_program_and_nothing_else_may_be_loaded() {
    let (_sentinel, port) = sentinel(&[]);
    let mut bytes = 0;
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/page.css", "text/css; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
        ("/status", "application/json"),
        ("/timeline", "application/json"),
        ("/about", "application/json"),
    ] {
        let answer = get(port, path);
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.has(&format!("Content-Type: {kind}")), "{}", answer.head);
        assert!(answer.has("X-Content-Type-Options: nosniff"), "{}", answer.head);
        assert!(answer.head.contains("content-security-policy: default-src 'none'; script-src 'self'"));
        // The name of a format is an address, too.
        let body = answer.body.replace("http://www.w3.org/2000/svg", "");
        for foreign in ["http://", "https://", "innerHTML", " onclick", "style=", "eval("] {
            assert!(!body.contains(foreign), "{path}: {foreign}");
        }
        bytes += if kind == "application/json" { 0 } else { answer.body.len() };
    }
    println!("the page has {bytes} bytes");
    assert!(get(port, "/").body.matches("<script").count() == 1, "none inline");
    assert_eq!(get(port, "/nothing").status, 404);
    assert_eq!(get(port, "/handoff").status, 405);
    let posted = say(local(), port, "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(posted.unwrap().status, 405);
    let about: Value = serde_json::from_str(&get(port, "/about").body).unwrap();
    assert_eq!(about["sentinel"], "s1");
    assert!(about["no_actions"].as_str().unwrap().contains("http-admin-token-file"), "{about}");
    assert_eq!(report(port)["teller"], "s1");
}

#[test]
fn whoever_asks_badly_is_answered_or_closed_and_the_next_one_served() {
    let dir = TempDir::new().unwrap();
    let (_sentinel, port) = sentinel(&token_file(dir.path()));
    let silent: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    for said in [b"\x16\x03\x01\x02\x00".as_slice(), b"*1\r\n$4\r\nPING\r\n", &[b'x'; 1 << 20]] {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        // It may be closed while this is sent.
        _ = stream.write_all(said);
    }
    assert_eq!(get(port, "/").status, 200);
    let long = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", "x".repeat(30_000));
    assert!(say(local(), port, &long).is_none_or(|answer| answer.status == 431));
    let large = handoff(&"x".repeat(5000), Some(&bearer()));
    assert_eq!(say(local(), port, &large).unwrap().status, 413);
    for body in ["", "{", "[]", "{\"to\":1}", "\"x\""] {
        assert_eq!(say(local(), port, &handoff(body, Some(&bearer()))).unwrap().status, 400, "{body}");
    }
    let unknown = say(local(), port, &handoff("{\"shard\":\"x\"}", Some(&bearer()))).unwrap();
    assert_eq!((unknown.status, unknown.body.as_str()), (409, "there is no shard x\n"));
    assert_eq!(get(port, "/status").status, 200);
    drop(silent);
}

#[test]
fn so_many_may_look_on_and_the_next_one_is_told_what_to_do() {
    let (_sentinel, port) = sentinel(&[]);
    let mut streams: Vec<Events> = (0..STREAMS_MAX).map(|_| Events::open(port).ok().unwrap()).collect();
    assert!(streams.iter_mut().all(|events| events.next()["teller"] == "s1"));
    let refused = Events::open(port).err().unwrap();
    assert_eq!(refused.status, 503);
    assert!(refused.has("Retry-After: 5") && refused.body.contains("/status"), "{refused:?}");
    assert_eq!(get(port, "/status").status, 200, "which is answered");
    // Silent connections displace each other, and nobody who looks on.
    let silent: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    assert!(streams.iter_mut().all(|events| events.next()["teller"] == "s1"));
    drop(silent);
    streams.pop();
    assert!(wait_until(PATIENCE, || Events::open(port).is_ok()), "there is room again");
}

/// An address of this machine that is not the loopback one, if it has one.
fn outer_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent.
    socket.connect("192.0.2.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
}

#[test]
fn only_the_right_token_hands_over_and_never_in_the_clear() {
    let dir = TempDir::new().unwrap();
    let page = free_port();
    let args = || [vec!["--http-port".to_owned(), page.to_string()], token_file(dir.path())].concat();
    let small = Small::start(args, Vec::new).unwrap();
    assert!(wait_until(PATIENCE, || small.accepts_writes()), "{}", small.sentinel.log_end());
    let primary = || report(page)["shards"][0]["primary"].as_str().unwrap().to_owned();
    let (first, body) = (primary(), "{\"shard\":\"mymaster\"}");
    let about: Value = serde_json::from_str(&get(page, "/about").body).unwrap();
    assert!(about["no_actions"].is_null());
    let missing = say(local(), page, &handoff(body, None)).unwrap();
    assert_eq!((missing.status, missing.body.as_str()), (401, "the token is missing\n"));
    if let Some(outer) = outer_address() {
        let refused = say(outer, page, &handoff(body, Some(&bearer()))).unwrap();
        assert_eq!(refused.status, 403, "{refused:?}");
        assert!(refused.body.contains("http-tls"), "{refused:?}");
        let about = say(outer, page, "GET /about HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        assert!(about.body.contains("unencrypted"), "{about:?}");
        assert!(small.sentinel.log().contains("make another one"), "{}", small.sentinel.log_end());
    }
    assert_eq!(primary(), first);
    let done = say(local(), page, &handoff(body, Some(&bearer()))).unwrap();
    assert_eq!(done.status, 200, "{done:?}");
    assert!(done.body.starts_with("OK, the primary is "), "{done:?}");
    assert!(wait_until(PATIENCE, || primary() != first));
    let change = report(page)["timeline"][0].clone();
    assert_eq!((&change["kind"], &change["reason"]), (&"handoff".into(), &"an operator asked for it".into()));
    assert!(change["phases"]["catching_up"].as_u64().unwrap() > 0, "{change}");
    let is_served = || report(page)["timeline"][0]["phases"]["leases"].is_u64();
    assert!(wait_until(PATIENCE, is_served), "{change}");

    for _ in 0..5 {
        let wrong = say(local(), page, &handoff(body, Some("Bearer wrong"))).unwrap();
        assert_eq!((wrong.status, wrong.body.as_str()), (401, "the token is wrong\n"));
    }
    assert_eq!(say(local(), page, &handoff(body, Some(&bearer()))).unwrap().status, 429);
    let log = small.sentinel.log();
    assert!(!log.contains(&TOKEN.replace(' ', "-")) && log.contains("the token is wrong"), "{log}");
}

#[test]
fn through_tls_the_page_is_the_same_and_a_bad_token_file_stops_the_start() {
    let dir = TempDir::new().unwrap();
    let pki = Pki::new(dir.path());
    let with_tls = pki.flags(free_port()).into_iter().chain(["--http-tls".into(), "yes".into()]);
    let with_tls = with_tls.chain(["--tls-auth-clients".into(), "no".into()]).chain(token_file(dir.path()));
    let (_sentinel, port) = sentinel(&with_tls.collect::<Vec<_>>());
    let ask = |request: &str| {
        let mut connection = TlsConnection::connect(port, &pki.client(None)).unwrap();
        connection.send(request.as_bytes()).unwrap();
        Answer::parse(&connection.rest()).unwrap()
    };
    assert!(ask("GET / HTTP/1.1\r\nHost: test\r\n\r\n").body.ends_with("</html>\n"));
    let unknown = ask(&handoff("{\"shard\":\"x\"}", Some(&bearer())));
    assert_eq!((unknown.status, unknown.body.as_str()), (409, "there is no shard x\n"));

    let short = dir.path().join("short");
    std::fs::write(&short, "short").unwrap();
    for (file, reason) in [(&short, "16 to 1024 bytes"), (&dir.path().join("missing"), "No such file")] {
        let mut command = Command::new(programs::keyward("keyward-sentinel").unwrap());
        command.env(SECRET_VARIABLE, CLUSTER_SECRET).arg("--dir").arg(dir.path().join("s"));
        command.args(["--port", &free_port().to_string(), "--http-port", &free_port().to_string()]);
        let output = command.env("KEYWARD_HTTP_ADMIN_TOKEN_FILE", file).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(reason), "{said}");
        assert!(said.contains("http-admin-token-file"), "{said}");
    }
}

fn named<'a>(report: &'a Value, list: &str, key: &str, value: &str) -> Option<&'a Value> {
    report[list].as_array()?.iter().find(|item| item[key] == value)
}

#[test]
fn a_failover_is_seen_at_every_sentinel_and_remembered_when_their_leader_goes() {
    let (ports, metrics) = (RefCell::<Vec<u16>>::default(), RefCell::<Vec<u16>>::default());
    let with_page = || {
        let flag = |name: &str, ports: &RefCell<Vec<u16>>| {
            ports.borrow_mut().push(free_port());
            [name.to_owned(), ports.borrow().last().unwrap().to_string()]
        };
        [flag("--http-port", &ports), flag("--metrics-port", &metrics)].concat()
    };
    let mut cluster = Cluster::start_with(Mode::Replicated, &with_page, &[]).unwrap();
    let ports = ports.take();
    let old = cluster.wait_until_healed().unwrap()[0].primary;
    let old_address = cluster.nodes[old].addr();
    let mut streams: Vec<Events> = ports.iter().map(|port| Events::open(*port).ok().unwrap()).collect();
    let leader = cluster.leading_sentinel().unwrap();
    let leader_name = format!("s{}", leader + 1);
    for events in &mut streams {
        // What the leader has heard in its last round of questions may be half a second old.
        let report = events.until(|report| report["verdict"] == "well");
        assert_eq!(report["teller"], leader_name.as_str());
        let node = &report["shards"][0]["nodes"][0];
        assert!(node["memory_bytes"].as_u64().unwrap() > 100_000, "{node}");
        assert!(node["commands_per_second"].is_u64(), "{node}");
    }
    cluster.nodes[old].kill();
    let killed = Instant::now();
    let mut latest = Value::Null;
    for events in &mut streams {
        let is_told = |report: &Value| {
            let change = &report["timeline"][0];
            change["kind"] == "failover" && change["from"] == old_address.as_str()
        };
        let report = events.until(is_told);
        assert_ne!(report["shards"][0]["primary"], Value::Null);
        latest = report["timeline"][0].clone();
    }
    println!("all three show the failover {:?} after the kill", killed.elapsed());
    for phase in ["noticing", "asking", "commit"] {
        assert!(latest["phases"][phase].is_u64(), "{latest}");
    }
    let serves = |port: u16| report(port)["timeline"][0]["phases"]["leases"].is_u64();
    assert!(wait_until(PATIENCE, || serves(ports[leader])));
    // Who has led it has counted it, once.
    for name in ["changes_total{kind=\"failover\"", "change_seconds_count{kind=\"failover\",phase=\"leases\""]
    {
        let name = format!("keyward_primary_{name}}} ");
        let counted = |port: &u16| {
            let page = get(*port, "/metrics").body;
            let line = page.lines().find_map(|line| line.strip_prefix(&name)).map(str::to_owned);
            line.unwrap_or_else(|| panic!("{name}: {page}")).parse::<f64>().unwrap()
        };
        let counted: Vec<f64> = metrics.borrow().iter().map(counted).collect();
        assert_eq!((counted[leader], counted.iter().sum::<f64>()), (1.0, 1.0), "{name}");
    }
    let whole = report(ports[leader])["timeline"].clone();
    // The watchdog may not have asked the node yet.
    let todo = || {
        let problems = report(ports[leader])["problems"].clone();
        let is_meant = |p: &&Value| p["text"].as_str().unwrap().contains(&old_address);
        problems.as_array().unwrap().iter().find(is_meant).map(|p| p["todo"].as_str().unwrap().to_owned())
    };
    assert!(wait_until(PATIENCE, || todo().is_some_and(|todo| todo.contains("start it"))), "{:?}", todo());

    // The one that led it goes. What it told the others, they know.
    let other = (leader + 1) % 3;
    let mut events = Events::open(ports[other]).ok().unwrap();
    assert!(wait_until(PATIENCE, || cluster.sentinels.iter().all(|s| remembered(s) == whole)));
    cluster.sentinels[leader].kill();
    let is_told = |report: &Value| report["majority"] == true && report["teller"] != leader_name.as_str();
    let report_of_other = events.until(is_told);
    assert_eq!(report_of_other["timeline"], whole);
    let gone = named(&report_of_other, "sentinels", "name", &leader_name);
    assert!(gone.is_some(), "{report_of_other}");
    // And when it is back, having forgotten everything, it learns it from them.
    cluster.sentinels[leader].restart().unwrap();
    cluster.sentinels[leader].wait_until_answering().unwrap();
    assert!(wait_until(PATIENCE, || remembered(&cluster.sentinels[leader]) == whole));
}

/// What a sentinel itself remembers of changes.
fn remembered(sentinel: &Server) -> Value {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let secrets = Secrets::parse(CLUSTER_SECRET.as_bytes()).unwrap();
        let bus = Bus::new(Identity::operator(), Some(SecretSource::Value(secrets)));
        let endpoint = Endpoint::from_shared(format!("http://{}", sentinel.bus_addr())).unwrap();
        let mut control = ControlClient::new(bus.connect(&endpoint).await.unwrap());
        let command = Some(admin_request::Command::Timeline(rpc::TimelineCommand {}));
        let reply = control.admin(rpc::AdminRequest { command }).await.unwrap().into_inner();
        let Some(admin_reply::Outcome::Timeline(json)) = reply.outcome else { panic!("{reply:?}") };
        serde_json::from_slice(&json).unwrap()
    })
}

#[test]
fn a_watched_status_says_what_changes_and_that_nobody_answers() {
    let mut small = Small::start(Vec::new, Vec::new).unwrap();
    assert!(wait_until(PATIENCE, || small.accepts_writes()), "{}", small.sentinel.log_end());
    let mut command = Command::new(programs::keyward("keyward-sentinel").unwrap());
    command.env(SECRET_VARIABLE, CLUSTER_SECRET);
    command.args(["status", "--watch", "--sentinel", &small.sentinel.bus_addr()]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut until = |text: &str| {
        let found = lines.by_ref().map(Result::unwrap).find(|line| line.contains(text));
        found.unwrap_or_else(|| panic!("{text} was not said"))
    };
    until("told by s1, which leads the sentinels");
    until("MEMORY");
    small.sentinel.kill();
    until("NOBODY ANSWERS; trying again");
    until("can't reach a sentinel");
    small.sentinel.restart().unwrap();
    until("told by s1, which leads the sentinels");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let status = child.wait().unwrap();
    assert!(status.success(), "{status}");
}

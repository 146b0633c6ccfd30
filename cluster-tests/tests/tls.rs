//! TLS of a node and of a sentinel, with real processes, and where it can be compared beside the real Valkey.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use cluster_tests::processes::{Server, free_port, wait_until};
use cluster_tests::programs;
use cluster_tests::resp_client::{Connection, NoReply};
use cluster_tests::tls::{Pki, Subject, TlsConnection, named};
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(20);

/// A server with both ports.
struct Both {
    server: Server,
    tls_port: u16,
    pki: Pki,
    _dir: TempDir,
}

impl Both {
    fn keyward(extra: &[&str]) -> Both {
        Both::start(&programs::keyward("keyward-node").unwrap(), extra)
    }

    fn start(program: &Path, extra: &[&str]) -> Both {
        let dir = TempDir::new().unwrap();
        let pki = Pki::new(dir.path());
        pki.issue("client", &named("client"));
        let tls_port = free_port();
        let flags = pki.flags(tls_port);
        let words: Vec<&str> = flags.iter().map(String::as_str).chain(extra.iter().copied()).collect();
        Both { server: Server::alone(program, &words).unwrap(), tls_port, pki, _dir: dir }
    }

    fn connect(&self) -> TlsConnection {
        TlsConnection::connect(self.tls_port, &self.pki.client(Some("client"))).unwrap()
    }

    fn plain(&self) -> Connection {
        Connection::connect(&self.server.addr()).unwrap()
    }

    fn text(&self, words: &[&str]) -> String {
        self.plain().call(words).unwrap().string()
    }

    fn info(&self, section: &str, field: &str) -> String {
        let info = self.text(&["INFO", section]);
        let found = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        found.unwrap_or_else(|| panic!("{field} in {info}")).trim().to_owned()
    }

    fn number(&self, section: &str, field: &str) -> u64 {
        self.info(section, field).parse().unwrap()
    }
}

/// Why a node with these flags does not start.
fn refusal(flags: &[String]) -> String {
    let words: Vec<&str> = flags.iter().map(String::as_str).collect();
    Server::alone(&programs::keyward("keyward-node").unwrap(), &words).unwrap_err()
}

/// A client that is to be refused: with TLS 1.3 it learns that with the first reply.
fn is_refused(port: u16, config: &std::sync::Arc<rustls::ClientConfig>) -> bool {
    match TlsConnection::connect(port, config) {
        Ok(mut connection) => connection.call(&["PING"]).is_err(),
        Err(_) => true,
    }
}

#[test]
fn commands_pipelines_and_large_values_pass() {
    let both = Both::keyward(&[]);
    let mut client = both.connect();
    assert_eq!(client.text(&["PING"]), "PONG");
    let large = "x".repeat(5 << 20);
    assert_eq!(client.text(&["SET", "large", &large]), "OK");
    assert_eq!(client.text(&["GET", "large"]), large);
    assert_eq!(both.text(&["GET", "large"]), large);
    let pipeline = "*1\r\n$4\r\nPING\r\n".repeat(20_000);
    client.send(pipeline.as_bytes()).unwrap();
    for _ in 0..20_000 {
        assert_eq!(client.receive().unwrap().string(), "PONG");
    }
    let list = client.text(&["CLIENT", "LIST"]);
    assert!(list.contains(&format!("laddr=127.0.0.1:{}", both.tls_port)), "{list}");
    assert_eq!(client.text(&["QUIT"]), "OK");
    assert_eq!(client.receive(), Err(NoReply::Closed));
}

#[test]
fn blocked_clients_messages_and_kills_pass() {
    let both = Both::keyward(&[]);
    let (mut blocked, mut subscriber) = (both.connect(), both.connect());
    let id = blocked.text(&["CLIENT", "ID"]);
    blocked.send(b"*3\r\n$5\r\nBLPOP\r\n$1\r\nl\r\n$1\r\n0\r\n").unwrap();
    assert_eq!(subscriber.call(&["SUBSCRIBE", "c"]).unwrap().items.len(), 3);
    assert!(wait_until(DEADLINE, || both.number("clients", "blocked_clients") == 1));
    both.text(&["RPUSH", "l", "v"]);
    assert_eq!(blocked.receive().unwrap().items[1].string(), "v");
    both.text(&["PUBLISH", "c", "m"]);
    assert_eq!(subscriber.receive().unwrap().items[2].string(), "m");
    assert_eq!(both.text(&["CLIENT", "KILL", "ID", &id]), "1");
    assert_eq!(blocked.receive(), Err(NoReply::Closed));
    assert_eq!(both.text(&["CLIENT", "KILL", "TYPE", "pubsub"]), "1");
    assert_eq!(subscriber.receive(), Err(NoReply::Closed));
}

/// While its only thread runs a script, a node reads from sockets and writes to them without its runtime.
#[test]
fn a_busy_script_is_ended_through_tls() {
    let both = Both::keyward(&["--io-threads", "1", "--busy-reply-threshold", "50"]);
    let (mut runner, mut other) = (both.connect(), both.connect());
    assert_eq!(other.text(&["PING"]), "PONG");
    runner.send(b"*3\r\n$4\r\nEVAL\r\n$17\r\nwhile true do end\r\n$1\r\n0\r\n").unwrap();
    assert!(wait_until(DEADLINE, || other.text(&["PING"]).starts_with("BUSY")));
    // One that has come since.
    let mut late = both.connect();
    assert!(late.text(&["GET", "k"]).starts_with("BUSY"));
    assert_eq!(late.text(&["SCRIPT", "KILL"]), "OK");
    assert!(runner.receive().unwrap().is_error());
    for client in [&mut runner, &mut other, &mut late] {
        assert_eq!(client.text(&["PING"]), "PONG");
    }
}

#[test]
fn a_client_that_says_goodbye_gets_its_replies_and_a_goodbye() {
    let both = Both::keyward(&[]);
    let mut client = both.connect();
    client.send(b"*1\r\n$4\r\nPING\r\n").unwrap();
    client.say_goodbye().unwrap();
    assert_eq!(client.receive().unwrap().string(), "PONG");
    assert_eq!(client.receive(), Err(NoReply::Closed));
    assert!(wait_until(DEADLINE, || both.number("clients", "connected_clients") == 1));
    // And at the end of the server.
    let mut client = both.connect();
    assert_eq!(client.text(&["PING"]), "PONG");
    let mut server = both.server;
    server.terminate();
    assert_eq!(client.receive(), Err(NoReply::Closed));
}

#[test]
fn a_client_that_does_not_read_is_closed_at_its_limit() {
    let both = Both::keyward(&["--client-output-buffer-limit", "normal 1mb 0 0"]);
    let mut client = both.connect();
    client.call(&["SET", "k", &"x".repeat(100_000)]).unwrap();
    client.send("*2\r\n$3\r\nGET\r\n$1\r\nk\r\n".repeat(2_000).as_bytes()).unwrap();
    let closed = || both.number("stats", "client_output_buffer_limit_disconnections") == 1;
    assert!(wait_until(DEADLINE, closed));
    assert!(wait_until(DEADLINE, || both.number("clients", "connected_clients") == 1));
}

#[test]
fn what_a_slow_reader_is_owed_arrives_whole() {
    let both = Both::keyward(&[]);
    let mut client = both.connect();
    client.call(&["SET", "k", &"x".repeat(100_000)]).unwrap();
    client.send("*2\r\n$3\r\nGET\r\n$1\r\nk\r\n".repeat(300).as_bytes()).unwrap();
    // It is executed until the socket and the bound are full.
    let waits = || 1_000_000 < both.number("clients", "client_recent_max_output_buffer");
    assert!(wait_until(DEADLINE, waits));
    for _ in 0..300 {
        assert_eq!(client.receive().unwrap().text().len(), 100_000);
    }
    assert_eq!(client.text(&["PING"]), "PONG");
}

#[test]
fn client_certificates_are_wanted_as_configured() {
    let both = Both::keyward(&[]);
    let other = TempDir::new().unwrap();
    let stranger = Pki::new(other.path());
    stranger.issue("client", &named("client"));
    both.pki.issue("old", &Subject { days: Some((-3, -2)), ..named("old") });
    both.pki.issue("new", &Subject { days: Some((2, 3)), ..named("new") });
    // It trusts the server's CA and shows a certificate of another.
    std::fs::copy(stranger.path("client.crt"), both.pki.path("other.crt")).unwrap();
    std::fs::copy(stranger.path("client.key"), both.pki.path("other.key")).unwrap();
    for (setting, accepted, refused) in [
        ("yes", &[Some("client")][..], &[None, Some("old"), Some("new"), Some("other")][..]),
        ("optional", &[Some("client"), None], &[Some("old"), Some("new"), Some("other")]),
        ("no", &[Some("client"), None, Some("old"), Some("other")], &[]),
    ] {
        assert_eq!(both.text(&["CONFIG", "SET", "tls-auth-clients", setting]), "OK");
        for name in accepted {
            let mut client = TlsConnection::connect(both.tls_port, &both.pki.client(*name)).unwrap();
            assert_eq!(client.text(&["PING"]), "PONG", "{setting} {name:?}");
        }
        for name in refused {
            assert!(is_refused(both.tls_port, &both.pki.client(*name)), "{setting} {name:?}");
        }
    }
}

#[test]
fn a_certificate_can_stand_for_a_user() {
    let both = Both::keyward(&["--tls-auth-clients-user", "CN"]);
    assert_eq!(both.text(&["CONFIG", "SET", "requirepass", "secret"]), "OK");
    both.pki.issue("user", &named("default"));
    both.pki.issue("nul", &named("default\0other"));
    both.pki.issue("uri", &Subject { uris: vec!["urn:x".into(), "default".into()], ..named("somebody") });
    both.pki.issue("uri-nul", &Subject { uris: vec!["default\0".into()], ..named("default") });
    let asked = |name: &str| {
        TlsConnection::connect(both.tls_port, &both.pki.client(Some(name))).unwrap().text(&["PING"])
    };
    const NOAUTH: &str = "NOAUTH Authentication required.";
    assert_eq!([asked("user"), asked("nul"), asked("client")], ["PONG", NOAUTH, NOAUTH]);
    let set = |value: &str| {
        let mut plain = both.plain();
        plain.call(&["AUTH", "secret"]).unwrap();
        plain.call(&["CONFIG", "SET", "tls-auth-clients-user", value]).unwrap().string()
    };
    assert_eq!(set("URI"), "OK");
    assert_eq!([asked("uri"), asked("uri-nul"), asked("user")], ["PONG", NOAUTH, NOAUTH]);
    assert_eq!(set("off"), "OK");
    assert_eq!([asked("uri"), asked("user")], [NOAUTH, NOAUTH]);
    let mut client = both.connect();
    assert_eq!(client.text(&["AUTH", "secret"]), "OK");
    assert_eq!(client.text(&["PING"]), "PONG");
    let info = client.text(&["INFO", "stats"]);
    assert!(info.contains("acl_access_denied_tls_cert:1\r\n"), "{info}");
}

#[test]
fn config_set_changes_everything_or_nothing() {
    const FAILED: &str = "Unable to update TLS configuration. Check server logs.";
    let both = Both::keyward(&[]);
    both.pki.issue("other", &named("other"));
    both.pki.issue("old", &Subject { days: Some((-3, -2)), ..named("old") });
    let serial = both.info("tls", "tls_server_cert_serial");
    let set = |words: &[&str]| both.text(&[&["CONFIG", "SET"][..], words].concat());
    for (name, value) in [
        ("tls-cert-file", both.pki.word("none")),
        ("tls-cert-file", both.pki.word("old.crt")),
        ("tls-cert-file", String::new()),
        ("tls-key-file", both.pki.word("other.key")),
        ("tls-ca-cert-file", String::new()),
        ("tls-protocols", "TLSv1.1".into()),
        ("tls-ciphers", "AES128-SHA".into()),
        ("tls-ciphersuites", "none".into()),
    ] {
        let error = set(&["timeout", "7", name, &value]);
        assert_eq!(
            error,
            format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {FAILED}")
        );
        assert_eq!(both.plain().call(&["CONFIG", "GET", "timeout"]).unwrap().items[1].string(), "0");
        assert_eq!(both.info("tls", "tls_server_cert_serial"), serial);
        assert_eq!(both.connect().text(&["PING"]), "PONG", "{name} {value}");
    }
    assert!(both.server.log().contains("has expired on"), "{}", both.server.log_end());
    let mut before = both.connect();
    let (certificate, key) = (both.pki.word("other.crt"), both.pki.word("other.key"));
    assert_eq!(set(&["tls-cert-file", &certificate, "tls-key-file", &key]), "OK");
    assert_ne!(both.info("tls", "tls_server_cert_serial"), serial);
    assert_eq!([before.text(&["PING"]), both.connect().text(&["PING"])], ["PONG", "PONG"]);
}

#[test]
fn certificates_are_loaded_anew_when_they_have_changed() {
    let both = Both::keyward(&["--tls-auto-reload-interval", "1"]);
    let serial = || both.info("tls", "tls_server_cert_serial");
    let first = serial();
    both.pki.issue("server", &named("renewed"));
    assert!(wait_until(DEADLINE, || serial() != first));
    let second = serial();
    assert_eq!(both.connect().text(&["PING"]), "PONG");
    std::fs::write(both.pki.path("server.crt"), "nonsense").unwrap();
    assert!(wait_until(DEADLINE, || both.server.log().contains("those of before are")));
    assert_eq!((serial(), both.connect().text(&["PING"])), (second.clone(), "PONG".into()));
    both.pki.issue("server", &named("mended"));
    assert!(wait_until(DEADLINE, || serial() != second));
    assert_eq!(both.server.log().matches("those of before are").count(), 1);
}

#[test]
fn a_node_that_could_not_shake_hands_does_not_start() {
    let dir = TempDir::new().unwrap();
    let pki = Pki::new(dir.path());
    pki.issue("old", &Subject { days: Some((-30, -20)), ..named("old") });
    pki.issue("new", &Subject { days: Some((20, 30)), ..named("new") });
    let with = |name: &str| {
        let (certificate, key) = (pki.word(&format!("{name}.crt")), pki.word(&format!("{name}.key")));
        [pki.flags(free_port()), vec!["--tls-cert-file".into(), certificate, "--tls-key-file".into(), key]]
            .concat()
    };
    let old = refusal(&with("old"));
    assert!(old.contains("Failed to configure TLS.") && old.contains("old.crt: it has expired on"), "{old}");
    let new = refusal(&with("new"));
    assert!(new.contains("new.crt: it is not valid before"), "{new}");
    let none = refusal(&["--tls-port".into(), free_port().to_string()]);
    assert!(none.contains("No tls-cert-file configured!"), "{none}");
    let secret = [
        pki.flags(free_port()),
        vec!["--tls-key-file-pass".into(), "pass".into(), "--tls-key-file".into(), pki.word("none")],
    ];
    let told = refusal(&secret.concat());
    assert!(told.contains("none: No such file") && !told.contains("pass "), "{told}");
}

#[test]
fn the_tls_port_is_opened_and_closed_while_the_node_runs() {
    let both = Both::keyward(&[]);
    let set = |port: u16| both.text(&["CONFIG", "SET", "tls-port", &port.to_string()]);
    let other = free_port();
    let mut before = both.connect();
    assert_eq!(set(other), "OK");
    let connects = |port: u16| {
        TlsConnection::connect(port, &both.pki.client(Some("client")))
            .is_ok_and(|mut c| c.text(&["PING"]) == "PONG")
    };
    assert!(
        wait_until(DEADLINE, || connects(other) && TcpStream::connect(("127.0.0.1", both.tls_port)).is_err())
    );
    assert_eq!(before.text(&["PING"]), "PONG");
    assert!(set(both.server.port()).contains("Unable to listen on this port. Check server logs."));
    assert!(connects(other));
    assert_eq!(set(0), "OK");
    assert!(wait_until(DEADLINE, || TcpStream::connect(("127.0.0.1", other)).is_err()));
    assert_eq!(set(both.tls_port), "OK");
    assert!(wait_until(DEADLINE, || connects(both.tls_port)));
}

#[test]
fn who_uses_the_wrong_port_gets_a_clean_end() {
    let both = Both::keyward(&[]);
    for _ in 0..50 {
        let mut socket = TcpStream::connect(("127.0.0.1", both.tls_port)).unwrap();
        socket.write_all(b"*1\r\n$4\r\nPING\r\n").unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        // An alert, and the end.
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).unwrap_or(0);
    }
    assert!(wait_until(DEADLINE, || both.number("stats", "tls_handshakes_failed") == 50));
    let told = both.server.log().matches("Error accepting a client connection").count();
    assert!((1..=3).contains(&told), "{}", both.server.log_end());
    for _ in 0..50 {
        let refused = TlsConnection::connect(both.server.port(), &both.pki.client(None));
        assert!(refused.is_err());
    }
    assert!(both.server.log().contains("TLS"), "{}", both.server.log_end());
    assert!(wait_until(DEADLINE, || both.number("clients", "connected_clients") == 1));
}

#[test]
fn a_node_with_tls_alone_says_so() {
    let dir = TempDir::new().unwrap();
    let pki = Pki::new(dir.path());
    pki.issue("client", &named("client"));
    let (port, folder) = (free_port(), TempDir::new().unwrap());
    let program = programs::keyward("keyward-node").unwrap();
    let _node = Server::spawn_on(&program, port, folder, |port, dir| {
        let own = ["--port", "0", "--save", "", "--dir", &dir.display().to_string()].map(str::to_owned);
        [own.to_vec(), pki.flags(port)].concat()
    })
    .unwrap();
    let config = pki.client(Some("client"));
    assert!(wait_until(DEADLINE, || TlsConnection::connect(port, &config).is_ok()));
    let mut client = TlsConnection::connect(port, &config).unwrap();
    let info = client.text(&["INFO", "server"]);
    assert!(info.contains(&format!("tcp_port:{port}\r\n")) && !info.contains("listener0:"), "{info}");
    assert!(info.contains(&format!("listener2:name=tls,bind=*,bind=-::*,port={port}\r\n")), "{info}");
    let refused = client.text(&["CONFIG", "SET", "tls-port", "0"]);
    assert!(refused.contains("nobody could connect any more"), "{refused}");
}

#[test]
fn half_open_handshakes_do_no_harm() {
    let both = Both::keyward(&[]);
    let resident = || {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", both.server.pid())).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    };
    let (before, peak) = (resident(), 64 << 20);
    let half_open: Vec<TcpStream> = (0..900)
        .map(|_| {
            let mut socket = TcpStream::connect(("127.0.0.1", both.tls_port)).unwrap();
            // The begin of a long hello.
            socket.write_all(&[22, 3, 1, 0x3f, 0xff, 1, 0, 0x3f, 0xfb, 3, 3]).unwrap();
            socket.write_all(&[7; 8000]).unwrap();
            socket
        })
        .collect();
    assert!(wait_until(DEADLINE, || 900 < both.number("clients", "connected_clients")));
    assert!(resident() < before + peak, "{} grew to {}", before, resident());
    assert_eq!(both.connect().text(&["PING"]), "PONG");
    // Their time is up, or they leave.
    assert!(wait_until(DEADLINE, || both.number("clients", "connected_clients") == 1));
    drop(half_open);
    assert!(900 <= both.number("stats", "tls_handshakes_failed"));
    assert_eq!(both.connect().text(&["PING"]), "PONG");
}

#[test]
fn clients_in_a_handshake_count_and_can_be_killed() {
    let both = Both::keyward(&[]);
    let mut plain = both.plain();
    let mut half: Vec<TcpStream> =
        (0..2).map(|_| TcpStream::connect(("127.0.0.1", both.tls_port)).unwrap()).collect();
    let mut count = || plain.call(&["CLIENT", "LIST"]).unwrap().string().lines().count();
    assert!(wait_until(DEADLINE, || count() == 3));
    assert_eq!(plain.call(&["CONFIG", "SET", "maxclients", "3"]).unwrap().string(), "OK");
    assert!(TlsConnection::connect(both.tls_port, &both.pki.client(Some("client"))).is_err());
    let address = half[0].local_addr().unwrap().to_string();
    assert_eq!(plain.call(&["CLIENT", "KILL", &address]).unwrap().string(), "OK");
    half[0].set_read_timeout(Some(DEADLINE)).unwrap();
    assert!(matches!(half[0].read(&mut [0; 9]), Ok(0) | Err(_)));
    assert!(wait_until(DEADLINE, || {
        let connected = TlsConnection::connect(both.tls_port, &both.pki.client(Some("client")));
        connected.is_ok_and(|mut client| client.text(&["PING"]) == "PONG")
    }));
}

/// A sentinel and a node in cluster mode, both with TLS: each names the ports to which the client can connect that asks.
#[test]
fn clients_with_tls_are_told_tls_ports() {
    let dir = TempDir::new().unwrap();
    let pki = Pki::new(dir.path());
    pki.issue("client", &named("client"));
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let (sentinel_tls, node_tls) = (free_port(), free_port());
    let sentinel = Server::start(&programs::keyward("keyward-sentinel").unwrap(), |port, dir| {
        let own = words(&["--port", &port.to_string(), "--replicas", "0", "--name", "s1"]);
        let dir = words(&["--dir", &dir.display().to_string()]);
        let initial = words(&["--initial", &format!("s1=127.0.0.1:{}", port + 10_000)]);
        [own, dir, initial, pki.flags(sentinel_tls)].concat()
    })
    .unwrap();
    let node = Server::start(&programs::keyward("keyward-node").unwrap(), |port, dir| {
        let own = words(&["--port", &port.to_string(), "--dir", &dir.display().to_string(), "--save", ""]);
        let shared = words(&["--cluster-enabled", "yes", "--sentinels", &sentinel.bus_addr()]);
        [own, shared, pki.flags(node_tls)].concat()
    })
    .unwrap();
    let config = pki.client(Some("client"));
    let encrypted =
        |port: u16, words: &[&str]| TlsConnection::connect(port, &config).unwrap().call(words).unwrap();
    let plain =
        |server: &Server, words: &[&str]| Connection::connect(&server.addr()).unwrap().call(words).unwrap();
    assert!(wait_until(DEADLINE, || plain(&node, &["CLUSTER", "INFO"])
        .string()
        .contains("cluster_state:ok")));
    let slots = [encrypted(node_tls, &["CLUSTER", "SLOTS"]), plain(&node, &["CLUSTER", "SLOTS"])];
    let ports = slots.map(|slots| slots.items[0].items[2].items[1].integer().unwrap());
    assert_eq!(ports, [i64::from(node_tls), i64::from(node.port())]);
    let line = encrypted(node_tls, &["CLUSTER", "NODES"]).string();
    assert!(line.contains(&format!(":{node_tls}@{} ", node.port() + 10_000)), "{line}");
    for shards in [encrypted(node_tls, &["CLUSTER", "SHARDS"]), plain(&node, &["CLUSTER", "SHARDS"])] {
        let text = shards.to_string();
        for field in
            [format!("$4\\r\\nport\\r\\n:{}\\r", node.port()), format!("tls-port\\r\\n:{node_tls}\\r")]
        {
            assert!(text.contains(&field), "{field} in {text}");
        }
    }
    let asked = &["SENTINEL", "GET-PRIMARY-ADDR-BY-NAME", "mymaster"];
    let port = |frame: cluster_tests::resp_client::Frame| frame.items[1].string();
    assert_eq!(port(encrypted(sentinel_tls, asked)), node_tls.to_string());
    assert_eq!(port(plain(&sentinel, asked)), node.port().to_string());
    assert!(is_refused(sentinel_tls, &pki.client(None)));
    assert!(TlsConnection::connect(sentinel.port(), &config).is_err());
    assert!(sentinel.log().contains("it uses TLS at the port without TLS"), "{}", sentinel.log_end());
}

/// The same questions to both servers.
#[test]
fn errors_and_info_are_valkeys() {
    let Some(valkey) = programs::valkey_or_skip("TLS") else { return };
    let both = [Both::keyward(&[]), Both::start(&valkey.join("valkey-server"), &[])];
    let ask = |words: &dyn Fn(&Both) -> Vec<String>| {
        let [ours, theirs] = both.each_ref().map(|one| {
            let words = words(one);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            one.text(&words)
        });
        (ours, theirs)
    };
    for (name, value) in [
        ("tls-cert-file", "/none"),
        ("tls-key-file", "/none"),
        ("tls-ca-cert-file", "/none"),
        ("tls-ca-cert-file", ""),
        ("tls-auth-clients", "maybe"),
        ("tls-auth-clients-user", "email"),
        ("tls-auth-clients-user", "cn"),
        ("tls-protocols", "SSLv2"),
        ("tls-ciphers", "none"),
        ("tls-ciphersuites", "none"),
        ("tls-ciphersuites", "TLS_AES_128_GCM_SHA256"),
        ("tls-session-cache-size", "-1"),
        ("tls-session-cache-timeout", "0"),
        ("tls-session-caching", "perhaps"),
        ("tls-auto-reload-interval", "x"),
        ("tls-prefer-server-ciphers", "yes"),
        ("tls-port", "70000"),
    ] {
        let set = |_: &Both| ["CONFIG", "SET", name, value].map(str::to_owned).to_vec();
        let (ours, theirs) = ask(&set);
        assert_eq!(ours, theirs, "{name} {value}");
    }
    let lines = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split(':').next().unwrap_or_default().to_owned()).collect()
    };
    let (ours, theirs) = ask(&|_: &Both| ["INFO", "tls"].map(str::to_owned).to_vec());
    assert_eq!(lines(&ours), lines(&theirs));
    // The same files: the same serials, and times that are a moment apart.
    let files = |name: &str| both[0].pki.word(name);
    for one in &both {
        let set = [
            "CONFIG",
            "SET",
            "tls-cert-file",
            &files("server.crt"),
            "tls-key-file",
            &files("server.key"),
            "tls-ca-cert-file",
            &files("ca.crt"),
            "tls-client-cert-file",
            &files("client.crt"),
            "tls-client-key-file",
            &files("client.key"),
        ];
        assert_eq!(one.text(&set), "OK");
    }
    for field in ["tls_server_cert_serial", "tls_ca_cert_serial", "tls_client_cert_serial"] {
        assert_eq!(both[0].info("tls", field), both[1].info("tls", field));
    }
    for field in [
        "tls_server_cert_expires_in_seconds",
        "tls_ca_cert_expires_in_seconds",
        "tls_client_cert_expires_in_seconds",
    ] {
        let [ours, theirs] = both.each_ref().map(|one| one.number("tls", field));
        assert!(ours.abs_diff(theirs) <= 2, "{field}: {ours} {theirs}");
    }
}

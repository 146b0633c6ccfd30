//! Flight recorders of real processes: what they write at a failover, when they are asked, and what `replay` tells of it.
#![allow(clippy::unwrap_used, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "a test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cluster_tests::cluster::{Cluster, Mode};
use cluster_tests::processes::{Server, free_port, wait_until};
use cluster_tests::replay::{Incident, Span, scenario, story, violations};
use cluster_tests::small::Small;
use rustix::process::Signal;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);

/// The recordings that a process has written for this reason.
fn recordings(server: &Server, why: &str) -> BTreeSet<PathBuf> {
    let end = format!("-{why}.flight");
    server.recordings().into_iter().filter(|path| path.to_string_lossy().ends_with(&end)).collect()
}

fn incident(paths: impl IntoIterator<Item = PathBuf>) -> Incident {
    let texts: Vec<(String, String)> = paths
        .into_iter()
        .map(|path| (path.display().to_string(), std::fs::read_to_string(path).unwrap()))
        .collect();
    Incident::parse(texts.iter().map(|(name, text)| (name.as_str(), text.as_str()))).unwrap()
}

#[test]
fn a_failover_is_told_by_those_who_have_seen_it() {
    let mut cluster = Cluster::start(Mode::Replicated, &[]).unwrap();
    let old = cluster.wait_for_replicas(2).unwrap();
    assert!(cluster.ask(old, &["SET", "k", "v"]).is_some());
    let before: Vec<usize> = cluster.all_hosts().map(|host| cluster.process(host).log().len()).collect();
    cluster.process(old).kill();
    cluster.wait_for_other_primary(old).unwrap();
    // Nodes 0 to 2, then the sentinels.
    let others: Vec<usize> = cluster.all_hosts().filter(|host| *host != old).collect();
    let mut written = BTreeSet::new();
    let all_have_written = || {
        written = others.iter().flat_map(|host| recordings(cluster.process(*host), "failover")).collect();
        written.len() == others.len()
    };
    assert!(wait_until(PATIENCE, all_have_written), "{written:?}");
    let found = incident(written.clone());
    assert_eq!((found.nodes.len(), found.sentinels.len()), (2, 3));
    assert_eq!(violations(&found), [""; 0]);

    let told = story(&found, Span::LastFailover { before: PATIENCE, after: PATIENCE });
    let at = |words: &[&str]| {
        let line = told.iter().position(|line| words.iter().all(|word| line.contains(word)));
        line.unwrap_or_else(|| panic!("{words:?} is not in\n{}", told.join("\n")))
    };
    let course = [
        at(&["<- UplinkClosed(", "Refused)"]),
        at(&["-> Ask(", "Failover {", "primary_dead: true"]),
        at(&["<- Requested(", "Complaint"]),
        at(&["the sentinels have agreed on ", "ReplacePrimary("]),
        at(&["hears of topology", "term 2 of"]),
        at(&["IS Primary in term 2"]),
    ];
    assert!(course.is_sorted(), "{course:?}\n{}", told.join("\n"));
    let script = scenario(&found).unwrap();
    for line in ["> shard a b c", "> write a w1", "> kill a", "> promote "] {
        assert!(script.contains(line), "{line} is not in\n{script}");
    }

    // The manual tells it, too.
    let logs = others.iter().map(|host| cluster.process(*host).log()[before[*host]..].to_owned());
    let logs: Vec<String> = logs.collect();
    let said: BTreeSet<String> = logs.iter().flat_map(|log| log.lines()).map(outline).collect();
    let manual = story_of_the_manual();
    assert_eq!(manual.len(), 10);
    for line in &manual {
        assert!(said.contains(&outline(line)), "the manual has {line:?}, the logs:\n{}", logs.join("\n"));
    }

    // The program tells the same.
    let mut replay = Command::new(env!("CARGO_BIN_EXE_replay"));
    let output = replay.args(&written).output().unwrap();
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{errors}");
    assert!(out.ends_with("the recordings of 2 nodes and 3 sentinels show no broken invariant\n"), "{out}");
}

/// The lines of the failover in README.md, without the names of files.
fn story_of_the_manual() -> Vec<String> {
    let manual = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let (_, behind) = manual.split_once("<!-- the story of a failover -->\n```\n").unwrap();
    let lines = behind.split_once("```").unwrap().0.lines();
    lines.map(|line| line.split_once(".log: ").unwrap().1.to_owned()).collect()
}

/// A line of a log without time and place, and without what is another number each time.
fn outline(line: &str) -> String {
    let message =
        line.split_once(": ").filter(|(head, _)| head.contains("keyward_")).map_or(line, |(_, text)| text);
    let mut outline = String::new();
    for c in message.chars() {
        match c {
            '0'..='9' | '.' if outline.ends_with('N') => {}
            '0'..='9' => outline.push('N'),
            c => outline.push(c),
        }
    }
    // How many answer in time differs.
    outline.replace("Nµs", "N").replace("Nms", "N").replace("N:N N:N", "N:N")
}

#[test]
fn whoever_asks_gets_what_happened_lately() {
    let ports: [u16; 2] = [free_port(), free_port()];
    let metrics = |port: u16| move || vec!["--metrics-port".to_owned(), port.to_string()];
    let mut small =
        Small::start(metrics(ports[0]), || vec!["--flight-recorder-files".into(), "3".into()]).unwrap();
    assert!(wait_until(PATIENCE, || small.accepts_writes()), "{}", small.sentinel.log_end());
    let node = &small.nodes[0];
    for round in 1..=5_usize {
        let before = recordings(node, "asked");
        node.signal(Signal::USR1);
        let is_new = || recordings(node, "asked").difference(&before).count() == 1;
        assert!(wait_until(PATIENCE, is_new), "{}", node.log_end());
        assert_eq!(recordings(node, "asked").len(), round.min(3), "the latest are kept");
    }
    let all = incident(recordings(node, "asked"));
    assert_eq!(all.nodes.len(), 1, "recordings of one process are put together");
    assert!(story(&all, Span::All).iter().any(|line| line.contains("STARTS: incarnation")));

    let text = ask(ports[0], "/flight");
    let of_sentinel = Incident::parse([("/flight", text.as_str())]).unwrap();
    assert_eq!(of_sentinel.sentinels.len(), 1);
    assert!(text.contains("RegisterNode") && text.contains("\"Leader\""), "{text}");
    small.sentinel.terminate();
}

#[test]
fn a_node_alone_has_nothing_to_tell_and_a_file_of_another_kind_is_none() {
    let port = free_port();
    let server = Server::keyward(&["--metrics-port", &port.to_string()]).unwrap();
    server.signal(Signal::USR1);
    assert_eq!(ask(port, "/flight"), "nothing is recorded: no part of a cluster yet\n");
    drop(server);
    let dir = TempDir::new().unwrap();
    let replay = |path: &Path| {
        let output = Command::new(env!("CARGO_BIN_EXE_replay")).arg(path).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert_eq!(replay(dir.path()), "replay: no recordings (*.flight) are there\n");
    let path = dir.path().join("x.flight");
    std::fs::write(&path, "{\"keyward_flight\":99}\n").unwrap();
    assert!(replay(&path).contains("x.flight: no recording: line 1: missing field"), "{}", replay(&path));
    std::fs::write(&path, "\u{0}\u{1}").unwrap();
    assert!(replay(&path).contains("x.flight: no recording: line 1: "), "{}", replay(&path));
}

/// What is answered over HTTP.
fn ask(port: u16, path: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

//! Failover on real processes: no acknowledged write is lost, and how long nothing is served.
//!
//! Each test has a cluster of its own: three sentinels and a shard of three nodes. Measured times are printed
//! (`--nocapture`); what the promises allow on a quiet machine is not asserted on a busy one, but that service
//! comes back is.
#![allow(clippy::disallowed_methods, reason = "measures times")]

use std::sync::Mutex;
use std::time::{Duration, Instant};

use cluster_tests::cluster::{Cluster, HEAL_DEADLINE, HOSTS, Mode};
use cluster_tests::disks::FailingCalls;
use cluster_tests::hosts::{Cut, Hosts, run};
use cluster_tests::processes::wait_until;
use cluster_tests::resp_client::{Connection, NoReply};
use cluster_tests::writers::{History, OnError, Probe, Writers};
use rustix::process::Signal;

const NODE_ARGS: &[&str] = &["--save", "", "--appendonly", "no"];

/// One cluster at a time: two on a small machine would measure each other.
static ALONE: Mutex<()> = Mutex::new(());

/// Runs the body on a fresh cluster, and prints the state of all processes if it fails.
fn with_cluster(body: impl FnOnce(&mut Cluster) -> Result<(), String>) {
    on_hosts(Hosts::Loopback, body);
}

fn on_hosts(hosts: Hosts, body: impl FnOnce(&mut Cluster) -> Result<(), String>) {
    in_mode(Mode::Cluster, hosts, body);
}

fn in_mode(mode: Mode, hosts: Hosts, body: impl FnOnce(&mut Cluster) -> Result<(), String>) {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut cluster = Cluster::start_on(hosts, mode, NODE_ARGS).expect("the cluster starts");
    if let Err(error) = body(&mut cluster) {
        panic!("{error}\n{}", cluster.describe());
    }
}

/// Times without service of one kind of event.
#[derive(Default)]
struct Gaps {
    nodes: Vec<Duration>,
    clients: Vec<Duration>,
}

impl Gaps {
    fn print(&mut self, kind: &str) {
        let show = |gaps: &mut Vec<Duration>| {
            gaps.sort();
            format!("{:?} / {:?} / {:?}", gaps[0], gaps[gaps.len() / 2], gaps[gaps.len() - 1])
        };
        let (count, nodes, clients) = (self.nodes.len(), show(&mut self.nodes), show(&mut self.clients));
        println!(
            "{kind}, {count} times: without service {nodes}, as cluster clients saw it {clients} (min / median / max)"
        );
    }
}

/// Injects faults one after another under load; then everything acknowledged must be there, on every node.
fn under_load(
    kind: &str,
    times: usize,
    on_error: OnError,
    mut fault: impl FnMut(&mut Cluster) -> Result<(), String>,
    check: impl FnOnce(&History) -> Result<(), String>,
) {
    with_cluster(|cluster| {
        let writers = Writers::start(&cluster.urls(), 4, on_error)?;
        let probe = Probe::start(cluster.nodes.iter().map(|node| node.addr()).collect());
        let mut gaps = Gaps::default();
        for _ in 0..times {
            let before = writers.acknowledged();
            if !wait_until(HEAL_DEADLINE, || before + 100 < writers.acknowledged()) {
                return Err("the writers do not get on".into());
            }
            let start = Instant::now();
            fault(cluster)?;
            cluster.wait_until_whole()?;
            gaps.nodes.push(probe.longest_gap(start));
            gaps.clients.push(writers.longest_gap(start));
        }
        drop(probe);
        let history = writers.stop()?;
        let keys = cluster.wait_until_converged()?;
        let primary = cluster.wait_until_whole()?;
        history.check(&cluster.strings(primary)?)?;
        gaps.print(kind);
        println!(
            "  {} writes acknowledged, none lost; {} keys whose last write was not acknowledged; {keys} keys equal on all nodes; errors seen by clients: {:?}",
            history.acknowledged, history.unknown, history.errors
        );
        check(&history)
    });
}

#[test]
fn failover_kill_primary_ten_times() {
    let kill = |cluster: &mut Cluster| {
        let old = cluster.wait_until_whole()?;
        cluster.nodes[old].kill();
        cluster.wait_for_other_primary(old)?;
        cluster.nodes[old].restart()
    };
    under_load("kill -9 of the primary", 10, OnError::Report, kill, |_| Ok(()));
}

#[test]
fn failover_pause_primary() {
    let pause = |cluster: &mut Cluster| {
        let old = cluster.wait_until_whole()?;
        cluster.nodes[old].signal(Signal::STOP);
        let other = cluster.wait_for_other_primary(old);
        cluster.nodes[old].signal(Signal::CONT);
        other.map(drop)
    };
    under_load("SIGSTOP of the primary", 3, OnError::Report, pause, |_| Ok(()));
}

fn hand_off(cluster: &mut Cluster) -> Result<(), String> {
    let old = cluster.wait_until_whole()?;
    let target = (old + 1) % cluster.nodes.len();
    let reply = cluster.ask(target, &["CLUSTER", "FAILOVER"]);
    if reply.as_ref().is_none_or(|reply| reply.text() != b"OK") {
        return Err(format!(
            "CLUSTER FAILOVER: {}",
            reply.map_or("no answer".into(), |reply| reply.to_string())
        ));
    }
    cluster.wait_for_other_primary(old).map(drop)
}

/// An application notices nothing but the time that it takes.
#[test]
fn failover_hand_off_without_an_error() {
    under_load("hand-off", 5, OnError::Retry, hand_off, |history| {
        if history.errors.is_empty() { Ok(()) } else { Err(format!("clients saw {:?}", history.errors)) }
    });
}

/// Whoever does not follow redirections sees nothing but redirections: every outcome is known.
#[test]
fn failover_hand_off_answers_with_redirections_only() {
    under_load("hand-off, redirections shown", 5, OnError::Report, hand_off, |history| {
        if history.errors.keys().all(|error| error == "MOVED") {
            return Ok(());
        }
        Err(format!("clients saw {:?}", history.errors))
    });
}

#[test]
fn sentinels_all_stopped_reads_and_writes_go_on() {
    with_cluster(|cluster| {
        let primary = cluster.wait_until_whole()?;
        for sentinel in &cluster.sentinels {
            sentinel.signal(Signal::STOP);
        }
        // Several times as long as any lease.
        let end = Instant::now() + Duration::from_secs(3);
        let mut connection =
            Connection::connect(&cluster.nodes[primary].addr()).map_err(|e| e.to_string())?;
        let mut number = 0;
        while Instant::now() < end {
            number += 1;
            let number = number.to_string();
            let set = connection.call(&["SET", "k", &number]).map_err(|e| e.to_string())?;
            let get = connection.call(&["GET", "k"]).map_err(|e| e.to_string())?;
            if set.text() != b"OK" || get.text() != number.as_bytes() {
                return Err(format!("without sentinels: SET {set}, GET {get}"));
            }
        }
        for sentinel in &cluster.sentinels {
            sentinel.signal(Signal::CONT);
        }
        cluster.wait_until_whole().map(drop)
    });
}

/// BLPOP that gives up says that the list was empty. If that is the work of an LPOP that no replica has yet, the answer
/// has to wait for it: another primary might still have the element.
#[test]
fn a_blocked_client_does_not_give_up_on_what_is_not_committed() {
    with_cluster(|cluster| {
        let primary = cluster.wait_until_whole()?;
        let connect = || Connection::connect(&cluster.nodes[primary].addr()).map_err(|e| e.to_string());
        let (mut taker, mut waiter, mut observer) = (connect()?, connect()?, connect()?);
        taker.call(&["RPUSH", "list", "element"]).map_err(|e| e.to_string())?;
        let replicas = || cluster.nodes.iter().enumerate().filter(|(node, _)| *node != primary);
        let others: Vec<_> = cluster.sentinels.iter().chain(replicas().map(|(_, server)| server)).collect();
        others.iter().for_each(|server| server.signal(Signal::STOP));
        taker.send(&["LPOP", "list"]);
        // The two clients may be served by different threads.
        let is_executed =
            || observer.call(&["CLIENT", "LIST"]).is_ok_and(|l| l.string().contains("cmd=lpop"));
        if !wait_until(HEAL_DEADLINE, is_executed) {
            return Err("LPOP is not executed".into());
        }
        waiter.send(&["BLPOP", "list", "0.02"]);
        let answered = waiter.has_reply(Duration::from_millis(300));
        others.iter().for_each(|server| server.signal(Signal::CONT));
        if answered {
            return Err(format!("BLPOP of what is not known to be gone: {:?}", waiter.reply()));
        }
        let (taken, waited) = (taker.reply(), waiter.reply());
        match (&taken, &waited) {
            (Ok(taken), Ok(waited)) if taken.text() == b"element" && waited.is_null() => Ok(()),
            _ => Err(format!("LPOP {taken:?}, BLPOP {waited:?}")),
        }
    });
}

/// Outside cluster mode the end of its connection is all that tells a client that the primary is another node. Who waits
/// for a key at a primary that is replaced while it stands still used to wait for ever.
#[test]
fn a_former_primary_sends_its_clients_away() {
    in_mode(Mode::Replicated, Hosts::Loopback, |cluster| {
        let old = cluster.wait_until_whole()?;
        let connect = || Connection::connect(&cluster.nodes[old].addr()).map_err(|e| e.to_string());
        let (mut idle, mut reader, mut waiter) = (connect()?, connect()?, connect()?);
        let mut subscriber = connect()?.as_subscriber();
        let call = |connection: &mut Connection, args: &[&str]| {
            connection.call(args).map_err(|e| format!("{args:?}: {e:?}"))
        };
        call(&mut idle, &["SET", "k", "v"])?;
        call(&mut reader, &["READONLY"])?;
        call(&mut waiter, &["DEL", "list"])?;
        waiter.send(&["BLPOP", "list", "0"]);
        subscriber.send(&["SUBSCRIBE", "news"]);
        subscriber.read_pushes(1).map_err(|e| format!("SUBSCRIBE: {e:?}"))?;
        if !wait_until(HEAL_DEADLINE, || {
            let clients = idle.call(&["INFO", "clients"]);
            clients.is_ok_and(|info| info.string().contains("blocked_clients:1"))
        }) {
            return Err("BLPOP does not wait".into());
        }
        cluster.nodes[old].signal(Signal::STOP);
        let other = cluster.wait_for_other_primary(old);
        cluster.nodes[old].signal(Signal::CONT);
        let mut primary = Connection::connect(&cluster.nodes[other?].addr()).map_err(|e| e.to_string())?;
        match waiter.reply() {
            Ok(reply) if reply.text().starts_with(b"UNBLOCKED") => {}
            other => return Err(format!("BLPOP: {other:?}")),
        }
        match idle.reply() {
            Err(NoReply::Closed) => {}
            other => return Err(format!("a client that has asked for nothing: {other:?}")),
        }
        let reads =
            |reader: &mut Connection| reader.call(&["GET", "k"]).is_ok_and(|reply| reply.text() == b"v");
        if !wait_until(HEAL_DEADLINE, || reads(&mut reader)) {
            return Err("who has said READONLY is not served by a replica".into());
        }
        let hears = wait_until(HEAL_DEADLINE, || {
            drop(primary.call(&["PUBLISH", "news", "n"]));
            subscriber.has_reply(Duration::from_millis(100))
        });
        if hears { Ok(()) } else { Err("a subscriber hears nothing any more".into()) }
    });
}

#[test]
fn sentinel_leader_killed_then_failover() {
    with_cluster(|cluster| {
        let old = cluster.wait_until_whole()?;
        let leader = cluster.leading_sentinel().ok_or("no sentinel says that it leads")?;
        cluster.sentinels[leader].kill();
        cluster.nodes[old].kill();
        let start = Instant::now();
        cluster.wait_for_other_primary(old)?;
        println!(
            "leader of the sentinels and primary killed together: {:?} without service",
            start.elapsed()
        );
        cluster.sentinels[leader].restart()?;
        cluster.nodes[old].restart()?;
        cluster.wait_until_whole().map(drop)
    });
}

/// The leading sentinel reaches the primary, which no replica reaches, and no replica, which reach the other sentinels.
/// It must neither take the replicas out of the in-sync set nor wait until the network is whole.
#[test]
fn a_replica_takes_over_that_the_leading_sentinel_hears_only_through_the_others() {
    let hosts = match Hosts::namespaces(HOSTS) {
        Ok(hosts) => hosts,
        Err(reason) => return println!("left out: {reason}"),
    };
    on_hosts(hosts, |cluster| {
        let old = cluster.wait_until_whole()?;
        let leader = cluster.leading_sentinel().ok_or("no sentinel says that it leads")?;
        let leader = cluster.nodes.len() + leader;
        let writers = Writers::start(&cluster.urls(), 2, OnError::Report)?;
        if !wait_until(HEAL_DEADLINE, || 200 < writers.acknowledged()) {
            return Err("the writers do not get on".into());
        }
        let replicas = (0..cluster.nodes.len()).filter(|node| *node != old);
        let cuts: Vec<Cut> =
            replicas.flat_map(|node| [Cut::Between(old, node), Cut::Between(leader, node)]).collect();
        let start = Instant::now();
        cluster.hosts.cut(&cuts)?;
        cluster.wait_for_other_primary(old)?;
        println!(
            "primary and leading sentinel cut off from the replicas: {:?} without service",
            start.elapsed()
        );
        cluster.hosts.heal()?;
        let primary = cluster.wait_until_whole()?;
        let history = writers.stop()?;
        cluster.wait_until_converged()?;
        history.check(&cluster.strings(primary)?)
    });
}

/// It answers everybody, so silence does not give it away; what clients wait for does.
#[test]
fn a_primary_whose_disk_hangs_is_replaced_while_it_hangs() {
    if let Err(reason) = run("strace", &["--version"]) {
        return println!("left out: {reason}");
    }
    let args = ["--save", "", "--appendonly", "yes"];
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut cluster = Cluster::start(Mode::Cluster, &args).expect("the cluster starts");
    let body = |cluster: &mut Cluster| {
        let old = cluster.wait_until_whole()?;
        let writers = Writers::start(&cluster.urls(), 2, OnError::Report)?;
        if !wait_until(HEAL_DEADLINE, || 200 < writers.acknowledged()) {
            return Err("the writers do not get on".into());
        }
        let hanging = cluster.slow_disk(old, HEAL_DEADLINE * 2)?;
        let start = Instant::now();
        let primary = cluster.wait_for_other_primary(old)?;
        println!("primary with a disk that hangs: replaced after {:?}", start.elapsed());
        drop(hanging);
        let history = writers.stop()?;
        history.check(&cluster.strings(primary)?)
    };
    if let Err(error) = body(&mut cluster) {
        panic!("{error}\n{}", cluster.describe());
    }
}

/// It goes on answering, and can commit nothing.
#[test]
fn a_leading_sentinel_whose_disk_hangs_holds_no_failover_up() {
    if let Err(reason) = run("strace", &["--version"]) {
        return println!("left out: {reason}");
    }
    with_cluster(|cluster| {
        let old = cluster.wait_until_whole()?;
        let leader = cluster.leading_sentinel().ok_or("no sentinel says that it leads")?;
        let sentinel = &cluster.sentinels[leader];
        let files = [sentinel.dir().join("sentinel.redb")];
        let hanging = FailingCalls::slow_files(sentinel.pid(), &files, HEAL_DEADLINE * 2)?;
        let start = Instant::now();
        cluster.nodes[old].kill();
        cluster.wait_for_other_primary(old)?;
        println!("the leading sentinel's disk hangs: {:?} without service", start.elapsed());
        drop(hanging);
        cluster.nodes[old].restart()?;
        cluster.wait_until_whole().map(drop)
    });
}

#[test]
fn two_of_three_nodes_down_writes_are_refused_and_nothing_is_lost() {
    with_cluster(|cluster| {
        let primary = cluster.wait_until_whole()?;
        let writers = Writers::start(&cluster.urls(), 2, OnError::Report)?;
        if !wait_until(HEAL_DEADLINE, || 200 < writers.acknowledged()) {
            return Err("the writers do not get on".into());
        }
        let others: Vec<usize> = (0..3).filter(|&node| node != primary).collect();
        for &node in &others {
            cluster.nodes[node].kill();
        }
        let refused = wait_until(HEAL_DEADLINE, || {
            let reply = cluster.ask(primary, &["SET", "k", "v"]);
            reply.is_some_and(|reply| reply.text().starts_with(b"NOREPLICAS"))
        });
        if !refused {
            return Err("a primary without replicas does not refuse writes".into());
        }
        for &node in &others {
            cluster.nodes[node].restart()?;
        }
        let primary = cluster.wait_until_whole()?;
        let history = writers.stop()?;
        cluster.wait_until_converged()?;
        history.check(&cluster.strings(primary)?)
    });
}

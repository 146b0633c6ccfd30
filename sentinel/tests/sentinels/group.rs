//! Three sentinels and fake nodes in one process, over real sockets: election, registration, failover, hand-off.

use std::collections::BTreeMap;

use crate::harness::{Group, eventually, id, three_in_sync};
use keyward_proto::rpc;
use keyward_proto::topology::Topology;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_elects_registers_watches_and_fails_over() {
    let mut group = Group::start(3).await;
    let mut nodes = three_in_sync(&group).await;
    let topology = group.topology().await;
    let shard = topology.shards.values().next().unwrap().clone();
    assert_eq!(shard.primary, Some(id(1)));
    assert_eq!(shard.in_sync.len(), 3);
    assert_eq!(topology.members(&shard.id).count(), 3);

    // The leader sentinel dies; the others go on.
    let leader = group.leader().await;
    group.kill(leader).await;

    // Node 1 dies; node 2 has less than node 3.
    nodes[1].state.lock().last = (1, 10);
    nodes[2].state.lock().last = (1, 12);
    nodes[0].stop().await;
    let survivor = group.alive();
    let mut watch = group.watch(survivor).await;
    let request = rpc::FailoverRequest {
        shard_id: shard.id.to_string(),
        term: shard.term.get(),
        reporter: id(2).to_string(),
        primary_dead: true,
        ..Default::default()
    };
    // The new leader's watchdog may be faster than the complaint; either way the reply has the new primary.
    let after = eventually("a failover", async || {
        let reply = group.control(survivor).request_failover(request.clone()).await.ok()?.into_inner();
        let after: keyward_proto::topology::Topology =
            serde_json::from_slice(&reply.update.unwrap().topology).unwrap();
        (after.shards[&shard.id].term.get() == 2).then_some(after)
    })
    .await;
    let shard = &after.shards[&shard.id];
    assert_eq!((shard.primary.clone(), shard.term.get()), (Some(id(3)), 2));
    assert!(!shard.in_sync.contains(&id(1)));
    let seen = eventually("the new primary in a watch", async || {
        let seen = watch.next().await;
        (seen.shards[&shard.id].term.get() == 2).then_some(seen)
    })
    .await;
    assert_eq!(seen.shards[&shard.id].primary, Some(id(3)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_watchdog_replaces_a_primary_that_nobody_complains_about() {
    let group = Group::start(1).await;
    let mut nodes = three_in_sync(&group).await;
    nodes[0].stop().await;
    let topology = eventually("another primary", async || {
        let topology = group.topology().await;
        let shard = topology.shards.values().next().unwrap();
        (shard.term.get() == 2).then(|| topology.clone())
    })
    .await;
    let shard = topology.shards.values().next().unwrap();
    assert_eq!(shard.primary, Some(id(2)));
    assert!(!shard.previous_primary_gone, "a refusal ends no lease");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_primary_is_replaced_and_a_hand_off_keeps_everybody() {
    let group = Group::start(1).await;
    let mut nodes = three_in_sync(&group).await;
    nodes[0].restart(&group).await;
    let shard = eventually("another primary", async || {
        let shard = group.topology().await.shards.values().next().unwrap().clone();
        (shard.term.get() == 2 && shard.primary.is_some()).then_some(shard)
    })
    .await;
    assert_eq!(shard.primary, Some(id(2)));
    assert!(shard.restarted.is_empty() && !shard.in_sync.contains(&id(1)));

    let request = rpc::HandoffRequest {
        shard_id: shard.id.to_string(),
        primary: id(2).to_string(),
        term: 2,
        target: id(3).to_string(),
        last: Some(rpc::Position { term: 2, index: 5 }),
        in_sync_version: shard.in_sync_version,
        ..Default::default()
    };
    for attempt in ["first", "repeated, as if the answer had been lost"] {
        let reply = group.control(0).handoff(request.clone()).await.unwrap().into_inner();
        assert!(reply.accepted, "{attempt}: {}", reply.reason);
    }
    let shard = group.topology().await.shards.values().next().unwrap().clone();
    assert_eq!((shard.primary.clone(), shard.term.get()), (Some(id(3)), 3));
    assert!(shard.in_sync.contains(&id(2)));
}

/// The IDs of the sentinels, by their names.
fn ids(topology: &Topology) -> BTreeMap<String, u64> {
    topology.sentinels.iter().map(|(id, sentinel)| (sentinel.name.clone(), *id)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sentinel_that_lost_its_directory_takes_its_old_place_under_a_new_id() {
    let mut group = Group::start(3).await;
    let nodes = three_in_sync(&group).await;
    let before = ids(&group.topology().await);
    group.kill(2).await;
    group.wipe(2);
    group.restart(2);
    let topology = eventually("the newcomer in the topology", async || {
        let topology = group.topology().await;
        (ids(&topology).get("s3")? != &before["s3"]).then_some(topology)
    })
    .await;
    let after = ids(&topology);
    assert_eq!((after.len(), after["s1"], after["s2"]), (3, before["s1"], before["s2"]));
    assert_eq!(topology.nodes.len(), nodes.len());
    // It must not vote in the name of the one that it was.
    let message = rpc::RaftMessage { target: before["s3"], ..rpc::RaftMessage::default() };
    let refusal = group.raft(2).vote(message).await.unwrap_err();
    assert_eq!(refusal.message(), format!("this is sentinel {}, not {}", after["s3"], before["s3"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sentinel_that_lost_its_directory_founds_nothing_while_the_others_start() {
    let mut group = Group::start(3).await;
    let nodes = three_in_sync(&group).await;
    let before = group.topology().await;
    for n in 0..3 {
        group.kill(n).await;
    }
    group.wipe(0);
    (0..3).for_each(|n| group.restart(n));
    let after = eventually("the newcomer in the topology", async || {
        let topology = group.topology().await;
        (ids(&topology).get("s1")? != &ids(&before)["s1"]).then_some(topology)
    })
    .await;
    assert_eq!((after.nodes.len(), &after.shards), (nodes.len(), &before.shards));
    assert_eq!(ids(&after).len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_a_majority_refuses_nothing() {
    let mut group = Group::start(3).await;
    let _nodes = three_in_sync(&group).await;
    let (leader, topology) = (group.leader().await, group.topology().await);
    let shard = topology.shards.values().next().unwrap();
    let request = rpc::FailoverRequest {
        shard_id: shard.id.to_string(),
        term: shard.term.get() - 1,
        reporter: id(2).to_string(),
        ..Default::default()
    };
    let reply = group.control(leader).request_failover(request.clone()).await.unwrap().into_inner();
    assert_eq!((reply.accepted, reply.reason.as_str()), (false, "the shard is at term 1"));
    for other in (0..3).filter(|n| *n != leader) {
        group.kill(other).await;
    }
    // It still believes that it leads, and may not know of another term.
    let status = group.control(leader).request_failover(request).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable, "{status}");
}

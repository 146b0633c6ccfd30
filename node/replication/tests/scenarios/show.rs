//! How states, messages and actions look in a scenario: as short as a reviewer can still see the rule.

use keyward_proto::ids::NodeId;
use keyward_replication::core::messages::{Request, SyncKind};
use keyward_replication::core::node_core::RoleStatus;
use keyward_replication::disk_log::{Action, Batch, Begin};
use keyward_replication::gate::GateState;

use crate::node::Host;
use crate::world::{Wire, World};

fn name(world: &World, id: &NodeId) -> String {
    world.hosts.iter().find(|host| host.id == *id).map_or("?".into(), |host| host.name.clone())
}

/// `primary t1 serves | log 1.3 commit 3 applied 3 | b:3 (c:1)`: what each replica holds, in parentheses those that are
/// not in sync.
pub(crate) fn state(host: &Host, world: &World) -> String {
    let Some(process) = &host.process else {
        return if host.is_gone { "gone".into() } else { "down".into() };
    };
    let status = process.core.status(world.now, &process.log);
    let role = match &status.role {
        RoleStatus::None => "idle".to_owned(),
        RoleStatus::Primary { .. } => "primary".to_owned(),
        RoleStatus::Replica { primary, .. } => format!("replica of {}", name(world, primary)),
    };
    let gate = match process.gate.state() {
        GateState::Primary if !process.gate.lease_valid(world.now) => "without a lease",
        GateState::Primary if !process.gate.writable() => "serves reads only",
        GateState::Primary => "serves",
        GateState::Replica => "follows",
        GateState::Holding | GateState::Undecided => "holds commands",
        GateState::NoPrimary => "knows no primary",
        GateState::Loading => "lacks data",
        GateState::InDoubt => "in doubt",
    };
    let mut text = format!(
        "{role} t{} {gate} | log {} commit {} applied {}",
        status.term, status.last, status.commit, status.applied
    );
    if process.log.has_disk() {
        text += &format!(" durable {}", process.log.durable());
    }
    match &status.role {
        RoleStatus::None => {}
        RoleStatus::Primary { links, .. } => {
            let links = links.iter().map(|link| {
                let phase = if link.full_sync { " full sync" } else { "" };
                let text = format!("{}:{}{phase}", name(world, &link.node), link.held);
                if link.in_sync { text } else { format!("({text})") }
            });
            text += &format!(" | {}", links.collect::<Vec<_>>().join(" "));
        }
        RoleStatus::Replica { linked, cut_off, .. } => {
            text += if !linked {
                " | no stream"
            } else if *cut_off {
                " | cut off"
            } else {
                ""
            };
        }
    }
    if host.is_paused { text + " | stands still" } else { text }.trim_end_matches([' ', '|']).to_owned()
}

pub(crate) fn sync(kind: SyncKind) -> String {
    match kind {
        SyncKind::Partial(from) => format!("the log behind {from}"),
        SyncKind::Full => "a full sync".into(),
        SyncKind::Resume(from) => format!("the rest of a full sync, then the log behind {from}"),
    }
}

pub(crate) fn request(request: &Request, world: &World) -> String {
    match request {
        Request::Remove { nodes, version, .. } => {
            let nodes: Vec<String> = nodes.iter().map(|id| name(world, id)).collect();
            format!("remove {} from the in-sync set, version {version}", nodes.join(" and "))
        }
        Request::Minimum { nodes, version, .. } => {
            format!("commit nothing with fewer than {nodes} in sync, version {version}")
        }
        Request::Add { node, version, .. } => {
            format!("add {} to the in-sync set, version {version}", name(world, node))
        }
        Request::Failover { term, primary_dead, .. } => {
            let why = if *primary_dead { "is dead" } else { "is silent" };
            format!("another primary, the one of term {term} {why}")
        }
        Request::Handoff { target, last, version, .. } => {
            format!("make {} the primary, from {last}, version {version}", name(world, target))
        }
    }
}

/// `None`: not worth a line.
pub(crate) fn wire(wire: &Wire) -> Option<String> {
    Some(match wire {
        Wire::Hello(hello) => {
            let full = if hello.needs_full_sync { ", needs a full sync" } else { "" };
            let resume = if hello.resume.is_some() { ", has a part of one" } else { "" };
            format!("hello, log {} applied {}{full}{resume}", hello.last, hello.applied)
        }
        Wire::Ack(ack) if !ack.consistent => return None,
        Wire::Ack(ack) => format!("holds {}", ack.held),
        Wire::Start(start) => format!("start: {}", sync(start.sync)),
        Wire::Append(append) if append.count == 0 => format!("beacon, commit {}", append.commit),
        Wire::Append(append) => {
            let first = append.previous.index.next();
            let last = append.previous.index.get() + append.count;
            format!("entries {first} to {last} of term {}, commit {}", append.entries_term, append.commit)
        }
        Wire::Chunk(chunk) if chunk.end.is_none() => return None,
        Wire::Chunk(chunk) => format!("the last slots, then the log behind {}", chunk.from),
        Wire::Reject => "rejected".into(),
        Wire::End => return None,
    })
}

fn batch(batch: &Batch) -> String {
    match batch.slice.count {
        0 => format!("note commit {}", batch.commit),
        _ => {
            let (first, last) = (batch.slice.first, batch.slice.last().index);
            format!("{first} to {last} of term {}, commit {}", batch.slice.term, batch.commit)
        }
    }
}

pub(crate) fn disk_action(action: &Action) -> String {
    match action {
        Action::Wait(time) => format!("wait, {} ms at most", time.as_millis()),
        Action::Write(entries) => format!("write {}", batch(entries)),
        Action::WriteAndSync(entries) => format!("write and sync {}", batch(entries)),
        Action::WriteShard { .. } => "note the shard".into(),
        Action::Sync => "sync".into(),
        Action::StartSync(_) => "sync in the background".into(),
        Action::Cut(cut) => match cut.kept {
            Some((span, count)) => format!("cut off the batch from {} on but for {count} of it", span.first),
            None => "cut off the last batches".into(),
        },
        Action::Shorten { .. } => "cut to what was synced".into(),
        Action::BeginFile(Begin::Rotation, head) => format!("begin a file behind {}", head.follows),
        Action::BeginFile(Begin::Anew, head) => {
            format!("begin a file behind {} that awaits a base", head.follows)
        }
        Action::Repeat(entries) => format!("repeat {} there", batch(entries)),
        Action::Switch { .. } => "go on in that file".into(),
        Action::Adopt { .. } => "put the base in place".into(),
        Action::End => "end".into(),
    }
}

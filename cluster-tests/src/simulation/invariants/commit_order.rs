//! Invariant 3: what a replica takes for committed is; what a primary has committed is held by every member of the
//! in-sync set that has not restarted; and only what is committed is applied.

use keyward_proto::ids::{LogIndex, Term};
use keyward_replication::gate::GateState;

use super::super::Nanos;
use super::super::node::Machine;
use super::super::register::Register;

pub(super) fn check(_now: Nanos, machines: &[Machine], register: &Register, committed: LogIndex) {
    let shard = register.shard();
    let leads_shard = |id| shard.is_some_and(|shard| shard.primary.as_ref() == Some(id));
    let mut primary_commit = None;
    for (node, machine) in machines.iter().enumerate() {
        let Some(process) = machine.running() else { continue };
        let commit = process.gate().commit_index();
        assert!(
            commit <= committed,
            "invariant 3: node {node} takes {commit} for committed, the last primary only {committed}"
        );
        // Who was a primary in this process has executed what may not have been committed.
        let is_replica = process.gate().state() == GateState::Replica && process.checked_term == Term::ZERO;
        assert!(
            !is_replica || process.applying.applied().index <= committed,
            "invariant 3: replica {node} has applied {}, but only {committed} is committed",
            process.applying.applied().index
        );
        let leads = leads_shard(&machine.id)
            && process.incarnation == register.incarnation(&machine.id)
            && shard.is_some_and(|shard| process.checked_term == shard.term);
        if leads {
            primary_commit = Some(commit);
        }
    }
    let (Some(commit), Some(shard)) = (primary_commit, shard) else { return };
    for (node, machine) in machines.iter().enumerate() {
        let is_member = shard.in_sync.contains(&machine.id) && !shard.restarted.contains(&machine.id);
        let Some(member) =
            machine.running().filter(|p| is_member && p.incarnation == register.incarnation(&machine.id))
        else {
            continue;
        };
        let held = member.log().last().index;
        assert!(commit <= held, "invariant 3: {commit} is committed, but member {node} holds only {held}");
        assert!(member.core.is_consistent(), "invariant 3: member {node} is being emptied");
    }
}

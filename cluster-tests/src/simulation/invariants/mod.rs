//! What must hold after every step: the nine invariants of the design, a file each, that what is acknowledged is on
//! enough members (`enough_members.rs`), that a replica can take back what is not (`only_committed.rs`), and that no acknowledged write is lost and no read is stale (`visible.rs`).
//! Each looks only at what is new since the last step.

mod commit_order;
mod committed_survives;
mod convergence;
mod enough_members;
pub(crate) mod in_sync_changes;
mod leases_apart;
mod logs_match;
mod one_owner;
mod one_primary;
mod only_committed;
mod restarted_stays_out;
mod visible;
mod waits_end;

use keyward_proto::entry::frames;
use keyward_proto::ids::{LogIndex, NodeId, Position, Term};
use keyward_proto::time::Monotonic;
use keyward_proto::topology::Topology;
use keyward_replication::core::node_core::NodeCore;
use keyward_sentinel::rules::topology::TopologyCommand;

use super::Nanos;
use super::keyspace::SLOTS;
use super::node::{Machine, Process};
use super::register::Register;
use committed_survives::Committed;
pub(super) use convergence::is_settled;
pub(super) use logs_match::Entry;
use logs_match::LogsMatch;
use one_owner::OneOwner;
use one_primary::OnePrimary;
pub(super) use visible::Expectation;
use visible::Visible;

#[derive(Debug, Default)]
pub(super) struct Invariants {
    one_primary: OnePrimary,
    logs: LogsMatch,
    committed: Committed,
    owners: OneOwner,
    visible: Visible,
    /// What the founder of a shard held that an operator had formed anew: nobody else has a say in that.
    adopted: Position,
}

impl Invariants {
    /// After each step of a node.
    pub(super) fn check(&self, now: Nanos, machines: &[Machine], register: &Register) {
        leases_apart::check(now, machines);
        commit_order::check(now, machines, register, self.committed.last());
    }

    /// Before a node applies more of its log.
    pub(super) fn check_applies(now: Monotonic, node: usize, process: &Process, index: LogIndex) {
        only_committed::check(now, node, process, index);
    }

    /// After each step of this node, when its clients have been told.
    pub(super) fn check_waits(node: usize, machine: &Machine) {
        waits_end::check(node, machine);
    }

    /// What is new in the log of a node, before its actions are carried out.
    pub(super) fn watch(&mut self, now: Nanos, node: usize, process: &mut Process) {
        let Process { server, core, checked, checked_term, .. } = process;
        let (gate, log) = (&server.shared.gate, &mut *server.shared.log.lock());
        let before_first = LogIndex::new(log.first_index().get() - 1);
        let is_continued = log.term_at(checked.index) == Some(checked.term);
        let known = if is_continued { checked.index } else { before_first };
        let mut next = known.max(before_first).next();
        while next <= log.last().index {
            let slice = log.read_from(next, 1 << 20).expect("held");
            let mut previous = slice.previous;
            for payload in frames(&slice.bytes) {
                let position = Position { term: slice.term, index: next };
                self.logs.appended(now, node, position, previous, payload);
                previous = position;
                next = next.next();
            }
        }
        *checked = log.last();
        let term = NodeCore::view(core, log).sending_term;
        if term == Term::ZERO {
            return;
        }
        if *checked_term != term {
            *checked_term = term;
            self.committed.primary_begins(node, term, log);
        }
        let new = self.committed.last().get() + 1..=gate.commit_index().get();
        enough_members::check(node, core.topology(), new.clone());
        for index in new {
            let index = LogIndex::new(index);
            // Unknown, if memory has let go of it while too few were in sync, or it is what a founder has brought.
            let entry_term = log.term_at(index).unwrap_or_default();
            self.committed.commit(index, entry_term, term);
        }
    }

    /// The register has changed.
    pub(super) fn committed(
        &mut self,
        before: &Topology,
        command: &TopologyCommand,
        register: &Register,
        machines: &[Machine],
    ) {
        if let Err(broken) = in_sync_changes::check(before, &register.topology, command) {
            panic!("invariant 6: {broken}");
        }
        restarted_stays_out::check(before, register, command, machines, self.committed.last());
        register.shard().inspect(|shard| self.owners.note(shard));
    }

    /// Of the terms to come nobody knows who was to lead them.
    pub(super) fn sentinels_forgot(&mut self) {
        self.owners = OneOwner::default();
    }

    /// What a command that arrives at a primary now has to see.
    pub(super) fn expectation(&self, slot: usize) -> Expectation {
        self.visible.expectation(slot)
    }

    /// An operation has appended this entry.
    pub(super) fn belongs_to(&mut self, position: Position, operation: u64) {
        self.logs.belongs_to(position, operation);
    }

    /// An operation has appended what is not of others.
    pub(super) fn rest_belongs_to(&mut self, operation: u64) {
        self.logs.rest_belongs_to(operation);
    }

    /// A reply leaves a node that has seen the log up to an entry when it executed.
    pub(super) fn reply_leaves(
        &mut self,
        node: usize,
        id: &NodeId,
        term: Term,
        slot: usize,
        expected: Expectation,
        seen: Position,
    ) {
        self.one_primary.reply_leaves(node, term);
        self.owners.reply_leaves(id, term);
        self.visible.reply_leaves(&self.logs, slot, expected, seen);
    }

    /// A reply leaves to a reader that any node may answer.
    pub(super) fn read_leaves(&self, node: usize, slot: usize, seen: Position) {
        if self.adopted.index < self.logs.head(seen, slot).position.index {
            Visible::read_leaves(&self.logs, &self.committed, node, slot, seen);
        }
    }

    /// An operator has had a shard formed around a node with this log.
    pub(super) fn adopted(&mut self, last: Position) {
        self.adopted = last;
    }

    /// At the end, when all faults are over. Returns the histories on which all agree.
    pub(super) fn converged(
        &self,
        now: Nanos,
        machines: &[Machine],
        register: &Register,
    ) -> [Vec<&Entry>; SLOTS] {
        let end = convergence::check(now, machines, register);
        self.visible.check_final(&self.logs, end);
        let histories = std::array::from_fn(|slot| self.logs.history(end, slot));
        convergence::check_contents(machines, &histories);
        machines.iter().enumerate().for_each(|(node, machine)| waits_end::check_final(node, machine));
        histories
    }
}

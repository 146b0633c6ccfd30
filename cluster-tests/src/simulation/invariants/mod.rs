//! What must hold after every step: the nine invariants of the design, a file each, and that no acknowledged write is
//! lost and no read is stale (`visible.rs`). Each looks only at what is new since the last step.

mod commit_order;
mod committed_survives;
mod convergence;
mod in_sync_changes;
mod leases_apart;
mod logs_match;
mod one_owner;
mod one_primary;
mod restarted_stays_out;
mod visible;

use keyward_node::log::frames;
use keyward_node::replication::node_core::NodeCore;
use keyward_proto::ids::{LogIndex, NodeId, Position, Term};
use keyward_proto::topology::Topology;
use keyward_sentinel::rules::topology::TopologyCommand;

use super::Nanos;
use super::keyspace::{SLOTS, Write};
use super::node::{Machine, Process};
use super::register::Register;
use committed_survives::Committed;
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
}

impl Invariants {
    /// After each step of a node.
    pub(super) fn check(&self, now: Nanos, machines: &[Machine], register: &Register) {
        leases_apart::check(now, machines);
        commit_order::check(now, machines, register, self.committed.last());
    }

    /// What is new in the log of a node, before its actions are carried out.
    pub(super) fn watch(&mut self, node: usize, process: &mut Process) {
        let Process { log, gate, core, checked, checked_term, .. } = process;
        let before_first = LogIndex::new(log.first_index().get() - 1);
        let is_continued = log.term_at(checked.index) == Some(checked.term);
        let known = if is_continued { checked.index } else { before_first };
        let mut next = known.max(before_first).next();
        while next <= log.last().index {
            let slice = log.read_from(next, 1 << 20).expect("held");
            let mut previous = slice.previous;
            for payload in frames(&slice.bytes) {
                let position = Position { term: slice.term, index: next };
                self.logs.appended(node, position, previous, payload);
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
        for index in self.committed.last().get() + 1..=gate.commit_index().get() {
            let index = LogIndex::new(index);
            let entry_term = log.term_at(index).expect("a primary knows what it commits");
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
        in_sync_changes::check(before, &register.topology, command);
        restarted_stays_out::check(before, register, command, machines, self.committed.last());
        self.owners.note(register.shard());
    }

    /// What a command that arrives at a primary now has to see.
    pub(super) fn expectation(&self, slot: usize) -> Expectation {
        self.visible.expectation(slot)
    }

    /// A reply leaves a node, with what it reveals of the slot's history.
    pub(super) fn reply_leaves(
        &mut self,
        node: usize,
        id: &NodeId,
        term: Term,
        slot: usize,
        expected: Expectation,
        journal: &[Write],
    ) {
        self.one_primary.reply_leaves(node, term);
        self.owners.reply_leaves(id, term);
        self.visible.reply_leaves(slot, expected, journal);
    }

    /// At the end, when all faults are over. Returns the journals on which all agree.
    pub(super) fn converged<'a>(
        &self,
        now: Nanos,
        machines: &'a [Machine],
        register: &Register,
    ) -> [&'a [Write]; SLOTS] {
        let journals = convergence::check(now, machines, register);
        self.visible.check_final(journals);
        journals
    }
}

//! Invariant 5: a committed entry is in the log of every later primary, and nothing else is ever committed in its place.

use keyward_proto::ids::{LogIndex, Position, Term};
use keyward_replication::log::WriteLog;

#[derive(Debug, Default)]
pub(super) struct Committed {
    /// Of every committed entry: its term, and that of the primary which has committed it. Zero: that one did not know
    /// the entry's term any more.
    terms: Vec<(Term, Term)>,
}

impl Committed {
    pub(super) fn last(&self) -> LogIndex {
        LogIndex::new(self.terms.len() as u64)
    }

    /// Whether it is a committed entry, or none at all.
    pub(super) fn contains(&self, position: Position) -> bool {
        let before = usize::try_from(position.index.get()).expect("few").checked_sub(1);
        before.is_none_or(|before| {
            self.terms.get(before).is_some_and(|(term, _)| [position.term, Term::ZERO].contains(term))
        })
    }

    pub(super) fn commit(&mut self, index: LogIndex, term: Term, by: Term) {
        assert_eq!(index, self.last().next());
        self.terms.push((term, by));
    }

    /// Whoever learns late that it was elected may find that a later primary has committed meanwhile, also what was
    /// appended before.
    pub(super) fn primary_begins(&self, node: usize, term: Term, log: &WriteLog) {
        let before = (1..).map(LogIndex::new).zip(&self.terms).filter(|(_, (_, by))| *by < term);
        for (index, (committed, _)) in before {
            assert!(
                index <= log.last().index,
                "invariant 5: node {node} leads term {term} and ends before committed entry {index}"
            );
            assert!(
                *committed == Term::ZERO || log.term_at(index).is_none_or(|held| held == *committed),
                "invariant 5: node {node} leads term {term} without committed entry {committed}.{index}"
            );
        }
    }
}

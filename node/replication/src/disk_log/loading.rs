//! What the files of a log say when a process starts, put together: whoever reads them (the node's loader, the platter)
//! tells what it finds, in the files' order, and learns whether it fits and what of it counts.
//!
//! - **A base** says which position it is, and of which shard. The file behind it follows exactly that: an older base, or
//!   one that has lost its bytes, would be a keyspace with a hole that nobody sees.
//! - **A file** begins where the one before ends, or earlier: what a rewrite has written twice is taken once, if both say the
//!   same.
//! - **Committed** is what a batch says; with that what was written without a term (by a node alone, or by another program):
//!   it has no other copy. A node alone takes everything.
//!
//! Bytes and their checksums are checked by who reads them.

use keyward_proto::ids::{LogIndex, Position, ShardId, Term};
use keyward_proto::mutation::{self, Mutation};

use super::messages::Head;
use crate::log::WriteLog;

/// What a base says that it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// It contains the log up to here, and nothing behind it.
    pub at: Position,
    pub shard: Option<ShardId>,
}

/// What the manifest names before the first incremental file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    None,
    /// Of another program, or written while there was no log: what it contains has no place in a history.
    Unstamped {
        keys: u64,
    },
    /// Of a Keyward that did not yet say what a base is: nothing can be compared.
    Earlier {
        keys: u64,
    },
    Stamped(Stamp),
}

/// What was found cannot be one log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Breach {
    #[error(
        "the file follows {0}, but the manifest names nothing that comes before it: restore the manifest from a copy"
    )]
    NothingBefore(Position),
    #[error(
        "the file follows {follows}, but the base before it {}: it is not the one that belongs here, and keys would be \
         missing. Restore the directory from a copy; a node of a cluster can also start without its appendonlydir: it gets \
         everything from the shard's primary",
        .base.as_ref().map_or("does not say what it contains".to_owned(), |base| format!("is that of {base}"))
    )]
    AnotherBase { follows: Position, base: Option<Position> },
    #[error(
        "the file follows {follows}, but the one before it ends at {last}: what comes between is lost. Restore the \
         directory from a copy; a node of a cluster can also start without its appendonlydir"
    )]
    Gap { follows: Position, last: Position },
    #[error("the file follows {follows}, but the one before it ends at {last}")]
    AnotherHistory { follows: Position, last: Position },
    #[error("entries of {first} follow {last}")]
    Entries { first: Position, last: Position },
    #[error("the entries of {0} are others than those of the file before")]
    OtherEntries(Position),
}

/// How far the files have been read.
#[derive(Debug)]
pub struct Chain {
    is_standalone: bool,
    base: Base,
    last: Position,
    commit: LogIndex,
    /// Without what only a base contains, which may have had to do before it was committed.
    noted: LogIndex,
    entries: u64,
    /// Of these, the ones since the last head that have no place in a shard's history.
    plain: u64,
}

/// What the files come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// Up to where the keyspace contains the log.
    pub applied: LogIndex,
    /// The last file can be continued.
    pub continues: bool,
}

impl Chain {
    /// For a node with sentinels.
    pub fn of_a_shard(base: Base) -> Chain {
        let (last, commit) = (Position::ZERO, LogIndex::ZERO);
        Chain { is_standalone: false, base, last, commit, noted: LogIndex::ZERO, entries: 0, plain: 0 }
    }

    /// For a node alone: whatever is there is its own.
    pub fn alone(base: Base) -> Chain {
        Chain { is_standalone: true, ..Chain::of_a_shard(base) }
    }

    /// What the base is, when it is known.
    pub fn set_base(&mut self, base: Base) {
        self.base = base;
    }

    /// The last entry so far.
    pub fn last(&self) -> Position {
        self.last
    }

    /// Up to here entries are committed.
    pub fn commit(&self) -> LogIndex {
        self.commit
    }

    /// So many were new.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Whether what comes is part of a shard's history: then the log remembers it.
    pub fn is_history(&self) -> bool {
        !self.is_standalone && self.plain == 0
    }

    /// A file begins.
    ///
    /// # Errors
    /// It does not belong behind what came before.
    pub fn head(&mut self, head: &Head, log: &mut WriteLog) -> Result<(), Breach> {
        let Head { follows, shard, terms, .. } = head;
        let (follows, last) = (*follows, self.last);
        if self.entries == 0 && last == Position::ZERO {
            self.follows_base(head)?;
            log.reset(follows);
            log.restore_terms(terms.iter().copied().filter(|t| t.first_index <= follows.index).collect());
            self.commit = self.commit.max(follows.index);
            self.last = follows;
        } else if last.index < follows.index {
            return Err(Breach::Gap { follows, last });
        } else if follows.term == Term::ZERO && last.index == follows.index {
            // The node has gone on alone: all that came before is its own.
            (self.commit, self.noted) = (follows.index, follows.index);
            log.reset(follows);
            (self.last, self.plain) = (follows, 0);
        } else if !self.is_standalone && log.term_at(follows.index) != Some(follows.term) {
            return Err(Breach::AnotherHistory { follows, last });
        }
        log.set_shard(shard.clone());
        Ok(())
    }

    fn follows_base(&self, head: &Head) -> Result<(), Breach> {
        if mutation::is_on(Mutation::AnyBaseWillDo) {
            return Ok(());
        }
        let follows = head.follows;
        match &self.base {
            Base::None if follows.index == LogIndex::ZERO => Ok(()),
            Base::None => Err(Breach::NothingBefore(follows)),
            Base::Stamped(Stamp { at, shard }) if (*at, shard) == (follows, &head.shard) => Ok(()),
            // A node that has gone on alone from there.
            Base::Stamped(Stamp { at, .. }) if follows == Position { term: Term::ZERO, ..*at } => Ok(()),
            Base::Stamped(Stamp { at, .. }) => Err(Breach::AnotherBase { follows, base: Some(*at) }),
            Base::Earlier { .. } => Ok(()),
            // As the log begins behind keys from elsewhere: see `Chain::settle`.
            Base::Unstamped { .. } if follows <= Position::new(0, 1) => Ok(()),
            Base::Unstamped { .. } => Err(Breach::AnotherBase { follows, base: None }),
        }
    }

    /// A batch comes, of `count` entries of one term, which says what was committed when it was written.
    ///
    /// # Errors
    /// Its entries do not belong behind what came before.
    pub fn batch(
        &mut self,
        first: Position,
        count: u64,
        commit: LogIndex,
        log: &WriteLog,
    ) -> Result<(), Breach> {
        let Position { term, index } = first;
        let end = LogIndex::new(index.get() + count - 1);
        let has_a_say = !self.is_standalone && term > Term::ZERO;
        let noted = if has_a_say { commit } else { end };
        (self.commit, self.noted) = (self.commit.max(noted), self.noted.max(noted));
        let last = self.last;
        if count == 0 {
            return Ok(());
        }
        if last.index.next() < index || last.index < end && term < last.term {
            return Err(Breach::Entries { first, last });
        }
        let differs = |index| log.term_at(index).is_some_and(|known| known != term);
        if self.is_history() && index <= last.index && (differs(index) || differs(end.min(last.index))) {
            return Err(Breach::OtherEntries(first));
        }
        Ok(())
    }

    /// The next entry of a batch; whether it is new.
    pub fn entry(&mut self, at: Position) -> bool {
        let is_new = self.last.index < at.index;
        if is_new {
            self.last = at;
            self.entries += 1;
        }
        is_new
    }

    /// Entries that no batch was around have come.
    pub fn plain(&mut self, count: u64) {
        self.plain += count;
    }

    /// They are all there.
    pub fn plain_ended(&mut self) {
        self.commit = self.last.index;
    }

    /// Nothing more comes: the log is what the files say.
    pub fn settle(&self, log: &mut WriteLog) -> Settled {
        // What a base from elsewhere contains is one entry.
        let base = match &self.base {
            Base::None => Position::ZERO,
            Base::Unstamped { keys } | Base::Earlier { keys } => Position::new(0, u64::from(*keys > 0)),
            Base::Stamped(Stamp { at, .. }) => *at,
        };
        if self.is_standalone || self.plain > 0 {
            // What a node writes on its own has no term.
            let index = self.last.index.max(base.index);
            let position = Position { term: Term::ZERO, index };
            log.reset(position);
            if self.is_standalone {
                log.set_shard(None);
            }
            return Settled { applied: index, continues: self.last == position && self.plain == 0 };
        }
        if Position::ZERO < base && self.last == Position::ZERO {
            // Nothing is behind it.
            log.reset(base);
            if let Base::Stamped(Stamp { shard, .. }) = &self.base {
                log.set_shard(shard.clone());
            }
            return Settled { applied: base.index, continues: false };
        }
        log.note_commit(self.noted);
        let applied = self.commit.min(self.last.index);
        assert_eq!(log.last(), self.last, "the log has the files' entries");
        log.release(applied);
        Settled { applied, continues: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::TermStart;

    fn shard(n: u8) -> Option<ShardId> {
        Some(ShardId::from_random([n; 20]))
    }

    fn head(term: u64, index: u64) -> Head {
        let starts = |term| TermStart { term: Term::new(term), first_index: LogIndex::new(index.max(1)) };
        let terms = (index > 0).then(|| starts(term)).into_iter().collect();
        Head { follows: Position::new(term, index), shard: shard(1), terms, awaits_base: false }
    }

    /// Files by their lines; `first` is that of the first file.
    struct Files(Chain, WriteLog);

    impl Files {
        fn behind(base: Base) -> Files {
            Files(Chain::of_a_shard(base), WriteLog::new(1 << 20))
        }

        fn head(&mut self, term: u64, index: u64) -> Result<(), Breach> {
            self.0.head(&head(term, index), &mut self.1)
        }

        /// Returns how many of its entries were new.
        fn batch(&mut self, term: u64, first: u64, count: u64, commit: u64) -> Result<usize, Breach> {
            self.0.batch(Position::new(term, first), count, LogIndex::new(commit), &self.1)?;
            let new =
                (first..first + count).filter(|index| self.0.entry(Position::new(term, *index))).count();
            (0..new).for_each(|_| {
                self.1.append_unexecuted(Term::new(term), b"entry");
            });
            Ok(new)
        }
    }

    fn stamped(term: u64, index: u64) -> Base {
        Base::Stamped(Stamp { at: Position::new(term, index), shard: shard(1) })
    }

    #[test]
    fn what_follows_a_base_follows_exactly_that() {
        assert_eq!(Files::behind(stamped(2, 9)).head(2, 9), Ok(()));
        for (term, index) in [(2, 8), (2, 10), (1, 9), (0, 0)] {
            let breach = Files::behind(stamped(2, 9)).head(term, index).unwrap_err();
            assert!(matches!(breach, Breach::AnotherBase { base: Some(_), .. }), "{term}.{index}: {breach}");
        }
        let other = Base::Stamped(Stamp { at: Position::new(2, 9), shard: shard(2) });
        assert!(Files::behind(other).head(2, 9).is_err(), "of another shard");
        assert_eq!(Files::behind(stamped(2, 9)).head(0, 9), Ok(()), "it has gone on alone");
        // Of another program, as a log begins behind it.
        assert_eq!(Files::behind(Base::Unstamped { keys: 7 }).head(0, 1), Ok(()));
        assert_eq!(Files::behind(Base::Unstamped { keys: 0 }).head(0, 0), Ok(()));
        assert!(Files::behind(Base::Unstamped { keys: 0 }).head(2, 9).is_err(), "an empty file");
        assert!(Files::behind(Base::None).head(2, 9).is_err());
        assert_eq!(Files::behind(Base::Earlier { keys: 3 }).head(2, 9), Ok(()));
    }

    #[test]
    fn a_base_alone_goes_on_where_it_is() {
        let mut files = Files::behind(stamped(2, 9));
        assert_eq!(files.0.settle(&mut files.1), Settled { applied: LogIndex::new(9), continues: false });
        assert_eq!((files.1.last(), files.1.shard()), (Position::new(2, 9), shard(1).as_ref()));
        let mut files = Files::behind(Base::Unstamped { keys: 2 });
        assert_eq!(files.0.settle(&mut files.1).applied, LogIndex::new(1));
    }

    /// A snapshot may be older than the begin of the term. The loader refused such files.
    #[test]
    fn what_a_rewrite_repeats_may_be_of_several_terms() {
        let mut files = Files::behind(Base::None);
        files.head(0, 0).unwrap();
        assert_eq!(files.batch(1, 1, 4, 2), Ok(4));
        assert_eq!(files.batch(2, 5, 2, 3), Ok(2));
        files.head(1, 2).unwrap();
        assert_eq!(files.batch(1, 3, 2, 3), Ok(0));
        assert_eq!(files.batch(2, 5, 4, 6), Ok(2));
        assert_eq!(files.0.settle(&mut files.1), Settled { applied: LogIndex::new(6), continues: true });
        assert_eq!(files.1.last(), Position::new(2, 8));
    }

    #[test]
    fn gaps_and_other_histories_are_noticed() {
        let begun = || {
            let mut files = Files::behind(Base::None);
            files.head(0, 0).unwrap();
            files.batch(1, 1, 4, 2).unwrap();
            files.batch(2, 5, 2, 3).unwrap();
            files
        };
        let at = Position::new;
        assert_eq!(begun().head(2, 7), Err(Breach::Gap { follows: at(2, 7), last: at(2, 6) }));
        assert_eq!(begun().head(1, 6), Err(Breach::AnotherHistory { follows: at(1, 6), last: at(2, 6) }));
        assert_eq!(begun().batch(2, 8, 1, 0), Err(Breach::Entries { first: at(2, 8), last: at(2, 6) }));
        assert_eq!(begun().batch(1, 7, 1, 0), Err(Breach::Entries { first: at(1, 7), last: at(2, 6) }));
        assert_eq!(begun().batch(2, 3, 2, 0), Err(Breach::OtherEntries(at(2, 3))));
        assert_eq!(begun().batch(2, 4, 3, 0), Err(Breach::OtherEntries(at(2, 4))));
    }
}

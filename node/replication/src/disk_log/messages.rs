//! What the core of the log on disk consumes and produces: closed enums, which a shell carries out and answers.

use std::time::Duration;

use keyward_proto::ids::{LogIndex, Position, ShardId, Term};

use super::log_file::{Cut, FileNumber};
use crate::log::{Rewind, Slice, TermStart, WriteLog};

/// `appendfsync`: when the write log is synced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fsync {
    Always,
    #[default]
    EverySecond,
    No,
}

/// What the core has to know of its surroundings, at each step.
#[derive(Debug, Clone, Copy)]
pub struct Conditions {
    pub fsync: Fsync,
    pub commit: LogIndex,
    /// Without sentinels nobody takes an entry back.
    pub is_standalone: bool,
}

impl Conditions {
    /// Whether everything up to `index` will stay: what a base contains has to.
    pub fn are_settled(&self, index: LogIndex) -> bool {
        self.is_standalone || index <= self.commit
    }

    /// Up to where no entry of a slice is taken back.
    pub(super) fn settled(&self, slice: &Slice) -> LogIndex {
        if slice.term == Term::ZERO { slice.last().index } else { self.commit }
    }
}

/// The first line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub follows: Position,
    pub shard: Option<ShardId>,
    /// The newest ones, ascending.
    pub terms: Vec<TermStart>,
    /// When the file was begun there was no base for what it follows: nothing in it was promised to anybody unless a
    /// manifest names it.
    pub awaits_base: bool,
}

/// Entries for a file, possibly none: then it only notes what is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Where the file ends; what lies behind was written halfway, and goes.
    pub at: u64,
    pub slice: Slice,
    /// Up to here entries are known to be committed.
    pub commit: LogIndex,
    /// Bytes of the file that are known to be on the disk. Under `appendfsync no` all, since nobody will say when they
    /// are: what is found damaged later is taken for damage.
    pub synced: u64,
}

/// Which entry of the log a file is begun behind, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// A snapshot contains what comes before. The current file stays in use until [`Action::Switch`].
    Rotation,
    /// The log is not what the files say: this one is in use at once, and counts when it has a base.
    Anew,
}

/// What a shell has to do; all but [`Action::Wait`], [`Action::StartSync`] and [`Action::End`] are answered by
/// [`DiskLog::completed`] before the next is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Nothing until something happens, or at the latest after this.
    Wait(Duration),
    Write(Batch),
    /// And sync it.
    WriteAndSync(Batch),
    /// From here on this is the history of that shard. And sync it.
    WriteShard {
        at: u64,
        shard: Option<ShardId>,
    },
    Sync,
    /// In the background: answered by [`DiskLog::sync_ended`], some time.
    StartSync(FileNumber),
    /// Entries are taken back; and sync it.
    Cut(Cut),
    /// Nobody knows what the file has behind this; if that fails, the next write does it.
    Shorten {
        at: u64,
    },
    /// A new file that no manifest names yet. Its head is synced, by this if it is in use at once, else by the switch.
    BeginFile(Begin, Head),
    /// Into the file that was begun.
    Repeat(Batch),
    /// Sync both, name the file that was begun in the manifest (unless its base is missing), and go on in it.
    Switch {
        awaits_base: bool,
    },
    /// The snapshot of this rewrite and the files from `first` on are the data, the others are not needed.
    Adopt {
        rewrite: RewriteId,
        first: FileNumber,
    },
    End,
}

/// What has been done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// The file that it was done to.
    pub file: FileNumber,
    /// What was added to it.
    pub bytes: u64,
}

/// What has not been done: the file is as it was, or not known to be more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    pub step: Step,
    pub remedy: Remedy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Write,
    /// It is written, but the disk may not have it, nor what was written before to the file in use.
    Sync,
}

/// What was done about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Files that were kept for replicas are deleted.
    RoomMade,
    None,
}

/// Names a rewrite: its snapshot becomes the base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RewriteId(pub u64);

/// What others have to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// The log was told how far it is on disk.
    Published {
        durable: LogIndex,
    },
    /// Writing fails: writes of clients are refused.
    Failing,
    Recovered,
    /// The log has dropped entries that are not on disk.
    EntriesLost,
    /// Entries that were never committed are being removed, or everything.
    TurnedBack(Rewind),
    /// Nothing counts until there is a base: a rewrite is due.
    NeedsBase,
    RewriteGivenUp(RewriteId),
    RewriteDone(RewriteId),
}

/// The head of a file that begins now.
pub fn head_of(log: &WriteLog, follows: Position) -> Head {
    Head { follows, shard: log.shard().cloned(), terms: log.terms().to_vec(), awaits_base: false }
}

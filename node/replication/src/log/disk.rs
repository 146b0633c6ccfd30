//! How far the log is on this node's disk.
//!
//! One writer (`crate::disk_log`) reads the log like a sender to a replica does, and reports here. Three positions, because
//! they mean different things:
//! - *written*: handed to the kernel; what lies beyond is kept in memory whatever the ring's size is;
//! - *durable*: as durable as `appendfsync` demands, so this node may say that it holds the entry. Not beyond
//!   *written*, and zero while the files on disk do not yet add up to a keyspace (a base is being written);
//! - *synced*: kept for sure, whatever `appendfsync` demands: WAITAOF.
//!
//! A truncation or a reset takes all of them back in the same step. What the writer reports about entries that it has read
//! before is void then: it has to look at the [`Rewind`] first.
//!
//! Invariants: durable and synced <= written <= last; unwritten bytes are those of the entries beyond *written*.

use keyward_proto::ids::{LogIndex, Position};
use keyward_proto::mutation::{self, Mutation};

use super::WriteLog;

/// What happened to entries that the writer may have written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rewind {
    /// Those after this index are gone.
    To(LogIndex),
    /// The log begins anew, elsewhere.
    All,
}

fn merged(earlier: Option<Rewind>, later: Rewind) -> Rewind {
    match (earlier, later) {
        (Some(Rewind::All), _) | (_, Rewind::All) => Rewind::All,
        (Some(Rewind::To(a)), Rewind::To(b)) => Rewind::To(a.min(b)),
        (None, to) => to,
    }
}

#[derive(Debug)]
pub(super) struct Disk {
    written: LogIndex,
    durable: LogIndex,
    /// Whatever `appendfsync` demands: up to here the disk has kept it for sure.
    synced: LogIndex,
    unwritten_bytes: u64,
    rewound: Option<Rewind>,
    /// The first entry that the files have; those behind it, too.
    first: Option<LogIndex>,
    /// Whether an entry has to be durable before this node holds it. Not while the first base is being written of a
    /// node that has held everything in memory only until now.
    gates: bool,
}

impl Disk {
    /// What lies beyond `index` is not held any more.
    fn take_back_durable(&mut self, index: LogIndex) {
        self.synced = self.synced.min(index);
        if !mutation::is_on(Mutation::RewindForgetsDurable) {
            self.durable = self.durable.min(index);
        }
    }
}

impl WriteLog {
    /// From now on the log is written to disk; up to its end it is there already.
    pub fn attach_disk(&mut self) {
        let last = self.last.index;
        self.disk = Some(Disk {
            written: last,
            durable: last,
            synced: last,
            unwritten_bytes: 0,
            rewound: None,
            first: None,
            gates: true,
        });
    }

    /// As [`WriteLog::attach_disk`], but until [`WriteLog::require_disk`] entries need not be durable for this node to hold
    /// them.
    pub fn attach_disk_without_base(&mut self) {
        self.attach_disk();
        if let Some(disk) = &mut self.disk {
            disk.gates = false;
            disk.synced = LogIndex::ZERO;
        }
    }

    /// From now on entries have to be durable before this node holds them.
    pub fn require_disk(&mut self) {
        if let Some(disk) = &mut self.disk {
            disk.gates = true;
        }
    }

    /// The disk does not count any more.
    pub fn detach_disk(&mut self) {
        self.disk = None;
    }

    pub fn has_disk(&self) -> bool {
        self.disk.is_some()
    }

    pub(crate) fn disk_gates(&self) -> bool {
        self.disk.as_ref().is_some_and(|disk| disk.gates)
    }

    /// The writer has something to take back.
    pub fn has_rewind(&self) -> bool {
        self.disk.as_ref().is_some_and(|disk| disk.rewound.is_some())
    }

    /// Up to where this node itself holds the log; beyond every index if it is not written to disk.
    pub fn durable(&self) -> LogIndex {
        self.disk.as_ref().filter(|d| d.gates).map_or(LogIndex::new(u64::MAX), |d| d.durable)
    }

    /// Up to where the kernel has the log; beyond every index if it is not written to disk.
    pub fn written(&self) -> LogIndex {
        self.disk.as_ref().map_or(LogIndex::new(u64::MAX), |d| d.written)
    }

    /// Bytes of entries that wait for the writer.
    pub fn unwritten_bytes(&self) -> u64 {
        self.disk.as_ref().map_or(0, |d| d.unwritten_bytes)
    }

    /// The writer has written `bytes` of frames, up to `index`. False, with nothing changed, if what it has read may
    /// be gone: see [`WriteLog::take_rewind`].
    pub fn set_written(&mut self, index: LogIndex, bytes: u64) -> bool {
        let last = self.last.index;
        let Some(disk) = self.disk.as_mut().filter(|d| d.rewound.is_none()) else { return false };
        assert!(disk.written <= index && index <= last, "written {index} of {}..{last}", disk.written);
        disk.written = index;
        disk.unwritten_bytes =
            disk.unwritten_bytes.checked_sub(bytes).expect("no more is written than was appended");
        true
    }

    /// Everything up to `index` counts as held by this node. False, with nothing changed, after a rewind.
    pub fn set_durable(&mut self, index: LogIndex) -> bool {
        let Some(disk) = self.disk.as_mut().filter(|d| d.rewound.is_none()) else { return false };
        assert!(index <= disk.written, "durable {index} beyond written {}", disk.written);
        disk.durable = index;
        true
    }

    /// Whether this very entry is on the disk, and synced: WAITAOF.
    pub fn has_synced(&self, position: Position) -> bool {
        self.disk.as_ref().is_some_and(|disk| position.index <= disk.synced) && self.has(position)
    }

    /// Everything up to `index` is synced; not told after a rewind.
    pub(crate) fn set_synced(&mut self, index: LogIndex) {
        if let Some(disk) = self.disk.as_mut().filter(|d| d.rewound.is_none()) {
            disk.synced = index.min(disk.written);
        }
    }

    /// What the writer has to take back; asked before it reads. From then on its reports count again.
    pub fn take_rewind(&mut self) -> Option<Rewind> {
        self.disk.as_mut()?.rewound.take()
    }

    /// Only what lies up to `index` is written after all: a sync has failed, or the writer has dealt with a rewind.
    pub fn retract_disk(&mut self, index: LogIndex) {
        let bytes = self.unwritten_after(index);
        let last = self.last.index;
        let Some(disk) = self.disk.as_mut().filter(|d| d.rewound.is_none()) else { return };
        assert!(index <= last, "written {index} beyond the log's end {last}");
        disk.written = index;
        disk.durable = disk.durable.min(index);
        disk.synced = disk.synced.min(index);
        disk.unwritten_bytes = bytes;
    }

    /// The writer could not deal with a rewind: it is still to be done.
    pub fn remember_rewind(&mut self, rewind: Rewind) {
        if let Some(disk) = &mut self.disk {
            disk.rewound = Some(merged(disk.rewound, rewind));
        }
    }

    /// From which entry on the files have the log; `None`: nothing can be read from them.
    pub fn set_first_on_disk(&mut self, first: Option<LogIndex>) {
        if let Some(disk) = self.disk.as_mut().filter(|d| d.rewound.is_none()) {
            disk.first = first;
        }
    }

    /// The first entry that can be read, from memory or from the files.
    pub fn oldest_index(&self) -> LogIndex {
        let on_disk = self.disk.as_ref().and_then(|disk| disk.first);
        on_disk.map_or(self.first_index(), |first| first.min(self.first_index()))
    }

    /// Entries are appended.
    #[inline]
    pub(super) fn count_unwritten(&mut self, bytes: usize) {
        if let Some(disk) = &mut self.disk {
            disk.unwritten_bytes += bytes as u64;
        }
    }

    /// After a truncation or a reset.
    pub(super) fn rewind_disk(&mut self, rewind: Rewind) {
        let Some(disk) = &mut self.disk else { return };
        disk.rewound = Some(merged(disk.rewound, rewind));
        match rewind {
            Rewind::To(index) => {
                disk.written = disk.written.min(index);
                disk.take_back_durable(index);
                disk.first = disk.first.filter(|first| *first <= index);
                let written = disk.written;
                let bytes = self.unwritten_after(written);
                if let Some(disk) = &mut self.disk {
                    disk.unwritten_bytes = bytes;
                }
            }
            Rewind::All => {
                disk.written = self.last.index;
                disk.take_back_durable(LogIndex::ZERO);
                disk.unwritten_bytes = 0;
                disk.first = None;
            }
        }
    }

    /// Bytes of the frames after `index`, all of which are held.
    fn unwritten_after(&self, index: LogIndex) -> u64 {
        assert!(
            self.open.count == 0 || index.get() < self.open.first,
            "a rewind seals the open chunk, and nothing in it is written"
        );
        self.bytes_after(index)
    }

    /// Bytes of the frames after `index`, as far as they are held. The open chunk counts only as a whole.
    pub(crate) fn bytes_after(&self, index: LogIndex) -> u64 {
        let next = index.get() + 1;
        let sealed: usize = self
            .segments
            .iter()
            .rev()
            .take_while(|s| next <= s.last())
            .map(|s| s.bytes.len() - s.offset_of(next.max(s.first)))
            .sum();
        let open = if next <= self.open.first { self.open.bytes.len() } else { 0 };
        (sealed + open) as u64
    }

    pub(super) fn check_disk(&self) {
        let Some(disk) = &self.disk else { return };
        assert!(disk.durable <= disk.written, "durable beyond written");
        assert!(disk.synced <= disk.written, "synced beyond written");
        assert!(disk.written <= self.last.index, "written beyond the log");
    }
}

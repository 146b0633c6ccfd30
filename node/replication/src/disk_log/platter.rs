//! A model of a disk, for whoever runs the core without one: the simulation, and the scenarios of this crate.
//!
//! Files are lists of batches, and a manifest names some of them behind a base (whatever `B` a keyspace is). A killed
//! process loses nothing that it has written, wherever it was between two actions; a power failure also loses what is
//! not synced, from any batch on, and a disk that lies loses a base that was synced: it is empty, or the one before.
//! Whoever loads the files learns from the same code as the node's loader whether they are one log without a gap
//! ([`Chain`]). Bytes and checksums are not modelled: the node's own tests cover them.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use keyward_proto::entry::frames;
use keyward_proto::ids::{LogIndex, Position, ShardId, Term};

use super::{
    Action, Base, Batch, BatchSpan, Begin, Breach, Chain, Cut, Done, Failure, FileNumber, Head, LogFile,
    Mark, Remedy, RewriteId, Settled, Stamp, Step, head_of,
};
use crate::log::WriteLog;

/// Bytes of a file's head, of a shard's name in it, and of a batch's annotation.
const HEAD_BYTES: u64 = 10;

/// Entries in a file.
#[derive(Debug, Clone)]
struct Entries {
    term: Term,
    first: LogIndex,
    payloads: Vec<Bytes>,
    commit: LogIndex,
}

#[derive(Debug, Clone)]
enum Content {
    Entries(Entries),
    Shard(Option<ShardId>),
}

#[derive(Debug, Clone)]
struct Record {
    at: u64,
    bytes: u64,
    content: Content,
}

/// An incremental file.
#[derive(Debug)]
struct PlatterFile {
    head: Head,
    records: Vec<Record>,
    /// The records that a power failure leaves.
    synced: usize,
    /// A sync has failed of the records from here on: a later one says nothing about them.
    doubtful: Option<usize>,
}

impl PlatterFile {
    fn new(head: Head) -> PlatterFile {
        PlatterFile { head, records: Vec::new(), synced: 0, doubtful: None }
    }

    fn len(&self) -> u64 {
        self.records.last().map_or(HEAD_BYTES, |r| r.at + r.bytes)
    }

    fn entries(&self) -> impl DoubleEndedIterator<Item = (&Record, &Entries)> {
        self.records.iter().filter_map(|record| match &record.content {
            Content::Entries(entries) => Some((record, entries)),
            Content::Shard(_) => None,
        })
    }

    /// The last entry, of this file or before it.
    fn last(&self) -> LogIndex {
        let last = self.entries().rev().find(|(_, e)| !e.payloads.is_empty());
        last.map_or(self.head.follows.index, |(_, e)| {
            LogIndex::new(e.first.get() + e.payloads.len() as u64 - 1)
        })
    }

    /// Adds a record behind the first `at` bytes. Returns its bytes.
    fn append(&mut self, at: u64, bytes: u64, content: Content) -> u64 {
        self.shorten(at);
        assert_eq!(self.len(), at, "a file ends at a record");
        self.records.push(Record { at, bytes, content });
        bytes
    }

    fn append_batch(&mut self, batch: &Batch) -> u64 {
        let Batch { at, slice, commit, .. } = batch;
        let payloads: Vec<Bytes> = frames(&slice.bytes).map(Bytes::copy_from_slice).collect();
        let entries = Entries { term: slice.term, first: slice.first, payloads, commit: *commit };
        self.append(*at, HEAD_BYTES + slice.bytes.len() as u64, Content::Entries(entries))
    }

    fn shorten(&mut self, at: u64) {
        assert!(HEAD_BYTES <= at, "a file keeps its head");
        self.records.retain(|r| r.at < at);
        self.synced = self.synced.min(self.records.len());
        self.doubtful.take_if(|doubtful| self.records.len() <= *doubtful);
    }

    fn cut(&mut self, cut: &Cut) -> u64 {
        let begun = self.entries().find(|(record, _)| record.at == cut.at).map(|(_, e)| e.clone());
        self.shorten(cut.at);
        let Some((batch, count)) = cut.kept else { return 0 };
        let mut entries = begun.expect("the batch is in the file");
        assert_eq!((entries.term, entries.first), (batch.term, batch.first), "another batch");
        entries.payloads.truncate(usize::try_from(count).expect("a small batch"));
        entries.commit = LogIndex::ZERO;
        let bytes: usize = entries.payloads.iter().map(|p| 4 + p.len()).sum();
        self.append(cut.at, HEAD_BYTES + bytes as u64, Content::Entries(entries))
    }

    /// The first `records` of it.
    fn sync(&mut self, records: usize) {
        let known = self.doubtful.unwrap_or(usize::MAX).min(self.records.len());
        self.synced = self.synced.max(records.min(known));
    }

    fn fail_sync(&mut self) {
        self.doubtful.get_or_insert(self.synced);
    }
}

/// A base with what it says that it is.
#[derive(Debug, Clone, Default)]
struct PlatterBase<B> {
    content: B,
    /// `None`: nothing is in it, or there is none.
    stamp: Option<Stamp>,
}

/// What a disk that lies leaves of a base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BaseFault {
    /// Its name is there, but none of its bytes.
    Empty,
    /// The file that had its name before: a rename that was not on the disk.
    Older,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Platter<B> {
    /// `None`: there was no rewrite yet.
    base: Option<PlatterBase<B>>,
    /// The base before.
    older: PlatterBase<B>,
    /// More was lost than the end of the last file: whoever loads it has to notice.
    is_damaged: bool,
    files: BTreeMap<u64, PlatterFile>,
    /// The files that the manifest names: with the base they are the data.
    named: Vec<u64>,
    /// The file that a rotation has begun.
    begun: Option<FileNumber>,
    /// The next of these fails.
    pub failing: Option<Step>,
}

/// What is on a platter when a process starts.
#[derive(Debug)]
pub struct Loaded<B> {
    pub log: WriteLog,
    pub base: B,
    /// Committed entries behind the base.
    pub entries: Vec<(LogIndex, Bytes)>,
    /// Up to where these reach.
    pub applied: LogIndex,
    /// To go on with.
    pub file: LogFile,
}

impl<B: Clone + Default> Platter<B> {
    fn last_named(&self) -> Option<&PlatterFile> {
        self.files.get(self.named.last()?)
    }

    /// The last entry of the files that count.
    pub fn last(&self) -> LogIndex {
        self.last_named().map_or(LogIndex::ZERO, PlatterFile::last)
    }

    /// The machine's power fails: of what is not synced as many batches are left as `kept` says of their number.
    pub fn lose_power(&mut self, mut kept: impl FnMut(usize) -> usize) {
        let last = self.named.last().copied();
        for number in &self.named {
            let Some(file) = self.files.get_mut(number) else { continue };
            let unsynced = file.records.len() - file.synced;
            let left = kept(unsynced).min(unsynced);
            file.records.truncate(file.synced + left);
            self.is_damaged |= left < unsynced && Some(*number) != last;
        }
    }

    /// With the power a base goes that was said to be on the disk.
    pub fn lose_base(&mut self, fault: BaseFault) {
        let Some(base) = &mut self.base else { return };
        *base = match fault {
            BaseFault::Empty => PlatterBase::default(),
            BaseFault::Older => self.older.clone(),
        };
        self.is_damaged = true;
    }

    pub fn has_base(&self) -> bool {
        self.base.is_some()
    }

    /// Whether it lost more than a log gets over.
    pub fn is_damaged(&self) -> bool {
        self.is_damaged
    }

    /// Whether files before the last one have what a power failure would take.
    pub fn has_unsynced_before(&self) -> bool {
        let Some((_, before)) = self.named.split_last() else { return false };
        before.iter().filter_map(|number| self.files.get(number)).any(|file| file.synced < file.records.len())
    }

    /// Whether a power failure now could lose anything.
    pub fn has_unsynced(&self) -> bool {
        let Some(file) = self.last_named() else { return false };
        let unsynced = file.records.get(file.synced).map_or(u64::MAX, |r| r.at);
        self.has_unsynced_before() || file.entries().any(|(r, e)| unsynced <= r.at && !e.payloads.is_empty())
    }

    /// What a process finds: entries count up to the last commit index that was noted, and what a rewrite has written
    /// twice is taken once.
    ///
    /// # Errors
    /// It is not one log: the process does not start.
    pub fn load(&mut self, capacity_bytes: usize) -> Result<Loaded<B>, Breach> {
        if self.named.is_empty() {
            let head = head_of(&WriteLog::new(0), Position::ZERO);
            self.files = BTreeMap::from([(1, PlatterFile::new(head))]);
            self.named = vec![1];
        }
        let named = &self.named;
        self.files.retain(|number, _| named.contains(number));
        let mut log = WriteLog::new(capacity_bytes);
        let mut chain = Chain::of_a_shard(self.stamped());
        let (mut repeats, mut first) = (LogIndex::ZERO, None);
        for file in self.files.values_mut() {
            file.doubtful = None;
            file.sync(usize::MAX);
            let before = chain.last().index;
            chain.head(&file.head, &mut log)?;
            repeats = before.max(file.head.follows.index);
            first.get_or_insert(file.head.follows.index);
            for record in &file.records {
                match &record.content {
                    Content::Shard(shard) => log.set_shard(shard.clone()),
                    Content::Entries(entries) => load_entries(&mut chain, &mut log, entries)?,
                }
            }
        }
        let Settled { applied, .. } = chain.settle(&mut log);
        let entries = self.entries_between(first.unwrap_or_default(), applied);
        let base = self.base.as_ref().map(|base| base.content.clone()).unwrap_or_default();
        Ok(Loaded { log, base, entries, applied, file: self.resume(repeats, chain.commit()) })
    }

    fn stamped(&self) -> Base {
        match &self.base {
            None => Base::None,
            Some(base) => base.stamp.clone().map_or(Base::Unstamped { keys: 0 }, Base::Stamped),
        }
    }

    fn entries_between(&self, after: LogIndex, last: LogIndex) -> Vec<(LogIndex, Bytes)> {
        let mut found: Vec<(LogIndex, Bytes)> = Vec::new();
        for (_, entries) in self.files.values().flat_map(PlatterFile::entries) {
            let indexes = (entries.first.get()..).map(LogIndex::new);
            for (index, payload) in indexes.zip(&entries.payloads) {
                let next = found.last().map_or(after, |(index, _)| *index).next();
                if index == next && index <= last {
                    found.push((index, payload.clone()));
                }
            }
        }
        found
    }

    /// The last file, to go on with.
    fn resume(&self, repeats: LogIndex, commit: LogIndex) -> LogFile {
        let (number, file) = self.files.last_key_value().expect("a file");
        let span = |(record, entries): (&Record, &Entries)| BatchSpan {
            term: entries.term,
            first: entries.first,
            count: entries.payloads.len() as u64,
            at: record.at,
            bytes: record.bytes,
        };
        let spans = file.entries().map(span);
        let uncommitted: VecDeque<BatchSpan> = spans.filter(|s| s.count > 0 && commit < s.last()).collect();
        let follows = file.head.follows.index;
        let end = Mark { bytes: file.len(), index: file.last().max(repeats) };
        LogFile::resumed(FileNumber(*number), follows, repeats.max(follows), end, uncommitted)
    }

    fn file(&mut self, number: FileNumber) -> &mut PlatterFile {
        self.files.get_mut(&number.0).expect("a file that was begun")
    }

    /// Whether this step fails, as it was told to.
    fn fails(&mut self, step: Step) -> bool {
        self.failing.take_if(|failing| *failing == step).is_some()
    }

    fn write(
        &mut self,
        number: FileNumber,
        write: impl FnOnce(&mut PlatterFile) -> u64,
    ) -> Result<Done, Failure> {
        if self.fails(Step::Write) {
            return Err(Failure { step: Step::Write, remedy: Remedy::None });
        }
        Ok(Done { file: number, bytes: write(self.file(number)) })
    }

    fn sync(&mut self, number: FileNumber) -> Result<Done, Failure> {
        if self.fails(Step::Sync) {
            self.file(number).fail_sync();
            return Err(Failure { step: Step::Sync, remedy: Remedy::None });
        }
        self.file(number).sync(usize::MAX);
        Ok(Done { file: number, bytes: 0 })
    }

    fn begin(&mut self, begin: Begin, head: &Head) -> Result<Done, Failure> {
        let number = self.files.last_key_value().map_or(1, |(number, _)| number + 1);
        self.files.insert(number, PlatterFile::new(head.clone()));
        let file = FileNumber(number);
        match begin {
            Begin::Rotation => {
                self.begun = Some(file);
                self.write(file, |_| HEAD_BYTES)
            }
            Begin::Anew => {
                self.begun = None;
                self.write_and_sync(file, |_| HEAD_BYTES)
            }
        }
    }

    /// The base and the files from `first` on are the data.
    fn adopt(&mut self, content: B, first: FileNumber) {
        // The node writes this into the base when the snapshot begins.
        let Head { follows, shard, .. } = &self.files[&first.0].head;
        let stamp = Some(Stamp { at: *follows, shard: shard.clone() });
        self.older = self.base.replace(PlatterBase { content, stamp }).unwrap_or_default();
        self.named.retain(|number| first.0 <= *number);
        if !self.named.contains(&first.0) {
            self.named.push(first.0);
        }
        let named = &self.named;
        self.files.retain(|number, _| named.contains(number));
    }

    /// Carries out an action on the file in use; `base` gives the snapshot of a rewrite. `None`: there is nothing to be
    /// done now.
    pub fn perform(
        &mut self,
        current: FileNumber,
        action: &Action,
        base: impl FnOnce(RewriteId) -> B,
    ) -> Option<Result<Done, Failure>> {
        Some(match action {
            Action::Wait(_) | Action::StartSync(_) | Action::End => return None,
            Action::Write(batch) => self.write(current, |file| file.append_batch(batch)),
            Action::WriteAndSync(batch) => self.write_and_sync(current, |file| file.append_batch(batch)),
            Action::WriteShard { at, shard } => self
                .write_and_sync(current, |file| file.append(*at, HEAD_BYTES, Content::Shard(shard.clone()))),
            Action::Sync => self.sync(current),
            Action::Cut(cut) => self.write_and_sync(current, |file| file.cut(cut)),
            Action::Shorten { at } => {
                self.file(current).shorten(*at);
                Ok(Done { file: current, bytes: 0 })
            }
            Action::BeginFile(begin, head) => self.begin(*begin, head),
            Action::Repeat(batch) => {
                let begun = self.begun.expect("a file was begun");
                self.write(begun, |file| file.append_batch(batch))
            }
            Action::Switch { awaits_base } => {
                let begun = self.begun.expect("a file was begun");
                let switched = self.switch(current, begun);
                if switched.is_ok() && !awaits_base {
                    self.named.push(begun.0);
                }
                switched
            }
            Action::Adopt { rewrite, first } => {
                self.adopt(base(*rewrite), *first);
                Ok(Done { file: *first, bytes: 0 })
            }
        })
    }

    fn write_and_sync(
        &mut self,
        number: FileNumber,
        write: impl FnOnce(&mut PlatterFile) -> u64,
    ) -> Result<Done, Failure> {
        self.write(number, write).and_then(|done| self.sync(number).map(|_| done))
    }

    fn switch(&mut self, current: FileNumber, begun: FileNumber) -> Result<Done, Failure> {
        self.sync(current)?;
        self.sync(begun)
    }

    /// So many records are in a file now.
    pub fn records(&self, number: FileNumber) -> usize {
        self.files.get(&number.0).map_or(0, |file| file.records.len())
    }

    /// A sync in the background ends, of a file's first records.
    pub fn end_sync(&mut self, number: FileNumber, records: usize) -> Result<(), Remedy> {
        let fails = self.fails(Step::Sync);
        // A file that is not needed any more may be gone.
        match self.files.get_mut(&number.0) {
            Some(file) if fails => file.fail_sync(),
            Some(file) => file.sync(records),
            None => {}
        }
        if fails { Err(Remedy::None) } else { Ok(()) }
    }
}

fn load_entries(chain: &mut Chain, log: &mut WriteLog, entries: &Entries) -> Result<(), Breach> {
    let Entries { term, first, payloads, commit } = entries;
    let at = |index| Position { term: *term, index };
    chain.batch(at(*first), payloads.len() as u64, *commit, log)?;
    for (index, payload) in (first.get()..).map(LogIndex::new).zip(payloads) {
        if chain.entry(at(index)) {
            log.append_unexecuted(*term, payload);
        }
    }
    Ok(())
}

use keyward_proto::ids::Term;

use super::*;

const TERM: Term = Term::new(1);

fn stamp(at: Position) -> Stamp {
    Stamp { at, shard: None }
}

/// A shell whose disk does everything at once, unless it is told to fail; its bytes are those of the frames.
struct Disk {
    core: DiskLog,
    log: WriteLog,
    conditions: Conditions,
    now: Monotonic,
    notes: Vec<Note>,
    files: u64,
}

impl Disk {
    fn new(fsync: Fsync) -> Disk {
        let mut log = WriteLog::new(1 << 20);
        log.attach_disk();
        let file = LogFile::begun(FileNumber(1), LogIndex::ZERO, 10);
        let conditions = Conditions { fsync, commit: LogIndex::ZERO, is_standalone: false };
        let now = Monotonic::ZERO + SYNC_EVERY;
        let core = DiskLog::new(now, 1 << 10, file, LogIndex::ZERO, None);
        Disk { core, log, conditions, now, notes: Vec::new(), files: 1 }
    }

    fn append(&mut self, count: u64) {
        (0..count).for_each(|_| {
            self.log.append_unexecuted(TERM, b"entry");
        });
    }

    fn next(&mut self) -> Action {
        self.core.check_invariants(&self.log);
        self.core.next(self.now, &mut self.log, &self.conditions, &mut self.notes)
    }

    fn end(&mut self, result: Result<Done, Failure>) {
        self.core.completed(self.now, result, &mut self.log, &self.conditions, &mut self.notes);
        self.core.check_invariants(&self.log);
    }

    fn fail(&mut self, step: Step) {
        self.end(Err(Failure { step, remedy: Remedy::None }));
    }

    fn succeed(&mut self, action: &Action) {
        let bytes = match action {
            Action::Write(batch) | Action::WriteAndSync(batch) | Action::Repeat(batch) => {
                10 + batch.slice.bytes.len() as u64
            }
            Action::Cut(cut) => cut.kept.map_or(0, |(_, count)| 10 + 9 * count),
            Action::WriteShard { .. } | Action::BeginFile(..) => 10,
            _ => 0,
        };
        if matches!(action, Action::BeginFile(..)) {
            self.files += 1;
        }
        self.end(Ok(Done { file: FileNumber(self.files), bytes }));
    }

    /// Does all that there is to do; the actions' names.
    fn settle(&mut self) -> Vec<String> {
        let mut done = Vec::new();
        loop {
            let action = self.next();
            match &action {
                Action::Wait(_) | Action::End => return done,
                Action::StartSync(_) => {}
                _ => self.succeed(&action),
            }
            let text = format!("{action:?}");
            done.push(text.split([' ', '(']).next().unwrap_or_default().to_owned());
        }
    }

    fn positions(&self) -> (u64, u64) {
        (self.log.written().get(), self.log.durable().get())
    }
}

#[test]
fn durable_is_what_appendfsync_demands() {
    for (fsync, action) in
        [(Fsync::Always, "WriteAndSync"), (Fsync::EverySecond, "Write"), (Fsync::No, "Write")]
    {
        let mut disk = Disk::new(fsync);
        disk.append(3);
        assert_eq!(disk.settle(), [action], "one batch");
        assert_eq!(disk.positions(), (3, 3));
        assert_eq!(disk.core.file.is_synced(), fsync == Fsync::Always);
        disk.now = disk.now + SYNC_EVERY;
        let has_synced = |disk: &Disk| disk.log.has_synced(Position { term: TERM, index: LogIndex::new(3) });
        assert_eq!(has_synced(&disk), fsync == Fsync::Always, "{fsync:?}");
        assert_eq!(disk.settle(), if fsync == Fsync::EverySecond { vec!["StartSync"] } else { vec![] });
        assert_eq!(has_synced(&disk), fsync == Fsync::Always, "{fsync:?}: it has begun");
        disk.core.sync_ended(disk.now, Ok(()), &mut disk.log, &mut disk.notes);
        assert_eq!(has_synced(&disk), fsync != Fsync::No, "{fsync:?}: whoever waits need not write again");
    }
}

#[test]
fn what_a_failed_sync_may_have_lost_is_written_again() {
    let mut disk = Disk::new(Fsync::Always);
    disk.append(2);
    disk.settle();
    disk.append(2);
    assert!(matches!(disk.next(), Action::WriteAndSync(_)));
    disk.fail(Step::Sync);
    assert_eq!(disk.positions(), (2, 2), "nothing of it counts");
    assert_eq!(disk.settle(), ["Shorten"], "then it waits");
    disk.now = disk.now + RETRY;
    assert_eq!(disk.settle(), ["WriteAndSync"]);
    assert_eq!(disk.positions(), (4, 4));
    let told = disk.notes.iter().filter(|n| matches!(n, Note::Failing | Note::Recovered));
    assert_eq!(told.copied().collect::<Vec<_>>(), [Note::Failing, Note::Recovered]);
}

/// Whoever loads it would not know what it follows.
#[test]
fn a_file_keeps_its_head_when_its_first_sync_fails() {
    for fsync in [Fsync::Always, Fsync::EverySecond] {
        let mut disk = Disk::new(fsync);
        let head = disk.core.file.end;
        assert!(disk.core.file.is_synced(), "whoever begins a file syncs its head");
        disk.append(2);
        let written = disk.next();
        match fsync {
            Fsync::Always => disk.fail(Step::Sync),
            Fsync::EverySecond | Fsync::No => {
                disk.succeed(&written);
                disk.now = disk.now + SYNC_EVERY;
                assert!(matches!(disk.next(), Action::StartSync(_)));
                let failed = Err(Remedy::None);
                disk.core.sync_ended(disk.now, failed, &mut disk.log, &mut disk.notes);
            }
        }
        let shorten = disk.next();
        assert_eq!(shorten, Action::Shorten { at: head.bytes });
        disk.succeed(&shorten);
        disk.now = disk.now + RETRY;
        assert_eq!(disk.next(), written, "where it was written before");
        disk.succeed(&written);
        assert_eq!(disk.core.last(), LogIndex::new(2));
    }
}

/// The file could have regrown beyond the point up to which an earlier sync reached.
#[test]
fn a_sync_under_way_says_nothing_of_a_file_that_was_cut() {
    let mut disk = Disk::new(Fsync::EverySecond);
    disk.append(9);
    disk.settle();
    disk.now = disk.now + SYNC_EVERY;
    assert_eq!(disk.settle(), ["StartSync"]);
    disk.log.truncate_after(LogIndex::new(5));
    disk.append(3);
    assert_eq!(disk.settle(), ["Cut", "Write"]);
    let synced = disk.core.file.synced;
    assert_eq!(synced.index, LogIndex::new(5));
    disk.core.sync_ended(disk.now, Ok(()), &mut disk.log, &mut disk.notes);
    assert_eq!(disk.core.file.synced, synced);
}

/// A cut that fails is not done: the entries are still in the file.
#[test]
fn a_cut_is_tried_until_it_has_succeeded() {
    let mut disk = Disk::new(Fsync::Always);
    disk.append(4);
    disk.settle();
    disk.log.truncate_after(LogIndex::new(2));
    disk.append(1);
    let cut = disk.next();
    assert!(matches!(cut, Action::Cut(Cut { kept: Some((_, 2)), .. })));
    disk.fail(Step::Write);
    assert!(matches!(disk.next(), Action::Wait(_)));
    disk.now = disk.now + RETRY;
    assert_eq!(disk.next(), cut);
    disk.succeed(&cut);
    assert_eq!(disk.settle(), ["WriteAndSync"]);
    assert_eq!(disk.positions(), (3, 3));
}

#[test]
fn a_new_base_is_followed_by_all_that_it_lacks() {
    let mut disk = Disk::new(Fsync::Always);
    disk.append(6);
    disk.settle();
    let (id, at) = (RewriteId(7), Position::new(1, 4));
    DiskLog::keep_for_rewrite(&mut disk.log, at.index);
    disk.core.begin_rewrite(id, stamp(at), &mut disk.log, &mut disk.notes);
    assert_eq!(disk.settle(), ["BeginFile", "Repeat", "Switch"]);
    disk.core.base_written(id, &mut disk.notes);
    assert_eq!(disk.settle(), Vec::<String>::new(), "what it contains is not committed");
    disk.conditions.commit = at.index;
    assert_eq!(disk.settle(), ["Adopt"]);
    assert_eq!(disk.positions(), (6, 6));
    assert!(disk.notes.contains(&Note::RewriteDone(id)));
}

/// A later sync would not tell that something is missing in the middle of the file.
#[test]
fn what_a_failed_switch_may_have_lost_is_written_again() {
    let mut disk = Disk::new(Fsync::EverySecond);
    disk.append(6);
    disk.settle();
    let (id, at) = (RewriteId(1), Position::new(1, 4));
    DiskLog::keep_for_rewrite(&mut disk.log, at.index);
    disk.core.begin_rewrite(id, stamp(at), &mut disk.log, &mut disk.notes);
    let switch = loop {
        let action = disk.next();
        if matches!(action, Action::Switch { .. }) {
            break action;
        }
        disk.succeed(&action);
    };
    assert_eq!(switch, Action::Switch { awaits_base: false });
    disk.fail(Step::Sync);
    assert!(disk.notes.contains(&Note::RewriteGivenUp(id)));
    assert_eq!(disk.positions(), (0, 0), "nothing of the file is known to be on the disk");
    assert_eq!(disk.settle(), ["Shorten"]);
    disk.now = disk.now + RETRY;
    assert_eq!(disk.settle()[0], "Write");
    assert_eq!(disk.positions(), (6, 6));
}

/// The base would stand before a file that has entries which are gone, and not before the one that is written.
#[test]
fn a_rewrite_whose_file_was_left_is_given_up() {
    let mut disk = Disk::new(Fsync::Always);
    disk.append(6);
    disk.settle();
    let (id, at) = (RewriteId(1), Position::new(1, 2));
    disk.core.begin_rewrite(id, stamp(at), &mut disk.log, &mut disk.notes);
    disk.settle();
    disk.log.truncate_after(LogIndex::new(4));
    assert_eq!(disk.settle(), ["BeginFile"], "files before the current one have the entries, too");
    assert_eq!(disk.positions(), (4, 0), "nothing counts");
    assert!(disk.notes.contains(&Note::RewriteGivenUp(id)) && disk.notes.contains(&Note::NeedsBase));
    disk.conditions.commit = at.index;
    disk.core.base_written(id, &mut disk.notes);
    assert_eq!(disk.settle(), Vec::<String>::new());
}

/// A later sync would not tell what of the batches before the cut is on the disk.
#[test]
fn what_a_failed_cut_may_have_lost_is_written_again() {
    let mut disk = Disk::new(Fsync::EverySecond);
    disk.append(3);
    disk.settle();
    disk.append(3);
    disk.settle();
    disk.log.truncate_after(LogIndex::new(4));
    let cut = disk.next();
    assert!(matches!(cut, Action::Cut(Cut { kept: Some((_, 1)), .. })));
    disk.fail(Step::Sync);
    assert_eq!(disk.positions().1, 4, "the log has turned back already");
    assert_eq!(disk.settle(), ["Shorten"]);
    disk.now = disk.now + RETRY;
    assert_eq!(disk.settle(), ["Write"], "all that was never synced");
    assert_eq!(disk.positions(), (4, 4));
}

/// What was written is not in memory any more, and nobody was told that it is on the disk.
#[test]
fn without_syncs_a_failed_one_takes_nothing_back() {
    let mut disk = Disk::new(Fsync::No);
    disk.append(5);
    disk.settle();
    disk.log.set_shard(Some(ShardId::from_random([7; 20])));
    assert!(matches!(disk.next(), Action::WriteShard { .. }));
    let end = disk.core.file.end;
    disk.fail(Step::Sync);
    assert_eq!(disk.positions(), (5, 5));
    assert_eq!(disk.next(), Action::Shorten { at: end.bytes }, "the line is written again, once");
    disk.succeed(&Action::Shorten { at: end.bytes });
    disk.now = disk.now + RETRY;
    assert_eq!(disk.settle()[0], "WriteShard");
}

/// It used to stop until somebody called BGREWRITEAOF.
#[test]
fn a_new_base_is_asked_for_when_neither_memory_nor_disk_has_the_entries() {
    let mut disk = Disk::new(Fsync::No);
    disk.append(5);
    disk.settle();
    disk.log.set_capacity_bytes(0);
    disk.log.release(LogIndex::new(5));
    disk.log.truncate_after(LogIndex::new(5));
    disk.append(1);
    disk.conditions.fsync = Fsync::Always;
    assert!(matches!(disk.next(), Action::WriteAndSync(_)));
    disk.fail(Step::Sync);
    assert_eq!(disk.settle(), ["Shorten"]);
    disk.now = disk.now + RETRY;
    assert_eq!(disk.settle(), ["BeginFile"]);
    assert!(disk.notes.contains(&Note::EntriesLost) && disk.notes.contains(&Note::NeedsBase));
    assert_eq!(disk.positions(), (5, 0), "nothing counts");
    disk.now = disk.now + RETRY;
    let (id, at) = (RewriteId(1), Position::new(1, 6));
    DiskLog::keep_for_rewrite(&mut disk.log, at.index);
    disk.core.begin_rewrite(id, stamp(at), &mut disk.log, &mut disk.notes);
    disk.core.base_written(id, &mut disk.notes);
    assert_eq!(
        disk.settle(),
        ["WriteAndSync", "BeginFile", "Switch", "Adopt"],
        "though nothing is committed"
    );
    assert_eq!(disk.positions(), (6, 6));
}

/// What an appender may do instead of waking the writer.
#[test]
fn an_appender_writes_only_if_nothing_else_is_due() {
    let at_once = |disk: &mut Disk| disk.core.next_write(disk.now, &mut disk.log, &disk.conditions);
    for fsync in [Fsync::Always, Fsync::EverySecond, Fsync::No] {
        let mut disk = Disk::new(fsync);
        assert_eq!(at_once(&mut disk), None, "there is nothing");
        disk.append(3);
        let Some(action) = at_once(&mut disk) else {
            assert_eq!(fsync, Fsync::Always, "a sync is the writer's business");
            continue;
        };
        assert!(matches!(&action, Action::Write(batch) if batch.slice.count == 3));
        assert_eq!(at_once(&mut disk), None, "one action at a time");
        disk.succeed(&action);
        assert_eq!(disk.positions(), (3, 3));
        disk.append(1);
        disk.now = disk.now + SYNC_EVERY;
        if fsync == Fsync::EverySecond {
            assert_eq!(at_once(&mut disk), None, "a sync is due");
            assert!(matches!(disk.next(), Action::StartSync(_)));
            assert_eq!(at_once(&mut disk), None, "a write may have to wait for the sync");
            disk.core.sync_ended(disk.now, Ok(()), &mut disk.log, &mut disk.notes);
        }
        let written = at_once(&mut disk).unwrap();
        disk.fail(Step::Write);
        assert_eq!(disk.positions(), (3, 3), "{written:?} is not there");
        assert_eq!(at_once(&mut disk), None, "it is tried again in a while");
        disk.now = disk.now + RETRY;
        assert_eq!(disk.settle(), ["Write"]);
    }
}

#[test]
fn an_appender_leaves_rewrites_and_large_values_to_the_writer() {
    let at_once = |disk: &mut Disk| disk.core.next_write(disk.now, &mut disk.log, &disk.conditions);
    let mut disk = Disk::new(Fsync::No);
    disk.append(2);
    disk.settle();
    disk.append(1);
    let at = Position { term: TERM, index: LogIndex::new(2) };
    disk.core.begin_rewrite(RewriteId(1), stamp(at), &mut disk.log, &mut disk.notes);
    assert_eq!(at_once(&mut disk), None, "another file is to be begun");
    disk.settle();
    disk.append(1);
    let written = at_once(&mut disk).expect("the snapshot is being written");
    disk.succeed(&written);
    disk.conditions.commit = LogIndex::new(4);
    disk.core.base_written(RewriteId(1), &mut disk.notes);
    disk.append(1);
    assert_eq!(at_once(&mut disk), None, "the base is to be put in place");
    disk.settle();
    disk.log.append_unexecuted(TERM, &vec![0; AT_ONCE_BYTES_MAX + 1]);
    assert_eq!(at_once(&mut disk), None);
    assert_eq!(disk.settle(), ["Write"]);
}

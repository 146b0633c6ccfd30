//! The incremental file of the write log: RESP commands, and annotations that say which entries they are.
//!
//! An annotation is a line that begins with `#KW `; Valkey and Redis 7 skip lines that begin with `#`. There are:
//! - `head t= i= s= h=`: the first line of a file: which position its first entry follows, whose history it is, and
//!   where the newest terms began; with `w=1` it counts for nothing before a base stands before it;
//! - `log t= i= n= c= s= b=`: term, first index and number of the entries in the next `b` bytes; up to which index
//!   entries were known to be committed; and how much of this file was known to be on the disk when it was written,
//!   which tells a torn tail (never synced) from damage (once synced);
//! - `shard s=`: from here on this is the history of that shard;
//! - `nop`, inside a batch: an entry without effects.
//!
//! Each but `nop` ends with `x=`, the CRC32C of the line up to there and of the bytes that belong to it.
//! In a batch an entry with one effect is that command; one with several is a MULTI ... EXEC. SELECT belongs to no
//! entry; which database is selected carries over from batch to batch.
//!
//! Pure. Files may come from outside: nothing in them is trusted, and no length is allocated before it was compared
//! with what is there.

use crc_fast::{CrcAlgorithm, Digest, checksum_combine};
use keyward_proto::entry::{Effect, effects, frames};
use keyward_proto::ids::{LogIndex, Position, ShardId, Term};
use keyward_proto::resp::{Args, Batch, Limits, ProtocolError, RequestReader};
use keyward_replication::log::{Slice, TermStart};
use keyward_store::DbIndex;

pub use keyward_replication::disk_log::{Head, Stamp};

/// How annotations begin.
pub const MARK: &[u8] = b"#KW ";
/// Valkey reads no longer lines.
pub const LINE_BYTES_MAX: usize = 1024;
/// Terms that a head remembers: the newest.
const HEAD_TERMS_MAX: usize = 16;
/// Room for a batch's annotation before its bytes.
const HEAD_ROOM: usize = 192;

/// The annotation of a batch.
#[derive(Debug, Clone, Copy)]
pub struct BatchHead {
    pub term: Term,
    pub first: LogIndex,
    pub count: u64,
    pub commit: LogIndex,
    /// Bytes of the file that were on the disk.
    pub synced: u64,
    pub body_bytes: u64,
    crc: u32,
    /// Of the line.
    line_crc: u64,
}

impl BatchHead {
    /// The last entry's index, or the one before the first if there is none.
    pub fn last(&self) -> LogIndex {
        LogIndex::new(self.first.get() + self.count - 1)
    }

    pub fn verifies(&self, body: &[u8]) -> bool {
        let body_crc = crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, body);
        let crc = checksum_combine(CrcAlgorithm::Crc32Iscsi, self.line_crc, body_crc, body.len() as u64);
        crc == u64::from(self.crc)
    }
}

#[derive(Debug, Clone)]
pub enum Annotation {
    Head(Head),
    Batch(BatchHead),
    Shard(Option<ShardId>),
}

/// Reads an annotation; `line` has neither mark nor line end. `None`: damaged.
pub fn parse_annotation(line: &[u8]) -> Option<Annotation> {
    let text = std::str::from_utf8(line).ok()?;
    let (signed, crc) = text.rsplit_once(" x=")?;
    // As it is written and in no other way: every changed byte counts.
    let crc = u32::from_str_radix(crc, 16).ok().filter(|n| crc == format!("{n:08x}"))?;
    let line_crc = crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, signed.as_bytes());
    let matches = line_crc == u64::from(crc);
    let mut words = signed.split(' ');
    let kind = words.next()?;
    let mut value = |key: &str| words.next()?.strip_prefix(key)?.strip_prefix('=');
    match kind {
        "head" => {
            let (term, index) = (number(value("t")?)?, number(value("i")?)?);
            let shard = parse_shard(value("s")?)?;
            let terms = value("h")?.split(',').filter(|t| !t.is_empty()).map(|t| {
                let (term, first) = t.split_once(':')?;
                let (term, first_index) = (Term::new(number(term)?), LogIndex::new(number(first)?));
                Some(TermStart { term, first_index })
            });
            let terms: Vec<TermStart> = terms.collect::<Option<_>>()?;
            let follows = Position::new(term, index);
            let awaits_base = match words.next() {
                None => false,
                Some("w=1") => true,
                Some(_) => return None,
            };
            let sound =
                terms.windows(2).all(|w| w[0].term < w[1].term && w[0].first_index < w[1].first_index)
                    && terms.last().is_none_or(|t| t.term == follows.term && t.first_index <= follows.index);
            (matches && sound).then_some(Annotation::Head(Head { follows, shard, terms, awaits_base }))
        }
        "log" => {
            let head = BatchHead {
                term: Term::new(number(value("t")?)?),
                first: LogIndex::new(number(value("i")?)?),
                count: number(value("n")?)?,
                commit: LogIndex::new(number(value("c")?)?),
                synced: number(value("s")?)?,
                body_bytes: number(value("b")?)?,
                crc,
                line_crc,
            };
            let sound = head.first > LogIndex::ZERO && head.first.get().checked_add(head.count).is_some();
            sound.then_some(Annotation::Batch(head))
        }
        "shard" => {
            let shard = parse_shard(value("s")?)?;
            matches.then_some(Annotation::Shard(shard))
        }
        _ => None,
    }
}

fn number(text: &str) -> Option<u64> {
    text.parse().ok()
}

/// The inner `None`: no shard.
fn parse_shard(text: &str) -> Option<Option<ShardId>> {
    if text == "-" { Some(None) } else { ShardId::parse(text).map(Some) }
}

fn shard_text(shard: Option<&ShardId>) -> &str {
    shard.map_or("-", ShardId::as_str)
}

/// An annotation's line with its checksum.
fn signed_line(text: &str, body: &[u8]) -> String {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    digest.update(text.as_bytes());
    digest.update(body);
    format!("#KW {text} x={:08x}\r\n", digest.finalize())
}

/// The first line of a file; `terms` are those of the log, of which it takes the newest that are known where it begins.
pub fn head_line(head: &Head) -> String {
    let Head { follows, shard, terms, awaits_base } = head;
    let known = &terms[..terms.partition_point(|t| t.first_index <= follows.index)];
    let newest = &known[known.len().saturating_sub(HEAD_TERMS_MAX)..];
    let newest: Vec<String> = newest.iter().map(|t| format!("{}:{}", t.term, t.first_index)).collect();
    let Position { term, index } = follows;
    let waits = if *awaits_base { " w=1" } else { "" };
    let text =
        format!("head t={term} i={index} s={} h={}{waits}", shard_text(shard.as_ref()), newest.join(","));
    let line = signed_line(&text, &[]);
    debug_assert!(line.len() < LINE_BYTES_MAX);
    line
}

/// Under this name an RDB file that is a base says what it is; other programs pass over it.
pub const STAMP: &str = "keyward-log";

pub fn stamp_text(stamp: &Stamp) -> String {
    let Stamp { at: Position { term, index }, shard } = stamp;
    format!("t={term} i={index} s={}", shard_text(shard.as_ref()))
}

/// `None`: nothing that this program writes.
pub fn parse_stamp(text: &[u8]) -> Option<Stamp> {
    let mut words = std::str::from_utf8(text).ok()?.split(' ');
    let mut value = |key: &str| words.next()?.strip_prefix(key)?.strip_prefix('=');
    let at = Position::new(number(value("t")?)?, number(value("i")?)?);
    let shard = parse_shard(value("s")?)?;
    words.next().is_none().then_some(Stamp { at, shard })
}

pub fn shard_line(shard: Option<&ShardId>) -> String {
    signed_line(&format!("shard s={}", shard_text(shard)), &[])
}

/// Turns slices of the log into bytes of the file.
#[derive(Debug, Default)]
pub struct Encoder {
    buffer: Vec<u8>,
    /// The database that the file has selected at its end; `None`: not known.
    db: Option<DbIndex>,
}

impl Encoder {
    /// The file may have been cut: the next effect selects its database.
    pub fn forget_db(&mut self) {
        self.db = None;
    }

    /// A batch with the entries of `slice`, possibly none; the bytes are there until the next call.
    pub fn encode(&mut self, slice: &Slice, commit: LogIndex, synced: u64) -> &[u8] {
        self.buffer.clear();
        self.buffer.resize(HEAD_ROOM, 0);
        for payload in frames(&slice.bytes) {
            self.encode_entry(payload);
        }
        self.finish(slice.term, slice.first, slice.count, commit, synced)
    }

    /// A batch around bytes that are encoded already.
    pub fn wrap(
        &mut self,
        term: Term,
        first: LogIndex,
        count: u64,
        commit: LogIndex,
        synced: u64,
        body: &[u8],
    ) -> &[u8] {
        self.buffer.clear();
        self.buffer.resize(HEAD_ROOM, 0);
        self.buffer.extend_from_slice(body);
        self.db = None;
        self.finish(term, first, count, commit, synced)
    }

    fn finish(&mut self, term: Term, first: LogIndex, count: u64, commit: LogIndex, synced: u64) -> &[u8] {
        let body = &self.buffer[HEAD_ROOM..];
        let bytes = body.len();
        let text = format!("log t={term} i={first} n={count} c={commit} s={synced} b={bytes}");
        let line = signed_line(&text, body);
        let start = HEAD_ROOM - line.len();
        self.buffer[start..HEAD_ROOM].copy_from_slice(line.as_bytes());
        &self.buffer[start..]
    }

    fn encode_entry(&mut self, payload: &[u8]) {
        let mut effects = effects(payload);
        let (first, second) = (effects.next(), effects.next());
        match (first, second) {
            (None, _) => self.buffer.extend_from_slice(b"#KW nop\r\n"),
            (Some(effect), None) => self.encode_effect(&effect),
            (Some(first), Some(second)) => {
                self.select(first.db);
                self.buffer.extend_from_slice(b"*1\r\n$5\r\nMULTI\r\n");
                self.encode_effect(&first);
                self.encode_effect(&second);
                effects.for_each(|e| self.encode_effect(&e));
                self.buffer.extend_from_slice(b"*1\r\n$4\r\nEXEC\r\n");
            }
        }
    }

    fn encode_effect(&mut self, effect: &Effect<'_>) {
        self.select(effect.db);
        self.buffer.extend_from_slice(effect.command);
    }

    fn select(&mut self, db: DbIndex) {
        if self.db != Some(db) {
            self.db = Some(db);
            let number = db.to_string();
            let command = format!("*2\r\n$6\r\nSELECT\r\n${}\r\n{number}\r\n", number.len());
            self.buffer.extend_from_slice(command.as_bytes());
        }
    }
}

/// What a request in a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    Command,
    Select(DbIndex),
    Multi,
    Exec,
    NoOp,
    /// A comment that says nothing to this program.
    Comment,
    /// An annotation: it does not belong among a batch's commands.
    Annotation,
}

/// # Errors
/// Why the request cannot be in a file.
pub fn classify(args: Args<'_>) -> Result<Piece, &'static str> {
    let name = args.at(0);
    if args.raw().is_none() {
        return match name {
            b"#KW" if args.get(1) == Some(b"nop") => Ok(Piece::NoOp),
            b"#KW" => Ok(Piece::Annotation),
            comment if comment.starts_with(b"#") => Ok(Piece::Comment),
            _ => Err("bytes that are no command"),
        };
    }
    let is = |word: &str| name.eq_ignore_ascii_case(word.as_bytes());
    if is("select") {
        let db = args.get(1).and_then(|a| std::str::from_utf8(a).ok()?.parse().ok());
        return db.map(Piece::Select).ok_or("SELECT of a database that cannot be");
    }
    Ok(if is("multi") {
        Piece::Multi
    } else if is("exec") {
        Piece::Exec
    } else {
        Piece::Command
    })
}

/// The whole entries at the front of a buffer.
#[derive(Debug, Default)]
pub struct Entries {
    pub batch: Batch,
    /// Requests of whole entries, SELECTs and comments.
    pub requests: usize,
    /// Bytes that they take.
    pub bytes: usize,
    pub count: u64,
    /// Why what follows is no entry; `None`: it may be the begin of one.
    pub error: Option<String>,
    /// What follows is an annotation.
    pub annotation: bool,
}

/// Finds whole entries.
pub fn parse_entries(buffer: &[u8]) -> Entries {
    let limits = Limits { bulk_len_max: usize::MAX >> 1, args_max: usize::MAX >> 1, authenticated: true };
    let mut entries = Entries::default();
    let (_, result) = RequestReader::default().parse(buffer, &limits, usize::MAX, &mut entries.batch);
    let mut in_multi = false;
    for request in 0..entries.batch.len() {
        let (_, end) = entries.batch.bounds(request);
        let is_whole = match classify(entries.batch.args(buffer, request)) {
            Ok(Piece::Multi) if in_multi => return entries.with_error("MULTI inside MULTI"),
            Ok(Piece::Multi) => {
                in_multi = true;
                false
            }
            Ok(Piece::Exec) if !in_multi => return entries.with_error("EXEC without MULTI"),
            Ok(Piece::Exec) => {
                in_multi = false;
                entries.count += 1;
                true
            }
            Ok(Piece::Command | Piece::NoOp) => {
                entries.count += u64::from(!in_multi);
                !in_multi
            }
            Ok(Piece::Select(_) | Piece::Comment) => !in_multi,
            Ok(Piece::Annotation) => {
                entries.annotation = true;
                return entries;
            }
            Err(reason) => return entries.with_error(reason),
        };
        if is_whole {
            entries.requests = request + 1;
            entries.bytes = end;
        }
    }
    entries.error = result.err().map(|e: ProtocolError| e.to_string());
    entries
}

impl Entries {
    fn with_error(mut self, reason: &str) -> Entries {
        self.error = Some(reason.to_owned());
        self
    }
}

/// How many bytes of a batch's commands the first `count` entries take; `None` if there are fewer.
pub fn prefix_bytes(body: &[u8], count: u64) -> Option<usize> {
    let entries = parse_entries(body);
    let mut in_multi = false;
    let mut left = count;
    for request in 0..entries.requests {
        if left == 0 {
            return Some(entries.batch.bounds(request).0);
        }
        match classify(entries.batch.args(body, request)).ok()? {
            Piece::Multi => in_multi = true,
            Piece::Exec => {
                in_multi = false;
                left -= 1;
            }
            Piece::Command | Piece::NoOp => left -= u64::from(!in_multi),
            Piece::Select(_) | Piece::Comment | Piece::Annotation => {}
        }
    }
    (left == 0).then_some(entries.bytes)
}

#[cfg(test)]
mod tests {
    use keyward_proto::slot::Slot;

    use super::*;
    use keyward_replication::log::WriteLog;
    use keyward_store::effects::EffectBuffer;

    fn log() -> WriteLog {
        let mut log = WriteLog::new(1 << 20);
        let mut entry = EffectBuffer::default();
        log.append(Term::new(2), &[]);
        entry.push(Some(Slot::of(b"a")), 0, b"*2\r\n$3\r\nDEL\r\n$1\r\na\r\n");
        log.append(Term::new(2), entry.as_payload());
        entry.push(Some(Slot::of(b"b")), 3, b"*2\r\n$3\r\nDEL\r\n$1\r\nb\r\n");
        log.append(Term::new(2), entry.as_payload());
        log
    }

    fn batch(log: &mut WriteLog) -> Vec<u8> {
        let slice = log.read_from(LogIndex::new(1), 1 << 20).unwrap();
        Encoder::default().encode(&slice, LogIndex::new(1), 77).to_vec()
    }

    fn split(bytes: &[u8]) -> (Option<Annotation>, &[u8]) {
        let end = bytes.windows(2).position(|w| w == b"\r\n").unwrap();
        (parse_annotation(&bytes[MARK.len()..end]), &bytes[end + 2..])
    }

    #[test]
    fn a_batch_is_read_as_it_is_written() {
        let bytes = batch(&mut log());
        let (annotation, body) = split(&bytes);
        let Some(Annotation::Batch(head)) = annotation else { panic!("{annotation:?}") };
        assert_eq!((head.term, head.first, head.count), (Term::new(2), LogIndex::new(1), 3));
        assert_eq!((head.commit, head.synced, head.last()), (LogIndex::new(1), 77, LogIndex::new(3)));
        assert!(head.verifies(body));
        assert_eq!(body.len() as u64, head.body_bytes);
        assert_eq!(
            String::from_utf8_lossy(body).replace("\r\n", " "),
            "#KW nop *2 $6 SELECT $1 0 *2 $3 DEL $1 a *1 $5 MULTI *2 $3 DEL $1 a *2 $6 SELECT $1 3 *2 $3 DEL $1 b *1 $4 EXEC "
        );
        let entries = parse_entries(body);
        assert_eq!((entries.count, entries.bytes, entries.error), (3, body.len(), None));
        assert_eq!(prefix_bytes(body, 1), Some(9));
        assert_eq!(parse_entries(&body[..prefix_bytes(body, 2).unwrap()]).count, 2);
        assert_eq!(prefix_bytes(body, 3), Some(body.len()));
        assert_eq!(prefix_bytes(body, 4), None);
    }

    #[test]
    fn every_damaged_byte_is_noticed() {
        let bytes = batch(&mut log());
        for at in MARK.len()..bytes.len() {
            for flip in [1, 0x20, 0x80] {
                let mut damaged = bytes.clone();
                damaged[at] ^= flip;
                let (line, body) = match damaged.windows(2).position(|w| w == b"\r\n") {
                    Some(end) => (&damaged[MARK.len()..end], &damaged[end + 2..]),
                    None => continue,
                };
                if let Some(Annotation::Batch(head)) = parse_annotation(line) {
                    let body = body.get(..usize::try_from(head.body_bytes).unwrap_or(usize::MAX));
                    assert!(!body.is_some_and(|b| head.verifies(b)), "byte {at} ^ {flip}");
                }
            }
        }
    }

    #[test]
    fn a_torn_batch_has_fewer_entries() {
        let bytes = batch(&mut log());
        let body = split(&bytes).1;
        for end in 0..body.len() {
            let entries = parse_entries(&body[..end]);
            assert!(entries.bytes <= end && entries.count < 3 && entries.error.is_none(), "{end}");
        }
    }

    #[test]
    fn heads_and_shards() {
        let shard = ShardId::from_random([7; 20]);
        let terms: Vec<TermStart> =
            (1..=40).map(|t| TermStart { term: Term::new(t), first_index: LogIndex::new(t * 10) }).collect();
        let follows = Position::new(38, 381);
        let line = head_line(&Head { follows, shard: Some(shard.clone()), terms, awaits_base: true });
        let Some(Annotation::Head(head)) = split(line.as_bytes()).0 else { panic!("{line}") };
        assert_eq!(
            (head.follows, head.shard, head.terms.len()),
            (Position::new(38, 381), Some(shard.clone()), 16)
        );
        assert_eq!(head.terms.last().unwrap().term, Term::new(38));
        assert!(head.awaits_base);
        let line = shard_line(Some(&shard));
        assert!(matches!(split(line.as_bytes()).0, Some(Annotation::Shard(Some(id))) if id == shard));
        assert!(matches!(split(shard_line(None).as_bytes()).0, Some(Annotation::Shard(None))));
        assert!(split(shard_line(None).replace("s=-", "s=+").as_bytes()).0.is_none());
        assert!(parse_annotation(b"head t=1 i=1 s=- h= x=00000000").is_none());
    }

    #[test]
    fn what_a_base_says_is_read_as_it_is_written() {
        for shard in [None, Some(ShardId::from_random([3; 20]))] {
            let stamp = Stamp { at: Position::new(7, u64::MAX), shard };
            let text = stamp_text(&stamp);
            assert_eq!(parse_stamp(text.as_bytes()), Some(stamp));
            for other in ["", "t=1", "t=1 i=2", "i=2 t=1 s=-", "t=1 i=x s=-", "t=1 i=2 s=?"] {
                assert_eq!(parse_stamp(other.as_bytes()), None, "{other}");
            }
            assert_eq!(parse_stamp(format!("{text} more").as_bytes()), None);
        }
    }
}

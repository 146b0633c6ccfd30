//! `keyward-node check-aof`: says what the files of the write log hold, where they are damaged, and which commands in
//! them are not known, and cuts off what is behind the first fault if asked to.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use keyward_proto::ids::{LogIndex, Position, Term};
use keyward_store::rdb;
use keyward_store::rdb::file::has_magic;

use super::directory::Directory;
use super::format::{Entries, Piece, classify, parse_entries};
use super::manifest::Manifest;
use super::reader::{Fault, FileReader, Record, Verdict};
use crate::command::touched::touched;
use crate::directory_lock::is_in_use;

/// Commands that can't be loaded that are told apart; the others are counted together.
const REFUSED_NAMES_MAX: usize = 50;
/// Bytes of a command's name that are shown.
const NAME_BYTES_MAX: usize = 64;

/// Whether to mend what is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Report,
    Fix,
}

/// What an incremental file holds.
#[derive(Debug)]
pub struct Report {
    pub path: PathBuf,
    pub bytes: u64,
    /// Bytes that are whole.
    pub ok_bytes: u64,
    pub batches: u64,
    pub entries: u64,
    /// Commands without annotations.
    pub plain: u64,
    pub last: Position,
    pub commit: LogIndex,
    /// What the first entry follows, if the file says so.
    pub follows: Option<LogIndex>,
    /// The index of the last entry, annotated or not.
    pub end: LogIndex,
    /// Commands that can't be loaded, by name.
    pub refused: BTreeMap<Vec<u8>, Refused>,
    pub fault: Option<Fault>,
    /// What is behind the fault was never synced: a node cuts it off by itself.
    pub is_torn: bool,
}

/// A command that a start would stop at.
#[derive(Debug)]
pub struct Refused {
    pub count: u64,
    /// Where the first one is.
    pub at: u64,
    /// Why that one can't be loaded.
    pub reason: String,
}

impl Report {
    fn is_ok(&self) -> bool {
        self.fault.is_none() && self.refused.is_empty()
    }

    /// Takes note of the commands that can't be loaded; the first byte is at `at` in the file.
    fn note_commands(&mut self, bytes: &[u8], entries: &Entries, at: u64) {
        for request in 0..entries.requests {
            let args = entries.batch.args(bytes, request);
            let (Ok(Piece::Command), Err(reason)) = (classify(args), touched(args)) else { continue };
            let name = args.at(0);
            let mut name = name[..name.len().min(NAME_BYTES_MAX)].to_ascii_uppercase();
            if REFUSED_NAMES_MAX <= self.refused.len() && !self.refused.contains_key(&name) {
                name = b"(others)".to_vec();
            }
            let at = at + entries.batch.bounds(request).0 as u64;
            self.refused.entry(name).or_insert(Refused { count: 0, at, reason }).count += 1;
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { bytes, ok_bytes, batches, entries, plain, last, commit, .. } = self;
        let diff = bytes - ok_bytes;
        write!(
            f,
            "AOF analyzed: filename={}, size={bytes}, ok_up_to={ok_bytes}, diff={diff}, batches={batches}, \
             entries={entries}, plain_commands={plain}",
            self.path.display()
        )?;
        if last.index > LogIndex::ZERO {
            write!(f, ", last={last}, committed={commit}")?;
        }
        for (name, Refused { count, at, reason }) in &self.refused {
            let name = name.escape_ascii();
            write!(f, "\ncan't be loaded: {name}, {count} times, first at offset {at}: {reason}")?;
        }
        if let Some(fault) = &self.fault {
            let kind = if self.is_torn { "a torn tail" } else { "damage" };
            write!(f, "\n{kind} at offset {}: {}", fault.at, fault.reason)?;
        }
        Ok(())
    }
}

/// Checks a file, or a manifest with all that it names. Returns the lines to print and whether all is well.
pub fn check(path: &Path, mode: Mode) -> (String, bool) {
    let result = if path.extension().is_some_and(|e| e == "manifest") {
        check_manifest(path, mode)
    } else {
        check_one(path, mode, Place::Last).map(|checked| (checked.text, checked.ok))
    };
    match result {
        Ok((text, ok)) => (text, ok),
        Err(error) => (error, false),
    }
}

/// Where a file stands among those of its manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Last,
    Before,
}

fn check_manifest(path: &Path, mode: Mode) -> Result<(String, bool), String> {
    let text = std::fs::read(path).map_err(|e| format!("can't read '{}': {e}", path.display()))?;
    let manifest = Manifest::parse(&text).map_err(|e| format!("{}, {e}", path.display()))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    if mode == Mode::Fix && folder.join("..").canonicalize().and_then(|dir| is_in_use(&dir)).unwrap_or(false)
    {
        return Err(format!("'{}' is in use: end the node first", folder.display()));
    }
    let files: Vec<_> = manifest.files().collect();
    let mut lines = Vec::new();
    let mut all_ok = true;
    let mut end = None;
    for (at, file) in files.iter().enumerate() {
        let place = if at + 1 == files.len() { Place::Last } else { Place::Before };
        let path = folder.join(&file.name);
        let checked = check_one(&path, mode, place)?;
        lines.push(checked.text);
        let facts = manifest.base_facts.filter(|_| manifest.base.as_ref() == Some(*file));
        if let Some(facts) = facts
            && let Some(reason) = File::open(&path)
                .and_then(|base| Directory::objection_to_base(&base, facts))
                .map_err(|e| format!("can't read '{}': {e}", path.display()))?
        {
            lines.push(format!("'{}' is not the base that the manifest names: {reason}", path.display()));
            all_ok = false;
        }
        all_ok &= checked.ok;
        if let (Some(end), Some(follows)) = (end, checked.follows)
            && end < follows
        {
            lines.push(format!(
                "entries are missing before '{}': {} follows {end}",
                file.name,
                follows.next()
            ));
            all_ok = false;
        }
        end = checked.end;
    }
    let prefix = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
    let unlisted = Directory::new(folder, prefix).unlisted(&manifest);
    for (_, file) in unlisted.map_err(|e| format!("can't read '{}': {e}", folder.display()))? {
        lines.push(format!(
            "the manifest does not name '{}': a node starts only if nothing is lost without it",
            file.name
        ));
    }
    lines.push(if all_ok { "All files of the manifest are valid".into() } else { "Not all is well".into() });
    Ok((lines.join("\n"), all_ok))
}

/// What is to be said of a file.
struct Checked {
    text: String,
    ok: bool,
    /// As in [`Report`]; `None`: it holds no log.
    follows: Option<LogIndex>,
    end: Option<LogIndex>,
}

fn check_one(path: &Path, mode: Mode, place: Place) -> Result<Checked, String> {
    let failed = |e: io::Error| format!("can't read '{}': {e}", path.display());
    let mut file = File::open(path).map_err(failed)?;
    let (mut begin, mut preamble) = (0, String::new());
    let mut magic = [0; 8];
    let length = file.read(&mut magic).map_err(failed)?;
    file.rewind().map_err(failed)?;
    if has_magic(&magic[..length]) {
        let total = file.metadata().map_err(failed)?.len();
        let report = rdb::check::check(file, Some(total));
        let text = format!("{}: {report}", path.display());
        if !report.is_ok() || report.bytes == total {
            return Ok(Checked { text, ok: report.is_ok(), follows: None, end: None });
        }
        // A file from before there were directories goes on with commands.
        (begin, preamble) = (report.bytes, format!("{text}\n"));
        file = File::open(path).map_err(failed)?;
    }
    let report = analyze(file, path, begin).map_err(failed)?;
    let (follows, end) = (report.follows, Some(report.end));
    let said = |text: String, ok: bool| Ok(Checked { text: format!("{preamble}{text}"), ok, follows, end });
    let Some(fault) = &report.fault else { return said(report.to_string(), report.is_ok()) };
    if mode == Mode::Report {
        return said(format!("{report}\nUse the --fix option to cut the file off there"), false);
    }
    if place == Place::Before {
        let advice = "Other files follow this one, so nothing can be cut off: restore it from a copy";
        return said(format!("{report}\n{advice}"), false);
    }
    let cut = OpenOptions::new().write(true).open(path).and_then(|file| {
        file.set_len(fault.at)?;
        file.sync_all()
    });
    cut.map_err(|e| format!("can't cut '{}': {e}", path.display()))?;
    let bytes = report.bytes - fault.at;
    let text = format!("{report}\n{bytes} bytes were cut off: the file is whole now");
    said(text, report.refused.is_empty())
}

/// `begin`: where the commands begin.
fn analyze(file: File, path: &Path, begin: u64) -> io::Result<Report> {
    let mut reader = FileReader::new(file)?;
    reader.move_to(begin)?;
    let mut report = Report {
        path: path.to_owned(),
        bytes: reader.size(),
        ok_bytes: 0,
        batches: 0,
        entries: 0,
        plain: 0,
        last: Position::ZERO,
        commit: LogIndex::ZERO,
        follows: None,
        end: LogIndex::ZERO,
        refused: BTreeMap::new(),
        fault: None,
        is_torn: false,
    };
    loop {
        report.ok_bytes = reader.at();
        match reader.read() {
            Ok(Record::End) => return Ok(report),
            Ok(Record::Head(head)) => {
                report.last = head.follows;
                report.end = head.follows.index;
                report.follows.get_or_insert(head.follows.index);
            }
            Ok(Record::Shard(_)) => {}
            Ok(Record::Plain(bytes, entries)) => {
                report.plain += entries.count;
                report.end = LogIndex::new(report.end.get().saturating_add(entries.count));
                report.note_commands(&bytes, &entries, reader.at() - bytes.len() as u64);
            }
            Ok(Record::Batch(head, body)) => {
                let entries = parse_entries(&body);
                let holds = entries.error.is_none() && entries.count == head.count;
                let follows = report.last.index == LogIndex::ZERO || head.first == report.last.index.next();
                if !holds || !follows {
                    let reason = if holds {
                        "entries are missing before it"
                    } else {
                        "a batch does not hold what it says"
                    };
                    report.fault = Some(Fault::malformed(report.ok_bytes, reason));
                    return Ok(report);
                }
                report.batches += u64::from(head.count > 0);
                report.entries += head.count;
                let term = if head.count > 0 { head.term } else { report.last.term.max(Term::ZERO) };
                report.last = Position { term, index: head.last() };
                report.end = head.last();
                report.note_commands(&body, &entries, reader.at() - body.len() as u64);
                report.commit = report.commit.max(head.commit);
            }
            Err(fault) => {
                report.is_torn =
                    matches!(reader.judge(&fault, None)?, Verdict::TornBatch | Verdict::TornCommand);
                report.fault = Some(fault);
                return Ok(report);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aof::format::{Encoder, Head, head_line};
    use keyward_replication::log::WriteLog;

    #[test]
    fn a_torn_tail_is_reported_and_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.1.incr.aof");
        let mut log = WriteLog::new(1 << 20);
        log.append(Term::new(1), &[]);
        let slice = log.read_from(LogIndex::new(1), 1 << 20).unwrap();
        let head = Head { follows: Position::ZERO, shard: None, terms: Vec::new(), awaits_base: false };
        let mut bytes = head_line(&head).into_bytes();
        bytes.extend_from_slice(Encoder::default().encode(&slice, LogIndex::ZERO, 0));
        let whole = bytes.len();
        bytes.extend_from_slice(b"#KW log t=");
        std::fs::write(&path, &bytes).unwrap();
        let manifest = folder.path().join("a.manifest");
        std::fs::write(&manifest, "file a.1.incr.aof seq 1 type i\n").unwrap();
        let (text, ok) = check(&manifest, Mode::Report);
        assert!(!ok && text.contains(&format!("a torn tail at offset {whole}")), "{text}");
        assert!(text.contains("entries=1") && text.contains("last=1.1"), "{text}");
        let (text, ok) = check(&path, Mode::Fix);
        assert!(ok && text.contains("10 bytes were cut off"), "{text}");
        assert_eq!(std::fs::metadata(&path).unwrap().len(), whole as u64);
        assert!(check(&manifest, Mode::Report).1);
        assert!(!check(&folder.path().join("b.manifest"), Mode::Report).1);
    }
}

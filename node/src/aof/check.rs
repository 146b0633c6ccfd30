//! `keyward-node check-aof`: says what the files of the write log hold and where they are damaged, and cuts off what
//! is behind the first fault if asked to.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use keyward_proto::ids::{LogIndex, Position, Term};

use super::format::parse_entries;
use super::manifest::Manifest;
use super::reader::{Fault, FileReader, Record};
use crate::rdb;
use crate::rdb::file::has_magic;

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
    pub fault: Option<Fault>,
    /// What is behind the fault was never synced: a node cuts it off by itself.
    pub is_torn: bool,
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
        check_one(path, mode, Place::Last)
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
    let files: Vec<_> = manifest.files().collect();
    let mut lines = Vec::new();
    let mut all_ok = true;
    for (at, file) in files.iter().enumerate() {
        let place = if at + 1 == files.len() { Place::Last } else { Place::Before };
        let (text, ok) = check_one(&folder.join(&file.name), mode, place)?;
        lines.push(text);
        all_ok &= ok;
    }
    lines.push(if all_ok { "All files of the manifest are valid".into() } else { "Not all is well".into() });
    Ok((lines.join("\n"), all_ok))
}

fn check_one(path: &Path, mode: Mode, place: Place) -> Result<(String, bool), String> {
    let failed = |e: io::Error| format!("can't read '{}': {e}", path.display());
    let mut file = File::open(path).map_err(failed)?;
    let mut begin = [0; 8];
    let length = file.read(&mut begin).map_err(failed)?;
    file.rewind().map_err(failed)?;
    if has_magic(&begin[..length]) {
        let total = file.metadata().map_err(failed)?.len();
        let report = rdb::check::check(file, Some(total));
        return Ok((format!("{}: {report}", path.display()), report.error.is_none()));
    }
    let report = analyze(file, path).map_err(failed)?;
    let Some(fault) = &report.fault else { return Ok((report.to_string(), true)) };
    if mode == Mode::Report {
        return Ok((format!("{report}\nUse the --fix option to cut the file off there"), false));
    }
    if place == Place::Before {
        let advice = "Other files follow this one, so nothing can be cut off: restore it from a copy";
        return Ok((format!("{report}\n{advice}"), false));
    }
    let cut = OpenOptions::new().write(true).open(path).and_then(|file| {
        file.set_len(fault.at)?;
        file.sync_all()
    });
    cut.map_err(|e| format!("can't cut '{}': {e}", path.display()))?;
    let bytes = report.bytes - fault.at;
    Ok((format!("{report}\n{bytes} bytes were cut off: the file is valid now"), true))
}

fn analyze(file: File, path: &Path) -> io::Result<Report> {
    let mut reader = FileReader::new(file)?;
    let mut report = Report {
        path: path.to_owned(),
        bytes: reader.size(),
        ok_bytes: 0,
        batches: 0,
        entries: 0,
        plain: 0,
        last: Position::ZERO,
        commit: LogIndex::ZERO,
        fault: None,
        is_torn: false,
    };
    loop {
        report.ok_bytes = reader.at();
        match reader.read() {
            Ok(Record::End) => return Ok(report),
            Ok(Record::Head(head)) => report.last = head.follows,
            Ok(Record::Shard(_)) => {}
            Ok(Record::Plain(_, entries)) => report.plain += entries.count,
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
                report.commit = report.commit.max(head.commit);
            }
            Err(fault) => {
                report.is_torn = !reader.is_annotated() || reader.damage_after(fault.at)?.is_none();
                report.fault = Some(fault);
                return Ok(report);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aof::format::{Encoder, head_line};
    use crate::log::WriteLog;

    #[test]
    fn a_torn_tail_is_reported_and_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.1.incr.aof");
        let mut log = WriteLog::new(1 << 20);
        log.append(Term::new(1), &[]);
        let slice = log.read_from(LogIndex::new(1), 1 << 20).unwrap();
        let mut bytes = head_line(Position::ZERO, None, &[]).into_bytes();
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

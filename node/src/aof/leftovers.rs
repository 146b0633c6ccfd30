//! Files of the directory that the manifest does not name.
//!
//! A rewrite that ends halfway leaves some, and nobody needs those. Any other holds data that somebody was promised:
//! the manifest has been lost, or lines of it, or it is an older one. To start without that data would lose it without
//! a word, so such a file stops the start. What a file is shows in it:
//!
//! - an empty one holds nothing, and a base that was not finished is of no use;
//! - a base that is newer than the one in use was written but not put in place; what it holds is in the files that
//!   were to be replaced;
//! - the file after the one in use is begun before the manifest names it: it holds only what the one in use holds, too,
//!   or it says that it awaits a base, without which nothing counts.
//!
//! Differs from Valkey, which does not look.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::io;

use keyward_proto::ids::Position;

use super::directory::Directory;
use super::manifest::{AofFile, FileKind, Manifest};
use super::reader::{FaultKind, FileReader, Record};

/// The names of the files that nobody needs. `last`: what the files that the manifest names end with.
///
/// # Errors
/// One line for the operator: a file holds what these do not.
pub(super) fn beside(
    directory: &Directory,
    manifest: &Manifest,
    last: Position,
) -> Result<Vec<String>, String> {
    let needed = all_needed(directory, manifest, last)?;
    let Some(name) = needed.needed.first() else { return Ok(needed.superfluous) };
    let more = needed.needed.len() - 1;
    Err(format!(
        "'{}' holds data, but the manifest '{}' does not name it (nor {more} others): the manifest is an older one or has \
         lost lines, and what the file holds would be lost. Make a backup of the directory; then restore the manifest, or \
         add a line for each of its files, oldest first ('file NAME seq NUMBER type i', a base with type b; remove a \
         first line that begins with '#KW'), or move the files away that are not wanted. A node of a cluster can also \
         start without its appendonlydir: it gets everything from the shard's primary",
        directory.path_of(name).display(),
        directory.manifest_path().display(),
    ))
}

/// As [`beside`], where there is no manifest.
///
/// # Errors
/// One line for the operator: files hold data.
pub(super) fn without_manifest(directory: &Directory) -> Result<Vec<String>, String> {
    let found = all_needed(directory, &Manifest::default(), Position::ZERO)?;
    if let Some(name) = found.needed.first() {
        let more = found.needed.len() - 1;
        return Err(format!(
            "'{}' holds data (and {more} more files do), but there is no manifest that names it: '{}' was lost. Make a \
             backup of the directory; then restore the manifest, or write one with a line for each file, oldest first \
             ('file NAME seq NUMBER type b' for a base, 'type i' for an incremental file); or move the directory away to \
             start without what it holds. A node of a cluster gets everything from the shard's primary then",
            directory.path_of(name).display(),
            directory.manifest_path().display(),
        ));
    }
    match directory.other_prefix().map_err(|e| unreadable(directory, &e))? {
        Some(prefix) => Err(format!(
            "the directory '{}' holds a write log of another name: set 'appendfilename' to '{prefix}' to load it, or move \
             it away to start without it",
            directory.path().display()
        )),
        None => Ok(found.superfluous),
    }
}

/// Files by what becomes of them.
struct Found {
    superfluous: Vec<String>,
    needed: Vec<String>,
}

fn all_needed(directory: &Directory, manifest: &Manifest, last: Position) -> Result<Found, String> {
    let unfinished = directory.unfinished().map_err(|e| unreadable(directory, &e))?;
    let mut found = Found { superfluous: unfinished, needed: Vec::new() };
    for (kind, file) in directory.unlisted(manifest).map_err(|e| unreadable(directory, &e))? {
        let judged = is_superfluous(directory, manifest, last, kind, &file);
        let path = directory.path_of(&file.name);
        let names = match judged.map_err(|e| format!("can't read '{}': {e}", path.display()))? {
            true => &mut found.superfluous,
            false => &mut found.needed,
        };
        names.push(file.name);
    }
    Ok(found)
}

fn unreadable(directory: &Directory, error: &io::Error) -> String {
    format!("can't read '{}': {error}", directory.path().display())
}

fn is_superfluous(
    directory: &Directory,
    manifest: &Manifest,
    last: Position,
    kind: FileKind,
    file: &AofFile,
) -> io::Result<bool> {
    let opened = directory.open(&file.name)?;
    if opened.metadata()?.len() == 0 {
        return Ok(true);
    }
    match (kind, &manifest.base) {
        (FileKind::Base, Some(base)) => Ok(base.seq < file.seq),
        // One without a base and with all its lines is that of a node whose first rewrite did not end.
        (FileKind::Base, None) => Ok(manifest.own_from.is_some()),
        (FileKind::Incremental, _) => holds_nothing_after(FileReader::new(opened)?, last),
    }
}

/// Whether a file that was never named has no entry behind `last`, or awaits a base.
fn holds_nothing_after(mut reader: FileReader, last: Position) -> io::Result<bool> {
    let mut has_head = false;
    loop {
        match reader.read() {
            Ok(Record::Head(head)) if head.awaits_base => return Ok(true),
            Ok(Record::Head(_)) => has_head = true,
            Ok(Record::Shard(_)) => {}
            Ok(Record::Batch(head, _)) => {
                if !has_head || last.index < head.last() || last.term < head.term {
                    return Ok(false);
                }
            }
            Ok(Record::Plain(..)) => return Ok(false),
            Ok(Record::End) => return Ok(has_head),
            // A crash came while it was begun.
            Err(fault) => return Ok(fault.kind == FaultKind::Truncated),
        }
    }
}

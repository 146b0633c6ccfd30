//! What a full sync has replaced on the disk, kept for a while: the source may have been the wrong one.
//!
//! The log says whether what replaces the files is younger ([`keyward_replication::log::WriteLog::replaced_longer`]): the
//! usual full sync, of a replica that was away for too long, keeps nothing. Otherwise the files that the manifest names get
//! second names in `appendonlydir/replaced/`, with a manifest of their own, before the new manifest is written; so at every
//! moment one of the two directories is what it was. There is one such directory: of two the larger stays, as the second
//! full sync may replace what the first has brought. It goes when this node has been in sync for a day
//! ([`super::keeping`]), or when the disk is full.
//!
//! The file of the last save is kept in the same way beside it, when the first save of a process would replace a larger one.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::directory::Directory;
use super::manifest::Manifest;
use crate::clock;
use crate::config::Settings;
use crate::server::Server;

const KEPT: &str = "replaced";
const UNFINISHED: &str = "temp-replaced";

/// What became of files that are replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Kept,
    NothingThere,
    /// What is kept already is more.
    LessThanKept,
}

impl Directory {
    pub(super) fn replaced(&self) -> PathBuf {
        self.path().join(KEPT)
    }

    /// Gives the files that `manifest` names second names, with which they make up a directory of their own.
    pub(super) fn keep_replaced(&self, manifest: &Manifest) -> io::Result<Outcome> {
        let bytes: u64 = manifest.files().map(|file| len_of(&self.path_of(&file.name))).sum();
        if bytes == 0 {
            return Ok(Outcome::NothingThere);
        }
        let (kept, unfinished) = (self.replaced(), self.path().join(UNFINISHED));
        if bytes < bytes_in(&kept) {
            return Ok(Outcome::LessThanKept);
        }
        remove(&unfinished)?;
        fs::create_dir(&unfinished)?;
        for file in manifest.files() {
            fs::hard_link(self.path_of(&file.name), unfinished.join(&file.name))?;
        }
        let alone = Manifest { history: Vec::new(), kept: Vec::new(), ..manifest.clone() };
        Directory::new(&unfinished, self.prefix()).write_manifest(&alone)?;
        remove(&kept)?;
        fs::rename(&unfinished, &kept)?;
        self.sync()?;
        Ok(Outcome::Kept)
    }

    /// At the start: what a crash has left, and whether something is kept.
    pub(super) fn look_for_replaced(&self) -> io::Result<bool> {
        remove(&self.path().join(UNFINISHED))?;
        Ok(self.replaced().is_dir())
    }

    pub(super) fn forget_replaced(&self) -> io::Result<()> {
        remove(&self.replaced())
    }
}

fn len_of(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |m| m.len())
}

fn bytes_in(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let files = entries.filter(|entry| !entry.file_name().to_string_lossy().ends_with(".manifest"));
    files.map(|entry| len_of(&entry.path())).sum()
}

fn remove(directory: &Path) -> io::Result<()> {
    unless_missing(fs::remove_dir_all(directory))
}

fn unless_missing(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// The file of the last save, before another one of `bytes` gets its name. It is the first of this process, which with
/// sentinels has not loaded it.
pub(crate) fn keep_dump(server: &Server, settings: &Settings, bytes: u64) {
    let dump = Path::new(&settings.dbfilename);
    let kept = replaced_dump(settings);
    if server.shared.gate.is_standalone() || len_of(dump) <= bytes.max(len_of(&kept)) {
        return;
    }
    match unless_missing(fs::remove_file(&kept)).and_then(|()| fs::hard_link(dump, &kept)) {
        Ok(()) => {
            server.aof.replaced.begin();
            tracing::warn!(
                file = %kept.display(),
                "the file of the last save is larger than the one that replaces it: it is kept for a day"
            );
        }
        Err(error) => tracing::warn!(%error, "the file of the last save can't be kept"),
    }
}

/// At the start: a file that an earlier process has kept begins its day anew.
pub(crate) fn look_for_dump(server: &Server, settings: &Settings) {
    let kept = replaced_dump(settings);
    if kept.exists() {
        tracing::warn!(file = %kept.display(), "the file of a larger save is kept there");
        server.aof.replaced.begin();
    }
}

fn replaced_dump(settings: &Settings) -> PathBuf {
    PathBuf::from(format!("{KEPT}-{}", settings.dbfilename))
}

/// Regularly: forgets what was kept for long enough, on a thread, as large files take their time.
pub(super) fn tick(server: &Arc<Server>, directory: &Directory) {
    if !server.aof.replaced.is_over(clock::monotonic(), || is_in_sync(server)) {
        return;
    }
    let (directory, dump) = (directory.clone(), replaced_dump(&server.settings()));
    let forget = move || {
        let dump = unless_missing(fs::remove_file(&dump));
        match directory.forget_replaced().and(dump) {
            Ok(()) => tracing::info!("what a full sync had replaced a day ago is deleted"),
            Err(error) => tracing::warn!(%error, "what a full sync has replaced can't be deleted"),
        }
    };
    if let Err(error) = std::thread::Builder::new().name("forget".into()).spawn(forget) {
        tracing::warn!(%error, "no thread to delete what a full sync has replaced");
    }
}

fn is_in_sync(server: &Server) -> bool {
    let routing = server.routing();
    let shard_and_me = routing.my_shard().zip(routing.me.as_ref());
    shard_and_me.is_some_and(|(shard, me)| shard.in_sync.contains(me) && !shard.restarted.contains(me))
}

#[cfg(test)]
mod tests {
    use super::super::manifest::AofFile;
    use super::*;

    fn write(directory: &Directory, seq: u64, bytes: usize) -> Manifest {
        let file = AofFile::incremental("a", seq);
        fs::write(directory.path_of(&file.name), vec![b'x'; bytes]).unwrap();
        let manifest = Manifest { incremental: vec![file], own_from: Some(seq), ..Manifest::default() };
        directory.write_manifest(&manifest).unwrap();
        manifest
    }

    fn kept(directory: &Directory) -> Option<String> {
        let kept = Directory::new(directory.replaced(), "a").read_manifest().unwrap()?;
        let name = &kept.incremental.first().unwrap().name;
        Some(format!("{name} {}", len_of(&directory.replaced().join(name))))
    }

    #[test]
    fn of_two_histories_the_larger_is_kept_and_stays_readable() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::new(folder.path(), "a");
        assert!(!directory.look_for_replaced().unwrap());
        assert_eq!(directory.keep_replaced(&Manifest::default()).unwrap(), Outcome::NothingThere);
        for (seq, bytes, outcome, left) in [
            (1, 100, Outcome::Kept, "a.1.incr.aof 100"),
            (2, 99, Outcome::LessThanKept, "a.1.incr.aof 100"),
            (3, 101, Outcome::Kept, "a.3.incr.aof 101"),
        ] {
            let manifest = write(&directory, seq, bytes);
            // A crash came on the way.
            fs::create_dir_all(folder.path().join(UNFINISHED)).unwrap();
            assert_eq!(directory.keep_replaced(&manifest).unwrap(), outcome);
            fs::remove_file(directory.path_of(&manifest.incremental[0].name)).unwrap();
            assert_eq!(kept(&directory).as_deref(), Some(left));
        }
        assert!(directory.unlisted(&Manifest::default()).unwrap().is_empty(), "it is in nobody's way");
        fs::create_dir(folder.path().join(UNFINISHED)).unwrap();
        assert!(directory.look_for_replaced().unwrap() && !folder.path().join(UNFINISHED).exists());
        directory.forget_replaced().unwrap();
        assert_eq!(kept(&directory), None);
    }
}

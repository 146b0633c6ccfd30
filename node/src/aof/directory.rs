//! `appendonlydir/`: its files and the manifest that names them.
//!
//! The manifest is replaced by renaming a new one over it, and everything is synced in the order in which it has to
//! survive: a file before the manifest that names it, the manifest before what it does not name is deleted.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::manifest::{AofFile, BaseFacts, FileKind, Manifest};

/// How the names of files begin that are not finished, also those of Valkey.
const TEMPORARY: &str = "temp-";
/// Followed by the number of the process.
const UNFINISHED_BASE: &str = "temp-rewriteaof-bg-";

/// The directory of one node.
#[derive(Debug, Clone)]
pub struct Directory {
    path: PathBuf,
    /// `appendfilename`
    prefix: String,
}

impl Directory {
    pub fn new(path: impl Into<PathBuf>, prefix: &str) -> Directory {
        Directory { path: path.into(), prefix: prefix.to_owned() }
    }

    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    pub fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub fn manifest_path(&self) -> PathBuf {
        self.path.join(format!("{}.manifest", self.prefix))
    }

    /// `None`: there is no data yet. The file of a Redis before version 7, which had no manifest, is moved in as the
    /// base.
    ///
    /// # Errors
    /// One line for the operator.
    pub fn read_manifest(&self) -> Result<Option<Manifest>, String> {
        match self.existing_manifest()? {
            Some(manifest) => {
                self.finish_adoption(&manifest)?;
                Ok(Some(manifest))
            }
            None => self.adopt_single_file(),
        }
    }

    /// As [`Directory::read_manifest`], but nothing is moved.
    ///
    /// # Errors
    /// One line for the operator.
    pub fn existing_manifest(&self) -> Result<Option<Manifest>, String> {
        let path = self.manifest_path();
        match fs::read(&path) {
            Ok(text) => Manifest::parse(&text).map(Some).map_err(|e| format!("{}, {e}", path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("can't read '{}': {error}", path.display())),
        }
    }

    /// Whether a file of the log has anything in it. A manifest that cannot be read stands for data, too.
    pub fn has_data(&self) -> bool {
        let has_bytes = |path: &Path| fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() > 0);
        match self.existing_manifest() {
            Ok(Some(manifest)) => manifest.files().any(|file| has_bytes(&self.path_of(&file.name))),
            Ok(None) => has_bytes(&self.single_file()),
            Err(_) => true,
        }
    }

    /// Files that by their names belong to this log and that the manifest does not name, ordered by name.
    ///
    /// # Errors
    /// The system's.
    pub fn unlisted(&self, manifest: &Manifest) -> io::Result<Vec<(FileKind, AofFile)>> {
        let mut found = Vec::new();
        for name in self.names()? {
            if !manifest.names(&name)
                && let Some(file) = AofFile::named(&self.prefix, &name)
            {
                found.push(file);
            }
        }
        Ok(found)
    }

    /// Bases and manifests that were not finished: this process writes none yet.
    ///
    /// # Errors
    /// The system's.
    pub fn unfinished(&self) -> io::Result<Vec<String>> {
        let manifest = self.unfinished_manifest();
        let is_one =
            |name: &String| *name == manifest || name.starts_with(UNFINISHED_BASE) && name.ends_with(".aof");
        Ok(self.names()?.into_iter().filter(is_one).collect())
    }

    fn unfinished_manifest(&self) -> String {
        format!("{TEMPORARY}{}.manifest", self.prefix)
    }

    /// Where this process writes the next base.
    pub fn unfinished_base(&self) -> PathBuf {
        self.path.join(format!("{UNFINISHED_BASE}{}.aof", std::process::id()))
    }

    /// The prefix of another log's manifest that is in the directory.
    ///
    /// # Errors
    /// The system's.
    pub fn other_prefix(&self) -> io::Result<Option<String>> {
        let names = self.names()?.into_iter();
        let mut prefixes = names.filter_map(|name| name.strip_suffix(".manifest").map(str::to_owned));
        Ok(prefixes.find(|prefix| *prefix != self.prefix && !prefix.starts_with(TEMPORARY)))
    }

    /// The names of all files, ordered. None if there is no directory yet.
    fn names(&self) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                names.extend(entry.file_name().into_string());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a Redis before version 7 had its file.
    fn single_file(&self) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(&self.prefix)
    }

    /// A crash may have come between the two steps of [`Directory::adopt_single_file`].
    fn finish_adoption(&self, manifest: &Manifest) -> Result<(), String> {
        let single = self.single_file();
        let adopted = manifest.base.as_ref().is_some_and(|base| base.name == self.prefix);
        if !adopted && single.is_file() {
            tracing::warn!(
                file = %single.display(),
                "not loaded: the append only file of an earlier version lies beside a directory with data"
            );
        }
        if !adopted || self.path_of(&self.prefix).exists() || !single.exists() {
            return Ok(());
        }
        let moved = fs::rename(&single, self.path_of(&self.prefix)).and_then(|()| self.sync());
        moved.map_err(|e| format!("can't move '{}': {e}", single.display()))
    }

    fn adopt_single_file(&self) -> Result<Option<Manifest>, String> {
        let single = self.single_file();
        if !fs::metadata(&single).is_ok_and(|m| m.is_file() && m.len() > 0) {
            return Ok(None);
        }
        let base = AofFile { name: self.prefix.clone(), seq: 1 };
        let manifest = Manifest { base: Some(base), ..Manifest::default() };
        let adopted = self
            .create()
            .and_then(|()| self.write_manifest(&manifest))
            .and_then(|()| fs::rename(&single, self.path_of(&self.prefix)))
            .and_then(|()| self.sync());
        adopted
            .map_err(|e| format!("can't move '{}' to '{}': {e}", single.display(), self.path.display()))?;
        tracing::info!(file = %single.display(), "the append only file of an earlier version was moved to the directory");
        Ok(Some(manifest))
    }

    /// Why this file is not the base that the manifest names, as far as its bytes tell without reading all of them.
    ///
    /// # Errors
    /// The system's.
    pub fn objection_to_base(file: &File, facts: BaseFacts) -> io::Result<Option<String>> {
        let bytes = file.metadata()?.len();
        if bytes != facts.bytes {
            return Ok(Some(format!("it has {bytes} bytes instead of {}", facts.bytes)));
        }
        let mut end = [0; size_of::<u64>()];
        file.read_exact_at(&mut end, bytes.saturating_sub(size_of::<u64>() as u64))?;
        let checksum = u64::from_le_bytes(end);
        let differs = checksum != facts.checksum;
        Ok(differs.then(|| format!("its checksum is {checksum:016x} instead of {:016x}", facts.checksum)))
    }

    pub fn create(&self) -> io::Result<()> {
        fs::create_dir_all(&self.path)?;
        // The directory's own name has to survive, too.
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
            Some(_) | None => File::open(".")?.sync_all(),
        }
    }

    /// Puts a manifest in the place of the one that is there.
    pub fn write_manifest(&self, manifest: &Manifest) -> io::Result<()> {
        let temporary = self.path.join(self.unfinished_manifest());
        let mut file = File::create(&temporary)?;
        file.write_all(manifest.to_text().as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, self.manifest_path())?;
        self.sync()
    }

    pub fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    /// What files may still take; everything if the system does not say.
    pub fn available_bytes(&self) -> u64 {
        rustix::fs::statvfs(&self.path).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// A new, empty file; one of that name that no manifest names is in the way of nothing.
    pub fn create_file(&self, name: &str) -> io::Result<File> {
        let file = OpenOptions::new().read(true).append(true).create(true).open(self.path_of(name))?;
        file.set_len(0)?;
        Ok(file)
    }

    /// Opens a file to append to it.
    pub fn open(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().read(true).append(true).open(self.path_of(name))
    }

    /// Deletes the history files and forgets them; what cannot be deleted stays in the manifest.
    pub fn delete_history(&self, manifest: &mut Manifest) -> io::Result<()> {
        if manifest.history.is_empty() {
            return Ok(());
        }
        self.delete_files(manifest);
        self.write_manifest(manifest)
    }

    /// As [`Directory::delete_history`], but the manifest on disk names them until it is written the next time: who
    /// reads it does not mind that they are gone.
    pub fn delete_files(&self, manifest: &mut Manifest) {
        manifest.history.retain(|file| match fs::remove_file(self.path_of(&file.name)) {
            Ok(()) => false,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => {
                tracing::warn!(file = file.name, %error, "a file that is not needed any more can't be deleted");
                true
            }
        });
    }
}

//! The manifest of `appendonlydir/`: which files make up the data, in Valkey's format, so that either program can go
//! on with the other's directory (<https://valkey.io/topics/persistence/>).
//!
//! One line a file: `file NAME seq NUMBER type b|h|i`. At most one base; the incremental files follow it in the order
//! of their numbers; history files belong to nothing any more and are deleted. Comments (`#`) and keys that are not
//! known are kept out.
//!
//! The first line that Keyward writes, `#KW manifest from=NUMBER base=BYTES:CHECKSUM:KEYS x=CRC32C`, is a comment to
//! others. By it a manifest that has lost lines is known from a whole one, and one that another program has written since.
//! From that number on Keyward has begun the incremental files. The base, if Keyward has written it, has so many bytes,
//! this checksum at its end (the CRC64 of an RDB file) and so many keys.
//!
//! Pure: text in, text out. A manifest may come from outside, so nothing in it is trusted: names must not leave the
//! directory, numbers must ascend.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use crc_fast::{CrcAlgorithm, Digest};
use keyward_proto::resp::request::split_words;

/// Numbers that files may have: there is always a next one.
const SEQS: RangeInclusive<u64> = 1..=u64::MAX >> 1;
/// How the first line begins.
const SIGNATURE: &str = "#KW manifest ";

/// What a manifest that cannot be used says; for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct ManifestError {
    pub line: usize,
    pub reason: &'static str,
}

/// A file of the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AofFile {
    pub name: String,
    pub seq: u64,
}

/// What a base that Keyward has written must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BaseFacts {
    pub bytes: u64,
    /// Its last eight bytes.
    pub checksum: u64,
    pub keys: u64,
}

impl BaseFacts {
    fn to_text(self) -> String {
        let BaseFacts { bytes, checksum, keys } = self;
        format!("{bytes}:{checksum:016x}:{keys}")
    }

    fn parse(text: &str) -> Option<BaseFacts> {
        let mut parts = text.split(':');
        let bytes = parts.next()?.parse().ok()?;
        let checksum = u64::from_str_radix(parts.next()?, 16).ok()?;
        let keys = parts.next()?.parse().ok()?;
        parts.next().is_none().then_some(BaseFacts { bytes, checksum, keys })
    }
}

/// The files that make up the data, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    pub base: Option<AofFile>,
    /// `None`: another program has written it.
    pub base_facts: Option<BaseFacts>,
    pub incremental: Vec<AofFile>,
    /// To be deleted.
    pub history: Vec<AofFile>,
    /// Older incremental files that are kept for replicas; for other programs history as well.
    pub kept: Vec<AofFile>,
    /// From this number on Keyward has begun the incremental files: none of them is empty. `None`: another program has
    /// written the manifest.
    pub own_from: Option<u64>,
}

/// What a file of the directory is by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    Base,
    Incremental,
}

impl AofFile {
    pub fn incremental(prefix: &str, seq: u64) -> AofFile {
        AofFile { name: format!("{prefix}.{seq}.incr.aof"), seq }
    }

    /// A file of that name; `None`: it belongs to no write log that is called `prefix`.
    pub fn named(prefix: &str, name: &str) -> Option<(FileKind, AofFile)> {
        let (number, rest) = name.strip_prefix(prefix)?.strip_prefix('.')?.split_once('.')?;
        let kind = match rest {
            "incr.aof" => FileKind::Incremental,
            "base.rdb" | "base.aof" => FileKind::Base,
            _ => return None,
        };
        let seq = number.parse().ok().filter(|seq| SEQS.contains(seq))?;
        Some((kind, AofFile { name: name.to_owned(), seq }))
    }
}

impl Manifest {
    /// # Errors
    /// The first line that makes no sense.
    pub fn parse(text: &[u8]) -> Result<Manifest, ManifestError> {
        let (own_from, base_facts) = signed(text)?;
        let mut manifest = Manifest { own_from, base_facts, ..Manifest::default() };
        let mut last_seq = 0;
        let mut names = BTreeSet::new();
        for (at, line) in text.split(|b| *b == b'\n').enumerate() {
            let error = |reason| ManifestError { line: at + 1, reason };
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let words = split_words(line).map_err(|_| error("unbalanced quotes"))?;
            let (file, kind) = parse_line(&words).map_err(error)?;
            if !names.insert(file.name.clone()) {
                return Err(error("a file is named twice"));
            }
            match kind {
                b"b" if manifest.base.is_some() => return Err(error("a second base file")),
                b"b" => manifest.base = Some(file),
                b"h" => manifest.history.push(file),
                b"i" if file.seq <= last_seq => return Err(error("the numbers of the files do not ascend")),
                b"i" => {
                    last_seq = file.seq;
                    manifest.incremental.push(file);
                }
                _ => return Err(error("a file's type is b, h or i")),
            }
        }
        if names.is_empty() {
            return Err(ManifestError { line: 1, reason: "the manifest names no file" });
        }
        Ok(manifest)
    }

    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let mut line = |file: &AofFile, kind| {
            let name = quoted(&file.name);
            text.push_str(&format!("file {name} seq {} type {kind}\n", file.seq));
        };
        self.base.iter().for_each(|f| line(f, 'b'));
        self.history.iter().chain(&self.kept).for_each(|f| line(f, 'h'));
        self.incremental.iter().for_each(|f| line(f, 'i'));
        let own_from = self.own_from.unwrap_or_else(|| self.next_incremental("").seq);
        let facts = self.base_facts.filter(|_| self.base.is_some());
        format!("{}\n{text}", signature(own_from, facts, text.as_bytes()))
    }

    /// Whether it names a file, as whatever.
    pub fn names(&self, name: &str) -> bool {
        self.files().chain(&self.history).chain(&self.kept).any(|file| file.name == name)
    }

    /// Base and incremental files, in the order in which they are loaded.
    pub fn files(&self) -> impl Iterator<Item = &AofFile> {
        self.base.iter().chain(&self.incremental)
    }

    /// With a new base, which the incremental files from `first` on follow. Of the others `kept` are kept for replicas,
    /// the rest and `unlisted` are to be deleted.
    pub fn adopted(
        &self,
        base: AofFile,
        facts: BaseFacts,
        first: AofFile,
        kept: Vec<AofFile>,
        unlisted: &[AofFile],
    ) -> Manifest {
        let (mut incremental, gone): (Vec<AofFile>, Vec<AofFile>) =
            self.incremental.iter().cloned().partition(|file| first.seq <= file.seq);
        let own_from = Some(first.seq);
        if !incremental.contains(&first) {
            incremental.push(first);
        }
        let history = self.history.clone();
        let (base, base_facts) = (Some(base), Some(facts));
        let mut manifest = Manifest { base, base_facts, incremental, history, kept, own_from };
        let left = gone.iter().chain(unlisted).chain(&self.kept).chain(&self.base);
        // One that was left behind may have had the name of a new one.
        let superfluous: Vec<AofFile> = left.filter(|file| !manifest.names(&file.name)).cloned().collect();
        manifest.history.extend(superfluous);
        manifest
    }

    /// The name and number of the next incremental file.
    pub fn next_incremental(&self, prefix: &str) -> AofFile {
        let all = self.incremental.iter().chain(&self.history).chain(&self.kept);
        let seq = all.map(|f| f.seq).max().unwrap_or(0);
        let mut next = AofFile::incremental(prefix, seq + 1);
        // A file's number need not be the one in its name.
        while self.names(&next.name) {
            next = AofFile::incremental(prefix, next.seq + 1);
        }
        next
    }

    /// The name and number of the next base file.
    pub fn next_base(&self, prefix: &str) -> AofFile {
        let seq = self.base.iter().chain(&self.history).map(|f| f.seq).max().unwrap_or(0);
        let named = |seq| AofFile { name: format!("{prefix}.{seq}.base.rdb"), seq };
        let mut next = named(seq + 1);
        while self.names(&next.name) {
            next = named(next.seq + 1);
        }
        next
    }
}

/// The first line; its checksum is that of what it says and of all that follows.
fn signature(own_from: u64, facts: Option<BaseFacts>, rest: &[u8]) -> String {
    let facts = facts.map(|facts| format!(" base={}", facts.to_text())).unwrap_or_default();
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    digest.update(&own_from.to_le_bytes());
    digest.update(facts.as_bytes());
    digest.update(rest);
    format!("{SIGNATURE}from={own_from}{facts} x={:08x}", digest.finalize())
}

/// What the first line says of incremental files and base.
fn signed(text: &[u8]) -> Result<(Option<u64>, Option<BaseFacts>), ManifestError> {
    let Some(signed) = text.strip_prefix(SIGNATURE.as_bytes()) else { return Ok((None, None)) };
    let end = memchr::memchr(b'\n', signed).unwrap_or(signed.len());
    let rest = signed.get(end + 1..).unwrap_or_default();
    let line = std::str::from_utf8(&signed[..end]).unwrap_or_default();
    let mut words = line.split(' ');
    let own_from = words.next().and_then(|word| word.strip_prefix("from=")?.parse().ok());
    let facts = words.next().and_then(|word| BaseFacts::parse(word.strip_prefix("base=")?));
    match own_from {
        Some(own_from) if signature(own_from, facts, rest).strip_prefix(SIGNATURE) == Some(line) => {
            Ok((Some(own_from), facts))
        }
        Some(_) | None => {
            let reason = "the manifest is not as it was written: a part of it is lost, or it was changed. Restore it from \
                          a copy; if it was changed on purpose, remove this line";
            Err(ManifestError { line: 1, reason })
        }
    }
}

fn parse_line(words: &[Vec<u8>]) -> Result<(AofFile, &[u8]), &'static str> {
    if words.len() < 6 || !words.len().is_multiple_of(2) {
        return Err("a line is pairs of words: file NAME seq NUMBER type TYPE");
    }
    let value = |key: &str| {
        words.chunks(2).find(|pair| pair[0].eq_ignore_ascii_case(key.as_bytes())).map(|pair| &pair[1][..])
    };
    let name = value("file").ok_or("no 'file'")?;
    let name = std::str::from_utf8(name).map_err(|_| "a file's name is not UTF-8")?;
    if name.is_empty() || name.contains('/') || name == "." || name == ".." {
        return Err("a file's name must not leave the directory");
    }
    let seq =
        value("seq").and_then(|s| std::str::from_utf8(s).ok()?.parse().ok()).filter(|seq| SEQS.contains(seq));
    let seq = seq.ok_or("'seq' is a positive number")?;
    let kind = value("type").ok_or("no 'type'")?;
    Ok((AofFile { name: name.to_owned(), seq }, kind))
}

/// A word as [`split_words`] reads it back.
fn quoted(name: &str) -> String {
    if name.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\'' && b != b'\\') {
        return name.to_owned();
    }
    let mut out = String::from("\"");
    for byte in name.bytes() {
        match byte {
            b'"' | b'\\' => out.push_str(&format!("\\{}", char::from(byte))),
            b' '..=b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("\\x{byte:02x}")),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn a_manifest_is_read_as_it_is_written() {
        let text = "file appendonly.aof.2.base.rdb seq 2 type b\n\
                    file appendonly.aof.1.incr.aof seq 1 type h\n\
                    file appendonly.aof.2.incr.aof seq 2 type i\n\
                    file \"my file.3.incr.aof\" seq 3 type i\n";
        let manifest = Manifest::parse(text.as_bytes()).unwrap();
        let (signature, rest) =
            manifest.to_text().split_once('\n').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        assert_eq!(rest, text);
        assert!(signature.starts_with("#KW manifest from=4 x=") && manifest.own_from.is_none());
        assert_eq!(manifest.next_incremental("a").name, "a.4.incr.aof");
        assert_eq!(manifest.next_base("a").name, "a.3.base.rdb");
        assert_eq!(manifest.next_base("appendonly.aof").seq, 3);
        assert_eq!(manifest.files().map(|f| f.seq).collect::<Vec<_>>(), [2, 2, 3]);
        let more = format!("# a comment\n{text}\n");
        assert_eq!(Manifest::parse(more.as_bytes()).unwrap(), manifest);
    }

    #[test]
    fn a_manifest_that_has_lost_something_is_known() {
        let file = |name: &str, seq| AofFile { name: name.into(), seq };
        let manifest = Manifest {
            base: Some(file("a.2.base.rdb", 2)),
            base_facts: Some(BaseFacts { bytes: 1234, checksum: u64::MAX >> 9, keys: 56 }),
            incremental: vec![file("a.2.incr.aof", 2), file("a.3.incr.aof", 3)],
            own_from: Some(2),
            ..Manifest::default()
        };
        let text = manifest.to_text();
        assert_eq!(Manifest::parse(text.as_bytes()).unwrap(), manifest);
        for end in 0..text.len() {
            assert_eq!(Manifest::parse(&text.as_bytes()[..end]).unwrap_err().line, 1, "{end}");
        }
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            // One whose first line is nothing but a comment is anybody's.
            assert!(
                Manifest::parse(&bytes).map_or(true, |m| m.own_from.is_none() && at < SIGNATURE.len()),
                "{at}"
            );
        }
        let rest = text.split_once('\n').unwrap().1;
        assert_eq!(Manifest::parse(rest.as_bytes()).unwrap().own_from, None);
    }

    #[test]
    fn hostile_manifests_are_refused_or_harmless() {
        let text = "file a.2.base.rdb seq 2 type b\nfile a.1.incr.aof seq 1 type h\n\
                    file \"my\\x41 file\" seq 3 type i\nfile a.4.incr.aof seq 4 type i startoffset 9\n";
        let signed = Manifest::parse(text.as_bytes()).unwrap().to_text();
        for seed in 0..20_000 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let mut bytes = if rng.random() { signed.clone() } else { text.to_owned() }.into_bytes();
            for _ in 0..rng.random_range(1..5) {
                let at = rng.random_range(0..bytes.len());
                match rng.random_range(0..4) {
                    0 => bytes[at] ^= 1 << rng.random_range(0..8),
                    1 => bytes[at] = b"0189 \n\"\\#/.ibh"[rng.random_range(0..14)],
                    2 => bytes.truncate(at + 1),
                    _ => drop(bytes.splice(at..at, b"9999999999".iter().copied())),
                }
            }
            let Ok(manifest) = Manifest::parse(&bytes) else { continue };
            let again = Manifest::parse(manifest.to_text().as_bytes()).unwrap();
            assert!(again.files().eq(manifest.files()) && again.history == manifest.history, "seed {seed}");
            let next = [manifest.next_incremental("a"), manifest.next_base("a")];
            assert!(next.iter().all(|file| !manifest.names(&file.name)), "seed {seed}");
        }
    }

    #[test]
    fn files_are_known_by_their_names() {
        let kind = |name| AofFile::named("a.aof", name).map(|(kind, file)| (kind, file.seq));
        assert_eq!(kind("a.aof.12.incr.aof"), Some((FileKind::Incremental, 12)));
        assert_eq!(kind("a.aof.1.base.rdb"), Some((FileKind::Base, 1)));
        assert_eq!(kind("a.aof.1.base.aof"), Some((FileKind::Base, 1)));
        for name in
            ["a.aof", "a.aof.manifest", "a.aof.1.incr.aof.bak", "temp-a.aof.manifest", "b.aof.1.incr.aof"]
        {
            assert_eq!(kind(name), None, "{name}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (text, line) in [
            ("", 1),
            ("# nothing\n", 1),
            ("file a seq 1 type b\nfile b seq 2 type b\n", 2),
            ("file a seq 2 type i\nfile b seq 2 type i\n", 2),
            ("file a seq 1 type h\nfile a seq 2 type i\n", 2),
            ("file ../a seq 1 type i\n", 1),
            ("file a seq 0 type i\n", 1),
            ("file a seq x type i\n", 1),
            ("file a seq 1 type x\n", 1),
            ("file a seq 1\n", 1),
            ("file \"a seq 1 type i\n", 1),
        ] {
            assert_eq!(Manifest::parse(text.as_bytes()).unwrap_err().line, line, "{text}");
        }
    }
}

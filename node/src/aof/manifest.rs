//! The manifest of `appendonlydir/`: which files make up the data, in Valkey's format, so that either program can go
//! on with the other's directory (<https://valkey.io/topics/persistence/>).
//!
//! One line a file: `file NAME seq NUMBER type b|h|i`. At most one base; the incremental files follow it in the order
//! of their numbers; history files belong to nothing any more and are deleted. Comments (`#`) and keys that are not
//! known are kept out.
//!
//! Pure: text in, text out. A manifest may come from outside, so nothing in it is trusted: names must not leave the
//! directory, numbers must ascend.

use keyward_proto::resp::request::split_words;

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

/// The files that make up the data, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    pub base: Option<AofFile>,
    pub incremental: Vec<AofFile>,
    /// To be deleted.
    pub history: Vec<AofFile>,
    /// Older incremental files that are kept for replicas; for other programs history as well.
    pub kept: Vec<AofFile>,
}

impl AofFile {
    pub fn incremental(prefix: &str, seq: u64) -> AofFile {
        AofFile { name: format!("{prefix}.{seq}.incr.aof"), seq }
    }
}

impl Manifest {
    /// # Errors
    /// The first line that makes no sense.
    pub fn parse(text: &[u8]) -> Result<Manifest, ManifestError> {
        let mut manifest = Manifest::default();
        let mut last_seq = 0;
        let mut lines = 0;
        for (at, line) in text.split(|b| *b == b'\n').enumerate() {
            let error = |reason| ManifestError { line: at + 1, reason };
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            lines += 1;
            let words = split_words(line).map_err(|_| error("unbalanced quotes"))?;
            let (file, kind) = parse_line(&words).map_err(error)?;
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
        if lines == 0 {
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
        text
    }

    /// Base and incremental files, in the order in which they are loaded.
    pub fn files(&self) -> impl Iterator<Item = &AofFile> {
        self.base.iter().chain(&self.incremental)
    }

    /// The name and number of the next incremental file.
    pub fn next_incremental(&self, prefix: &str) -> AofFile {
        let seq = 1 + self
            .incremental
            .iter()
            .chain(&self.history)
            .chain(&self.kept)
            .map(|f| f.seq)
            .max()
            .unwrap_or(0);
        AofFile::incremental(prefix, seq)
    }

    /// The name and number of the next base file.
    pub fn next_base(&self, prefix: &str) -> AofFile {
        let seq = 1 + self.base.iter().chain(&self.history).map(|f| f.seq).max().unwrap_or(0);
        AofFile { name: format!("{prefix}.{seq}.base.rdb"), seq }
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
    let seq = value("seq").and_then(|s| std::str::from_utf8(s).ok()?.parse().ok()).filter(|seq| *seq > 0);
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
    use super::*;

    #[test]
    fn a_manifest_is_read_as_it_is_written() {
        let text = "file appendonly.aof.2.base.rdb seq 2 type b\n\
                    file appendonly.aof.1.incr.aof seq 1 type h\n\
                    file appendonly.aof.2.incr.aof seq 2 type i\n\
                    file \"my file.3.incr.aof\" seq 3 type i\n";
        let manifest = Manifest::parse(text.as_bytes()).unwrap();
        assert_eq!(manifest.to_text(), text);
        assert_eq!(manifest.next_incremental("a").name, "a.4.incr.aof");
        assert_eq!(manifest.next_base("a").name, "a.3.base.rdb");
        assert_eq!(manifest.files().map(|f| f.seq).collect::<Vec<_>>(), [2, 2, 3]);
        let more = format!("# a comment\n{text}\n");
        assert_eq!(Manifest::parse(more.as_bytes()).unwrap(), manifest);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (text, line) in [
            ("", 1),
            ("# nothing\n", 1),
            ("file a seq 1 type b\nfile b seq 2 type b\n", 2),
            ("file a seq 2 type i\nfile b seq 2 type i\n", 2),
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

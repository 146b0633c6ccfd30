//! What a script or function says of itself: in its first line, `#!lua flags=no-writes`, or where it is registered.

use keyward_commands::CommandError;
use keyward_proto::resp::request::split_words;

/// A set of flags.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScriptFlags(u8);

impl ScriptFlags {
    pub const NO_WRITES: ScriptFlags = ScriptFlags(1);
    pub const ALLOW_OOM: ScriptFlags = ScriptFlags(2);
    pub const ALLOW_STALE: ScriptFlags = ScriptFlags(4);
    pub const NO_CLUSTER: ScriptFlags = ScriptFlags(8);
    pub const ALLOW_CROSS_SLOT: ScriptFlags = ScriptFlags(16);
    /// It has said nothing: it is judged by what it does.
    pub const SILENT: ScriptFlags = ScriptFlags(32);

    const NAMES: [(&str, ScriptFlags); 5] = [
        ("no-writes", ScriptFlags::NO_WRITES),
        ("allow-oom", ScriptFlags::ALLOW_OOM),
        ("allow-stale", ScriptFlags::ALLOW_STALE),
        ("no-cluster", ScriptFlags::NO_CLUSTER),
        ("allow-cross-slot-keys", ScriptFlags::ALLOW_CROSS_SLOT),
    ];

    pub fn has(self, flag: ScriptFlags) -> bool {
        self.0 & flag.0 != 0
    }

    /// Whether a script that says this of itself is not begun where memory is short. One that says nothing is judged by
    /// what it does.
    pub fn needs_memory(self) -> bool {
        ![ScriptFlags::SILENT, ScriptFlags::NO_WRITES, ScriptFlags::ALLOW_OOM]
            .into_iter()
            .any(|flag| self.has(flag))
    }

    /// Whether a script that says this of itself is taken for a write. One that says nothing is judged by what it does.
    pub fn says_it_writes(self) -> bool {
        !self.has(ScriptFlags::SILENT) && !self.has(ScriptFlags::NO_WRITES)
    }

    pub fn add(&mut self, flag: ScriptFlags) {
        self.0 |= flag.0;
    }

    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.iter().filter(move |(_, flag)| self.has(*flag)).map(|(name, _)| *name)
    }

    pub fn of_name(name: &[u8]) -> Option<ScriptFlags> {
        let found = Self::NAMES.iter().find(|(known, _)| known.as_bytes().eq_ignore_ascii_case(name));
        found.map(|(_, flag)| *flag)
    }
}

const NAME: &[u8] = b"name=";

/// What a first line says.
struct FirstLine {
    engine: Vec<u8>,
    options: Vec<Vec<u8>>,
}

/// The words of a first line; `None` if quotes are not closed.
fn words(line: &[u8]) -> Option<FirstLine> {
    let mut words = split_words(line).ok()?;
    let first = (!words.is_empty()).then(|| words.remove(0))?;
    Some(FirstLine { engine: first.strip_prefix(b"#!")?.to_vec(), options: words })
}

/// The flags of a script, and what of it is compiled: without its first line, if that is for us.
///
/// # Errors
/// The first line is none.
pub fn of_script(source: &[u8]) -> Result<(ScriptFlags, &[u8]), CommandError> {
    if !source.starts_with(b"#!") {
        return Ok((ScriptFlags::SILENT, source));
    }
    let end = source.iter().position(|b| *b == b'\n');
    let end = end.ok_or_else(|| CommandError::err("Invalid script shebang"))?;
    let words = words(&source[..end]).ok_or_else(|| CommandError::err("Invalid engine in script shebang"))?;
    let mut flags = ScriptFlags::default();
    for part in &words.options {
        let Some(names) = part.strip_prefix(b"flags=") else {
            return Err(CommandError::quoting("Unknown lua shebang option: ", part, ""));
        };
        for name in names.split(|b| *b == b',').filter(|name| !name.is_empty()) {
            let flag = ScriptFlags::of_name(name)
                .ok_or_else(|| CommandError::quoting("Unexpected flag in script shebang: ", name, ""))?;
            flags.add(flag);
        }
    }
    if !words.engine.eq_ignore_ascii_case(b"lua") {
        return Err(CommandError::quoting("Could not find scripting engine '", &words.engine, "'"));
    }
    Ok((flags, &source[end..]))
}

/// The name of a library, and what of it is compiled.
///
/// # Errors
/// The first line does not say it.
pub fn of_library(source: &[u8]) -> Result<(String, &[u8]), CommandError> {
    if !source.starts_with(b"#!") {
        return Err(CommandError::err("Missing library metadata"));
    }
    let end = source.iter().position(|b| *b == b'\n');
    let end = end.ok_or_else(|| CommandError::err("Invalid library metadata"))?;
    let words = words(&source[..end]).ok_or_else(|| CommandError::err("Invalid library metadata"))?;
    let mut name: Option<&[u8]> = None;
    for part in &words.options {
        let given = part.split_at_checked(NAME.len()).filter(|(word, _)| word.eq_ignore_ascii_case(NAME));
        let Some((_, given)) = given else {
            return Err(CommandError::quoting("Invalid metadata value given: ", part, ""));
        };
        if name.replace(given).is_some() {
            let text = "Invalid metadata value, name argument was given multiple times";
            return Err(CommandError::err(text));
        }
    }
    let name = name.ok_or_else(|| CommandError::err("Library name was not given"))?;
    if !is_name(name) {
        return Err(CommandError::err(
            "Library names can only contain letters, numbers, or underscores(_) and must be at least one character \
             long",
        ));
    }
    if !words.engine.eq_ignore_ascii_case(b"lua") {
        return Err(CommandError::quoting("Engine '", &words.engine, "' not found"));
    }
    Ok((String::from_utf8_lossy(name).into_owned(), &source[end..]))
}

/// Whether a library or function may have this name.
pub fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
}

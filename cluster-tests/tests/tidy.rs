//! Promises about the code itself that no compiler keeps: documented modules, shells that are known, layers that point one
//! way, and no mention of a document that a clone does not have.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Folders with our own Rust code.
const SOURCES: &[&str] = &["proto", "node", "sentinel", "cluster-tests/src", "cluster-tests/tests"];

/// Crates that may not touch the world, and what they may depend on of ours.
const PURE: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("node/store", &["keyward-proto"]),
    ("node/replication", &["keyward-proto"]),
    ("node/commands", &["keyward-proto", "keyward-store"]),
    ("node/lua", &["keyward-proto"]),
];

/// What all the others of ours may depend on.
const SHELLED: &[(&str, &[&str])] = &[
    ("proto/net", &["keyward-proto"]),
    (
        "node",
        &[
            "keyward-proto",
            "keyward-net",
            "keyward-store",
            "keyward-replication",
            "keyward-commands",
            "keyward-lua",
        ],
    ),
    // The store for its RDB: what is saved is read back, and restored key by key.
    ("sentinel", &["keyward-proto", "keyward-net", "keyward-store"]),
];

/// Words by which code touches the world: tasks, sockets, threads, files.
const WORLDLY: &[&str] = &[
    "tokio::",
    "tonic::",
    "std::net::Tcp",
    "std::net::ToSocketAddrs",
    "std::thread::",
    "std::fs::",
    "std::process::",
    "rustix::",
];

/// Characters of a line in ARCHITECTURE.md, but for tables.
const LINE_LEN_MAX: usize = 120;

/// Lines of rules to lines of shells, at least: raised when there is more, never lowered without a reason.
const NODE_RATIO_MIN: f64 = 4.1;
const SENTINEL_RATIO_MIN: f64 = 2.1;

/// How a file says that it is a shell: there clippy lets it read clocks, sleep and spawn (clippy.toml).
const SHELL_MARK: &str = "#![allow(clippy::disallowed_methods";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is around this crate").to_owned()
}

/// A file's path from the root, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn is_test(&self) -> bool {
        self.path.ends_with("tests.rs") || self.path.contains("/tests/") || self.path.contains("testing")
    }

    /// The text without the tests at its end.
    fn shipped(&self) -> &str {
        self.text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default()
    }

    /// Lines of code, without comments and empty ones.
    fn lines(&self) -> usize {
        let is_code = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with("//");
        self.shipped().lines().filter(is_code).count()
    }

    fn is_shell(&self) -> bool {
        self.text.contains(SHELL_MARK)
    }

    /// The first word by which it touches the world.
    fn worldly(&self) -> Option<&'static str> {
        let text = self.shipped();
        let begins_there = |at: usize| !text[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        WORLDLY.iter().copied().find(|word| text.match_indices(word).any(|(at, _)| begins_there(at)))
    }
}

fn collect(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(folder).expect("a folder of the repository");
    for entry in entries.map(|entry| entry.expect("a readable folder").path()) {
        let name = entry.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if entry.is_dir() && name != "target" && !name.starts_with('.') && name != "node_modules" {
            collect(&entry, extension, found);
        } else if entry.extension().is_some_and(|e| e == extension) {
            found.push(entry);
        }
    }
}

fn sources() -> Vec<Source> {
    let root = root();
    let mut paths = Vec::new();
    SOURCES.iter().for_each(|folder| collect(&root.join(folder), "rs", &mut paths));
    paths.sort();
    let read = |path: PathBuf| Source {
        text: std::fs::read_to_string(&path).expect("a readable file"),
        path: path.strip_prefix(&root).expect("it is below the root").to_string_lossy().into_owned(),
    };
    paths.into_iter().map(read).collect()
}

/// Fails with all faults at once.
#[track_caller]
fn none(faults: Vec<String>) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn every_module_says_what_it_is() {
    let undocumented = |source: &Source| !source.text.starts_with("//!") && !source.is_test();
    none(
        sources()
            .iter()
            .filter(|s| undocumented(s))
            .map(|s| format!("{}: no `//!` at its top", s.path))
            .collect(),
    );
}

#[test]
fn every_document_that_is_mentioned_is_there() {
    let root = root();
    let mut faults = Vec::new();
    for Source { path, text } in sources().iter().filter(|s| !s.path.ends_with("tidy.rs")) {
        for (number, line) in text.lines().enumerate().filter(|(_, line)| line.contains("//")) {
            let comment = line.split_once("//").map_or("", |(_, comment)| comment);
            let words = comment.split(|c: char| !(c.is_ascii_alphanumeric() || "._-/".contains(c)));
            for word in words.filter(|word| word.ends_with(".md")) {
                let near = root.join(path).parent().is_some_and(|folder| folder.join(word).exists());
                if !near && !root.join(word).exists() && word.starts_with(|c: char| c.is_ascii_uppercase()) {
                    faults.push(format!("{path}:{}: there is no {word}", number + 1));
                }
            }
            if comment.contains("DESIGN") {
                faults.push(format!("{path}:{}: a clone has no DESIGN; ARCHITECTURE.md has", number + 1));
            }
        }
    }
    none(faults);
}

#[test]
fn pure_crates_hold_no_shell() {
    let is_in = |path: &str, folder: &str| path.starts_with(&format!("{folder}/"));
    let is_pure =
        |path: &str| PURE.iter().any(|(folder, _)| is_in(path, folder)) && !is_in(path, "proto/net");
    let is_rule = |path: &str| path.starts_with("sentinel/src/rules/");
    let mut faults = Vec::new();
    for source in sources().iter().filter(|s| (is_pure(&s.path) || is_rule(&s.path)) && !s.is_test()) {
        let Source { path, .. } = source;
        if source.is_shell() {
            faults.push(format!("{path}: marked as a shell"));
        }
        // RDB files are read and written by whoever opened them; generated code is what it is.
        let may = path.starts_with("node/store/src/rdb/file/")
            || path == "proto/src/rpc.rs"
            || path.ends_with("build.rs");
        faults.extend(source.worldly().filter(|_| !may).map(|word| format!("{path}: uses {word}")));
    }
    none(faults);
}

/// The crates that a manifest names in `[dependencies]`, ours and others.
fn dependencies(folder: &str) -> Option<BTreeSet<String>> {
    let manifest = std::fs::read_to_string(root().join(folder).join("Cargo.toml")).ok()?;
    let section = manifest.split("[dependencies]\n").nth(1)?.split("\n[").next()?;
    let name = |line: &str| Some(line.split(['.', ' ', '=']).next()?.to_owned());
    Some(
        section
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(name)
            .filter(|n| !n.is_empty())
            .collect(),
    )
}

#[test]
fn crates_depend_one_way() {
    let mut faults = Vec::new();
    for (folder, allowed) in PURE.iter().chain(SHELLED) {
        let Some(found) = dependencies(folder) else {
            faults.push(format!("{folder}: no such crate"));
            continue;
        };
        let ours = found.iter().filter(|name| name.starts_with("keyward-"));
        faults.extend(
            ours.filter(|name| !allowed.contains(&name.as_str()))
                .map(|name| format!("{folder} depends on {name}")),
        );
    }
    // With its feature `rpc` proto has the code that is generated for gRPC; without it, it has to be as pure.
    for (folder, _) in PURE.iter().filter(|(folder, _)| *folder != "proto") {
        let found = dependencies(folder).unwrap_or_default();
        for foreign in ["tokio", "tonic", "tonic-prost", "rustix", "socket2", "futures"] {
            if found.contains(foreign) {
                faults.push(format!("{folder} depends on {foreign}"));
            }
        }
        let manifest = std::fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap_or_default();
        if manifest.split("[dependencies]").nth(1).is_some_and(|s| s.contains("features = [\"rpc\"]")) {
            faults.push(format!("{folder} asks for the code generated for gRPC"));
        }
    }
    none(faults);
}

#[test]
fn every_file_that_the_architecture_names_is_there() {
    let root = root();
    let mut files = Vec::new();
    for extension in ["rs", "sh", "toml", "proto", "txt"] {
        collect(&root, extension, &mut files);
    }
    let files: Vec<String> =
        files.iter().map(|file| format!("/{}", file.strip_prefix(&root).unwrap_or(file).display())).collect();
    let text = std::fs::read_to_string(root.join("ARCHITECTURE.md")).expect("a readable file");
    let quoted = text.split('`').skip(1).step_by(2);
    let is_path =
        |word: &&str| !word.contains([' ', '*']) && (word.ends_with(".rs") || word.ends_with(".sh"));
    let missing = |word: &&str| !files.iter().any(|file| file.ends_with(&format!("/{word}")));
    none(quoted.filter(is_path).filter(missing).map(|word| format!("there is no {word}")).collect());
}

#[test]
fn lines_of_the_architecture_can_be_read() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("a readable file");
    let is_long = |line: &&str| LINE_LEN_MAX < line.chars().count() && !line.starts_with('|');
    none(
        text.lines()
            .filter(is_long)
            .map(|line| format!("longer than {LINE_LEN_MAX} characters: {line}"))
            .collect(),
    );
}

/// Parameters that are `bool` nevertheless: file, function, why.
const BOOL_PARAMETERS: &[(&str, &str, &str)] =
    &[("proto/src/resp/reply.rs", "boolean", "a boolean is what it writes")];

/// The parameters in the parentheses that begin here.
fn parenthesized(text: &str) -> &str {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' if depth == 1 => return &text[..at],
            ')' => depth -= 1,
            _ => {}
        }
    }
    text
}

/// `f(true)` says nothing: two functions do, an enum, or the condition of the caller.
#[test]
fn no_parameter_is_a_bool() {
    let mut faults = Vec::new();
    for source in sources().iter().filter(|s| !s.is_test() && !s.path.starts_with("cluster-tests/tests")) {
        let Source { path, .. } = source;
        for (number, rest) in source.shipped().split("fn ").enumerate().skip(1) {
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let Some(begin) = rest.find('(').filter(|_| !name.is_empty()) else { continue };
            let is_bool = |parameter: &str| parameter.trim_end().ends_with(": bool");
            let is_excepted = |(file, function, _): &(&str, &str, &str)| path == file && name == *function;
            let parameters = parenthesized(&rest[begin..]);
            if parameters.split(',').any(is_bool) && !BOOL_PARAMETERS.iter().any(is_excepted) {
                faults.push(format!(
                    "{path}: {name} (function {number} of the file) has a parameter that is a bool"
                ));
            }
        }
    }
    none(faults);
}

/// How much of each program a test can run without the world, counted as clippy enforces it: a file is a shell if it may
/// read clocks, sleep and spawn. Shown with `--nocapture`.
#[test]
fn most_code_is_pure() {
    let mut lines: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let sources = sources();
    for source in sources.iter().filter(|s| !s.is_test() && !s.path.starts_with("cluster-tests")) {
        let folder = source.path.split('/').next().unwrap_or_default();
        let (pure, shell) = lines.entry(folder).or_default();
        *(if source.is_shell() { shell } else { pure }) += source.lines();
    }
    let mut table = String::new();
    for (folder, (pure, shell)) in &lines {
        _ = writeln!(table, "{folder}: {pure} lines are pure, {shell} are shells");
    }
    println!("{table}");
    let ratio =
        |folder: &str| lines.get(folder).map_or(0.0, |(pure, shell)| *pure as f64 / (*shell).max(1) as f64);
    assert!(
        NODE_RATIO_MIN < ratio("node") && SENTINEL_RATIO_MIN < ratio("sentinel"),
        "shells have grown:\n{table}"
    );
}

//! Reading the configuration at the start: a conf file, standard input, flags.
//!
//! As in Valkey all of them are one text: the file, then what standard input has (`-`), then a line for each flag.
//! So a flag obeys the rules of a line, later lines win, and numbers of lines go on behind the file. A `#` begins a
//! comment only where a line begins. Differs from Valkey: all faults are told, not only the first.

use std::fs::File;
use std::io::{self, Read};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use keyward_proto::conf_kind;
use keyward_proto::glob;
use keyward_proto::resp::request::split_words;

use super::directives::{Directive, Effect, FORGOTTEN};
use super::rewrite::quoted;
use super::settings::Settings;
use super::types::Form;
use super::{Config, find};

/// A larger file is none for people.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// An `include` in an `include`, and so on.
const NESTING_MAX: usize = 16;
/// Files that are read in all.
const FILES_MAX: usize = 1000;
/// Faults that are told.
const FAULTS_MAX: usize = 100;

/// What the configuration is read from, beside files.
pub struct Origin<'a> {
    pub arguments: &'a [String],
    pub stdin: &'a mut dyn Read,
    /// Variables of the environment.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// Where the program was started.
    pub folder: PathBuf,
}

impl std::fmt::Debug for Origin<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Origin").field("arguments", &self.arguments).finish_non_exhaustive()
    }
}

/// Something wrong, and where.
#[derive(Debug)]
struct Fault {
    /// The file, if it is an included one.
    file: Option<PathBuf>,
    /// Number and text of the line; `None`: the configuration as a whole.
    line: Option<(usize, String)>,
    reason: String,
}

/// Goes through the lines and collects the faults.
struct Reader<'a> {
    config: &'a mut Config,
    faults: Vec<Fault>,
    files: usize,
}

impl Config {
    /// Reads the program's arguments: an optional conf file, or `-` for standard input, then `--directive value ...`.
    ///
    /// # Errors
    /// All faults, in the form in which Valkey tells the first one.
    pub fn load(origin: Origin<'_>) -> Result<Config, String> {
        let mut config = Config::in_folder(origin.folder);
        let (path, from_stdin, flags) = split_arguments(origin.arguments);
        let mut text = Vec::new();
        if let Some(path) = path {
            let path = config.folder.join(path);
            text = read(&path)
                .map_err(|e| format!("Fatal error, can't open config file '{}': {e}", path.display()))?;
            config.file = Some(path);
        }
        if from_stdin {
            let bytes = read_bounded(origin.stdin).map_err(|e| {
                format!("Fatal error, can't read the configuration from stdin: {}", reason(&e))
            })?;
            config.stdin = Some(bytes.clone());
            text.extend(bytes);
        }
        let own = text.len();
        text.push(b'\n');
        text.extend(flags.as_bytes());
        let mut reader = Reader { config: &mut config, faults: Vec::new(), files: 0 };
        reader.lines(&text, None, 0);
        let mut faults = reader.faults;
        let settings = config.typed()?;
        if faults.is_empty() {
            faults.extend(config.contradictions(&settings).into_iter().map(Fault::general));
            faults.extend(log_file_fault(&settings).map(Fault::general));
        } else if let Some(kind) = conf_kind::foreign(&text[..own]).filter(|_| own != 0) {
            return Err(wrong_kind(config.file.as_deref(), kind));
        }
        if faults.is_empty() {
            config.with_external_password(&settings, origin.variable)?;
            let settings = config.typed()?;
            faults.extend(config.make_users(&settings).err().map(Fault::general));
        }
        if faults.is_empty() {
            return Ok(config);
        }
        Err(tell(&faults))
    }

    /// Flags only, in the current folder: for tests.
    ///
    /// # Errors
    /// See [`Config::load`].
    pub fn from_arguments(arguments: &[String]) -> Result<Config, String> {
        let folder = std::env::current_dir().map_err(|e| format!("no current folder: {e}"))?;
        Config::load(Origin { arguments, stdin: &mut io::empty(), variable: &|_| None, folder })
    }

    /// Without `requirepass` the password may come from a file or from the environment.
    fn with_external_password(
        &mut self,
        settings: &Settings,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(), String> {
        if !settings.requirepass.is_empty() {
            return Ok(());
        }
        let path = match settings.requirepass_file.as_str() {
            "" => variable("VALKEY_PASSWORD_FILE").unwrap_or_default(),
            path => path.to_owned(),
        };
        let password = if path.is_empty() {
            variable("VALKEY_PASSWORD").unwrap_or_default()
        } else {
            password_in(&self.folder.join(&path))
                .map_err(|e| format!("can't use the password file '{path}': {e}"))?
        };
        self.external_password.clone_from(&password);
        self.values.insert("requirepass", password);
        Ok(())
    }

    /// One line of a conf file for a directive of the table.
    fn assign(&mut self, directive: &'static Directive, words: &[String]) -> Result<(), String> {
        // One word in quotes may be several.
        let parts = match words {
            [word] if words_of(directive.form()) != (1..=1) && !word.is_empty() => {
                let parts = split_words(word.as_bytes()).map_err(|_| "Unbalanced quotes".to_owned())?;
                Some(parts.iter().map(|part| String::from_utf8_lossy(part).into_owned()).collect::<Vec<_>>())
            }
            _ => None,
        };
        let words = parts.as_deref().unwrap_or(words);
        if !words_of(directive.form()).contains(&words.len()) {
            return Err("wrong number of arguments".into());
        }
        if directive.form() == Form::Folder {
            return self.enter(&words[0]);
        }
        if directive.form() == Form::OutputLimits && words == [""] {
            return Err("Wrong number of arguments in buffer limit configuration.".into());
        }
        // Spaces part words from here on; one within a word fits nothing.
        let joined: Vec<String> = match words {
            [one] => vec![one.clone()],
            several => several.iter().map(|word| word.replace(' ', "\u{1}")).collect(),
        };
        let mut value = directive.normalize(&joined.join(" "), self.text(directive.name))?;
        if directive.form() == Form::SavePoints && std::mem::replace(&mut self.save_given, true) {
            let before = self.text(directive.name);
            value = match (value.is_empty(), before.is_empty()) {
                // `save ""` takes back what was there before, `save` alone adds nothing.
                (true, _) if words.is_empty() => before.to_owned(),
                (false, false) => format!("{before} {value}"),
                (true, _) | (false, true) => value,
            };
        }
        if let Effect::Absent(why) = directive.effect
            && value != directive.default
        {
            return Err(format!("'{}' can't be used: {why}", directive.name));
        }
        self.values.insert(directive.name, value);
        Ok(())
    }

    /// `dir`: later paths are relative to it, as after Valkey's change of folder.
    fn enter(&mut self, path: &str) -> Result<(), String> {
        if path.is_empty() {
            return Err("dir can't be empty".into());
        }
        let folder = self.folder.join(path);
        let folder = std::fs::canonicalize(&folder).map_err(|e| reason(&e))?;
        if !folder.is_dir() {
            return Err("Not a directory".into());
        }
        self.values.insert("dir", folder.to_string_lossy().into_owned());
        self.folder = folder;
        Ok(())
    }
}

impl Reader<'_> {
    fn lines(&mut self, text: &[u8], file: Option<&Path>, nesting: usize) {
        for (number, line) in (1..).zip(text.split(|b| *b == b'\n')) {
            let line = trim(line);
            if line.is_empty() || line[0] == b'#' {
                continue;
            }
            if let Err(reason) = self.line(line, nesting) {
                let shown = String::from_utf8_lossy(line).into_owned();
                self.faults.push(Fault {
                    file: file.map(Path::to_owned),
                    line: Some((number, shown)),
                    reason,
                });
            }
        }
    }

    fn line(&mut self, line: &[u8], nesting: usize) -> Result<(), String> {
        let words = split_words(line).map_err(|_| "Unbalanced quotes in configuration line".to_owned())?;
        let words: Result<Vec<String>, _> = words.into_iter().map(String::from_utf8).collect();
        let words = words.map_err(|_| "the line is not valid UTF-8".to_owned())?;
        let [name, values @ ..] = &words[..] else { return Ok(()) };
        let name = name.to_ascii_lowercase();
        if let Some(directive) = find(&name) {
            return self.config.assign(directive, values);
        }
        match (name.as_str(), values) {
            (name, [_]) if FORGOTTEN.contains(&name) => Ok(()),
            ("include", [pattern]) => self.include(pattern, nesting),
            ("rename-command", [from, to]) => self.config.renames.rename(from, to),
            ("user", [user, rules @ ..]) => self.config.declare_user(user, rules),
            ("loadmodule", [_, ..]) => Err("modules are not available in this version".into()),
            ("sentinel", []) => Ok(()),
            ("sentinel", _) => Err("sentinel directive while not in sentinel mode".into()),
            (name, []) if name.contains('.') => Err("Module config specified without value".into()),
            (name, _) if name.contains('.') => Err("modules are not available in this version".into()),
            _ => Err("Bad directive or wrong number of arguments".into()),
        }
    }

    fn include(&mut self, pattern: &str, nesting: usize) -> Result<(), String> {
        if NESTING_MAX <= nesting {
            return Err(format!("files are included {NESTING_MAX} deep at most: does one include itself?"));
        }
        let files = expand(&self.config.folder.join(pattern));
        for path in files {
            self.files += 1;
            if FILES_MAX < self.files {
                return Err(format!("more than {FILES_MAX} files are included"));
            }
            let text =
                read(&path).map_err(|e| format!("can't open config file '{}': {e}", path.display()))?;
            self.lines(&text, Some(&path), nesting + 1);
        }
        Ok(())
    }
}

impl Fault {
    fn general(reason: String) -> Fault {
        Fault { file: None, line: None, reason }
    }
}

/// How many words make a value in a conf file.
fn words_of(form: Form) -> RangeInclusive<usize> {
    match form {
        Form::Words | Form::KnownWords | Form::SavePoints | Form::OutputLimits => 0..=usize::MAX,
        Form::HostAndPort => 2..=2,
        Form::Word
        | Form::Text
        | Form::TextOrEmpty
        | Form::Folder
        | Form::FileName
        | Form::Letters
        | Form::Memory => 1..=1,
    }
}

/// Whether lines can be appended to the log file: later it would be too late to say so.
fn log_file_fault(settings: &Settings) -> Option<String> {
    let path = settings.log_file()?;
    let opened = File::options().append(true).create(true).open(path);
    opened.err().map(|error| format!("Can't open the log file: {}", reason(&error)))
}

/// In Valkey's words; it tells the first fault only.
fn tell(faults: &[Fault]) -> String {
    let mut text = format!("\n*** FATAL CONFIG FILE ERROR (Version {}) ***\n", env!("CARGO_PKG_VERSION"));
    for fault in &faults[..faults.len().min(FAULTS_MAX)] {
        if let Some((number, line)) = &fault.line {
            let file = fault.file.as_ref().map_or_else(String::new, |f| format!(" of '{}'", f.display()));
            text.push_str(&format!("Reading the configuration file, at line {number}{file}\n>>> '{line}'\n"));
        }
        text.push_str(&fault.reason);
        text.push('\n');
    }
    if FAULTS_MAX < faults.len() {
        text.push_str(&format!("... and {} more\n", faults.len() - FAULTS_MAX));
    }
    text.truncate(text.trim_end().len());
    text
}

fn wrong_kind(path: Option<&Path>, kind: conf_kind::Foreign) -> String {
    let path = path.map_or("standard input".to_owned(), |p| format!("'{}'", p.display()));
    format!(
        "\n*** FATAL CONFIG FILE ERROR (Version {}) ***\n{path} is not a configuration of keyward-node: it is {kind}",
        env!("CARGO_PKG_VERSION")
    )
}

/// The conf file, whether standard input is read, and the flags as lines.
fn split_arguments(arguments: &[String]) -> (Option<&str>, bool, String) {
    let mut rest = arguments;
    let (mut path, mut from_stdin) = (None, false);
    match rest {
        [first, following @ ..] if first == "-" => {
            from_stdin = true;
            rest = following;
        }
        [first, following @ ..] if !first.starts_with('-') => {
            path = Some(first.as_str());
            rest = following;
        }
        _ => {}
    }
    if let [before @ .., last] = rest
        && last == "-"
    {
        from_stdin = true;
        rest = before;
    }
    (path, from_stdin, flag_lines(rest))
}

/// `--port 1 --save` as `port "1"` and `save ""`. The word behind a name is its value, even if it begins with `--`.
fn flag_lines(arguments: &[String]) -> String {
    let mut text = String::new();
    let mut value_due = false;
    for (at, argument) in arguments.iter().enumerate() {
        match argument.strip_prefix("--").filter(|_| !value_due) {
            Some(flag) => {
                if !text.is_empty() {
                    text.push('\n');
                }
                text.push_str(flag);
                text.push(' ');
                value_due = split_words(argument.as_bytes()).is_ok_and(|words| words.len() == 1);
                let next_is_flag = arguments.get(at + 1).is_none_or(|next| next.starts_with("--"));
                if flag.eq_ignore_ascii_case("save") && next_is_flag {
                    // What makes arguments of an empty setting leaves no value here.
                    text.push_str("\"\"");
                    value_due = false;
                }
            }
            None => {
                text.push_str(&quoted(argument.as_bytes()));
                text.push(' ');
                value_due = false;
            }
        }
    }
    text
}

/// The files that a path with `*`, `?` and `[...]` means, in alphabetical order. One without them is that file.
fn expand(pattern: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for part in pattern.components() {
        let part = part.as_os_str();
        let text = part.to_string_lossy();
        if !text.contains(['*', '?', '[']) {
            found.iter_mut().for_each(|path| path.push(part));
            continue;
        }
        let mut next = Vec::new();
        for folder in found {
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            let names = entries.flatten().map(|entry| entry.file_name());
            let matching = names.filter(|name| {
                let name = name.as_encoded_bytes();
                (text.starts_with('.') || !name.starts_with(b".")) && glob::matches(text.as_bytes(), name)
            });
            next.extend(matching.map(|name| folder.join(name)));
        }
        next.sort();
        next.truncate(FILES_MAX + 1);
        found = next;
    }
    if pattern.to_string_lossy().contains(['*', '?', '[']) {
        found.retain(|path| path.exists());
    }
    found
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    File::open(path).and_then(|mut file| read_bounded(&mut file)).map_err(|e| reason(&e))
}

/// What is too long is read up to the bound, which is enough to say that it is no conf file.
fn read_bounded(from: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == FILE_BYTES_MAX {
        return Err(io::Error::other(match conf_kind::foreign(&bytes) {
            Some(kind) => format!("it is {kind}"),
            None => "it is too large for a configuration".to_owned(),
        }));
    }
    Ok(bytes)
}

/// The first line of the file, without its end.
fn password_in(path: &Path) -> Result<String, String> {
    let text = String::from_utf8(read(path)?).map_err(|_| "it is not valid UTF-8".to_owned())?;
    match text.lines().next() {
        None | Some("") => Err("its first line is empty".into()),
        Some(password) => Ok(password.to_owned()),
    }
}

/// What the system says, without the number that Rust adds.
pub(super) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

fn trim(line: &[u8]) -> &[u8] {
    let blank = |b: &u8| matches!(b, b' ' | b'\t' | b'\r' | b'\n');
    let begin = line.iter().position(|b| !blank(b)).unwrap_or(line.len());
    let end = line.iter().rposition(|b| !blank(b)).map_or(begin, |at| at + 1);
    &line[begin..end]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::acl::User;

    fn load(arguments: &[&str], stdin: &str, folder: &Path) -> Result<Config, String> {
        let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
        let variable = |_: &str| None;
        let mut stdin = stdin.as_bytes();
        Config::load(Origin {
            arguments: &arguments,
            stdin: &mut stdin,
            variable: &variable,
            folder: folder.into(),
        })
    }

    /// A folder with these files.
    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    fn faults(files: &[(&str, &str)], arguments: &[&str]) -> String {
        let dir = folder(files);
        let error = load(arguments, "", dir.path()).unwrap_err();
        let (head, rest) = error.trim_start().split_once('\n').unwrap();
        assert_eq!(head, format!("*** FATAL CONFIG FILE ERROR (Version {}) ***", env!("CARGO_PKG_VERSION")));
        rest.replace(&format!("{}/", dir.path().display()), "")
    }

    #[test]
    fn whatever_a_file_holds_it_is_read_or_its_faults_are_told() {
        let words = [
            "port",
            "bind",
            "save",
            "requirepass",
            "maxmemory",
            "client-output-buffer-limit",
            "\"",
            "'",
            "\\x",
            "\\",
            "#",
            "1",
            "-1",
            "99999999999999999999",
            "1gb",
            "yes",
            "no",
            "\0",
            "\u{fffd}",
            "\r",
            "\t",
            "normal",
            "0",
            "%",
            "tls-protocols",
            "rename-command",
            "user",
            "notify-keyspace-events",
            "KEA",
            "3600",
            "oom-score-adj-values",
            "log-format",
            "json",
        ];
        let mut rng = SmallRng::seed_from_u64(14);
        let (mut read, mut refused) = (0, 0);
        for _ in 0..5_000 {
            let mut text = String::new();
            for _ in 0..rng.random_range(1..8) {
                for _ in 0..rng.random_range(1..6) {
                    text.push_str(words[rng.random_range(0..words.len())]);
                    text.push_str(["", " ", "  "][rng.random_range(0..3)]);
                }
                text.push('\n');
            }
            match load(&["-"], &text, Path::new("/")) {
                Ok(_) => read += 1,
                Err(words) => {
                    assert!(!words.is_empty());
                    refused += 1;
                }
            }
        }
        assert!(read > 0 && refused > 0, "{read} {refused}");
    }

    #[test]
    fn all_faults_are_told_with_their_lines() {
        let conf =
            "port 1\n\n# comment\nrequirepass ab #comment\nappendfsync sometimes\nbogus\n\ttimeout x\r\n";
        assert_eq!(
            faults(&[("a.conf", conf)], &["a.conf", "--hz", "y"]),
            "Reading the configuration file, at line 4\n>>> 'requirepass ab #comment'\nwrong number of arguments\n\
             Reading the configuration file, at line 5\n>>> 'appendfsync sometimes'\n\
             argument(s) must be one of the following: everysec, always, no\n\
             Reading the configuration file, at line 6\n>>> 'bogus'\nBad directive or wrong number of arguments\n\
             Reading the configuration file, at line 7\n>>> 'timeout x'\n\
             argument couldn't be parsed into an integer\n\
             Reading the configuration file, at line 9\n>>> 'hz \"y\"'\nargument couldn't be parsed into an integer"
        );
        let many = "x\n".repeat(FAULTS_MAX + 5);
        assert!(faults(&[("a.conf", &many)], &["a.conf"]).ends_with("\n... and 5 more"));
    }

    #[test]
    fn included_files_are_read_where_they_are_named() {
        let files = [
            ("a.conf", "timeout 1\ninclude sub/*.conf\ninclude none*.conf\nmaxclients 77\ninclude one.conf"),
            ("one.conf", "maxclients 88"),
            ("sub/2.conf", "timeout 2"),
            ("sub/3.conf", "timeout 3\ndir sub\ninclude deeper"),
            ("sub/.4.conf", "timeout 4"),
            ("sub/deeper", "hz 33"),
            ("sub/one.conf", "tcp-keepalive 5"),
        ];
        let dir = folder(&files);
        let config = load(&["a.conf"], "", dir.path()).unwrap();
        let get = ["timeout", "maxclients", "hz", "tcp-keepalive"].map(|name| config.text(name));
        assert_eq!(get, ["3", "77", "33", "5"], "behind `dir` paths are relative to it");
        assert_eq!(
            config.text("dir"),
            std::fs::canonicalize(dir.path().join("sub")).unwrap().to_str().unwrap()
        );
    }

    #[test]
    fn faults_of_included_files_name_them() {
        let files = [("a.conf", "include b.conf\ninclude c.conf"), ("b.conf", "\nport x")];
        assert_eq!(
            faults(&files, &["a.conf"]),
            "Reading the configuration file, at line 2 of 'b.conf'\n>>> 'port x'\n\
             argument couldn't be parsed into an integer\n\
             Reading the configuration file, at line 2\n>>> 'include c.conf'\n\
             can't open config file 'c.conf': No such file or directory"
        );
        let nested = faults(&[("a.conf", "include a.conf")], &["a.conf"]);
        assert!(nested.ends_with("files are included 16 deep at most: does one include itself?"), "{nested}");
    }

    #[test]
    fn flags_are_lines() {
        let lines = |words: &[&str]| flag_lines(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
        assert_eq!(lines(&["--port", "1", "--bind", "a", "b"]), "port \"1\" \nbind \"a\" \"b\" ");
        assert_eq!(lines(&["--requirepass", "--x", "--hz 3"]), "requirepass \"--x\" \nhz 3 ");
        assert_eq!(lines(&["--save", "--hz", "3", "--save"]), "save \"\"\nhz \"3\" \nsave \"\"");
        assert_eq!(lines(&["stray", "--hz", "a\"\n"]), "\"stray\" \nhz \"a\\\"\\n\" ");
        let dir = folder(&[("a.conf", "timeout 1\nhz 20\n")]);
        let text = |arguments: &[&str], name: &str| {
            load(arguments, "timeout 5\nrequirepass 'a b'", dir.path()).unwrap().text(name).to_owned()
        };
        assert_eq!(text(&["a.conf", "--timeout", "2"], "timeout"), "2");
        assert_eq!(text(&["-"], "requirepass"), "a b");
        assert_eq!(text(&["a.conf", "--hz", "7", "-"], "hz"), "7");
        assert_eq!(text(&["a.conf", "-"], "timeout"), "5");
        assert_eq!(text(&["--save", "1 2", "--save", "3", "4"], "save"), "1 2 3 4");
        assert_eq!(text(&["--save"], "save"), "");
        assert!(
            load(&["b.conf"], "", dir.path()).unwrap_err().ends_with("b.conf': No such file or directory")
        );
    }

    #[test]
    fn a_password_comes_from_the_most_particular_place() {
        let dir = folder(&[("secret", "from file\nmore\n"), ("empty", "\n")]);
        let password = |arguments: &[&str], variables: &[(&str, &str)]| {
            let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
            let variable =
                |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
            let stdin = &mut io::empty();
            Config::load(Origin {
                arguments: &arguments,
                stdin,
                variable: &variable,
                folder: dir.path().into(),
            })
            .map(|config| config.text("requirepass").to_owned())
        };
        let variable = [("VALKEY_PASSWORD", "from variable")];
        let both = [("VALKEY_PASSWORD", "from variable"), ("VALKEY_PASSWORD_FILE", "secret")];
        assert_eq!(password(&[], &[]).unwrap(), "");
        assert_eq!(password(&[], &variable).unwrap(), "from variable");
        assert_eq!(password(&[], &both).unwrap(), "from file");
        assert_eq!(password(&["--requirepass-file", "secret"], &variable).unwrap(), "from file");
        assert_eq!(
            password(&["--requirepass", "flag", "--requirepass-file", "secret"], &both).unwrap(),
            "flag"
        );
        let error = password(&["--requirepass-file", "empty"], &variable).unwrap_err();
        assert_eq!(error, "can't use the password file 'empty': its first line is empty");
        assert!(
            password(&["--requirepass-file", "nothere"], &variable).is_err(),
            "not open to everybody instead"
        );
    }

    #[test]
    fn files_of_other_kinds_are_named() {
        let check = |text: &str, expect: &str| {
            let told = faults(&[("x", text)], &["x"]);
            assert!(told.contains(expect), "{told}");
        };
        check("port 26379\nsentinel monitor mymaster 127.0.0.1 6379 2\n", "it is a conf file of a sentinel");
        check("REDIS0011\u{0}\u{1}", "it is an RDB file");
        // A conf file with a mistake stays one.
        check("port 1\nsave 900: 1\n", "at line 2");
    }

    fn users(text: &str) -> Result<Vec<String>, String> {
        let dir = folder(&[
            ("x", &format!("{text}\nport 1")),
            ("users", "user carol on +ping\n"),
            ("broken", "user carol on x\n"),
        ]);
        let config = load(&["x"], "", dir.path())?;
        let described = |user: &Arc<User>| [&**user.name(), b" ", &user.describe()].concat();
        Ok(config.users().iter().map(|user| String::from_utf8(described(user)).unwrap()).collect())
    }

    #[test]
    fn users_are_in_the_conf_file_or_in_one_of_their_own() {
        let all = "default on nopass ~* &* +@all";
        let secret = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
        for (text, expected) in [
            ("", vec![all.to_owned()]),
            ("requirepass secret", vec![format!("default on #{secret} ~* &* +@all")]),
            // The line says all of it, wherever it stands.
            ("user default on nopass ~* &* +@all\nrequirepass secret", vec![all.to_owned()]),
            (
                "user default on >secret ~* +@all -flushall",
                vec![format!("default on #{secret} ~* resetchannels +@all -flushall")],
            ),
            (
                "user bob on nopass (+get ~\"a\\\"b\")\nuser alice off\nacl-pubsub-default allchannels",
                vec![
                    "alice off &* -@all".to_owned(),
                    "bob on nopass &* -@all (~a\"b &* -@all +get)".to_owned(),
                    all.to_owned(),
                ],
            ),
            ("aclfile users", vec!["carol on resetchannels -@all +ping".to_owned(), all.to_owned()]),
            // The file says all of it, too.
            (
                "aclfile users\nrequirepass secret",
                vec!["carol on resetchannels -@all +ping".to_owned(), all.to_owned()],
            ),
        ] {
            assert_eq!(users(text).unwrap(), expected, "{text}");
        }
        for (text, expected) in [
            ("user bob on nope", "'bob': Syntax error"),
            ("user bob on +nope", "'bob': Unknown command or category name in ACL"),
            ("user \"b b\" on", "'b b': Syntax error"),
            ("user bob on\nuser bob off", "Duplicate user found"),
            ("user bob on (+get", "'(+get': Wrong format"),
            ("user bob on\naclfile users", "only one of both is possible"),
            ("aclfile broken", "broken:1: Syntax error. WARNING: ACL errors"),
            ("aclfile nothere", "Error loading ACLs, opening file 'nothere': No such file"),
        ] {
            let error = users(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}

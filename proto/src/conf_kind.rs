//! What a file is that was given as a configuration and is none: an honest mistake deserves its name.
//!
//! Asked only of a file that has been refused, so a guess cannot make a good one fail.

use std::fmt;

/// A kind of file that is often taken for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    Rdb,
    Aof,
    AofManifest,
    SentinelConf,
    KeywardSentinelConf,
    NodeConf,
    ClusterNodes,
    Users,
    Yaml,
    Json,
    /// `[section]` and `name = value`: TOML, INI, a unit of systemd.
    Sections,
    Script,
    Binary,
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Foreign::Rdb => "an RDB file: it is loaded from 'dir' under the name in 'dbfilename'",
            Foreign::Aof => "an append-only file: it is loaded from 'dir' with 'appendonly yes'",
            Foreign::AofManifest => {
                "the manifest of an append-only file: it is loaded from 'dir' with 'appendonly yes'"
            }
            Foreign::SentinelConf => {
                "a conf file of a sentinel of Valkey or Redis; keyward-sentinel has flags of its own (--help)"
            }
            Foreign::KeywardSentinelConf => "a conf file of keyward-sentinel",
            Foreign::NodeConf => "a conf file of a node (keyward-node, valkey-server, redis-server)",
            Foreign::ClusterNodes => {
                "the state of a Valkey or Redis Cluster node (nodes.conf), which is not needed here"
            }
            Foreign::Users => "a list of users (aclfile)",
            Foreign::Yaml => "YAML",
            Foreign::Json => "JSON",
            Foreign::Sections => "a file with [sections], as TOML, INI or a unit of systemd",
            Foreign::Script => "a script",
            Foreign::Binary => "a binary file",
        })
    }
}

/// The kind of a file that is no conf file of a node; `None`: nothing speaks against one.
pub fn foreign(text: &[u8]) -> Option<Foreign> {
    let first = text.trim_ascii_start();
    if text.starts_with(b"REDIS0") || text.starts_with(b"VALKEY0") {
        return Some(Foreign::Rdb);
    }
    if text.first() == Some(&b'*') && text.get(1).is_some_and(u8::is_ascii_digit) {
        return Some(Foreign::Aof);
    }
    if text.contains(&0) || text.iter().any(|b| *b < b' ' && !b.is_ascii_whitespace() && *b != 0x1b) {
        return Some(Foreign::Binary);
    }
    if text.starts_with(b"#!") {
        return Some(Foreign::Script);
    }
    if matches!(first.first(), Some(b'{')) {
        return Some(Foreign::Json);
    }
    by_lines(&String::from_utf8_lossy(text))
}

/// The same for a conf file of keyward-sentinel.
pub fn foreign_to_sentinel(text: &[u8]) -> Option<Foreign> {
    // What a sentinel has no use for.
    const OF_NODES: &[&str] = &["appendonly", "databases", "maxmemory", "save", "sentinels", "tcp-backlog"];
    match foreign(text) {
        Some(Foreign::KeywardSentinelConf) => None,
        Some(kind) => Some(kind),
        None => {
            let text = String::from_utf8_lossy(text);
            let of_node = |line: &str| OF_NODES.iter().any(|name| has_words(line, &[name]));
            text.lines().any(of_node).then_some(Foreign::NodeConf)
        }
    }
}

fn by_lines(text: &str) -> Option<Foreign> {
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let first = lines().next()?;
    let some = |is: fn(&str) -> bool| lines().any(is);
    let all = |is: fn(&str) -> bool| lines().all(is);
    if some(|line| has_words(line, &["sentinel", "monitor"])) {
        return Some(Foreign::SentinelConf);
    }
    if some(|line| has_words(line, &["initial"]) && line.contains('=')) {
        return Some(Foreign::KeywardSentinelConf);
    }
    if all(is_cluster_node) {
        return Some(Foreign::ClusterNodes);
    }
    if all(|line| line.starts_with("file ") && line.contains(" seq ")) {
        return Some(Foreign::AofManifest);
    }
    if all(|line| has_words(line, &["user"])) {
        return Some(Foreign::Users);
    }
    if first == "[" || first.starts_with("[{") {
        return Some(Foreign::Json);
    }
    if first.starts_with('[') && first.ends_with(']') {
        return Some(Foreign::Sections);
    }
    // Half of the lines, because of those below lists and in blocks of text.
    let (pairs, count) = lines().fold((0, 0), |(pairs, count), line| {
        (pairs + usize::from(line == "---" || is_yaml(line)), count + 1)
    });
    (count <= 2 * pairs).then_some(Foreign::Yaml)
}

fn has_words(line: &str, words: &[&str]) -> bool {
    let mut of_line = line.split_whitespace();
    words.iter().all(|word| of_line.next().is_some_and(|found| found.eq_ignore_ascii_case(word)))
}

/// `<id> <address> <flags> <primary> ...`, or the last line, `vars currentEpoch 1 ...`.
fn is_cluster_node(line: &str) -> bool {
    let id = line.split_whitespace().next().unwrap_or_default();
    has_words(line, &["vars", "currentEpoch"]) || id.len() == 40 && id.bytes().all(|b| b.is_ascii_hexdigit())
}

/// `name: value` or `name:`.
fn is_yaml(line: &str) -> bool {
    let line = line.trim_start_matches("- ");
    line.split_once(':').is_some_and(|(name, value)| {
        let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/' | b'"');
        name.bytes().all(word) && (value.is_empty() || value.starts_with(' '))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_apart() {
        let check =
            |text: &str, expect: Option<Foreign>| assert_eq!(foreign(text.as_bytes()), expect, "{text}");
        check("port 6379\nbind 127.0.0.1 -::1\n", None);
        check("", None);
        check("# only a comment\n", None);
        check("REDIS0011", Some(Foreign::Rdb));
        check("VALKEY080", Some(Foreign::Rdb));
        check("*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n", Some(Foreign::Aof));
        check(
            "file a.aof.1.base.rdb seq 1 type b\nfile a.aof.1.incr.aof seq 1 type i\n",
            Some(Foreign::AofManifest),
        );
        check("port 26379\nsentinel monitor mymaster 127.0.0.1 6379 2\n", Some(Foreign::SentinelConf));
        check("name s1\ninitial s1=10.0.0.1:36379,s2=10.0.0.2:36379\n", Some(Foreign::KeywardSentinelConf));
        let id = "07c37dfeb235213a872192d90877d0cd55635b91";
        check(
            &format!(
                "{id} 127.0.0.1:30004@31004 myself,master - 0 0 1 connected 0-5460\nvars currentEpoch 6 lastVoteEpoch 0\n"
            ),
            Some(Foreign::ClusterNodes),
        );
        check("user default on nopass ~* &* +@all\nuser bob off\n", Some(Foreign::Users));
        check("# values\nreplicas: 3\nauth:\n  enabled: true\n  list:\n  - a\n", Some(Foreign::Yaml));
        check("---\napiVersion: v1\nkind: ConfigMap\n", Some(Foreign::Yaml));
        check("{\"port\": 6379}", Some(Foreign::Json));
        check("[\n1]", Some(Foreign::Json));
        check("[Unit]\nDescription=x\n", Some(Foreign::Sections));
        check("#!/bin/sh\nexec keyward-node\n", Some(Foreign::Script));
        check("a\0b", Some(Foreign::Binary));
        check("\u{1}\u{2}", Some(Foreign::Binary));
        check("rename-command: x\nport 1\nhz 1\n", None);

        let check = |text: &str, expect: Option<Foreign>| {
            assert_eq!(foreign_to_sentinel(text.as_bytes()), expect, "{text}");
        };
        check("name s1\ninitial s1=10.0.0.1:36379\n", None);
        check("port 26379\n", None);
        check("port 6379\n  appendonly yes\n", Some(Foreign::NodeConf));
        check("sentinel monitor mymaster 127.0.0.1 6379 2\n", Some(Foreign::SentinelConf));
    }
}

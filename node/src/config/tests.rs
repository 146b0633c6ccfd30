//! Tests of the table of directives and of CONFIG SET.

use std::path::Path;

use super::*;

fn arguments(text: &str) -> Result<Config, String> {
    Config::from_arguments(&text.split(' ').map(str::to_owned).collect::<Vec<_>>())
}

#[test]
fn arguments_like_valkeys() {
    let config = arguments("--port 7000 --repl-backlog-size 1gb --bind 127.0.0.1 ::1 --save ").unwrap();
    let settings = config.settings().unwrap();
    assert_eq!((settings.port, settings.bus_port), (7000, 17000));
    assert_eq!(settings.bind, ["127.0.0.1", "::1"]);
    assert_eq!(config.text("repl-backlog-size"), "1073741824");
}

#[test]
fn alone_a_node_needs_no_port_for_others() {
    assert_eq!(arguments("--port 60000").unwrap().settings().unwrap().bus_port, 0);
    let error = arguments("--port 60000 --sentinels a:1").unwrap_err();
    assert!(error.ends_with("port + 10000 is above 65535: set bus-port"));
    let settings = arguments("--port 60000 --sentinels a:1 --bus-port 7").unwrap().settings().unwrap();
    assert_eq!(settings.bus_port, 7);
}

#[test]
fn the_limit_of_clients_leaves_room_for_some() {
    let check = |text: &str, expect: usize| {
        assert_eq!(arguments(text).unwrap().settings().unwrap().maxmemory_clients, expect, "{text}");
    };
    check("--maxmemory 1gb", 0);
    check("--maxmemory-clients 50%", 0);
    check("--maxmemory 100mb --maxmemory-clients 0%", 0);
    check("--maxmemory 100mb --maxmemory-clients 50%", 52_428_800);
    check("--maxmemory 1kb --maxmemory-clients 100%", 128 << 10);
    check("--maxmemory-clients 1", 128 << 10);
    check("--maxmemory-clients 2mb", 2 << 20);
}

#[test]
fn contradictions_are_told() {
    let error = arguments("--lease-ms 500 --grace-ms 400 --cluster-enabled yes").unwrap_err();
    assert!(error.ends_with(
        "***\ngrace-ms must be larger than lease-ms\ncluster-enabled yes needs --sentinels host:port,..."
    ));
}

#[test]
fn config_set_is_all_or_nothing() {
    let mut config = Config::default();
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert!(config.set(&[pair("timeout", "5"), pair("port", "1")]).is_err());
    assert_eq!(config.text("timeout"), "0");
    assert!(config.set(&[pair("timeout", "5"), pair("TIMEOUT", "6")]).is_err());
    config.set(&[pair("timeout", "5"), pair("client-query-buffer-limit", "2mb")]).unwrap();
    assert_eq!((config.text("timeout"), config.text("client-query-buffer-limit")), ("5", "2097152"));
}

#[test]
fn every_directive_takes_its_default() {
    for directive in DIRECTIVES {
        let default = directive.default;
        assert_eq!(
            value::normalize(directive, default, default).as_deref(),
            Ok(default),
            "{}",
            directive.name
        );
    }
}

#[test]
fn what_would_break_a_promise_is_refused_with_the_reason() {
    for (name, default, refused, reason) in [
        ("replica-read-only", "yes", "no", "would have other data than its primary"),
        ("slave-read-only", "yes", "no", "would have other data than its primary"),
        ("cluster-allow-reads-when-down", "no", "yes", "its replies could be out of date"),
    ] {
        let error = arguments(&format!("--{name} {refused}")).unwrap_err();
        assert!(error.contains("can't be used") && error.contains(reason), "{error}");
        let mut config = arguments(&format!("--{name} {default}")).unwrap();
        let mut set = |value: &str| config.set(&[(name.to_owned(), value.to_owned())]);
        assert_eq!(set(default), Ok(()));
        let error = set(refused).unwrap_err();
        assert!(error.contains(&format!("argument '{name}'")) && error.contains(reason), "{error}");
    }
}

/// The sources of the node, without those of this module's table and tests.
fn sources() -> Vec<(String, String)> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            let name = path.display().to_string();
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with(".rs") && !name.ends_with("tests.rs") && !name.ends_with("directives.rs")
            {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((name, text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned()));
            }
        }
    }
    found
}

/// A directive whose value nobody reads is marked as one without effect, and one that is read is not.
#[test]
fn the_table_says_which_directives_have_an_effect() {
    // INFO and CONFIG REWRITE show values; that is no effect.
    let shows =
        |name: &str| name.contains("/info/") || name.ends_with("rewrite.rs") || name.ends_with("value.rs");
    let sources: Vec<String> =
        sources().into_iter().filter(|(n, _)| !shows(n)).map(|(_, text)| text).collect();
    for directive in DIRECTIVES {
        let name = format!("\"{}\"", directive.name);
        // `b"..."` is the name of a command.
        let reads = |text: &String| text.match_indices(&name).any(|(at, _)| !text[..at].ends_with('b'));
        let read = sources.iter().any(reads);
        assert_eq!(read, directive.effect == Effect::Full, "{}", directive.name);
    }
}

/// And the fields of the settings are used somewhere.
#[test]
fn every_setting_is_used() {
    let sources = sources();
    let own = |name: &str| name.ends_with("/config/mod.rs");
    let text = &sources.iter().find(|(name, _)| own(name)).unwrap().1;
    let fields = text.split("pub struct Settings {").nth(1).unwrap().split("\n}").next().unwrap();
    let fields = fields.lines().filter_map(|line| line.trim().strip_prefix("pub ")?.split(':').next());
    let used = |text: &str, read: &str| {
        text.match_indices(read).any(|(at, _)| {
            let next = text[at + read.len()..].chars().next().unwrap_or(' ');
            !next.is_ascii_alphanumeric() && next != '_' && next != '('
        })
    };
    let is_read = |field: &&str| {
        let (outside, inside) = (format!(".{field}"), format!("self.{field}"));
        sources.iter().any(|(name, text)| used(text, if own(name) { &inside } else { &outside }))
    };
    let idle: Vec<&str> = fields.filter(|field| !is_read(field)).collect();
    assert_eq!(idle, [""; 0], "nobody reads these");
}

/// The manual lists those without effect, and nothing else with them.
#[test]
fn the_manual_says_which_directives_have_no_effect() {
    let manual = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let paragraph =
        |begin: &str| manual.split(begin).nth(1).unwrap().split("\n\n").next().unwrap().to_owned();
    let list = paragraph("**Without effect.**");
    let list = list.split_once(":\n").unwrap().1.split('\n').next().unwrap();
    let listed: Vec<&str> = list.split('`').skip(1).step_by(2).collect();
    let mut expected: Vec<&str> =
        DIRECTIVES.iter().filter(|d| d.effect == Effect::None).map(|d| d.name).collect();
    expected.sort_unstable();
    assert_eq!(listed, expected);
    let refused = paragraph("**Refused.**");
    for directive in DIRECTIVES.iter().filter(|d| matches!(d.effect, Effect::Absent(_))) {
        let name = if directive.name.starts_with("tls-") { "tls-..." } else { directive.name };
        assert!(refused.contains(&format!("`{name}")), "{name}");
    }
}

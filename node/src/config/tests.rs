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
    assert_eq!((settings.port, settings.bus_port()), (7000, Some(17000)));
    assert_eq!(settings.bind, ["127.0.0.1", "::1"]);
    assert_eq!(config.text("repl-backlog-size"), "1073741824");
}

#[test]
fn alone_a_node_needs_no_port_for_others() {
    assert_eq!(arguments("--port 60000").unwrap().settings().unwrap().bus_port(), None);
    let error = arguments("--port 60000 --sentinels a:1").unwrap_err();
    assert!(error.ends_with("port + 10000 is above 65535: set bus-port"));
    let settings = arguments("--port 60000 --sentinels a:1 --bus-port 7").unwrap().settings().unwrap();
    assert_eq!(settings.bus_port(), Some(7));
}

#[test]
fn the_limit_of_clients_leaves_room_for_some() {
    let check = |text: &str, expect: usize| {
        assert_eq!(arguments(text).unwrap().settings().unwrap().maxmemory_clients(), expect, "{text}");
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
fn config_set_says_what_follows_at_once() {
    let mut config = Config::default();
    let mut set = |name: &str, value: &str| config.set(&[(name.to_owned(), value.to_owned())]).unwrap();
    assert_eq!(set("LogLevel", "debug"), [Consequence::SetLogLevel]);
    // Even if it changes nothing: an attempt that failed is made again.
    assert_eq!(set("appendonly", "no"), [Consequence::SwitchWriteLog]);
    assert!(set("timeout", "9").is_empty());
}

#[test]
fn every_directive_takes_its_default() {
    for directive in DIRECTIVES.iter() {
        let default = directive.default;
        assert_eq!(directive.normalize(default, default).as_deref(), Ok(default), "{}", directive.name);
    }
}

/// The fields of the settings by name, with what they say.
fn fields(settings: &Settings) -> BTreeMap<String, String> {
    let text = format!("{settings:#?}");
    let (mut fields, mut name) = (BTreeMap::<String, String>::new(), String::new());
    for line in text.lines().skip(1) {
        if let Some(field) = line.strip_prefix("    ").filter(|l| !l.starts_with([' ', ']', ')', '}'])) {
            name = field.split(':').next().unwrap().to_owned();
        }
        fields.entry(name.clone()).or_default().push_str(line);
    }
    fields
}

/// A directive that says it has an effect sets a field, one that says it has none does not, and each field is set by a
/// directive. (That it is also read is the compiler's to find: no field is public.)
#[test]
fn the_table_says_which_directives_have_an_effect() {
    const VALUES: &[&str] = &[
        "logfmt",
        "milliseconds",
        "7",
        "70",
        "yes",
        "no",
        "local",
        "a b",
        "KEA",
        "1 2",
        "1 2 3",
        "pubsub 1 2 3",
        "5%",
        "nosave",
        "force",
        "Systemd",
        "debug",
        "always",
        "hostname",
        "async",
        "relaxed",
        "absolute",
        "allkeys-lru",
        "allchannels",
        "user",
        "CN",
        "x",
        "5000000",
    ];
    let before = fields(&Config::default().typed().unwrap());
    let mut unset: Vec<&String> = before.keys().collect();
    for directive in DIRECTIVES.iter() {
        let mut sets = false;
        for value in VALUES.iter().filter_map(|value| directive.normalize(value, directive.default).ok()) {
            let mut config = Config::default();
            config.values.insert(directive.name, value.clone());
            if directive.form() == Form::Folder {
                config.folder = value.into();
            }
            let after = fields(&config.typed().unwrap());
            let changed: Vec<_> = after.iter().filter(|(name, text)| before[*name] != **text).collect();
            sets |= !changed.is_empty();
            unset.retain(|name| !changed.iter().any(|(changed, _)| changed == name));
        }
        let only_shown = directive.name == "hz";
        assert_eq!(sets && !only_shown, directive.effect == Effect::Full, "{}", directive.name);
    }
    unset.retain(|name| *name != "users");
    assert_eq!(unset, [""; 0], "no directive sets these");
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
        assert_eq!(set(default), Ok(Vec::new()));
        let error = set(refused).unwrap_err();
        assert!(error.contains(&format!("argument '{name}'")) && error.contains(reason), "{error}");
    }
}

/// The sources of the node that do something: without the configuration, INFO and tests.
fn sources() -> Vec<String> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            let name = path.display().to_string();
            if path.is_dir() && !name.ends_with("/config") && !name.ends_with("/info") {
                folders.push(path);
            } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push(text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned());
            }
        }
    }
    found
}

/// Fields whose effect is what INFO shows.
const FOR_INFO: [&str; 3] = ["hz", "latency_tracking", "latency_percentiles"];

/// To be shown by INFO is no effect: the compiler takes it for a use, so this looks at the other places.
#[test]
fn every_setting_is_used() {
    let sources = sources();
    let own = include_str!("settings.rs");
    let (fields, methods) = own.split_once("\n}\n").unwrap();
    let fields = fields.split("pub struct Settings {").nth(1).unwrap();
    let is_read = |field: &str, text: &str| {
        text.match_indices(&format!(".{field}")).any(|(at, found)| {
            let next = text[at + found.len()..].chars().next().unwrap_or(' ');
            !next.is_ascii_alphanumeric() && next != '_'
        })
    };
    for line in fields.lines().map(str::trim).filter(|line| line.starts_with("pub")) {
        let (visibility, rest) = line.split_once(") ").unwrap();
        let field = rest.split(':').next().unwrap();
        let read = match visibility {
            // For a method, or for the configuration itself.
            "pub(super" => {
                is_read(field, methods)
                    || is_read(field, include_str!("file.rs"))
                    || is_read(field, include_str!("mod.rs"))
            }
            _ => sources.iter().any(|text| is_read(field, text)),
        };
        assert!(read || FOR_INFO.contains(&field), "nobody reads {field}");
    }
}

/// Each directive that has an effect has its line in the manual's table, which says whether it is live. Names in a line
/// may be shortened to their ends.
#[test]
fn the_manual_has_a_line_for_each_directive() {
    let manual = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let is_named = |line: &str, name: &str| {
        let in_parts = |(at, _)| {
            let (head, tail) = name.split_at(at);
            line.contains(&format!("`{head}")) && line.contains(&format!("`{tail}`"))
        };
        line.contains(&format!("`{name}`")) || name.match_indices('-').any(in_parts)
    };
    for directive in DIRECTIVES.iter().filter(|d| d.effect == Effect::Full) {
        let name = directive.name;
        let line = manual.lines().find(|line| line.starts_with("| `") && is_named(line, name));
        let line = line.unwrap_or_else(|| panic!("the manual has no line for {name}"));
        let is_live = line.split('|').nth(3).is_some_and(|column| column.trim() == "live");
        assert_eq!(is_live, directive.change == Change::Runtime, "{line}");
    }
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
        let name = directive.name;
        assert!(refused.contains(&format!("`{name}")), "{name}");
    }
}

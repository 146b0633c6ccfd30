//! What Keyward says about its commands is what the real Valkey says about them: COMMAND INFO, DOCS and GETKEYS.
//!
//! The random comparison asks about a few commands; this one asks about all that Keyward has.

use std::collections::BTreeMap;

use cluster_tests::compare::equality::Equality;
use cluster_tests::processes::Server;
use cluster_tests::programs;
use cluster_tests::resp_client::{Connection, Frame};

/// Fields of COMMAND DOCS that are left out, or in our own words, on purpose.
const OWN_FIELDS: [&str; 3] = ["summary", "history", "subcommands"];
/// Commands of later versions and of Redis 8, and one that takes arguments in later versions.
const NOT_IN_VALKEY: [&str; 6] = ["delex", "digest", "exec", "xackdel", "xcfgset", "xdelex"];
/// Requests for each command in which keys are looked for.
const REQUESTS: usize = 40;

fn names(client: &mut Connection) -> Vec<String> {
    let list = ask(client, &["COMMAND", "LIST"]);
    list.items.iter().map(Frame::string).collect()
}

fn ask(client: &mut Connection, words: &[&str]) -> Frame {
    client.call(words).unwrap_or_else(|e| panic!("{words:?}: {e}"))
}

/// The documentation of one command, without the fields that differ.
fn docs(client: &mut Connection, name: &str) -> BTreeMap<String, String> {
    let reply = ask(client, &["COMMAND", "DOCS", name]);
    let fields = &reply.items[1].items;
    let pairs = fields.chunks(2).map(|pair| (pair[0].string(), pair[1].to_string()));
    pairs.filter(|(field, _)| !OWN_FIELDS.contains(&&**field)).collect()
}

/// Words that are keys, numbers and options, chosen by a fixed rule.
fn request(name: &str, number: usize) -> Vec<&str> {
    const WORDS: [&str; 13] =
        ["a", "2", "b", "1", "{c}", "GET", "STORE", "0", "KEYS", "LEFT", "-1", "COUNT", "x y"];
    let mut state = number as u64 + 1;
    let mut next = |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap_or(0) % bound
    };
    let count = next(7);
    let mut words = vec!["COMMAND", "GETKEYSANDFLAGS"];
    words.extend(name.split('|'));
    words.extend((0..count).map(|_| WORDS[next(WORDS.len())]));
    words
}

#[test]
fn commands_are_described_as_by_valkey() {
    let Some(dir) = programs::valkey_or_skip("descriptions of commands") else { return };
    let keyward = Server::keyward(&[]).unwrap();
    let valkey = Server::valkey(&dir, &[]).unwrap();
    let mut ours = Connection::connect(&keyward.addr()).unwrap();
    let mut theirs = Connection::connect(&valkey.addr()).unwrap();
    let all = names(&mut ours);
    assert!(200 < all.len(), "{all:?}");
    let mut differences = Vec::new();
    for name in all.iter().filter(|name| !NOT_IN_VALKEY.contains(&name.as_str())) {
        let (mine, real) = (docs(&mut ours, name), docs(&mut theirs, name));
        // An argument's own summary, which one option of SET has.
        if mine != real && name != "set" {
            differences.push(format!("DOCS {name}\n  ours {mine:?}\n  real {real:?}"));
        }
        let info = ["COMMAND", "INFO", name];
        // Containers list their subcommands, of which some are missing; specifications of keys may have notes.
        let is_container = all.iter().any(|other| other.starts_with(&format!("{name}|")));
        if !is_container
            && ![
                "bitfield", "eval", "eval_ro", "fcall", "fcall_ro", "getex", "pfcount", "set", "sort",
                "sort_ro", "xadd",
            ]
            .contains(&&**name)
        {
            let (mine, real) = (ask(&mut ours, &info), ask(&mut theirs, &info));
            if !Equality::UnorderedDeep.holds(&mine, &real) {
                differences.push(format!("INFO {name}\n  ours {mine}\n  real {real}"));
            }
        }
        // Valkey finds a last key that lacks its value; such a request is refused by both.
        let requests = if name == "msetex" { 0 } else { REQUESTS };
        for number in 0..requests {
            let words = request(name, number);
            let (mine, real) = (ask(&mut ours, &words), ask(&mut theirs, &words));
            if !Equality::UnorderedDeep.holds(&mine, &real) {
                differences.push(format!("{}\n  ours {mine}\n  real {real}", words.join(" ")));
            }
        }
    }
    assert!(differences.is_empty(), "{} differences\n{}", differences.len(), differences.join("\n"));
}

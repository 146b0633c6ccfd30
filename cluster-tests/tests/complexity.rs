//! What a command costs grows with a collection as it does in Valkey.
#![allow(clippy::unwrap_used, reason = "a test")]

use cluster_tests::complexity::cases::{CASES, WITHOUT_CASE};
use cluster_tests::complexity::{Sizes, measure};
use cluster_tests::processes::Server;
use cluster_tests::programs;
use keyward_node::command::table::commands;

/// Ten times as many elements: what is quadratic costs a hundred times as much.
const SIZES: Sizes = Sizes { small: 4_000, large: 40_000 };

#[test]
fn costs_grow_as_valkeys_do() {
    let Some(dir) = programs::valkey_or_skip("growth of costs") else { return };
    let valkey = Server::valkey(&dir, &[]).unwrap();
    let keyward = Server::keyward(&[]).unwrap();
    let mut bad = Vec::new();
    for case in CASES {
        let finding = measure(case, SIZES, &keyward, &valkey).unwrap();
        println!("{finding}");
        if !finding.is_fine() {
            bad.push(finding.to_string());
        }
    }
    assert!(bad.is_empty(), "these grow more than five times as fast as Valkey's:\n{}", bad.join("\n"));
}

#[test]
fn every_command_has_a_case_or_a_reason() {
    let words = |text: &str| {
        text.split(|c: char| !c.is_ascii_uppercase() && c != '_').map(str::to_owned).collect::<Vec<_>>()
    };
    let named: Vec<String> = CASES.iter().flat_map(|case| words(case.name)).collect();
    for row in commands() {
        let has_case = named.iter().any(|word| *word == row.name.to_ascii_uppercase());
        let is_listed = WITHOUT_CASE.contains(&row.name);
        assert!(has_case != is_listed, "{}: a case in cases.rs, or a place in WITHOUT_CASE", row.name);
    }
}

//! What the programs are made of is what `deny.toml` allows, and nothing is named that is not used.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::{Path, PathBuf};

use cluster_tests::supply::{Rules, Supply};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn rules() -> Rules {
    Rules::parse(&std::fs::read_to_string(root().join("deny.toml")).unwrap())
}

#[test]
fn licences_and_sources_are_those_that_are_allowed() {
    let (supply, mut rules) = (Supply::of(&root()).unwrap(), rules());
    assert!(rules.licenses.contains("MIT") && rules.banned.contains("openssl-sys"), "{rules:?}");
    assert_eq!(supply.broken(&rules), [""; 0]);
    // A rule that allows less finds something.
    rules.licenses.remove("Unicode-3.0");
    rules.banned.insert("tokio".into());
    let broken = supply.broken(&rules);
    assert!(
        broken.iter().any(|line| line.starts_with("tokio ") && line.ends_with(" is banned")),
        "{broken:?}"
    );
    assert!(broken.iter().any(|line| line.contains("Unicode-3.0")), "{broken:?}");
}

#[test]
fn nothing_is_named_that_is_not_used() {
    assert_eq!(Supply::of(&root()).unwrap().unused(), [""; 0]);
}

#[test]
fn the_bill_of_materials_has_all_of_a_program_and_nothing_of_its_tests() {
    let supply = Supply::of(&root()).unwrap();
    let bill = supply.bill_of_materials("keyward-node").unwrap();
    assert_eq!((&bill["bomFormat"], &bill["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
    let components = bill["components"].as_array().unwrap();
    let has = |name: &str| components.iter().any(|component| component["name"] == name);
    for part in ["tokio", "rustls", "mlua", "tikv-jemallocator", "keyward-store"] {
        assert!(has(part), "{part}");
    }
    for other in ["cluster-tests", "redis", "openraft"] {
        assert!(!has(other), "{other}");
    }
    let refs = bill["dependencies"].as_array().unwrap();
    assert_eq!(refs.len(), components.len() + 1, "one entry for each, and the program itself");
    assert!(
        components.iter().all(|c| c["licenses"][0]["expression"].as_str().is_some_and(|l| !l.is_empty()))
    );
    assert!(supply.bill_of_materials("keyward-nothing").is_err());
}

//! What the programs are made of: licences, sources, what is used of it, and the bill of materials (CycloneDX).
//!
//! The rules are those of `deny.toml`, which `cargo deny` reads as well; here they are checked with what Cargo itself says,
//! so that a test needs no other program.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Used by code that is generated when it is built.
const OF_GENERATED_CODE: &[&str] = &["tonic-prost"];

/// A crate, as Cargo knows it.
#[derive(Debug, Clone)]
pub struct Package {
    pub id: String,
    pub name: String,
    pub version: String,
    pub license: String,
    /// `None`: of this project.
    pub source: Option<String>,
    pub folder: PathBuf,
    /// Of its own, by the name that its code uses.
    pub dependencies: BTreeSet<String>,
}

/// All crates, and which ones each is made of.
#[derive(Debug, Clone)]
pub struct Supply {
    pub packages: BTreeMap<String, Package>,
    /// Without those that only tests need.
    made_of: BTreeMap<String, BTreeSet<String>>,
}

/// What `deny.toml` allows and forbids.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    pub licenses: BTreeSet<String>,
    pub banned: BTreeSet<String>,
}

impl Rules {
    /// Of a file in the form of ours: lists of words in quotes.
    pub fn parse(text: &str) -> Rules {
        let section = |name: &str, list: &str| {
            let section = text.split_once(&format!("[{name}]")).map_or("", |(_, behind)| behind);
            let section = section.split("\n[").next().unwrap_or_default();
            let list = section.split_once(&format!("\n{list} = [")).map_or("", |(_, behind)| behind);
            let list = list.split("\n]").next().unwrap_or_default();
            list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
        };
        Rules { licenses: section("licenses", "allow"), banned: section("bans", "deny") }
    }
}

impl Supply {
    /// What Cargo says of the workspace in `folder`.
    ///
    /// # Errors
    /// Cargo's words.
    pub fn of(folder: &Path) -> Result<Supply, String> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["metadata", "--format-version", "1", "--locked"])
            .current_dir(folder)
            .output()
            .map_err(|e| format!("cargo metadata: {e}"))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let value: Value = serde_json::from_slice(&output.stdout).map_err(|e| e.to_string())?;
        let list = |value: &Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
        let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let packages = list(&value, "packages").into_iter().map(|package| {
            let names = list(&package, "dependencies").into_iter().map(|dependency| {
                dependency["rename"].as_str().map_or_else(|| text(&dependency, "name"), str::to_owned)
            });
            let id = text(&package, "id");
            let known = Package {
                id: id.clone(),
                name: text(&package, "name"),
                version: text(&package, "version"),
                license: text(&package, "license"),
                source: package["source"].as_str().map(str::to_owned),
                folder: Path::new(&text(&package, "manifest_path"))
                    .parent()
                    .unwrap_or(Path::new(""))
                    .to_owned(),
                dependencies: names.collect(),
            };
            (id, known)
        });
        let made_of = list(&value["resolve"], "nodes").into_iter().map(|node| {
            let needed = list(&node, "deps")
                .into_iter()
                .filter(|dependency| list(dependency, "dep_kinds").iter().any(|kind| kind["kind"] != "dev"));
            (text(&node, "id"), needed.map(|dependency| text(&dependency, "pkg")).collect())
        });
        Ok(Supply { packages: packages.collect(), made_of: made_of.collect() })
    }

    /// Crates that break a rule, a line each.
    pub fn broken(&self, rules: &Rules) -> Vec<String> {
        let mut broken = Vec::new();
        for package in self.packages.values() {
            let Package { name, version, license, source, .. } = package;
            if rules.banned.contains(name) {
                broken.push(format!("{name} {version} is banned"));
            }
            let Some(source) = source else { continue };
            if source != CRATES_IO {
                broken.push(format!("{name} {version} comes from {source}"));
            }
            if !allows(license, &rules.licenses) {
                broken.push(format!("{name} {version} has the licence {license:?}"));
            }
        }
        broken
    }

    /// Crates of this project with what they name and do not use.
    pub fn unused(&self) -> Vec<String> {
        let own: Vec<&Package> = self.packages.values().filter(|package| package.source.is_none()).collect();
        let mut unused = Vec::new();
        for package in &own {
            let others: Vec<&Path> = own
                .iter()
                .map(|p| &*p.folder)
                .filter(|f| *f != package.folder && f.starts_with(&package.folder))
                .collect();
            let mut code = String::new();
            read_code(&package.folder, &others, &mut code);
            for name in &package.dependencies {
                if !OF_GENERATED_CODE.contains(&name.as_str()) && !uses(&code, &name.replace('-', "_")) {
                    unused.push(format!("{} does not use {name}", package.name));
                }
            }
        }
        unused
    }

    /// The bill of materials of one of our crates, as CycloneDX 1.5.
    ///
    /// # Errors
    /// There is no such crate.
    pub fn bill_of_materials(&self, name: &str) -> Result<Value, String> {
        let own = |package: &&Package| package.name == name && package.source.is_none();
        let root = self.packages.values().find(own).ok_or_else(|| format!("there is no crate {name}"))?;
        let (mut reached, mut left) = (BTreeSet::new(), vec![root.id.clone()]);
        while let Some(id) = left.pop() {
            if reached.insert(id.clone()) {
                left.extend(self.made_of.get(&id).into_iter().flatten().cloned());
            }
        }
        let parts = reached.iter().filter(|id| **id != root.id).filter_map(|id| self.packages.get(id));
        let edges = reached.iter().filter_map(|id| {
            let on = self.made_of.get(id)?.iter().filter_map(|id| self.packages.get(id)).map(reference);
            Some(json!({"ref": reference(self.packages.get(id)?), "dependsOn": on.collect::<Vec<_>>()}))
        });
        Ok(json!({
            "bomFormat": "CycloneDX",
            "specVersion": "1.5",
            "version": 1,
            "metadata": {"component": component(root, "application")},
            "components": parts.map(|part| component(part, "library")).collect::<Vec<_>>(),
            "dependencies": edges.collect::<Vec<_>>(),
        }))
    }
}

/// Package URL: <https://github.com/package-url/purl-spec>.
fn reference(package: &Package) -> String {
    format!("pkg:cargo/{}@{}", package.name, package.version)
}

fn component(package: &Package, kind: &str) -> Value {
    json!({
        "type": kind,
        "bom-ref": reference(package),
        "name": package.name,
        "version": package.version,
        "purl": reference(package),
        // An SPDX expression; `/` is what Cargo once wrote for OR.
        "licenses": [{"expression": package.license.replace('/', " OR ")}],
    })
}

/// Whether an SPDX expression is fulfilled with the licences that are allowed.
fn allows(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let fulfilled = either(&words, &mut at, allowed);
    fulfilled && at == words.len()
}

fn either(words: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let mut fulfilled = both(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        fulfilled |= both(words, at, allowed);
    }
    fulfilled
}

fn both(words: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let mut fulfilled = one(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        fulfilled &= one(words, at, allowed);
    }
    fulfilled
}

fn one(words: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let Some(word) = words.get(*at) else { return false };
    *at += 1;
    if *word == "(" {
        let fulfilled = either(words, at, allowed);
        *at += 1;
        return fulfilled;
    }
    if words.get(*at) == Some(&"WITH") {
        let exception = words.get(*at + 1).copied().unwrap_or_default();
        *at += 2;
        return allowed.contains(&format!("{word} WITH {exception}"));
    }
    allowed.contains(*word)
}

fn read_code(folder: &Path, without: &[&Path], code: &mut String) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if path.is_dir() && !without.contains(&&*path) && !path.ends_with("target") {
            read_code(&path, without, code);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            code.push_str(&std::fs::read_to_string(&path).unwrap_or_default());
        }
    }
}

/// As a word of its own.
fn uses(code: &str, name: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(name)
        .any(|(at, _)| !code[..at].ends_with(is_word) && !code[at + name.len()..].starts_with(is_word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_understood() {
        let allowed = BTreeSet::from(["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned));
        for fulfilled in [
            "MIT",
            "GPL-3.0 OR MIT",
            "GPL-3.0/MIT",
            "MIT AND (GPL-3.0 OR ISC)",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            assert!(allows(fulfilled, &allowed), "{fulfilled}");
        }
        for not in [
            "",
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "Apache-2.0",
            "Apache-2.0 WITH x",
            "(GPL-3.0 OR X) AND MIT",
            "MIT )",
        ] {
            assert!(!allows(not, &allowed), "{not}");
        }
    }

    #[test]
    fn a_name_is_used_as_a_word() {
        assert!(uses("use tokio::net;", "tokio") && uses("tokio", "tokio"));
        assert!(!uses("use tokio_rustls::x; my_tokio", "tokio"));
    }
}

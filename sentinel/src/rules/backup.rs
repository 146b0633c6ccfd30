//! What a backup consists of, what is kept of several, and where what is restored goes. Pure.
//!
//! A backup is a folder named after its time, with a file in the RDB format for each shard and [`MANIFEST`], which is
//! written last.

use keyward_proto::slot::{SLOT_COUNT, Slot};
use serde::{Deserialize, Serialize};

use crate::rules::status::{NodeStatus, ShardStatus};

/// The name of the file that says what is in a backup.
pub(crate) const MANIFEST: &str = "manifest.json";
/// Grows when older programs cannot read it any more.
const FORMAT: u32 = 1;

/// See [`MANIFEST`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub format: u32,
    /// When it was begun: RFC 3339, UTC.
    pub begun: String,
    pub program_version: String,
    pub shards: Vec<ShardFile>,
}

/// A shard as it was at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShardFile {
    pub file: String,
    pub shard: String,
    pub name: String,
    /// Ranges, such as `0-5460`.
    pub slots: Vec<String>,
    /// The node that it was read from.
    pub node: String,
    pub keys: u64,
    pub bytes: u64,
    /// SHA-256 of the file, in hexadecimal digits.
    pub sha256: String,
}

impl Manifest {
    pub(crate) fn new(begun: String, shards: Vec<ShardFile>) -> Manifest {
        Manifest { format: FORMAT, begun, program_version: env!("CARGO_PKG_VERSION").to_owned(), shards }
    }

    /// # Errors
    /// In words.
    pub(crate) fn parse(text: &[u8]) -> Result<Manifest, String> {
        let manifest: Manifest = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if manifest.format != FORMAT {
            return Err(format!(
                "it is of format {}, and this program reads format {FORMAT}",
                manifest.format
            ));
        }
        let is_name = |name: &str| !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']);
        match manifest.shards.iter().find(|shard| !is_name(&shard.file)) {
            Some(shard) => Err(format!("{:?} is no name of a file in it", shard.file)),
            None => Ok(manifest),
        }
    }
}

/// The folder of a backup that was begun at this time, so that names sort by age.
pub(crate) fn folder_name(begun: &str) -> String {
    begun.replace(':', "-")
}

/// The name of the folder while the backup is not complete.
pub(crate) fn partial_name(name: &str) -> String {
    format!(".{name}.partial")
}

/// Whether this folder is what was left of an earlier backup whose program was ended.
pub(crate) fn is_left_over(folder: &str, name: &str) -> bool {
    let begun = folder.strip_prefix('.').and_then(|rest| rest.strip_suffix(".partial"));
    begun.is_some_and(|begun| is_backup(begun) && begun < name)
}

/// Whether a folder is named as backups are: `2026-12-01T13-15-01Z`.
fn is_backup(name: &str) -> bool {
    const PATTERN: &str = "dddd-dd-ddTdd-dd-ddZ";
    name.len() == PATTERN.len()
        && name.chars().zip(PATTERN.chars()).all(|(c, p)| if p == 'd' { c.is_ascii_digit() } else { c == p })
}

/// Which of the complete backups go if so many are kept: the oldest.
pub(crate) fn surplus(names: impl IntoIterator<Item = String>, kept: usize) -> Vec<String> {
    let mut names: Vec<String> = names.into_iter().filter(|name| is_backup(name)).collect();
    names.sort();
    names.truncate(names.len().saturating_sub(kept));
    names
}

/// From whom a shard is read: a replica that is in sync, so that the primary has no work with it; then the primary.
pub(crate) fn sources(shard: &ShardStatus) -> Vec<&NodeStatus> {
    let replicas =
        shard.nodes.iter().filter(|node| node.role == "replica" && node.in_sync && node.state == "up");
    replicas.chain(primary(shard)).collect()
}

pub(crate) fn primary(shard: &ShardStatus) -> Option<&NodeStatus> {
    shard.nodes.iter().find(|node| node.role == "primary" && node.state == "up")
}

/// Which shard of the list has each slot.
///
/// # Errors
/// One that none has, or whose shard has no primary, in words.
pub(crate) fn owners(shards: &[ShardStatus]) -> Result<Vec<usize>, String> {
    let mut owners = vec![None; usize::from(SLOT_COUNT)];
    for (number, shard) in shards.iter().enumerate() {
        if primary(shard).is_none() && !shard.slots.is_empty() {
            return Err(format!("{} has no primary", shard.name));
        }
        for range in &shard.slots {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let slot = |text: &str| text.parse().ok().and_then(Slot::new);
            let (Some(first), Some(last)) = (slot(first), slot(last)) else {
                return Err(format!("{range:?} are no slots"));
            };
            owners[first.index()..=last.index()].fill(Some(number));
        }
    }
    let missing = owners.iter().position(Option::is_none);
    match missing {
        Some(slot) => Err(format!("slot {slot} belongs to no shard")),
        None => Ok(owners.into_iter().flatten().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(slots: &[&str], nodes: &[(&str, bool, &str)]) -> ShardStatus {
        let nodes = nodes.iter().enumerate().map(|(n, (role, in_sync, state))| {
            serde_json::json!({
                "id": format!("n{n}"), "address": format!("host:{n}"), "zone": "", "incarnation": 1, "role": role,
                "in_sync": in_sync, "restarted": false, "state": state, "last": "", "commit_index": 0, "lag": null,
                "keys": 0,
            })
        });
        serde_json::from_value(serde_json::json!({
            "id": "s", "name": "mymaster", "slots": slots, "term": 1, "in_sync_version": 1, "primary": null, "waits": "",
            "nodes": nodes.collect::<Vec<_>>(),
        }))
        .unwrap()
    }

    #[test]
    fn replicas_in_sync_are_read_first() {
        let all = [
            ("primary", true, "up"),
            ("replica", false, "up"),
            ("replica", true, "down"),
            ("replica", true, "up"),
        ];
        let shard = shard(&["0-16383"], &all);
        let ids: Vec<_> = sources(&shard).into_iter().map(|node| node.id.as_str()).collect();
        assert_eq!(ids, ["n3", "n0"]);
    }

    #[test]
    fn every_slot_has_a_place() {
        let up = [("primary", true, "up")];
        let shards = [shard(&["0-99", "200"], &up), shard(&["100-199", "201-16383"], &up)];
        let owners = owners(&shards).unwrap();
        assert_eq!([0, 99, 100, 199, 200, 201, 16383].map(|slot| owners[slot]), [0, 0, 1, 1, 0, 1, 1]);
        assert_eq!(super::owners(&shards[..1]).unwrap_err(), "slot 100 belongs to no shard");
        let down = [shard(&["0-16383"], &[("primary", true, "down")])];
        assert_eq!(super::owners(&down).unwrap_err(), "mymaster has no primary");
    }

    #[test]
    fn the_oldest_go_and_nothing_else() {
        let names =
            ["2026-12-01T13-15-01Z", "2026-11-01T00-00-00Z", "lost+found", "2026-12-02T13-15-01Z", "2026"];
        let surplus = |kept| surplus(names.map(str::to_owned), kept);
        assert_eq!(surplus(1), ["2026-11-01T00-00-00Z", "2026-12-01T13-15-01Z"]);
        assert_eq!(surplus(9), [""; 0]);
        let name = folder_name("2026-12-01T13:15:01Z");
        assert!(is_backup(&name));
        assert!(is_left_over(&partial_name("2026-12-01T13-15-00Z"), &name));
        for other in
            [&partial_name(&name), &partial_name("2026-12-02T00-00-00Z"), ".partial", "2026-12-01T13-15-00Z"]
        {
            assert!(!is_left_over(other, &name), "{other}");
        }
    }

    #[test]
    fn a_manifest_names_nothing_outside_its_folder() {
        let manifest = |file: &str| {
            let file = ShardFile {
                file: file.into(),
                shard: "s".into(),
                name: "mymaster".into(),
                slots: vec!["0-16383".into()],
                node: "host:1".into(),
                keys: 1,
                bytes: 2,
                sha256: "00".into(),
            };
            Manifest::new("2026-12-01T13:15:01Z".into(), vec![file])
        };
        let parse = |manifest: &Manifest| Manifest::parse(&serde_json::to_vec(manifest).unwrap());
        assert_eq!(parse(&manifest("shard-1.rdb")).unwrap(), manifest("shard-1.rdb"));
        for file in ["", "../x", "/etc/passwd", ".."] {
            assert!(parse(&manifest(file)).unwrap_err().ends_with("is no name of a file in it"));
        }
        let newer = Manifest { format: 2, ..manifest("shard-1.rdb") };
        assert_eq!(parse(&newer).unwrap_err(), "it is of format 2, and this program reads format 1");
    }
}

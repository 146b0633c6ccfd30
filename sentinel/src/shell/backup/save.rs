//! Each shard as one of its nodes has it at one moment, into a file.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use keyward_store::rdb::check::{Report, check};
use sha2::{Digest, Sha256};

use super::client::{Access, Client};
use super::{access, hex, now, tell};
use crate::config::{Access as AccessArguments, Target};
use crate::rules::backup::{self, MANIFEST, Manifest, ShardFile};
use crate::rules::status::{NodeStatus, ShardStatus};

/// The mark at the end of a file whose length is not known before.
const MARK_BYTES: usize = 40;
/// How long a replica may take to have what the primary had when the backup began; then the primary is read.
const CATCH_UP: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Between two lines that say how far it is.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Writes a backup of these shards into a new folder in `to`; then the oldest go beyond `keep`. Returns what was done.
///
/// # Errors
/// In words; then there is no backup, and nothing of it is left.
pub(crate) async fn save(
    shards: &[ShardStatus],
    (to, keep): (&Path, Option<usize>),
    (arguments, target): (&AccessArguments, &Target),
) -> Result<String, String> {
    let access = access(arguments, &target.tls)?;
    let begun = now();
    let name = backup::folder_name(&begun);
    let (partial, whole) = (to.join(backup::partial_name(&name)), to.join(&name));
    let in_words = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
    if whole.exists() {
        return Err(format!("{} is there already", whole.display()));
    }
    fs::create_dir_all(&partial).map_err(|e| in_words(&partial, e))?;
    let with_slots = || shards.iter().filter(|shard| !shard.slots.is_empty()).enumerate();
    let saved = try_join_all(with_slots().map(|(number, shard)| {
        let file = format!("shard-{}.rdb", number + 1);
        save_shard(shard, partial.join(&file), file, &access)
    }));
    let done = async {
        let manifest = Manifest::new(begun, saved.await?);
        let text = serde_json::to_vec_pretty(&manifest).map_err(|error| error.to_string())?;
        let path = partial.join(MANIFEST);
        write_synced(&path, &text).map_err(|e| in_words(&path, e))?;
        sync_folder(&partial).map_err(|e| in_words(&partial, e))?;
        fs::rename(&partial, &whole).map_err(|e| in_words(&whole, e))?;
        sync_folder(to).map_err(|e| in_words(to, e))?;
        Ok(manifest)
    };
    let manifest = match done.await {
        Ok(manifest) => manifest,
        Err(error) => {
            drop(fs::remove_dir_all(&partial));
            return Err(error);
        }
    };
    let (keys, bytes) =
        manifest.shards.iter().fold((0, 0), |(k, b), shard| (k + shard.keys, b + shard.bytes));
    let mut text =
        format!("{}: {} shards, {keys} keys, {bytes} bytes", whole.display(), manifest.shards.len());
    for old in left_over(to, &name).into_iter().chain(keep.map_or_else(Vec::new, |keep| surplus(to, keep))) {
        fs::remove_dir_all(to.join(&old)).map_err(|e| in_words(&to.join(&old), e))?;
        text.push_str(&format!("\nremoved {old}"));
    }
    Ok(text)
}

fn names_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn surplus(folder: &Path, keep: usize) -> Vec<String> {
    let complete = names_in(folder).into_iter().filter(|name| folder.join(name).join(MANIFEST).is_file());
    backup::surplus(complete, keep.max(1))
}

/// What was left by programs that were ended while they saved.
fn left_over(folder: &Path, name: &str) -> Vec<String> {
    names_in(folder).into_iter().filter(|other| backup::is_left_over(other, name)).collect()
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// From the first node of the shard that gives all of it.
async fn save_shard(
    shard: &ShardStatus,
    path: PathBuf,
    file: String,
    access: &Access,
) -> Result<ShardFile, String> {
    let wanted = match backup::primary(shard) {
        Some(primary) => {
            executed(&mut Client::connect(&primary.address, access).await?, "master_repl_offset").await?
        }
        None => return Err(format!("{} has no primary", shard.name)),
    };
    let mut failures = Vec::new();
    for node in backup::sources(shard) {
        match save_from(node, wanted, &path, access).await {
            Ok((keys, bytes, sha256)) => {
                let (shard, name, slots) = (shard.id.clone(), shard.name.clone(), shard.slots.clone());
                tell(&format!("{name}: {keys} keys, {bytes} bytes of {}", node.address));
                return Ok(ShardFile {
                    file,
                    shard,
                    name,
                    slots,
                    node: node.address.clone(),
                    keys,
                    bytes,
                    sha256,
                });
            }
            Err(error) => {
                tell(&format!("{}: {error}", shard.name));
                failures.push(error);
            }
        }
    }
    Err(format!("{}: no node gives its keys: {}", shard.name, failures.join("; ")))
}

/// How far a node has executed, in entries of the write log.
async fn executed(client: &mut Client, field: &str) -> Result<u64, String> {
    let info = client.call(&[b"INFO", b"replication"]).await?;
    let info = String::from_utf8_lossy(&info).into_owned();
    let value =
        info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')?.trim().parse().ok());
    value.ok_or_else(|| format!("the node does not say {field}"))
}

async fn save_from(
    node: &NodeStatus,
    wanted: u64,
    path: &Path,
    access: &Access,
) -> Result<(u64, u64, String), String> {
    let mut client = Client::connect(&node.address, access).await?;
    if node.role == "replica" {
        let begun = Instant::now();
        while executed(&mut client, "slave_repl_offset").await? < wanted {
            if CATCH_UP < begun.elapsed() {
                return Err(format!("{} is too far behind", node.address));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    let (bytes, sha256) = download(&mut client, node, path).await?;
    let report = read_back(path).await?;
    let keys = report.databases.values().map(|db| db.all).sum();
    Ok((keys, bytes, sha256))
}

/// The keyspace of a node, as it is now.
async fn download(client: &mut Client, node: &NodeStatus, path: &Path) -> Result<(u64, String), String> {
    client.call(&[b"REPLCONF", b"capa", b"eof", b"rdb-only", b"1"]).await?;
    client.send(b"*1\r\n$4\r\nSYNC\r\n").await?;
    let line = client.line().await?;
    let not_understood = || format!("{}: no file comes: {}", node.address, line.escape_ascii());
    let mark: [u8; MARK_BYTES] =
        line.strip_prefix(b"$EOF:").and_then(|mark| mark.try_into().ok()).ok_or_else(not_understood)?;
    let in_words = |error: io::Error| format!("{}: {error}", path.display());
    let mut file = File::create(path).map_err(in_words)?;
    let (mut digest, mut len, mut held) = (Sha256::new(), 0, Vec::new());
    let mut told = Instant::now();
    loop {
        let piece = client.some().await?;
        if piece.is_empty() {
            return Err(format!("{}: the file has no end", node.address));
        }
        held.extend_from_slice(&piece);
        // Nothing comes behind the mark.
        let is_whole = held.ends_with(&mark);
        let ready = held.len().saturating_sub(MARK_BYTES);
        file.write_all(&held[..ready]).map_err(in_words)?;
        digest.update(&held[..ready]);
        len += ready as u64;
        held.drain(..ready);
        if is_whole {
            file.sync_all().map_err(in_words)?;
            return Ok((len, hex(&digest.finalize())));
        }
        if TELL_EVERY < told.elapsed() {
            told = Instant::now();
            tell(&format!("{}: {} MB", node.address, len >> 20));
        }
    }
}

/// Reads every value of the file: what cannot be read is no backup.
async fn read_back(path: &Path) -> Result<Report, String> {
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        let file = File::open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let total = file.metadata().map(|metadata| metadata.len()).ok();
        let report = check(file, total);
        match &report.error {
            Some(error) => Err(format!("{} cannot be read back: {error}", path.display())),
            None => Ok(report),
        }
    });
    read.await.map_err(|error| error.to_string())?
}

//! What a backup holds, into the shards of a running cluster: each key to whoever has its slot now.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use bytes::BytesMut;
use futures::future::try_join_all;
use keyward_proto::resp::reply::write_command;
use keyward_proto::slot::Slot;
use keyward_store::rdb::file::{Reader, Trust};
use keyward_store::rdb::record::{Access as Clock, Record};
use keyward_store::rdb::{VersionCheck, payload};
use tokio::sync::mpsc;

use super::client::{Access, Client};
use super::{access, sha256_of, tell};
use crate::config::{Access as AccessArguments, Target};
use crate::rules::backup::{self, MANIFEST, Manifest};
use crate::rules::status::ShardStatus;

/// Of commands that are sent together.
const BATCH_BYTES: usize = 256 << 10;
const BATCH_LEN: usize = 128;
/// Batches that wait for a shard.
const QUEUE_LEN: usize = 4;

/// What becomes of keys that the cluster has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    /// There must be none.
    None,
    /// They are replaced by those of the backup that have the same names.
    Replaced,
}

/// Commands, and how many replies they get.
type Batch = (BytesMut, usize);

/// Restores the backup in the folder `from`, or what is in an RDB file of that name. Returns what was done.
///
/// # Errors
/// In words. What was restored until then stays.
pub(crate) async fn restore(
    shards: &[ShardStatus],
    (from, existing): (&Path, Existing),
    (arguments, target): (&AccessArguments, &Target),
) -> Result<String, String> {
    let access = access(arguments, &target.tls)?;
    let files = files(from)?;
    let owners = backup::owners(shards)?;
    let addresses: Vec<&str> =
        shards.iter().map(|shard| backup::primary(shard).map_or("", |node| node.address.as_str())).collect();
    for address in addresses.iter().filter(|address| !address.is_empty()) {
        check_empty(address, existing, &access).await?;
    }
    let mut senders = Vec::new();
    let mut tasks = Vec::new();
    for address in addresses {
        let (sender, batches) = mpsc::channel(QUEUE_LEN);
        senders.push(sender);
        if !address.is_empty() {
            tasks.push(load(address, batches, &access));
        }
    }
    let reading = async {
        let read = tokio::task::spawn_blocking(move || read(&files, existing, &owners, &senders));
        read.await.map_err(|error| error.to_string())?
    };
    let (keys, _) = tokio::try_join!(reading, try_join_all(tasks))?;
    Ok(format!("{keys} keys of {} are restored", from.display()))
}

/// The file that is meant, whoever has written it; or those of a backup, when they are what its manifest speaks of.
fn files(from: &Path) -> Result<Vec<PathBuf>, String> {
    if from.is_file() {
        return Ok(vec![from.to_owned()]);
    }
    let path = from.join(MANIFEST);
    let text = std::fs::read(&path).map_err(|e| format!("no backup is there: {}: {e}", path.display()))?;
    let manifest = Manifest::parse(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut files = Vec::new();
    for shard in &manifest.shards {
        let path = from.join(&shard.file);
        let sum = sha256_of(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        if sum != shard.sha256 {
            return Err(format!("{} is not what was saved: its SHA-256 is {sum}", path.display()));
        }
        files.push(path);
    }
    Ok(files)
}

async fn check_empty(address: &str, existing: Existing, access: &Access) -> Result<(), String> {
    let keyspace = Client::connect(address, access).await?.call(&[b"INFO", b"keyspace"]).await?;
    let has_keys = String::from_utf8_lossy(&keyspace).lines().any(|line| line.starts_with("db"));
    if has_keys && existing == Existing::None {
        return Err(format!(
            "{address} has keys already. Nothing was restored: empty the cluster (FLUSHALL on each primary), or take \
             --replace, by which keys of the backup replace those of the same names and all others stay"
        ));
    }
    Ok(())
}

/// Sends a shard its batches, one under way while the next is read.
async fn load(address: &str, mut batches: mpsc::Receiver<Batch>, access: &Access) -> Result<(), String> {
    let mut client = Client::connect(address, access).await?;
    while let Some((commands, replies)) = batches.recv().await {
        client.send(&commands).await?;
        for _ in 0..replies {
            client.reply().await?;
        }
    }
    Ok(())
}

/// What is to be sent to a shard.
struct Outgoing<'a> {
    sender: &'a mpsc::Sender<Batch>,
    commands: BytesMut,
    replies: usize,
    db: u16,
}

impl Outgoing<'_> {
    fn add(&mut self, words: &[&[u8]]) -> Result<(), String> {
        write_command(&mut self.commands, words);
        self.replies += 1;
        let is_full = BATCH_BYTES <= self.commands.len() || BATCH_LEN <= self.replies;
        if is_full { self.flush() } else { Ok(()) }
    }

    fn select(&mut self, db: u16) -> Result<(), String> {
        if std::mem::replace(&mut self.db, db) == db {
            return Ok(());
        }
        self.add(&[b"SELECT", db.to_string().as_bytes()])
    }

    fn flush(&mut self) -> Result<(), String> {
        let batch = (std::mem::take(&mut self.commands), std::mem::take(&mut self.replies));
        // If nobody takes it any more, what ended that is told.
        if batch.1 == 0 { Ok(()) } else { self.sender.blocking_send(batch).map_err(|_| String::new()) }
    }
}

/// Reads all files, and sends each key where it belongs. Returns how many there were.
fn read(
    files: &[PathBuf],
    existing: Existing,
    owners: &[usize],
    senders: &[mpsc::Sender<Batch>],
) -> Result<u64, String> {
    let mut shards: Vec<Outgoing<'_>> = senders
        .iter()
        .map(|sender| Outgoing { sender, commands: BytesMut::new(), replies: 0, db: 0 })
        .collect();
    let mut keys = 0;
    for path in files {
        let in_words = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let opened = File::open(path).map_err(|e| in_words(&e))?;
        let total = opened.metadata().map(|metadata| metadata.len()).ok();
        let mut reader = Reader::new(BufReader::new(opened), total, Trust::Verify, VersionCheck::Strict)
            .map_err(|e| in_words(&e))?;
        while let Some(chunk) = reader.next_chunk().map_err(|e| in_words(&e))? {
            for span in &chunk.spans {
                let record = Record::open(chunk.record(span)).map_err(|e| in_words(&e))?;
                let key = record.key.clone().into_vec();
                let shard = &mut shards[owners[Slot::of(&key).index()]];
                shard.select(span.db)?;
                shard.add(&words(&record, &key, existing).iter().map(Vec::as_slice).collect::<Vec<_>>())?;
                keys += 1;
            }
        }
        for source in &reader.facts().functions {
            let load: [&[u8]; 4] = [b"FUNCTION", b"LOAD", b"REPLACE", source];
            shards.iter_mut().try_for_each(|shard| shard.add(&load))?;
        }
        tell(&format!("{}: read", path.display()));
    }
    shards.iter_mut().try_for_each(Outgoing::flush)?;
    Ok(keys)
}

/// RESTORE of a record.
fn words(record: &Record<'_>, key: &[u8], existing: Existing) -> Vec<Vec<u8>> {
    let expire_at = record.expire_at.map_or(0, |at| at.max(1));
    let mut words = vec![
        b"RESTORE".to_vec(),
        key.to_vec(),
        expire_at.to_string().into_bytes(),
        payload::of_record(record),
    ];
    if record.expire_at.is_some() {
        words.push(b"ABSTTL".to_vec());
    }
    if existing == Existing::Replaced {
        words.push(b"REPLACE".to_vec());
    }
    match record.access {
        Some(Clock::IdleSeconds(seconds)) => {
            words.extend([b"IDLETIME".to_vec(), seconds.to_string().into_bytes()])
        }
        Some(Clock::Frequency(frequency)) => {
            words.extend([b"FREQ".to_vec(), frequency.to_string().into_bytes()])
        }
        None => {}
    }
    words
}

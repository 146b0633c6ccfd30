//! The durable store: one redb file with the vote, the log, the last snapshot and the sentinel's identity.
//!
//! Vote and log entries are on disk before the call returns. The state machine itself lives in memory: it is the
//! last snapshot plus the log up to the committed position, which is written without waiting for the disk (it may
//! be behind after a power failure; the leader then tells).

#![allow(clippy::disallowed_methods, reason = "shell: writes to the disk on a thread of its own")]

use std::fmt::Debug;
use std::io::Cursor;
use std::ops::RangeBounds;
use std::path::Path;
use std::sync::Arc;

use keyward_proto::format::{self, FORMAT};
use keyward_proto::topology::Topology;
use openraft::storage::{LogFlushed, LogState, RaftLogStorage, RaftStateMachine, Snapshot};
use openraft::{
    AnyError, BasicNode, ErrorSubject, ErrorVerb, OptionalSend, RaftLogReader, RaftSnapshotBuilder,
    SnapshotMeta, StorageError, StoredMembership, Vote,
};
use parking_lot::Mutex;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::state::{State, StoredSnapshot, bounds};
use super::{Applied, LogId, RaftId, TypeConfig};
use crate::shell::flight::Flight;

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// Key in [`META`].
const FORMAT_KEY: &str = "format";

const FILE_NAME: &str = "sentinel.redb";

type Entry = openraft::Entry<TypeConfig>;
type RaftResult<T> = Result<T, StorageError<RaftId>>;

/// Why the directory cannot be used; each is one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot use directory {dir}: {source}")]
    Directory { dir: String, source: std::io::Error },
    #[error("directory {dir} is in use by another process")]
    Locked { dir: String },
    #[error("cannot open the store in {dir}: {reason}")]
    Store { dir: String, reason: String },
}

/// Any failure of the disk or of what is on it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Redb(#[from] redb::Error),
    #[error("undecodable value: {0}")]
    Decode(#[from] serde_json::Error),
    #[error("the storage task was cancelled")]
    Cancelled,
}

macro_rules! from_redb {
    ($($error:ident),*) => {
        $(impl From<redb::$error> for StoreError {
            fn from(e: redb::$error) -> Self {
                StoreError::Redb(e.into())
            }
        })*
    };
}
from_redb!(TransactionError, TableError, StorageError, CommitError, SetDurabilityError);

/// Handle to the file; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    database: Arc<Database>,
}

impl Store {
    /// Opens or creates the store in a directory.
    ///
    /// # Errors
    /// [`OpenError`]
    pub(crate) fn open(dir: &Path) -> Result<Store, OpenError> {
        let name = || dir.display().to_string();
        std::fs::create_dir_all(dir).map_err(|source| OpenError::Directory { dir: name(), source })?;
        let database = Database::create(dir.join(FILE_NAME)).map_err(|e| match e {
            redb::DatabaseError::DatabaseAlreadyOpen => OpenError::Locked { dir: name() },
            redb::DatabaseError::Storage(redb::StorageError::Io(source)) => {
                OpenError::Directory { dir: name(), source }
            }
            e @ (redb::DatabaseError::RepairAborted
            | redb::DatabaseError::UpgradeRequired(_)
            | redb::DatabaseError::TransactionInProgress
            | redb::DatabaseError::Storage(_)
            | _) => OpenError::Store { dir: name(), reason: e.to_string() },
        })?;
        let store = Store { database: Arc::new(database) };
        store
            .write_now(Durability::Immediate, |tx| {
                tx.open_table(LOG)?;
                tx.open_table(META)?;
                Ok(())
            })
            .map_err(|e| OpenError::Store { dir: name(), reason: e.to_string() })?;
        store.check_format().map_err(|reason| OpenError::Store { dir: name(), reason })?;
        Ok(store)
    }

    /// What is in the store has a format, if there is anything; from now on it is that of this program.
    fn check_format(&self) -> Result<(), String> {
        let found: Option<u32> = self.read(FORMAT_KEY).map_err(|e| e.to_string())?;
        if found.is_some() || !self.is_empty().map_err(|e| e.to_string())? {
            format::check_file(found.unwrap_or_default()).map_err(|foreign| foreign.to_string())?;
        }
        if found == Some(FORMAT) {
            return Ok(());
        }
        self.write(FORMAT_KEY, &FORMAT).map_err(|e| e.to_string())
    }

    fn is_empty(&self) -> Result<bool, StoreError> {
        let tx = self.database.begin_read()?;
        Ok(tx.open_table(META)?.is_empty()? && tx.open_table(LOG)?.is_empty()?)
    }

    /// A value beside Raft's own, such as the sentinel's identity.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn read<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, StoreError> {
        let tx = self.database.begin_read()?;
        let table = tx.open_table(META)?;
        match table.get(key)? {
            Some(value) => Ok(Some(serde_json::from_slice(value.value())?)),
            None => Ok(None),
        }
    }

    /// Stores a value durably.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn write<T: Serialize>(&self, key: &str, value: &T) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(value)?;
        self.write_now(Durability::Immediate, |tx| {
            tx.open_table(META)?.insert(key, bytes.as_slice())?;
            Ok(())
        })
    }

    fn write_now(
        &self,
        durability: Durability,
        change: impl FnOnce(&redb::WriteTransaction) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut tx = self.database.begin_write()?;
        tx.set_durability(durability)?;
        change(&tx)?;
        tx.commit()?;
        Ok(())
    }

    /// Runs a write off the runtime's threads: it waits for the disk.
    async fn write_blocking(
        &self,
        durability: Durability,
        change: impl FnOnce(&redb::WriteTransaction) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<(), StoreError> {
        let store = self.clone();
        tokio::task::spawn_blocking(move || store.write_now(durability, change))
            .await
            .unwrap_or(Err(StoreError::Cancelled))
    }

    fn entries(&self, from: u64, to: u64) -> Result<Vec<Entry>, StoreError> {
        let tx = self.database.begin_read()?;
        let table = tx.open_table(LOG)?;
        let mut entries = Vec::new();
        for item in table.range(from..to)? {
            entries.push(serde_json::from_slice(item?.1.value())?);
        }
        Ok(entries)
    }

    fn last_entry(&self) -> Result<Option<Entry>, StoreError> {
        let tx = self.database.begin_read()?;
        let table = tx.open_table(LOG)?;
        match table.last()? {
            Some((_, value)) => Ok(Some(serde_json::from_slice(value.value())?)),
            None => Ok(None),
        }
    }
}

fn failed(subject: ErrorSubject<RaftId>, verb: ErrorVerb) -> impl FnOnce(StoreError) -> StorageError<RaftId> {
    move |e| StorageError::IO { source: openraft::StorageIOError::new(subject, verb, AnyError::new(&e)) }
}

impl RaftLogReader<TypeConfig> for Store {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> RaftResult<Vec<Entry>> {
        let (from, to) = bounds(&range);
        self.entries(from, to).map_err(failed(ErrorSubject::Logs, ErrorVerb::Read))
    }
}

impl RaftLogStorage<TypeConfig> for Store {
    type LogReader = Store;

    async fn get_log_state(&mut self) -> RaftResult<LogState<TypeConfig>> {
        let fail = || failed(ErrorSubject::Logs, ErrorVerb::Read);
        let purged: Option<LogId> = self.read("purged").map_err(fail())?;
        let last = self.last_entry().map_err(fail())?.map(|e| e.log_id);
        Ok(LogState { last_purged_log_id: purged, last_log_id: last.or(purged) })
    }

    async fn get_log_reader(&mut self) -> Store {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<RaftId>) -> RaftResult<()> {
        let bytes = serde_json::to_vec(vote).map_err(StoreError::from);
        let bytes = bytes.map_err(failed(ErrorSubject::Vote, ErrorVerb::Write))?;
        self.write_blocking(Durability::Immediate, move |tx| {
            tx.open_table(META)?.insert("vote", bytes.as_slice())?;
            Ok(())
        })
        .await
        .map_err(failed(ErrorSubject::Vote, ErrorVerb::Write))
    }

    async fn read_vote(&mut self) -> RaftResult<Option<Vote<RaftId>>> {
        self.read("vote").map_err(failed(ErrorSubject::Vote, ErrorVerb::Read))
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> RaftResult<()> {
        let bytes = serde_json::to_vec(&committed).map_err(StoreError::from);
        let bytes = bytes.map_err(failed(ErrorSubject::Store, ErrorVerb::Write))?;
        self.write_now(Durability::None, |tx| {
            tx.open_table(META)?.insert("committed", bytes.as_slice())?;
            Ok(())
        })
        .map_err(failed(ErrorSubject::Store, ErrorVerb::Write))
    }

    async fn read_committed(&mut self) -> RaftResult<Option<LogId>> {
        let committed: Option<Option<LogId>> =
            self.read("committed").map_err(failed(ErrorSubject::Store, ErrorVerb::Read))?;
        Ok(committed.flatten())
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> RaftResult<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut encoded = Vec::new();
        for entry in entries {
            let bytes = serde_json::to_vec(&entry).map_err(StoreError::from);
            encoded.push((
                entry.log_id.index,
                bytes.map_err(failed(ErrorSubject::Log(entry.log_id), ErrorVerb::Write))?,
            ));
        }
        self.write_blocking(Durability::Immediate, move |tx| {
            let mut table = tx.open_table(LOG)?;
            for (index, bytes) in &encoded {
                table.insert(index, bytes.as_slice())?;
            }
            Ok(())
        })
        .await
        .map_err(failed(ErrorSubject::Logs, ErrorVerb::Write))?;
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> RaftResult<()> {
        self.write_blocking(Durability::Immediate, move |tx| {
            tx.open_table(LOG)?.retain_in(log_id.index.., |_, _| false)?;
            Ok(())
        })
        .await
        .map_err(failed(ErrorSubject::Log(log_id), ErrorVerb::Delete))
    }

    async fn purge(&mut self, log_id: LogId) -> RaftResult<()> {
        let bytes = serde_json::to_vec(&log_id).map_err(StoreError::from);
        let bytes = bytes.map_err(failed(ErrorSubject::Log(log_id), ErrorVerb::Delete))?;
        self.write_blocking(Durability::Immediate, move |tx| {
            tx.open_table(META)?.insert("purged", bytes.as_slice())?;
            tx.open_table(LOG)?.retain_in(..=log_id.index, |_, _| false)?;
            Ok(())
        })
        .await
        .map_err(failed(ErrorSubject::Log(log_id), ErrorVerb::Delete))
    }
}

/// Applies committed entries and publishes the topology after each change.
#[derive(Debug, Clone)]
pub(crate) struct StateMachine {
    store: Store,
    /// Held for the length of one entry; the snapshot builder runs beside the appliers.
    state: Arc<Mutex<State>>,
    topology: watch::Sender<Arc<Topology>>,
    /// Of what is applied, and whoever is told of it.
    flight: Arc<Flight>,
}

impl StateMachine {
    /// Continues from the last snapshot; openraft replays the log behind it.
    ///
    /// # Errors
    /// When the snapshot cannot be read.
    pub(crate) fn open(store: Store, flight: Arc<Flight>) -> Result<StateMachine, StoreError> {
        let snapshot: Option<StoredSnapshot> = store.read("snapshot")?;
        let state = snapshot.map(|s| s.state).unwrap_or_default();
        let topology = watch::Sender::new(Arc::new(state.topology.clone()));
        flight.knows(&state.topology);
        Ok(StateMachine { store, state: Arc::new(Mutex::new(state)), topology, flight })
    }

    /// Sees every change as it is applied.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Topology>> {
        self.topology.subscribe()
    }

    async fn save_snapshot(&self, snapshot: StoredSnapshot) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(&snapshot)?;
        self.store
            .write_blocking(Durability::Immediate, move |tx| {
                tx.open_table(META)?.insert("snapshot", bytes.as_slice())?;
                Ok(())
            })
            .await
    }
}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    async fn build_snapshot(&mut self) -> RaftResult<Snapshot<TypeConfig>> {
        let state = self.state.lock().clone();
        let meta = state.meta();
        let bytes = serde_json::to_vec(&state).map_err(StoreError::from);
        let bytes = bytes.map_err(failed(ErrorSubject::Snapshot(None), ErrorVerb::Write))?;
        self.save_snapshot(StoredSnapshot { meta: meta.clone(), state })
            .await
            .map_err(failed(ErrorSubject::Snapshot(None), ErrorVerb::Write))?;
        Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(bytes)) })
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotBuilder = StateMachine;

    async fn applied_state(&mut self) -> RaftResult<(Option<LogId>, StoredMembership<RaftId, BasicNode>)> {
        let state = self.state.lock();
        Ok((state.last_applied, state.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> RaftResult<Vec<Applied>>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut state = self.state.lock();
        let version = state.topology.version;
        let replies = state.apply(entries.into_iter().inspect(|entry| self.flight.applied(entry)));
        if state.topology.version != version {
            self.topology.send_replace(Arc::new(state.topology.clone()));
        }
        Ok(replies)
    }

    async fn get_snapshot_builder(&mut self) -> StateMachine {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> RaftResult<Box<Cursor<Vec<u8>>>> {
        Ok(Box::new(Cursor::new(Vec::new())))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<RaftId, BasicNode>,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> RaftResult<()> {
        let fail = || failed(ErrorSubject::Snapshot(Some(meta.signature())), ErrorVerb::Read);
        let state: State =
            serde_json::from_slice(snapshot.get_ref()).map_err(StoreError::from).map_err(fail())?;
        self.save_snapshot(StoredSnapshot { meta: meta.clone(), state: state.clone() })
            .await
            .map_err(fail())?;
        self.flight.knows(&state.topology);
        self.topology.send_replace(Arc::new(state.topology.clone()));
        *self.state.lock() = state;
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> RaftResult<Option<Snapshot<TypeConfig>>> {
        let fail = || failed(ErrorSubject::Snapshot(None), ErrorVerb::Read);
        let Some(stored): Option<StoredSnapshot> = self.store.read("snapshot").map_err(fail())? else {
            return Ok(None);
        };
        let bytes = serde_json::to_vec(&stored.state).map_err(StoreError::from).map_err(fail())?;
        Ok(Some(Snapshot { meta: stored.meta, snapshot: Box::new(Cursor::new(bytes)) }))
    }
}

#[cfg(test)]
mod tests {
    use keyward_net::flight::Keeping;
    use openraft::testing::{StoreBuilder, Suite};

    use super::*;

    struct Builder;

    impl StoreBuilder<TypeConfig, Store, StateMachine, tempfile::TempDir> for Builder {
        async fn build(&self) -> RaftResult<(tempfile::TempDir, Store, StateMachine)> {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(dir.path()).unwrap();
            let keeping = Keeping { dir: dir.path().to_owned(), files_max: 0 };
            let flight = Arc::new(Flight::new("s1", &keeping));
            let machine = StateMachine::open(store.clone(), flight).unwrap();
            Ok((dir, store, machine))
        }
    }

    #[test]
    fn passes_openrafts_storage_suite() {
        Suite::test_all(Builder).unwrap();
    }

    #[test]
    fn a_store_of_a_newer_program_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Store::open(dir.path());
        assert_eq!(open().unwrap().read(FORMAT_KEY).unwrap(), Some(FORMAT));
        // Of the format before.
        open().unwrap().write(FORMAT_KEY, &(FORMAT - 1)).unwrap();
        assert_eq!(open().unwrap().read(FORMAT_KEY).unwrap(), Some(FORMAT));
        open().unwrap().write(FORMAT_KEY, &(FORMAT + 1)).unwrap();
        let error = open().unwrap_err().to_string();
        assert!(error.contains(&format!("it is of format {}", FORMAT + 1)), "{error}");
        // What was written before there was a format is older than the format before.
        let dir = tempfile::tempdir().unwrap();
        let old = Store::open(dir.path()).unwrap();
        old.write("vote", &1).unwrap();
        old.write_now(Durability::Immediate, |tx| {
            tx.open_table(META)?.remove(FORMAT_KEY)?;
            Ok(())
        })
        .unwrap();
        drop(old);
        let error = Store::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("it is of format 1"), "{error}");
    }

    #[test]
    fn a_locked_directory_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let _held = Store::open(dir.path()).unwrap();
        assert!(matches!(Store::open(dir.path()), Err(OpenError::Locked { .. })));
        let file = dir.path().join("file");
        std::fs::write(&file, "x").unwrap();
        assert!(matches!(Store::open(&file), Err(OpenError::Directory { .. })));
    }
}

//! The control runtime: new connections, what is published to other nodes, and the tasks around them; and the
//! replication runtime: the streams between nodes, and the sentinels.
//!
//! Replication has one thread: a write passes through many tasks there, which hand it on without waking a thread.
//!
//! Nothing on it waits for a command (`keyward_store::patience`): whatever has to runs through [`blocking`], or on a
//! thread of its own. How late its tasks come to run is measured all the time, since beacons are as late.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use keyward_store::patience;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinError;

use crate::clock;
use crate::io::pulse::{Asker, News};
use crate::server::Server;

/// How often the delay is measured.
const MEASURE_EVERY: Duration = Duration::from_millis(50);

/// Starts the runtime. This thread, which will run the first task, is part of it.
///
/// # Errors
/// The system refuses a thread.
pub(crate) fn runtime() -> io::Result<Runtime> {
    patience::wait_for_no_command();
    Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .on_thread_start(patience::wait_for_no_command)
        .enable_all()
        .build()
}

/// Starts the replication runtime, which lives as long as the process.
///
/// # Errors
/// The system refuses a thread.
pub(crate) fn replication_runtime(server: &Arc<Server>) -> io::Result<Handle> {
    let runtime =
        Builder::new_current_thread().on_thread_start(patience::wait_for_no_command).enable_all().build()?;
    let handle = runtime.handle().clone();
    let server = Arc::clone(server);
    std::thread::Builder::new().name("replication".into()).spawn(move || {
        patience::wait_for_no_command();
        runtime.block_on(async {
            tokio::spawn(async move {
                loop {
                    measure_delay(&server).await;
                }
            });
            pending::<()>().await;
        });
    })?;
    Ok(handle)
}

/// Measures how late a task comes to run that is due.
async fn measure_delay(server: &Server) {
    let due = clock::monotonic() + MEASURE_EVERY;
    tokio::time::sleep(MEASURE_EVERY).await;
    let now = clock::monotonic();
    if server.control_delay.note(now.since(due), now) {
        tracing::warn!(
            ms = now.since(due).as_millis(),
            "the control tasks ran late: the machine is overloaded, or the process was stopped"
        );
    }
}

/// Runs what may have to wait for a command on a thread of its own.
///
/// # Errors
/// It panicked, or the runtime ends.
pub(crate) async fn blocking<R: Send + 'static>(
    f: impl FnOnce() -> R + Send + 'static,
) -> Result<R, JoinError> {
    tokio::task::spawn_blocking(move || patience::while_waiting(f)).await
}

/// Measures for ever how late a task comes to run that is due, and whether the I/O threads make steps.
pub(crate) async fn watch(server: Arc<Server>) {
    let mut askers: Vec<Asker> = Vec::new();
    loop {
        measure_delay(&server).await;
        let now = clock::monotonic();
        let pulses = server.io_pulses.get().map_or([].as_slice(), Vec::as_slice);
        askers.resize_with(pulses.len(), Asker::default);
        for (number, (asker, pulse)) in askers.iter_mut().zip(pulses).enumerate() {
            match asker.look(pulse, now) {
                Some(News::StandsStill(still)) => tracing::warn!(
                    seconds = still.as_secs(),
                    "I/O thread {number} makes no step: it executes a command that takes long, or it hangs"
                ),
                Some(News::GoesOn(still)) => {
                    tracing::info!(seconds = still.as_secs(), "I/O thread {number} goes on");
                }
                None => {}
            }
        }
    }
}

//! Ending the program: SIGTERM, SIGINT and the SHUTDOWN command all come here.
//!
//! In this order: a primary hands its role over; writes are held back; the database is saved if that is wanted. If
//! the saving fails the program goes on, unless it was told to end in any case.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::sync::Arc;
use std::time::Duration;

use crate::clock;
use crate::control;
use crate::io::pause::PauseMode;
use crate::server::Server;
use crate::shutdown::{Options, Saving, Shutdown};
use crate::snapshot::saves::Kind;

/// Writes are held back for at most this while the database is saved.
const HELD_BACK: Duration = Duration::from_secs(24 * 3600);

impl Shutdown {
    /// SHUTDOWN ABORT; false if no end is under way, or it is too late.
    pub fn abort(&self, server: &Server) -> bool {
        let running = *self.running.lock();
        if running {
            server.saves.abort(Kind::Foreground);
        }
        running
    }

    /// Does what has to be done before the end.
    ///
    /// # Errors
    /// Why the program goes on.
    pub async fn prepare(&self, server: &Arc<Server>, options: Options) -> Result<(), String> {
        tracing::info!("ending");
        *self.running.lock() = true;
        crate::member::leave(server).await;
        let result = self.save(server, options).await;
        *self.running.lock() = false;
        match result {
            Err(error) if !options.force => {
                tracing::warn!(error, "the database could not be saved: the program goes on");
                server.pause.end();
                self.given_up.notify_waiters();
                Err(error)
            }
            Err(error) => {
                tracing::warn!(error, "the database could not be saved");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    async fn save(&self, server: &Arc<Server>, options: Options) -> Result<(), String> {
        server.saves.abort(Kind::Background);
        let wanted = match options.saving {
            Saving::Always => true,
            Saving::Never => false,
            Saving::ByRules => !server.settings().save_points.is_empty(),
        };
        if !wanted || !server.is_complete() {
            return Ok(());
        }
        // What were written now would be acknowledged and lost.
        let now = clock::monotonic();
        server.pause.extend(now, now + HELD_BACK, PauseMode::Write);
        let world = Arc::clone(server);
        control::blocking(move || world.world.quiesce()).await.map_err(|e| e.to_string())?;
        let result =
            server.saves.start(server, Kind::Foreground).map_err(|_| "SAVE is running".to_owned())?;
        result.await.map_err(|_| "the save was cancelled".to_owned())?
    }
}

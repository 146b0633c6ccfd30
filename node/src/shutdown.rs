//! Ending the program: SIGTERM, SIGINT and the SHUTDOWN command all come here.
//!
//! In this order: a primary hands its role over; writes are held back; the database is saved if that is wanted. If
//! the saving fails the program goes on, unless it was told to end in any case.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clock;
use crate::server::Server;
use crate::snapshot::save::Kind;

/// Writes are held back for at most this while the database is saved.
const HELD_BACK: Duration = Duration::from_secs(24 * 3600);

/// Whether the database is saved before the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Saving {
    /// If there are `save` rules.
    #[default]
    ByRules,
    Always,
    Never,
}

/// How to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    pub saving: Saving,
    /// End even if the database cannot be saved.
    pub force: bool,
}

impl Options {
    /// The words of SHUTDOWN and of `shutdown-on-sigterm`; `None` if they make no sense.
    pub fn parse<'a>(words: impl Iterator<Item = &'a [u8]>) -> Option<Options> {
        let (mut save, mut nosave, mut options) = (false, false, Options::default());
        for word in words {
            match word.to_ascii_uppercase().as_slice() {
                b"SAVE" => save = true,
                b"NOSAVE" => nosave = true,
                b"FORCE" => options.force = true,
                // A hand-over waits for no replica that lags, and is tried in any case.
                b"NOW" | b"SAFE" | b"FAILOVER" | b"DEFAULT" => {}
                _ => return None,
            }
        }
        options.saving = match (save, nosave) {
            (true, true) => return None,
            (true, false) => Saving::Always,
            (false, true) => Saving::Never,
            (false, false) => Saving::ByRules,
        };
        Some(options)
    }
}

/// Asked for by SHUTDOWN; `main` waits for it.
#[derive(Debug, Default)]
pub struct Shutdown {
    options: Mutex<Option<Options>>,
    asked: Notify,
    /// The end that was asked for has been given up.
    given_up: Notify,
    running: Mutex<bool>,
}

impl Shutdown {
    /// Asks the program to end. Returns only if it does not.
    pub async fn request(&self, options: Options) {
        let given_up = self.given_up.notified();
        *self.options.lock() = Some(options);
        self.asked.notify_one();
        given_up.await;
    }

    pub async fn requested(&self) -> Options {
        self.asked.notified().await;
        self.options.lock().take().unwrap_or_default()
    }

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
        server.pause.extend(now, now + HELD_BACK, true);
        let world = Arc::clone(server);
        tokio::task::spawn_blocking(move || world.world.quiesce()).await.map_err(|e| e.to_string())?;
        let result =
            server.saves.start(server, Kind::Foreground).map_err(|_| "SAVE is running".to_owned())?;
        result.await.map_err(|_| "the save was cancelled".to_owned())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_shutdown() {
        let parse = |text: &str| Options::parse(text.split(' ').filter(|w| !w.is_empty()).map(str::as_bytes));
        let options = |saving, force| Some(Options { saving, force });
        assert_eq!(parse(""), options(Saving::ByRules, false));
        assert_eq!(parse("default"), options(Saving::ByRules, false));
        assert_eq!(parse("nosave now"), options(Saving::Never, false));
        assert_eq!(parse("SAVE force"), options(Saving::Always, true));
        assert_eq!(parse("save nosave"), None);
        assert_eq!(parse("later"), None);
    }
}

//! How the program is asked to end: SHUTDOWN, and what `shutdown-on-sigterm` says. What then happens: [`crate::ending`].

use parking_lot::Mutex;
use tokio::sync::Notify;

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
    pub(crate) given_up: Notify,
    pub(crate) running: Mutex<bool>,
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

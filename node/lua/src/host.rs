//! What a script asks the outside for.

use std::borrow::Cow;

use keyward_proto::resp::Version;

/// The script ends, whatever it tries to catch; this is what its caller is told, behind `ERR `.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abort(pub Cow<'static, str>);

/// The level of `redis.log`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    Debug,
    Verbose,
    Notice,
    Warning,
}

/// Executes what a script calls.
pub trait Host {
    /// Executes a command and hands the bytes of its reply to `read`.
    ///
    /// # Errors
    /// The script ends here.
    fn call(&mut self, args: &[&[u8]], version: Version, read: &mut dyn FnMut(&[u8])) -> Result<(), Abort>;

    fn log(&mut self, level: LogLevel, text: &[u8]);

    /// Whether the user may call this; `None`: there is no such command.
    fn may_call(&mut self, args: &[&[u8]]) -> Option<bool>;
}

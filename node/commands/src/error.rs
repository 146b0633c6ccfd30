//! Why a command failed, and the exact words in which a client hears of it.

use std::borrow::Cow;
use std::fmt;

use keyward_store::effects::{ENTRY_BYTES_MAX, TooLong};
use keyward_store::keys::WrongType;

/// A command's error reply: see [`CommandError::to_bytes`].
#[derive(Debug, Clone, PartialEq)]
pub enum CommandError {
    WrongType,
    Syntax,
    NotInteger,
    NotFloat,
    NoSuchKey,
    IndexOutOfRange,
    /// An argument that must be positive, in range ... `ERR` and this text.
    Err(Cow<'static, str>),
    /// A text with its own code: `NOAUTH Authentication required.`
    Coded(Cow<'static, str>),
    /// The same with bytes of the request, which need not be UTF-8.
    CodedBytes(Box<[u8]>),
    /// `ERR` and a text that quotes bytes of the request, which need not be UTF-8.
    Quoting {
        before: Cow<'static, str>,
        quoted: Box<[u8]>,
        after: Cow<'static, str>,
    },
    /// The full name of the command, e.g. `client|kill`.
    WrongArity(Cow<'static, str>),
    Moved {
        slot: u16,
        address: String,
    },
    CrossSlot,
    SlotNotServed,
    ClusterDown,
    ReadOnly,
    MasterDown,
    Loading,
    NoReplicas,
    OutOfMemory,
}

impl CommandError {
    /// `ERR` and this text.
    pub fn err(text: impl Into<Cow<'static, str>>) -> Self {
        CommandError::Err(text.into())
    }

    /// `ERR`, a text, bytes of the request up to the first NUL, and the rest of the text.
    pub fn quoting(
        before: impl Into<Cow<'static, str>>,
        quoted: &[u8],
        after: impl Into<Cow<'static, str>>,
    ) -> Self {
        let quoted = quoted.split(|byte| *byte == 0).next().unwrap_or_default();
        CommandError::Quoting { before: before.into(), quoted: quoted.into(), after: after.into() }
    }

    /// The text on the wire, without the leading `-`: unlike `Display`, with the very bytes that it quotes.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            CommandError::Quoting { before, quoted, after } => {
                [b"ERR ", before.as_bytes(), quoted, after.as_bytes()].concat()
            }
            CommandError::CodedBytes(text) => text.to_vec(),
            other => other.to_string().into_bytes(),
        }
    }

    /// The whole text, its code included.
    pub fn coded(text: impl Into<Cow<'static, str>>) -> Self {
        CommandError::Coded(text.into())
    }

    /// The whole text in parts, each up to its first NUL: some are bytes of the request.
    pub fn coded_bytes(parts: &[&[u8]]) -> Self {
        let parts = parts.iter().map(|part| part.split(|byte| *byte == 0).next().unwrap_or_default());
        CommandError::CodedBytes(parts.collect::<Vec<_>>().concat().into())
    }

    /// `ERR invalid expire time in 'set' command`
    pub fn invalid_expire(command: &str) -> Self {
        CommandError::err(format!("invalid expire time in '{command}' command"))
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommandError::WrongType => {
                f.write_str("WRONGTYPE Operation against a key holding the wrong kind of value")
            }
            CommandError::Syntax => f.write_str("ERR syntax error"),
            CommandError::NotInteger => f.write_str("ERR value is not an integer or out of range"),
            CommandError::NotFloat => f.write_str("ERR value is not a valid float"),
            CommandError::NoSuchKey => f.write_str("ERR no such key"),
            CommandError::IndexOutOfRange => f.write_str("ERR index out of range"),
            CommandError::Err(text) => write!(f, "ERR {text}"),
            CommandError::Coded(text) => f.write_str(text),
            CommandError::CodedBytes(text) => f.write_str(&String::from_utf8_lossy(text)),
            CommandError::Quoting { before, quoted, after } => {
                write!(f, "ERR {before}{}{after}", String::from_utf8_lossy(quoted))
            }
            CommandError::WrongArity(name) => write!(f, "ERR wrong number of arguments for '{name}' command"),
            CommandError::Moved { slot, address } => write!(f, "MOVED {slot} {address}"),
            CommandError::CrossSlot => f.write_str("CROSSSLOT Keys in request don't hash to the same slot"),
            CommandError::SlotNotServed => f.write_str("CLUSTERDOWN Hash slot not served"),
            CommandError::ClusterDown => f.write_str("CLUSTERDOWN The cluster is down"),
            CommandError::ReadOnly => f.write_str("READONLY You can't write against a read only replica."),
            CommandError::MasterDown => f.write_str(
                "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            ),
            CommandError::Loading => f.write_str("LOADING Valkey is loading the dataset in memory"),
            CommandError::NoReplicas => f.write_str("NOREPLICAS Not enough good replicas to write."),
            CommandError::OutOfMemory => {
                f.write_str("OOM command not allowed when used memory > 'maxmemory'.")
            }
        }
    }
}

impl std::error::Error for CommandError {}

impl From<WrongType> for CommandError {
    fn from(WrongType: WrongType) -> Self {
        CommandError::WrongType
    }
}

impl From<TooLong> for CommandError {
    fn from(TooLong: TooLong) -> Self {
        let mebibytes = ENTRY_BYTES_MAX >> 20;
        CommandError::err(format!(
            "a command or transaction may not change more than {mebibytes} megabytes at once"
        ))
    }
}

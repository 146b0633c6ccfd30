//! Why bytes are no RDB: one sentence each, to which the reader of a file adds offset, key and type.

/// See the module documentation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RdbError {
    /// At least so many more bytes are needed. Of a whole value: it was cut off, or a length is wrong.
    #[error("it ends too early")]
    Truncated { missing: u64 },
    #[error("{0}")]
    Corrupt(&'static str),
    /// A collection without elements: skipped in a file, as Valkey does, refused in a payload.
    #[error("the collection is empty")]
    Empty,
    /// A type of value that this program does not have.
    #[error("values of this type are not supported: {name} (type {number})")]
    Unsupported { number: u8, name: &'static str },
    #[error("neither a type of value nor an opcode that is known: {0}")]
    UnknownType(u8),
    #[error("RDB version {0} is not known (1 to 11, 80 and 81 are)")]
    UnknownVersion(u32),
    /// Of a version that `rdb-version-check relaxed` lets in.
    #[error(
        "RDB version {0} is not known (1 to 11, 80 and 81 are); with 'rdb-version-check relaxed' a file of it is loaded \
         if it holds nothing but types that are known"
    )]
    ForeignVersion(u32),
    #[error("{0}")]
    Refused(&'static str),
}

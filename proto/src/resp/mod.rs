//! The Redis serialization protocol, versions 2 and 3 (<https://valkey.io/topics/protocol/>).
//!
//! - [`request`]: finds complete commands in a receive buffer without copying an argument
//! - [`reply`]: appends replies to an output buffer; [`output`]: one that grows in chunks
//! - [`number`]: integers and doubles as Valkey reads and writes them; `grisu`: the digits of a double
//! - [`http`]: clients that speak another protocol

mod grisu;
pub mod http;
pub mod long_double;
pub mod number;
pub mod output;
pub mod reply;
pub mod request;

pub use http::{HTTP_WARNING, HttpWarnings, is_http};
pub use long_double::LongDouble;
pub use output::Output;
pub use reply::{ReplyWriter, Version};
pub use request::{Args, Batch, Limits, ProtocolError, RequestReader};

//! Random command sequences, run against Keyward and the real Valkey, whose replies must be equal byte by byte.
//!
//! - [`templates`]: per group, the shapes that commands take, right and wrong.
//! - [`template`]: the small language that they are written in.
//! - [`words`]: the keys, values and numbers put into them: few, so that commands meet, and awkward.
//! - [`generator`]: sequences of steps from a seed, with transactions, blocked clients and subscribers.
//! - [`grammar`]: commands from what the real Valkey says of their arguments, instead of templates.
//! - [`pair`]: the two servers, and how a sequence reaches them.
//! - [`pipeline`]: a sequence in one stream instead of command by command.
//! - [`equality`]: what "equal" means where order or content is left to chance.
//! - [`runner`]: runs one sequence on both servers and says where they first differ.
//! - [`campaign`]: many sequences; a failing one is shrunk and printed with the line that reproduces it.
//! - [`framing`]: damaged bytes, cut anywhere, with and without a password.

pub mod campaign;
pub mod equality;
pub mod framing;
pub mod generator;
pub mod grammar;
pub mod pair;
pub mod pipeline;
pub mod runner;
pub mod template;
pub mod templates;
pub mod words;

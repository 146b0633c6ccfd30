//! What is going on in a node, for people and tools that look on: [`commandlog`] (SLOWLOG and COMMANDLOG), [`latency`]
//! (LATENCY), [`monitor`] (MONITOR), [`histogram`] (how long calls took), and [`shown`] (what others may see of a
//! request).
//!
//! Who executes commands looks at the time anyway at the begin and the end of a batch; what is here is touched only when
//! something was slow or large, and by who asks.

pub(crate) mod commandlog;
pub(crate) mod histogram;
pub(crate) mod latency;
pub(crate) mod monitor;
pub(crate) mod shown;
#[cfg(test)]
mod tests;

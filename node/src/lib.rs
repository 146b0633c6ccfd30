//! To be written.

pub mod clock;
pub mod gate;
pub mod log;
pub mod replication;

//! The keyspace: 16384 slot tables, each behind a small lock of its own.
//!
//! - [`slots`]: the slots and their locks
//! - [`keys`]: what a command sees of the keyspace while it holds the locks of its slots
//! - [`effects`]: what a command leaves for the write log; [`events`]: keyspace events
//! - [`entry`]: a key with its value in one allocation
//! - [`access`]: when and how often a key was used; [`eviction`]: which key to give up when memory is short
//! - [`table`]: the hash table of a slot; [`counts`]: how many keys all slots have
//! - [`types`]: the value types
//! - [`patience`]: threads that wait for no command
//! - [`prefetch`]: loads cache lines ahead of their use (with `entry` the only modules with `unsafe`)
//! - [`rebuild`]: a value as the commands that build it anew; [`rdb`]: values and keyspaces as files and payloads
//! - [`size_class`]: the sizes in which the allocator gives memory
//! - [`snapshot`]: all entries as they were at one moment, while they go on changing
//! - [`usage`]: what a key takes; [`lazyfree`]: what takes long to drop
//! - [`world`]: stopping the world for what concerns the whole keyspace
//!
//! Architecture invariant: nothing in here does I/O (but for [`rdb::file`], on what it is given), reads a clock or awaits.

pub mod access;
pub mod counts;
pub mod digest;
pub mod effects;
pub mod entry;
pub mod events;
pub mod eviction;
pub mod keys;
pub mod lazyfree;
pub mod patience;
pub mod prefetch;
pub mod rdb;
pub mod rebuild;
pub mod size_class;
pub mod slots;
pub mod snapshot;
pub mod table;
pub mod tracking;
pub mod types;
pub mod usage;
pub mod world;

pub use slots::{DbIndex, DbKey, Keyspace, SlotState};

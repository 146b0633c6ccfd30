//! Tests of Keyward as its users meet it: real processes, real sockets, the real Valkey beside it.
//!
//! - [`waiting`]: for a condition. [`programs`] and [`processes`]: where the programs are, and servers that end with the test.
//! - [`resp_client`]: a blocking client that keeps each reply's exact bytes.
//! - [`tls`]: certificates for tests, and a client that speaks RESP through TLS.
//! - [`browser`]: a page as somebody sees it who opens it.
//! - [`compare`]: random command sequences whose replies must equal the real Valkey's.
//! - [`complexity`]: how what commands cost grows with the number of elements, next to Valkey.
//! - [`interchange`]: data of every type and encoding, and keyspaces to compare after it went elsewhere.
//! - [`cluster`] and [`writers`]: sentinels and nodes as one cluster, and clients that remember what was
//!   acknowledged to them while a test injects faults.
//! - [`stock_confs`]: configurations as other versions, charts and images make them.
//! - [`small`]: the smallest cluster that replicates, with any arguments.
//! - [`load`], [`benchmark`], [`load_bench`], [`snapshot_bench`] and [`eviction_bench`]: what it costs, next to Valkey in
//!   the same run; [`memory`]: how much it takes.
//! - [`failover_bench`]: how long a fault keeps clients without service, and what it loses, next to Valkey's.
//! - [`hosts`], [`delay`], [`disks`], [`wall_clocks`] and [`chaos`]: network namespaces, and faults of every kind in
//!   them under a recorded workload.
//! - [`simulation`]: a shard in virtual time, with the real cores of nodes and sentinels, under faults.
//! - [`replay`]: what flight recorders have recorded, as the story of an incident.
//! - [`slots`]: the slot of a key, as a client of another make computes it.
//! - [`supply`]: what the programs are made of.
//! - [`linearizability`]: whether a recorded history could have come from a single copy of the data.
//!
//! Nothing here sleeps for a fixed time: tests wait for a condition, each with a deadline.

pub mod benchmark;
pub mod browser;
pub mod chaos;
pub mod cluster;
pub mod compare;
pub mod complexity;
pub mod delay;
pub mod disks;
pub mod eviction_bench;
pub mod failover_bench;
pub mod hosts;
pub mod interchange;
pub mod linearizability;
pub mod load;
pub mod load_bench;
pub mod many_shards;
pub mod memory;
pub mod processes;
pub mod programs;
pub mod replay;
pub mod resp_client;
pub mod simulation;
pub mod slots;
pub mod small;
pub mod snapshot_bench;
pub mod stock_confs;
pub mod supply;
pub mod tls;
pub mod waiting;
pub mod wall_clocks;
pub mod writers;

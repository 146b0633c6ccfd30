//! The messages of the stream between a replica and its primary, as bytes: they are refused, or mean something that can be
//! encoded again.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| keyward_node::replication::read_any_message(data));

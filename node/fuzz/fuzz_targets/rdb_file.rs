//! An RDB file: what stands between its header and its end, without a checksum.
#![no_main]

use keyward_store::rdb::check::check;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let file = [b"REDIS0011", data, b"\xff", &[0; 8]].concat();
    let total = (data.len() % 2 == 0).then_some(file.len() as u64);
    drop(check(&file[..], total));
});

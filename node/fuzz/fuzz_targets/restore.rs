//! A RESTORE payload whose version and checksum are right: any bytes as a value of any type. What is accepted is saved
//! again and has to be read as the same.
#![no_main]

use keyward_store::rdb::{Compression, payload};
use keyward_store::types::Limits;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let limits = Limits::default();
    let Ok(loaded) = payload::load(data, &limits) else { return };
    let saved = payload::save(loaded.into_entry(b"k", None, 0).value(), Compression::Lzf);
    let content = payload::verified(&saved).expect("our own checksum");
    let again = payload::load(content, &limits).expect("what was saved is loaded");
    assert_eq!(payload::save(again.into_entry(b"k", None, 0).value(), Compression::Lzf).len(), saved.len());
});

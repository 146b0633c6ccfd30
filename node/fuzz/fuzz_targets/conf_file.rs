//! A conf file and flags: a configuration, or an error in words.
#![no_main]

use std::path::PathBuf;

use keyward_node::config::{Config, Origin};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // What the input names are files that are not there.
    let folder = PathBuf::from("/nonexistent");
    let (file, flags) = data.iter().position(|byte| *byte == 0).map_or((data, &[][..]), |at| data.split_at(at));
    let flags = String::from_utf8_lossy(flags);
    let arguments: Vec<String> =
        std::iter::once("-".to_owned()).chain(flags.split('\0').skip(1).map(str::to_owned)).collect();
    let origin = Origin { arguments: &arguments, stdin: &mut &*file, variable: &|_| None, folder };
    if let Err(words) = Config::load(origin) {
        assert!(!words.is_empty());
    }
});

//! `keyward-sentinel`: see [`keyward_sentinel::shell::program`].

use std::process::ExitCode;

fn main() -> ExitCode {
    keyward_sentinel::shell::program::main()
}

//! What the program does beside serving: subcommands that look at files and end.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use keyward_store::rdb::check::check;

use crate::aof;
use crate::aof::check::Mode;

const CHECK_AOF_USAGE: &str = "usage: keyward-node check-aof [--fix] FILE|MANIFEST";
const CHECK_RDB_USAGE: &str = "usage: keyward-node check-rdb FILE";

/// Runs the subcommand that the program's arguments name; `None` if they are those of a server.
pub fn subcommand(arguments: &[String]) -> Option<ExitCode> {
    let (name, rest) = arguments.split_first()?;
    match name.as_str() {
        "check-aof" => Some(check_aof(rest)),
        "check-rdb" => Some(check_rdb(rest)),
        _ => None,
    }
}

/// Prints what files of the write log hold and their first fault; `--fix` cuts off what is behind it.
fn check_aof(arguments: &[String]) -> ExitCode {
    let (options, paths): (Vec<&String>, Vec<&String>) = arguments.iter().partition(|a| a.starts_with("--"));
    let mode = match options[..] {
        [] => Mode::Report,
        [option] if option == "--fix" => Mode::Fix,
        _ => return fail(CHECK_AOF_USAGE),
    };
    let [path] = paths[..] else { return fail(CHECK_AOF_USAGE) };
    let (text, ok) = aof::check::check(Path::new(path), mode);
    match (writeln!(std::io::stdout(), "{text}"), ok) {
        (Ok(()), true) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Prints what a file holds, what of it is not supported, and its first error. Fails if it can't be loaded.
fn check_rdb(arguments: &[String]) -> ExitCode {
    let [path] = arguments else { return fail(CHECK_RDB_USAGE) };
    let file = match File::open(Path::new(path)) {
        Ok(file) => file,
        Err(error) => return fail(&format!("can't open '{path}': {error}")),
    };
    let total = file.metadata().ok().filter(std::fs::Metadata::is_file).map(|m| m.len());
    let report = check(file, total);
    match (writeln!(std::io::stdout(), "{report}"), report.is_ok()) {
        (Ok(()), true) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn fail(text: &str) -> ExitCode {
    // Without standard error there is nobody to tell.
    writeln!(std::io::stderr(), "keyward-node: {text}").map_or(ExitCode::from(2), |()| ExitCode::FAILURE)
}

//! The program: reads options, then runs a sentinel or asks a running one. Not in `main.rs`, which would compile the
//! consensus once more.

#![allow(clippy::disallowed_methods, reason = "a shell")]
#![allow(clippy::print_stderr, clippy::print_stdout, reason = "the command line's own output")]

use std::io::IsTerminal;
use std::process::ExitCode;

use keyward_net::logging::{Lines, LogForm, TimestampFormat};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::cli;
use super::runtime::run;
use crate::config::{Config, Options, ParseError, parse};

/// Does what the options say; the exit code of the process.
pub fn main() -> ExitCode {
    let options = match parse(std::env::args()) {
        Ok(options) => options,
        Err(ParseError::Flags(e)) => e.exit(),
        Err(ParseError::File(e)) => return fail(&e),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return fail(&e),
    };
    match options.command.clone() {
        Some(command) => match runtime.block_on(cli::execute(command)) {
            Ok(answer) => {
                if !answer.text.is_empty() {
                    println!("{}", answer.text.trim_end());
                }
                ExitCode::from(answer.exit_code)
            }
            Err(e) => fail(&e),
        },
        None => serve(&runtime, options),
    }
}

fn serve(runtime: &tokio::runtime::Runtime, options: Options) -> ExitCode {
    let level = match options.loglevel.as_str() {
        "debug" => "debug,h2=info,hyper=info,tower=info",
        // openraft tells of every message to a sentinel that is not there yet as an error. What an operator has to
        // know of it this program says itself.
        "verbose" => "info,openraft=off",
        "warning" => "warn,openraft=off",
        _ => "info,openraft=off",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let is_terminal = std::io::stderr().is_terminal();
    let form = LogForm::default();
    form.set(options.log_format, TimestampFormat::Legacy);
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(is_terminal)
        // A line that cannot be written, because the disk is full, is to be lost: telling of it would panic.
        .log_internal_errors(false)
        .event_format(Lines::new(&form, || "sentinel"))
        .init();
    let config = match Config::new(options) {
        Ok(config) => config,
        Err(e) => return fail(&e),
    };
    let is_password = |argument: &str| argument == "--requirepass" || argument.starts_with("--requirepass=");
    if std::env::args().any(|argument| is_password(&argument)) {
        tracing::warn!(
            "everybody on this host can read the password in the list of processes: give it in the conf file, or by \
             requirepass-file"
        );
    }
    let result = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(|e| e.to_string())?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| e.to_string())?;
        let shutdown = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        run(config, shutdown).await.map_err(|e| e.to_string())
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => fail(&e),
    }
}

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    error.to_string().lines().for_each(|line| eprintln!("keyward-sentinel: {line}"));
    ExitCode::FAILURE
}

//! `keyward-node`: reads the configuration and runs.

use std::ffi::OsString;
use std::process::ExitCode;

use keyward_node::config::{Config, Origin};
use keyward_node::{logging, supervision};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const HELP: &str = "\
keyward-node: a Valkey-compatible, replicated in-memory store

usage: keyward-node [keyward.conf | -] [--directive value ...]
                                      a file in the syntax of valkey.conf, or - for standard input; flags win
       keyward-node check-aof [--fix] FILE|MANIFEST
                                      says what files of the write log hold; cuts off what is behind the first fault
       keyward-node check-rdb FILE    says what an RDB file holds and where it is damaged

Directives are those of valkey.conf, in a file (one per line) or as flags:
  --port 6379 --bind 127.0.0.1 --requirepass SECRET --dir DIR --io-threads 2 ...
Keyward's own:
  --sentinels host:port,...     bus addresses of the sentinels; without them the node runs alone
  --cluster-enabled yes         speak the Cluster API (many shards); needs --sentinels
  --replication-ack in-sync     in-sync: a write is acknowledged when every in-sync replica has it; async: at once
  --min-in-sync N               refuse writes with fewer in-sync nodes (0: half of the shard's nodes, rounded up)
  --lease-ms 100 --grace-ms 500 how long a replica supports its primary, and waits in silence for it
  --fast-failover yes           a refused connection to the primary saves the grace, not the lease; trusted: it is a
                                death, where nobody answers for another host; no: it is as good as silence
  --zone NAME
  --requirepass-file FILE       the password is its first line; else it is in the file that VALKEY_PASSWORD_FILE
                                names, else in VALKEY_PASSWORD. requirepass wins over all of them
  --cluster-secret-file FILE    the secret that all nodes and sentinels of the cluster know, on a line of its own; else it
                                is in the file that KEYWARD_CLUSTER_SECRET_FILE names, else in KEYWARD_CLUSTER_SECRET.
                                Without one only this machine is served by the bus
gRPC between nodes and sentinels listens on port + 10000 (--bus-port).
SIGTERM hands the primary role over, then ends.

  --help, --version";

fn main() -> ExitCode {
    let Ok(arguments) = std::env::args_os().skip(1).map(OsString::into_string).collect::<Result<Vec<_>, _>>()
    else {
        return fail("keyward-node: an argument is not valid UTF-8");
    };
    match arguments.first().map(String::as_str) {
        Some("--help" | "-h") => return say(HELP),
        Some("--version" | "-v") => return say(concat!("keyward-node ", env!("CARGO_PKG_VERSION"))),
        Some(_) | None => {}
    }
    if let Some(code) = keyward_node::cli::subcommand(&arguments) {
        return code;
    }
    let variable = |name: &str| std::env::var(name).ok();
    let folder = match std::env::current_dir() {
        Ok(folder) => folder,
        Err(error) => return fail(&format!("keyward-node: no current folder: {error}")),
    };
    let origin = Origin { arguments: &arguments, stdin: &mut std::io::stdin(), variable: &variable, folder };
    let config = match Config::load(origin) {
        Ok(config) => config,
        Err(text) => return fail(&text),
    };
    let settings = match config.settings() {
        Ok(settings) => settings,
        Err(text) => return fail(&text),
    };
    match supervision::detach(&config, &settings, &variable) {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => {}
        Err(error) => return fail(&format!("keyward-node: it does not start in the background: {error}")),
    }
    logging::start(&settings);
    supervision::start(&settings, &variable);
    if arguments.iter().any(|argument| argument == "--requirepass") {
        tracing::warn!(
            "everybody on this host can read the password in the list of processes: give it in a file (requirepass-file)"
        );
    }
    match keyward_node::run::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if settings.logs_elsewhere() {
                tracing::error!("{error}");
            }
            fail(&format!("keyward-node: {error}"))
        }
    }
}

fn fail(text: &str) -> ExitCode {
    use std::io::Write;
    // Without standard error there is nobody to tell.
    writeln!(std::io::stderr(), "{text}").map_or(ExitCode::from(2), |()| ExitCode::FAILURE)
}

fn say(text: &str) -> ExitCode {
    use std::io::Write;
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

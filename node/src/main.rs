//! `keyward-node`: reads the configuration and runs.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const HELP: &str = "\
keyward-node: a Valkey-compatible, replicated in-memory store

usage: keyward-node [keyward.conf] [--directive value ...]
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
  --lease-ms 400 --grace-ms 500 --fast-failover yes --zone NAME
gRPC between nodes and sentinels listens on port + 10000 (--bus-port).
SIGTERM hands the primary role over, then ends.

  --help, --version";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("--help" | "-h") => return say(HELP),
        Some("--version" | "-v") => return say(concat!("keyward-node ", env!("CARGO_PKG_VERSION"))),
        Some(_) | None => {}
    }
    if let Some(code) = keyward_node::cli::subcommand(&arguments) {
        return code;
    }
    let result = keyward_node::config::Config::from_arguments(&arguments).and_then(|config| {
        start_logging(config.text("loglevel"));
        keyward_node::run::run(config)
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            use std::io::Write;
            if writeln!(std::io::stderr(), "keyward-node: {error}").is_err() {
                return ExitCode::from(2);
            }
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) -> ExitCode {
    use std::io::Write;
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// To standard error; RUST_LOG refines what `loglevel` says.
fn start_logging(loglevel: &str) {
    let level = match loglevel {
        "debug" => "debug",
        "warning" => "warn",
        "nothing" => "off",
        _ => "info",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        // A line that cannot be written, because the disk is full, is to be lost: telling of it would panic.
        .log_internal_errors(false)
        .init();
}

//! The smallest cluster that replicates: one sentinel and two nodes, with any arguments.

use crate::processes::{Server, free_port};
use crate::programs;
use crate::resp_client::Connection;
use tempfile::TempDir;

/// See the module's documentation.
#[derive(Debug)]
pub struct Small {
    pub sentinel: Server,
    pub nodes: Vec<Server>,
}

impl Small {
    /// Starts them; `sentinel_args` and `node_args` are asked for each process.
    ///
    /// # Errors
    /// A program does not start.
    pub fn start(
        sentinel_args: impl Fn() -> Vec<String>,
        node_args: impl Fn() -> Vec<String>,
    ) -> Result<Small, String> {
        let folder = || TempDir::new().map_err(|e| e.to_string());
        let sentinel_args = sentinel_args();
        let program = programs::keyward("keyward-sentinel")?;
        let sentinel = Server::spawn_on(&program, free_port(), folder()?, |port, dir| {
            let words = ["--port", &port.to_string(), "--dir", &dir.to_string_lossy(), "--replicas", "1"];
            words.map(str::to_owned).into_iter().chain(sentinel_args.iter().cloned()).collect()
        })?;
        let (program, bus) = (programs::keyward("keyward-node")?, sentinel.bus_addr());
        let node = || {
            let args = node_args();
            Server::spawn_on(&program, free_port(), folder()?, |port, dir| {
                let (port, dir) = (port.to_string(), dir.to_string_lossy());
                let words = ["--port", &port, "--dir", &dir, "--sentinels", &bus, "--min-in-sync", "2"];
                words.map(str::to_owned).into_iter().chain(args.iter().cloned()).collect()
            })
        };
        let nodes = vec![node()?, node()?];
        Ok(Small { sentinel, nodes })
    }

    /// Whether one of the nodes does, on both.
    pub fn accepts_writes(&self) -> bool {
        self.nodes.iter().any(|node| {
            let Ok(mut connection) = Connection::connect(&node.addr()) else { return false };
            connection.call(&["SET", "key", "value"]).is_ok_and(|reply| !reply.is_error())
        })
    }
}

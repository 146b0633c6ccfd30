//! MONITOR: clients that are shown every command that this node executes for others.
//!
//! The threads that execute learn with the settings whether there are any, so that nobody asks for each command.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use keyward_proto::resp::Args;
use keyward_replication::reply::ReplyCondition;
use keyward_store::DbIndex;
use parking_lot::RwLock;

use super::shown::visible;
use crate::command::spec;
use crate::command::table::Row;
use crate::io::clients::{Client, Push};

/// Where a command came from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Origin<'a> {
    /// The address of a client.
    Client(&'a str),
    Script,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(crate) struct Monitors {
    clients: RwLock<Vec<Arc<Client>>>,
    count: AtomicUsize,
}

impl Monitors {
    pub(crate) fn are_there(&self) -> bool {
        self.count.load(Ordering::Acquire) != 0
    }

    pub(crate) fn add(&self, client: &Arc<Client>) {
        let mut clients = self.clients.write();
        clients.push(Arc::clone(client));
        self.count.store(clients.len(), Ordering::Release);
    }

    pub(crate) fn remove(&self, id: u64) {
        let mut clients = self.clients.write();
        clients.retain(|client| client.id != id);
        self.count.store(clients.len(), Ordering::Release);
    }

    /// Shows a command to all of them, unless it is none of their business. `limit_bytes`: see [`Client::push`].
    #[cold]
    pub(crate) fn show(
        &self,
        row: &Row,
        args: Args<'_>,
        (db, origin): (DbIndex, Origin<'_>),
        unix_micros: i64,
        limit_bytes: usize,
    ) {
        if row.has(spec::ADMIN) {
            return;
        }
        let line = Bytes::from(line(&visible(row, args), (db, origin), unix_micros));
        for client in self.clients.read().iter() {
            let push = Push { message: line.clone(), condition: ReplyCondition::default() };
            // Whoever does not read is closed, and goes by itself.
            if !client.push(push, limit_bytes) {
                tracing::debug!(client = client.id, "a monitor does not read");
            }
        }
    }
}

fn line(args: &[&[u8]], (db, origin): (DbIndex, Origin<'_>), unix_micros: i64) -> Vec<u8> {
    let (seconds, micros) = (unix_micros.div_euclid(1_000_000), unix_micros.rem_euclid(1_000_000));
    let origin = match origin {
        Origin::Script => "lua".to_owned(),
        // A socket's path, with a port that is always 0.
        Origin::Client(path) if path.starts_with('/') => {
            format!("unix:{}", path.rsplit_once(':').map_or(path, |(path, _)| path))
        }
        Origin::Client(address) => address.to_owned(),
    };
    let mut line = format!("+{seconds}.{micros:06} [{db} {origin}]").into_bytes();
    for arg in args {
        line.push(b' ');
        push_quoted(&mut line, arg);
    }
    line.extend_from_slice(b"\r\n");
    line
}

/// In quotes, on one line, in ASCII.
fn push_quoted(line: &mut Vec<u8>, arg: &[u8]) {
    line.push(b'"');
    for byte in arg {
        match byte {
            b'\\' | b'"' => line.extend_from_slice(&[b'\\', *byte]),
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\r' => line.extend_from_slice(b"\\r"),
            b'\t' => line.extend_from_slice(b"\\t"),
            0x07 => line.extend_from_slice(b"\\a"),
            0x08 => line.extend_from_slice(b"\\b"),
            b' '..=b'~' => line.push(*byte),
            other => line.extend_from_slice(format!("\\x{other:02x}").as_bytes()),
        }
    }
    line.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_as_valkeys() {
        let args: [&[u8]; 2] = [b"set", b"a\n\r\t\x07\x08\x01\xff\"\\ x"];
        let shown = |origin| String::from_utf8(line(&args, (3, origin), 1_796_140_942_000_993)).unwrap();
        let expect = r#""set" "a\n\r\t\a\b\x01\xff\"\\ x""#;
        assert_eq!(shown(Origin::Script), format!("+1796140942.000993 [3 lua] {expect}\r\n"));
        assert_eq!(
            shown(Origin::Client("1.2.3.4:5")),
            format!("+1796140942.000993 [3 1.2.3.4:5] {expect}\r\n")
        );
        let unix = shown(Origin::Client("/tmp/s.sock:0"));
        assert_eq!(unix, format!("+1796140942.000993 [3 unix:/tmp/s.sock] {expect}\r\n"));
    }
}

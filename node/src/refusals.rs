//! What was refused to users: the entries of ACL LOG, and how many there were of each kind.

use std::sync::atomic::{AtomicU64, Ordering};

use keyward_proto::resp::Args;
use parking_lot::Mutex;

use crate::acl::log::{Context, Entry, Log, Reason, Refusal};
use crate::acl::{self, Denied};
use crate::admin::connection::listing;
use crate::command::CommandError;
use crate::command::table::Row;
use crate::io::session::Session;
use crate::server::Server;

/// See the module documentation. Shared by all threads; only a refusal takes the lock.
#[derive(Debug, Default)]
pub struct Refusals {
    log: Mutex<Log>,
    pub(crate) commands: AtomicU64,
    pub(crate) keys: AtomicU64,
    pub(crate) channels: AtomicU64,
    pub(crate) databases: AtomicU64,
}

impl Refusals {
    /// A user may not do what its client has asked for; returns what the client is told.
    #[cold]
    pub(crate) fn deny(
        &self,
        server: &Server,
        session: &Session,
        context: Context,
        denied: Denied,
        row: &Row,
        args: Args<'_>,
    ) -> CommandError {
        let counter = match denied {
            Denied::Command => &self.commands,
            Denied::Key(_) => &self.keys,
            Denied::Channel(_) => &self.channels,
            Denied::Database(_) => &self.databases,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let object = match denied {
            Denied::Command | Denied::Database(0) => row.name.as_bytes(),
            Denied::Key(_) | Denied::Channel(_) | Denied::Database(_) => args.at(denied.at()),
        };
        let name = session.user_name();
        self.add(server, session, context, Reason::Denied(denied), object, &name);
        acl::refusal(denied, &name, row.name)
    }

    /// A client has failed to show that it is this user, by this command.
    #[cold]
    pub(crate) fn note_failure(
        &self,
        server: &Server,
        session: &Session,
        context: Context,
        name: &[u8],
        command: &str,
    ) {
        server.stats.auth_failures.fetch_add(1, Ordering::Relaxed);
        self.add(server, session, context, Reason::Authentication, command.as_bytes(), name);
    }

    fn add(
        &self,
        server: &Server,
        session: &Session,
        context: Context,
        reason: Reason,
        object: &[u8],
        username: &[u8],
    ) {
        session.describe();
        let refusal = Refusal {
            reason: reason.name(),
            context,
            object: object.to_vec(),
            username: username.to_vec(),
            client: listing::line_of(&session.client, server.clock.monotonic()),
        };
        let len_max = server.settings().acl_log_len_max;
        self.log.lock().add(refusal, server.clock.unix_millis().0, len_max);
    }

    /// The latest first.
    pub(crate) fn latest(&self, count: usize) -> Vec<Entry> {
        self.log.lock().latest(count).cloned().collect()
    }

    pub(crate) fn reset_log(&self) {
        self.log.lock().reset();
    }

    pub(crate) fn reset_stats(&self) {
        for counter in [&self.commands, &self.keys, &self.channels, &self.databases] {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

//! How far a batch has come, what it accumulates, and how each of its requests ends.

use keyward_proto::resp::Output;
use keyward_replication::gate::Gate;
use keyward_replication::reply::ReplyCondition;
use keyward_store::keys::Logging;
use keyward_store::world;

use super::Stop;
use super::admit::Moment;
use crate::admin::ServerResult;
use crate::io::session::{ReplyMode, Session};
use crate::stats::ThreadStats;

/// How far a batch came.
#[derive(Debug)]
pub struct BatchEnd {
    /// The request with which it goes on; the number of requests if all are executed.
    pub next: usize,
    /// Without a reason to stop, the caller goes on at once with what is left.
    pub stop: Option<Stop>,
    /// Of all its replies; the lease is to be looked at now.
    pub condition: ReplyCondition,
    /// Something was appended to the log.
    pub appended: bool,
}

impl BatchEnd {
    /// The user is gone: so is its client, before request `next`.
    #[cold]
    pub(super) fn of_ended_user(session: &Session, generation: u64, next: usize) -> BatchEnd {
        session.client.kill();
        let condition = ReplyCondition::new(generation);
        BatchEnd { next, stop: Some(Stop::Close), condition, appended: false }
    }
}

/// The thread is executing a batch; not while it stops the world.
pub(super) type Running = Option<world::Batch>;

/// What a batch accumulates.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) condition: ReplyCondition,
    pub(super) appended: bool,
}

impl Progress {
    pub(super) fn new(generation: u64) -> Progress {
        Progress { condition: ReplyCondition::new(generation), appended: false }
    }
}

/// Who leaves out what CLIENT REPLY wants left out of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Muting {
    AsAll,
    /// The command has done so.
    ByItself,
}

/// Ends a request whose reply begins at `start`: an error becomes the reply, and one that the client does not want is left
/// out.
#[inline]
pub(super) fn settle(
    moment: &Moment,
    stats: &ThreadStats,
    session: &mut Session,
    result: ServerResult,
    (start, muting): (usize, Muting),
    out: &mut Output,
) -> Option<Stop> {
    let stop = match result {
        Ok(outcome) => moment.stop(session, outcome),
        Err(e) => {
            stats.count_error(&e.to_string());
            out.truncate(start);
            out.writer(session.version).error(e.to_bytes());
            None
        }
    };
    session.stall_is_muted = session.is_muted();
    if session.stall_is_muted && muting == Muting::AsAll {
        out.truncate(start);
    }
    if session.reply_mode == ReplyMode::Skip {
        session.reply_mode = ReplyMode::On;
    }
    stop
}

/// Whether effects are kept for the write log.
pub(super) fn logging(gate: &Gate) -> Logging {
    if gate.logs() { Logging::On } else { Logging::Off }
}

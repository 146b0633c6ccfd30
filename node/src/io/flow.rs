//! What a connection does next, given how much waits on both sides of it: whether it reads, whether it executes what it
//! has read, and whether its client has read so little that it is closed. Pure; [`super::connection`] carries it out.
//!
//! Replies that a client does not read wait here. From [`REPLIES_PAUSE_BYTES`] on it has to read before more is executed
//! for it, with two exceptions: up to a limit that the operator has set it need not (it is closed there), and who has
//! sent very much ahead is executed nevertheless, since a client may read nothing before it has sent everything.

use super::session::Session;
use crate::config::{OutputLimit, Settings};

/// Nothing more is executed for a client while so much waits for it: it has to read first.
const REPLIES_PAUSE_BYTES: usize = 1 << 20;
/// How much a client may send ahead that does not read; then it is executed after all.
const UNREAD_REQUESTS_BYTES: usize = 32 << 20;
/// A client that does not read its replies is not read from beyond this.
const REPLIES_BYTES_MAX: usize = 256 << 20;
/// What may wait for a client that has not authenticated.
const STRANGER_REPLIES_BYTES_MAX: usize = 1 << 10;
/// What `client-output-buffer-limit` does not count: so much fits into the fixed buffer that a client has in Valkey.
const UNCOUNTED_REPLIES_BYTES: usize = 16 << 10;
/// How much a stalled client may send ahead.
const STALLED_REQUESTS_BYTES: usize = 1 << 20;

/// Bytes that wait on both sides of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Backlog {
    /// Requests that are not executed.
    pub(super) requests: usize,
    /// Replies and messages that have not left.
    pub(super) replies: usize,
}

/// What a connection is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Requests are executed as they come.
    Serving,
    /// A request has to wait, and those behind it.
    Stalled,
    /// It ends when all replies have left.
    Closing,
}

/// How much may wait for a client.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    output: OutputLimit,
    query_buffer: usize,
    standing: Standing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It has to authenticate first.
    Stranger,
    Known,
}

impl Bounds {
    pub(super) fn new(session: &Session, settings: &Settings) -> Bounds {
        let is_stranger = session.must_authenticate(settings);
        Bounds {
            output: settings.output_limits.of_client(session.subscriptions.len()),
            query_buffer: settings.query_buffer_limit,
            standing: if is_stranger { Standing::Stranger } else { Standing::Known },
        }
    }

    /// Bytes that the replies of a command may take, beside those that wait.
    pub(super) fn room(&self, backlog: Backlog) -> usize {
        self.hard_bytes().saturating_sub(backlog.replies)
    }

    /// More waits for the client than may: it is closed.
    pub(super) fn is_exceeded(&self, backlog: Backlog) -> bool {
        let allowed = match self.standing {
            Standing::Stranger => STRANGER_REPLIES_BYTES_MAX,
            Standing::Known => self.hard_bytes(),
        };
        allowed < backlog.replies
    }

    fn hard_bytes(&self) -> usize {
        match self.output.hard_bytes {
            0 => usize::MAX,
            limit => limit.saturating_add(UNCOUNTED_REPLIES_BYTES),
        }
    }

    /// What may wait although the client does not read: up to a limit of the operator's.
    fn patient_bytes(&self) -> usize {
        if self.output.hard_bytes == 0 { self.output.soft_bytes } else { self.hard_bytes() }
    }

    /// How much it may send ahead while it does not read.
    fn sent_ahead_bytes(&self) -> usize {
        (self.query_buffer / 2).min(UNREAD_REQUESTS_BYTES)
    }
}

impl Backlog {
    /// Whether more is read from the client.
    #[inline]
    pub(super) fn reads(self, phase: Phase) -> bool {
        let requests_max = match phase {
            Phase::Serving => usize::MAX,
            Phase::Stalled => STALLED_REQUESTS_BYTES,
            Phase::Closing => return false,
        };
        self.requests < requests_max && self.replies < REPLIES_BYTES_MAX
    }

    /// Whether the client has to read before more is executed for it.
    #[inline]
    fn must_be_read(self, bounds: impl FnOnce() -> Bounds) -> bool {
        if self.replies < REPLIES_PAUSE_BYTES {
            return false;
        }
        let bounds = bounds();
        bounds.patient_bytes() < self.replies
            && (self.requests < bounds.sent_ahead_bytes() || REPLIES_BYTES_MAX <= self.replies)
    }
}

/// Requests wait until the client has read.
#[derive(Debug, Default)]
pub(super) struct Backpressure {
    /// Some do.
    is_felt: bool,
}

impl Backpressure {
    /// Whether more may be executed. If not, [`Backpressure::ends`] tells when.
    #[inline]
    pub(super) fn lets_execute(&mut self, backlog: Backlog, bounds: impl FnOnce() -> Bounds) -> bool {
        let pauses = backlog.must_be_read(bounds);
        self.is_felt |= pauses;
        !pauses
    }

    /// Requests have waited for the client to read, and it has.
    #[inline]
    pub(super) fn ends(&mut self, backlog: Backlog, bounds: impl FnOnce() -> Bounds) -> bool {
        let ends = self.is_felt && !backlog.must_be_read(bounds);
        self.is_felt &= !ends;
        ends
    }

    /// Nobody will read any more. Whether requests have waited for that.
    pub(super) fn give_up(&mut self) -> bool {
        std::mem::take(&mut self.is_felt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn bounds(hard_bytes: usize, soft_bytes: usize, standing: Standing) -> Bounds {
        let output = OutputLimit { hard_bytes, soft_bytes, soft_seconds: 60 };
        Bounds { output, query_buffer: 1 << 30, standing }
    }

    #[test]
    fn how_much_waits_decides_whether_more_is_read() {
        for (phase, requests, replies, reads) in [
            (Phase::Serving, 0, 0, true),
            (Phase::Serving, 900 * MIB, 0, true),
            (Phase::Serving, 0, 256 * MIB - 1, true),
            (Phase::Serving, 0, 256 * MIB, false),
            (Phase::Stalled, MIB - 1, 0, true),
            (Phase::Stalled, MIB, 0, false),
            (Phase::Stalled, 0, 256 * MIB, false),
            (Phase::Closing, 0, 0, false),
        ] {
            let backlog = Backlog { requests, replies };
            assert_eq!(backlog.reads(phase), reads, "{phase:?} {backlog:?}");
        }
    }

    #[test]
    fn a_client_has_to_read_before_more_is_executed() {
        for (what, hard_bytes, soft_bytes, requests, replies, executes) in [
            ("little waits", 0, 0, 0, MIB - 1, true),
            ("much waits", 0, 0, 0, MIB, false),
            ("much waits, much has been sent ahead", 0, 0, 32 * MIB, MIB, true),
            ("just less has been sent ahead", 0, 0, 32 * MIB - 1, MIB, false),
            ("very much waits, whatever was sent ahead", 0, 0, 32 * MIB, 256 * MIB, false),
            ("up to the hard limit", 8 * MIB, 0, 0, 8 * MIB, true),
            ("the fixed buffer is not counted", 8 * MIB, 0, 0, 8 * MIB + 16 * 1024, true),
            ("beyond it", 8 * MIB, 0, 0, 8 * MIB + 16 * 1024 + 1, false),
            ("up to a soft limit alone", 0, 4 * MIB, 0, 4 * MIB, true),
            ("beyond it", 0, 4 * MIB, 0, 4 * MIB + 1, false),
        ] {
            let backlog = Backlog { requests, replies };
            let bounds = || bounds(hard_bytes, soft_bytes, Standing::Known);
            assert_eq!(Backpressure::default().lets_execute(backlog, bounds), executes, "{what}");
        }
    }

    #[test]
    fn half_the_query_buffer_may_be_sent_ahead() {
        let small = || Bounds { query_buffer: 4 * MIB, ..bounds(0, 0, Standing::Known) };
        for (requests, executes) in [(2 * MIB - 1, false), (2 * MIB, true)] {
            assert_eq!(
                Backpressure::default().lets_execute(Backlog { requests, replies: MIB }, small),
                executes
            );
        }
    }

    #[test]
    fn a_pause_ends_once_and_only_if_it_is_felt() {
        let bounds = || bounds(0, 0, Standing::Known);
        let (full, read) = (Backlog { requests: 1, replies: MIB }, Backlog { requests: 1, replies: 0 });
        let mut pause = Backpressure::default();
        assert!(!pause.ends(read, bounds));
        assert!(!pause.lets_execute(full, bounds));
        assert!(!pause.ends(full, bounds));
        assert!(pause.ends(read, bounds));
        assert!(!pause.ends(read, bounds));
        assert!(!pause.lets_execute(full, bounds));
        assert!(pause.give_up());
        assert!(!pause.give_up());
    }

    #[test]
    fn who_does_not_read_is_closed_at_its_limit() {
        use Standing::{Known, Stranger};
        for (hard_bytes, standing, replies, exceeded) in [
            (0, Known, usize::MAX, false),
            (MIB, Known, MIB + 16 * 1024, false),
            (MIB, Known, MIB + 16 * 1024 + 1, true),
            (0, Stranger, 1024, false),
            (0, Stranger, 1025, true),
            (MIB, Stranger, 1025, true),
        ] {
            let backlog = Backlog { requests: 0, replies };
            let found = bounds(hard_bytes, 0, standing).is_exceeded(backlog);
            assert_eq!(found, exceeded, "{hard_bytes} {standing:?} {replies}");
        }
    }

    #[test]
    fn a_command_gets_the_room_that_is_left() {
        let waiting = Backlog { requests: 0, replies: 10 };
        assert_eq!(bounds(0, 0, Standing::Known).room(waiting), usize::MAX - 10);
        assert_eq!(bounds(MIB, 0, Standing::Known).room(waiting), MIB + 16 * 1024 - 10);
        let full = Backlog { requests: 0, replies: 2 * MIB };
        assert_eq!(bounds(MIB, 0, Standing::Known).room(full), 0);
    }
}

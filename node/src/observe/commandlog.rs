//! COMMANDLOG: the latest commands that took long, were long, or whose replies were long. SLOWLOG is the first of them.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

/// What a command is noted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Slow,
    LargeRequest,
    LargeReply,
}

/// Arguments that are kept of a command.
const ARGUMENTS_MAX: usize = 32;
/// Bytes that are kept of an argument.
const ARGUMENT_BYTES_MAX: usize = 128;

/// From when on a command is noted, and how many are kept. `None`: never.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) slow_micros: Option<u64>,
    pub(crate) slow_kept: usize,
    pub(crate) request_bytes: Option<usize>,
    pub(crate) requests_kept: usize,
    pub(crate) reply_bytes: Option<usize>,
    pub(crate) replies_kept: usize,
}

impl Limits {
    fn kept(&self, kind: Kind) -> usize {
        match kind {
            Kind::Slow => self.slow_kept,
            Kind::LargeRequest => self.requests_kept,
            Kind::LargeReply => self.replies_kept,
        }
    }
}

/// A command that was noted.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: u64,
    pub(crate) unix_seconds: i64,
    /// Microseconds, or bytes.
    pub(crate) amount: u64,
    pub(crate) args: Vec<Box<[u8]>>,
    pub(crate) address: String,
    pub(crate) client_name: Box<[u8]>,
}

/// Whose command it was, and when.
#[derive(Debug)]
pub(crate) struct Noted<'a> {
    pub(crate) unix_seconds: i64,
    pub(crate) args: &'a [&'a [u8]],
    pub(crate) address: &'a str,
    pub(crate) client_name: Box<[u8]>,
}

#[derive(Debug, Default)]
struct Log {
    /// Latest first.
    entries: VecDeque<Arc<Entry>>,
    next_id: u64,
}

/// The three logs.
#[derive(Debug, Default)]
pub(crate) struct CommandLogs {
    logs: [Mutex<Log>; 3],
}

impl CommandLogs {
    fn log(&self, kind: Kind) -> &Mutex<Log> {
        let [slow, requests, replies] = &self.logs;
        match kind {
            Kind::Slow => slow,
            Kind::LargeRequest => requests,
            Kind::LargeReply => replies,
        }
    }

    pub(crate) fn note(&self, kind: Kind, amount: u64, limits: &Limits, noted: Noted<'_>) {
        let kept = limits.kept(kind);
        if kept == 0 {
            return;
        }
        let args = shortened(noted.args);
        let mut log = self.log(kind).lock();
        let id = log.next_id;
        log.next_id += 1;
        let Noted { unix_seconds, address, client_name, .. } = noted;
        let entry = Entry { id, unix_seconds, amount, args, address: address.to_owned(), client_name };
        log.entries.push_front(Arc::new(entry));
        log.entries.truncate(kept);
    }

    /// The latest so many, latest first.
    pub(crate) fn latest(&self, kind: Kind, count: usize) -> Vec<Arc<Entry>> {
        self.log(kind).lock().entries.iter().take(count).cloned().collect()
    }

    pub(crate) fn len(&self, kind: Kind) -> usize {
        self.log(kind).lock().entries.len()
    }

    pub(crate) fn reset(&self, kind: Kind) {
        self.log(kind).lock().entries.clear();
    }
}

/// What is kept of a request.
fn shortened(args: &[&[u8]]) -> Vec<Box<[u8]>> {
    let whole = if args.len() <= ARGUMENTS_MAX { args.len() } else { ARGUMENTS_MAX - 1 };
    let mut kept: Vec<Box<[u8]>> = args[..whole].iter().map(|arg| shortened_argument(arg)).collect();
    if whole < args.len() {
        kept.push(format!("... ({} more arguments)", args.len() - whole).into_bytes().into());
    }
    kept
}

fn shortened_argument(arg: &[u8]) -> Box<[u8]> {
    match arg.split_at_checked(ARGUMENT_BYTES_MAX) {
        Some((kept, rest)) if !rest.is_empty() => {
            [kept, format!("... ({} more bytes)", rest.len()).as_bytes()].concat().into()
        }
        Some(_) | None => arg.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        slow_micros: Some(0),
        slow_kept: 2,
        request_bytes: None,
        requests_kept: 0,
        reply_bytes: None,
        replies_kept: 1,
    };

    fn note(logs: &CommandLogs, kind: Kind, args: &[&[u8]]) {
        let noted = Noted { unix_seconds: 7, args, address: "a:1", client_name: Box::default() };
        logs.note(kind, 5, &LIMITS, noted);
    }

    #[test]
    fn the_latest_are_kept() {
        let logs = CommandLogs::default();
        for _ in 0..3 {
            note(&logs, Kind::Slow, &[b"a"]);
            note(&logs, Kind::LargeRequest, &[b"a"]);
        }
        let ids = |count| logs.latest(Kind::Slow, count).iter().map(|entry| entry.id).collect::<Vec<_>>();
        assert_eq!((ids(1), ids(9)), (vec![2], vec![2, 1]));
        assert_eq!((logs.len(Kind::Slow), logs.len(Kind::LargeRequest)), (2, 0));
        logs.reset(Kind::Slow);
        note(&logs, Kind::Slow, &[b"a"]);
        assert_eq!(ids(9), [3]);
    }

    #[test]
    fn long_requests_are_cut() {
        let long = [b'x'; 130];
        let many: Vec<&[u8]> = std::iter::repeat_n(&b"y"[..], 34).collect();
        assert_eq!(&*shortened(&[&long[..128]])[0], &long[..128]);
        assert!(shortened(&[&long])[0].ends_with(b"x... (2 more bytes)"));
        assert_eq!(shortened(&many[..32]).len(), 32);
        let cut = shortened(&many);
        assert_eq!((cut.len(), &*cut[31]), (32, &b"... (3 more arguments)"[..]));
    }
}

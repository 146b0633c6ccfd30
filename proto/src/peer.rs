//! What is said when another process is not reached, or is not the one that was meant: in words, and how often.
//!
//! A wrong address is the most common fault of a first configuration, and what gRPC says of it ("h2 protocol error",
//! "transport error") helps nobody. So whoever fails asks what listens there ([`QUESTION`], [`Speaks`]), and says it
//! in one line ([`Trouble`]), once and then every [`REPEAT`] at most ([`Complaints`]). The asking is the shells'.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::bus::handshake::MAGIC;
use crate::time::Monotonic;

/// Sent to whoever does not speak gRPC: an inline PING for one kind of server, a request for the other. It changes
/// nothing at either.
pub const QUESTION: &[u8] = b"PING / HTTP/1.0\r\n\r\n";
/// As much of the answer is looked at.
pub const ANSWER_BYTES: usize = 16;

/// The parts of `host:port`, where an IPv6 address has brackets around it.
pub fn split_address(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let port = port.parse().ok().filter(|port| *port != 0)?;
    (!host.is_empty()).then_some((host, port))
}

/// The same complaint is made again after so long, at most.
const REPEAT: Duration = Duration::from_secs(10);
/// What may be over in a moment, as while everything starts at once, is not worth a line before.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the process at an address speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// The protocol of clients.
    Resp,
    Http,
    Tls,
    /// As gRPC does.
    Http2,
    /// It is a bus port that wants the cluster secret first.
    Guarded,
    Unknown,
}

impl Speaks {
    /// By its answer to [`QUESTION`]; `None`: there was none.
    pub fn of(answer: &[u8]) -> Option<Speaks> {
        let is_http2 = |a: &[u8]| matches!(a, [_, _, _, 4, _, 0, 0, 0, 0, ..]);
        match answer {
            [] => None,
            [b'+' | b'-', ..] => Some(Speaks::Resp),
            [b'H', b'T', b'T', b'P', ..] | [b'<', ..] => Some(Speaks::Http),
            guarded if guarded.starts_with(MAGIC) => Some(Speaks::Guarded),
            [0x15 | 0x16, 3, ..] => Some(Speaks::Tls),
            other if is_http2(other) => Some(Speaks::Http2),
            _ => Some(Speaks::Unknown),
        }
    }
}

/// Why another process does not do what was asked, as far as can be told from here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    NotAnAddress,
    Unresolved {
        host: String,
    },
    Refused,
    Silent,
    /// It is what was meant, it seems, and has not answered in time.
    Slow,
    /// Another kind of server listens there.
    Wrong(Speaks),
    /// A sentinel was meant, and this is the bus port of a node.
    IsNode,
    /// It is reached, and says why it does not.
    Says(String),
}

/// What is counted as the same complaint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    NotAnAddress,
    Unresolved,
    Refused,
    Silent,
    Wrong,
    Says,
}

impl Trouble {
    fn kind(&self) -> Kind {
        match self {
            Trouble::NotAnAddress => Kind::NotAnAddress,
            Trouble::Unresolved { .. } => Kind::Unresolved,
            Trouble::Refused => Kind::Refused,
            Trouble::Silent | Trouble::Slow => Kind::Silent,
            Trouble::Wrong(_) | Trouble::IsNode => Kind::Wrong,
            Trouble::Says(_) => Kind::Says,
        }
    }

    /// It will not be over by itself: somebody has to change something.
    fn is_lasting(&self) -> bool {
        match self {
            Trouble::NotAnAddress | Trouble::Unresolved { .. } | Trouble::Wrong(_) | Trouble::IsNode => true,
            Trouble::Refused | Trouble::Silent | Trouble::Slow | Trouble::Says(_) => false,
        }
    }
}

/// What follows "can't reach the sentinel at 10.0.0.1:36379: ".
impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::NotAnAddress => f.write_str("that is not host:bus-port"),
            Trouble::Unresolved { host } => write!(f, "the name '{host}' can't be resolved"),
            Trouble::Refused => f.write_str("nobody listens there (connection refused)"),
            Trouble::Silent => f.write_str("no answer"),
            Trouble::Slow => {
                f.write_str("it listens, but has not answered in time: is a majority of the sentinels running?")
            }
            Trouble::Wrong(Speaks::Resp) => f.write_str(
                "a port for clients (RESP) is there; what is meant is the bus port of a sentinel, by default its port + \
                 10000 (36379)",
            ),
            Trouble::Wrong(Speaks::Http) => f.write_str("a web server (HTTP) is there, not a sentinel's bus port"),
            Trouble::Wrong(Speaks::Tls) => f.write_str("a server with TLS is there: set tls-cluster if it is a sentinel's bus port"),
            Trouble::Wrong(Speaks::Http2) => f.write_str("a server for HTTP/2 is there, not a sentinel's bus port"),
            Trouble::Wrong(Speaks::Guarded) => f.write_str(
                "it wants the cluster secret, and this process has none: give it the same cluster-secret-file",
            ),
            Trouble::Wrong(Speaks::Unknown) => {
                f.write_str("a server of another kind is there, not a sentinel's bus port")
            }
            Trouble::IsNode => f.write_str("that is the bus port of a node; what is meant is a sentinel's"),
            Trouble::Says(words) => f.write_str(words),
        }
    }
}

/// What was said about one address.
#[derive(Debug, Default)]
pub struct Complaints {
    told: BTreeMap<Kind, Monotonic>,
    /// When it was last found out why.
    looked: Option<Monotonic>,
    /// Since when it fails.
    since: Option<Monotonic>,
    /// Something was said since then.
    is_known: bool,
}

impl Complaints {
    /// It has failed; whether it is time to find out why. That takes connections, so not each time.
    pub fn begin_look(&mut self, now: Monotonic) -> bool {
        if self.looked.is_some_and(|looked| now < looked + PATIENCE) {
            return false;
        }
        self.looked = Some(now);
        true
    }

    /// That is why it has failed; whether that is to be said now.
    pub fn is_due(&mut self, now: Monotonic, trouble: &Trouble) -> bool {
        let since = *self.since.get_or_insert(now);
        if !trouble.is_lasting() && now < since + PATIENCE {
            return false;
        }
        let kind = trouble.kind();
        if self.told.get(&kind).is_some_and(|told| now < *told + REPEAT) {
            return false;
        }
        self.told.insert(kind, now);
        self.is_known = true;
        true
    }

    /// It has answered; whether there is something to take back.
    pub fn end(&mut self) -> bool {
        self.since = None;
        std::mem::take(&mut self.is_known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_known_by_their_first_bytes() {
        assert_eq!(Speaks::of(b""), None);
        assert_eq!(Speaks::of(b"+PONG\r\n"), Some(Speaks::Resp));
        assert_eq!(Speaks::of(b"-NOAUTH Authentication required.\r\n"), Some(Speaks::Resp));
        assert_eq!(Speaks::of(b"HTTP/1.1 400 Bad Request\r\n"), Some(Speaks::Http));
        assert_eq!(Speaks::of(b"\x15\x03\x01\x00\x02\x02\x46"), Some(Speaks::Tls));
        assert_eq!(Speaks::of(b"\0\0\x0c\x04\0\0\0\0\0\0\x03"), Some(Speaks::Http2));
        assert_eq!(Speaks::of(b"KEYWARD\x01abcdefgh"), Some(Speaks::Guarded));
        assert_eq!(Speaks::of(b"SSH-2.0-OpenSSH"), Some(Speaks::Unknown));
    }

    #[test]
    fn addresses_have_a_host_and_a_port() {
        assert_eq!(split_address("h:1"), Some(("h", 1)));
        assert_eq!(split_address("[::1]:36379"), Some(("::1", 36379)));
        for wrong in ["h", "h:", ":1", "h:0", "h:65536", "h:x"] {
            assert_eq!(split_address(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_complaint_is_made_once_and_then_every_ten_seconds() {
        let at = |millis| Monotonic::ZERO + Duration::from_millis(millis);
        let mut complaints = Complaints::default();
        let wrong = Trouble::Wrong(Speaks::Resp);
        let said: Vec<u64> =
            (0..250).map(|n| n * 100).filter(|ms| complaints.is_due(at(*ms), &wrong)).collect();
        assert_eq!(said, [0, 10_000, 20_000]);
        // Another one is news.
        assert!(complaints.is_due(at(25_000), &Trouble::Unresolved { host: "x".into() }));
    }

    #[test]
    fn what_is_over_in_a_moment_is_not_said() {
        let at = |millis| Monotonic::ZERO + Duration::from_millis(millis);
        let mut complaints = Complaints::default();
        assert!(!complaints.is_due(at(0), &Trouble::Refused));
        assert!(!complaints.is_due(at(900), &Trouble::Says("no leader yet".into())));
        assert!(!complaints.end());
        assert!(!complaints.is_due(at(1_100), &Trouble::Refused));
        assert!(complaints.is_due(at(2_100), &Trouble::Refused));
        assert!(complaints.end());
        assert!(!complaints.end());
        // However often it comes and goes.
        assert!(!complaints.is_due(at(3_000), &Trouble::Refused));
        assert!(!complaints.is_due(at(4_500), &Trouble::Refused));
        assert!(complaints.is_due(at(12_100), &Trouble::Refused));
    }
}

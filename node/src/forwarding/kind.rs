//! What a request means for where it goes.

use keyward_commands::spec;
use keyward_proto::resp::request::Args;
use keyward_proto::slot::Slot;

use crate::command::ascii_eq;
use crate::command::keys_of::visit_slots;
use crate::command::table::{self, Row};

/// What a client says of itself; the last of each counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setup {
    Auth,
    Hello,
    Select,
    Name,
    LibraryName,
    LibraryVersion,
    NoEvict,
    NoTouch,
}

/// See the module documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// To whoever has its first key; without keys, to the node of this one's shard that leads.
    Ordinary(Option<Slot>),
    /// It changes what the connection is: each node that is asked later has to hear it first.
    Setup(Setup),
    Multi,
    /// EXEC and DISCARD.
    EndOfTransaction,
    Watch(Option<Slot>),
    Unwatch,
    /// RESET: as if the connection were new.
    Reset,
    Quit,
    /// READONLY: what is forwarded goes to who leads nevertheless.
    Idle,
    /// From here on the connection belongs to one node, as its replies are not one for each request.
    Bind(Option<Slot>),
}

impl Kind {
    /// Of a request; `command` as the program knows it.
    pub(super) fn of(args: Args<'_>) -> Kind {
        let Some(row) = table::find(args.at(0)) else { return Kind::Ordinary(None) };
        let sub = args.get(1).filter(|_| row.has_subcommands());
        let sub = sub.and_then(|name| table::find_subcommand(row, name));
        match sub.map_or(row.name, |sub| sub.name) {
            "auth" => Kind::Setup(Setup::Auth),
            "hello" => Kind::Setup(Setup::Hello),
            "select" => Kind::Setup(Setup::Select),
            "client|setname" => Kind::Setup(Setup::Name),
            "client|setinfo" if args.get(2).is_some_and(|word| ascii_eq(word, "lib-ver")) => {
                Kind::Setup(Setup::LibraryVersion)
            }
            "client|setinfo" => Kind::Setup(Setup::LibraryName),
            "client|no-evict" => Kind::Setup(Setup::NoEvict),
            "client|no-touch" => Kind::Setup(Setup::NoTouch),
            "multi" => Kind::Multi,
            "exec" | "discard" => Kind::EndOfTransaction,
            "watch" => Kind::Watch(slot_of(row, args)),
            "unwatch" => Kind::Unwatch,
            "reset" => Kind::Reset,
            "quit" => Kind::Quit,
            "readonly" | "readwrite" => Kind::Idle,
            "subscribe" | "unsubscribe" | "psubscribe" | "punsubscribe" | "ssubscribe" | "sunsubscribe"
            | "monitor" | "sync" | "psync" | "replconf" | "client|reply" | "client|tracking" => {
                Kind::Bind(slot_of(row, args))
            }
            _ => Kind::Ordinary(slot_of(sub.unwrap_or(row), args)),
        }
    }
}

impl Kind {
    /// Whether nodes that are asked later have to know of it.
    pub(super) fn is_setup(self) -> bool {
        matches!(self, Kind::Setup(_) | Kind::Reset)
    }

    /// Whether it may be asked of another node when one refuses it.
    pub(super) fn may_move(self) -> bool {
        matches!(self, Kind::Ordinary(_) | Kind::Setup(_) | Kind::Watch(_) | Kind::Unwatch)
    }
}

/// Whether a command may wait for others: if its client has left it must not be served any more.
pub(super) fn may_wait(args: Args<'_>) -> bool {
    table::find(args.at(0)).is_some_and(|row| row.has(spec::BLOCKING))
}

/// That of the first key; where there are keys of several slots, whoever gets them says so.
fn slot_of(row: &Row, args: Args<'_>) -> Option<Slot> {
    let mut first = None;
    visit_slots(row, args, &mut |slot| first = first.or(Some(slot)));
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(request: &str) -> Kind {
        let words: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
        Kind::of(Args::from_slices(&words))
    }

    #[test]
    fn requests_are_told_apart() {
        let (a, b) = (Some(Slot::of(b"a")), Some(Slot::of(b"b")));
        assert_eq!(kind("GET a"), Kind::Ordinary(a));
        assert_eq!(kind("mset b 1 a 2"), Kind::Ordinary(b));
        assert_eq!(
            kind("EVAL script x a"),
            Kind::Ordinary(None),
            "a number that is none is the server's to refuse"
        );
        assert_eq!(kind("EVAL x 1 a"), Kind::Ordinary(a));
        assert_eq!(kind("OBJECT ENCODING a"), Kind::Ordinary(a));
        for words in ["PING", "NOSUCH a", "GET", "DBSIZE", "CLIENT LIST", "CLIENT", "OBJECT"] {
            assert_eq!(kind(words), Kind::Ordinary(None), "{words}");
        }
        assert_eq!(kind("AUTH x"), Kind::Setup(Setup::Auth));
        assert_eq!(kind("hello 3"), Kind::Setup(Setup::Hello));
        assert_eq!(kind("SELECT 1"), Kind::Setup(Setup::Select));
        assert_eq!(kind("CLIENT SETNAME x"), Kind::Setup(Setup::Name));
        assert_eq!(kind("client setinfo LIB-NAME x"), Kind::Setup(Setup::LibraryName));
        assert_eq!(kind("client setinfo lib-ver x"), Kind::Setup(Setup::LibraryVersion));
        assert_eq!(kind("WATCH a"), Kind::Watch(a));
        assert_eq!(kind("SSUBSCRIBE a"), Kind::Bind(a));
        for words in ["SUBSCRIBE a", "PUNSUBSCRIBE", "CLIENT REPLY OFF", "SYNC"] {
            assert_eq!(kind(words), Kind::Bind(None), "{words}");
        }
        assert_eq!(
            [kind("MULTI"), kind("EXEC"), kind("DISCARD")],
            [Kind::Multi, Kind::EndOfTransaction, Kind::EndOfTransaction]
        );
        assert_eq!([kind("UNWATCH"), kind("RESET"), kind("QUIT")], [Kind::Unwatch, Kind::Reset, Kind::Quit]);
    }
}

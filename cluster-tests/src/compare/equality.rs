//! When two replies count as equal.
//!
//! Nearly always: when their bytes are. The exceptions are few and named here by command: replies whose order is
//! that of a hash table, whose content is left to chance, or that tell of times and addresses. An error is always
//! compared byte by byte.

use crate::resp_client::Frame;

use super::generator::name;
use super::words::Args;

/// How one reply is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Equality {
    Exact,
    /// The same parts in any order.
    Unordered,
    /// The same pairs (key and value in turn) in any order.
    UnorderedPairs,
    /// The same parts in any order, on every level.
    UnorderedDeep,
    /// An integer, or integers within, that may be this far apart.
    Near(i64),
    /// The same types and lengths, any content.
    Shape,
    /// The same type.
    Kind,
    /// HELLO's fields, less the values of those which name this very server, its modules and the connection.
    Hello,
}

impl Equality {
    /// The rule for a command's reply.
    pub fn of(args: &Args) -> Self {
        let sub =
            args.get(1).map(|word| String::from_utf8_lossy(word).to_ascii_uppercase()).unwrap_or_default();
        match (name(args).as_str(), sub.as_str()) {
            ("KEYS" | "SMEMBERS" | "SUNION" | "SINTER" | "SDIFF" | "HKEYS" | "HVALS", _) => Self::Unordered,
            ("PUBSUB", "CHANNELS" | "SHARDCHANNELS") => Self::Unordered,
            // Help is in each program's own words; the lists tell which commands a program has.
            (_, "HELP") | ("COMMAND", "" | "COUNT" | "LIST") => Self::Kind,
            ("HGETALL", _) | ("CONFIG", "GET") => Self::UnorderedPairs,
            ("COMMAND", "INFO") if args.get(2).is_none() => Self::Kind,
            ("COMMAND", "INFO" | "GETKEYSANDFLAGS") | ("CLIENT", "TRACKINGINFO") | ("FUNCTION", "LIST") => {
                Self::UnorderedDeep
            }
            // All of a set; fewer are followed by a DEL of what is left.
            ("SPOP", _) if args.get(2).is_some_and(|count| count == b"1000") => Self::Unordered,
            ("SPOP" | "SRANDMEMBER" | "HRANDFIELD" | "ZRANDMEMBER" | "RANDOMKEY" | "TIME", _) => Self::Shape,
            ("TTL" | "EXPIRETIME" | "HTTL" | "HEXPIRETIME", _) | ("OBJECT", "IDLETIME") => Self::Near(3),
            ("PTTL" | "PEXPIRETIME" | "HPTTL" | "HPEXPIRETIME", _) => Self::Near(3000),
            ("XPENDING", _) => Self::Shape,
            ("SCAN" | "HSCAN" | "SSCAN" | "ZSCAN", _) => Self::Kind,
            ("CLIENT", "ID" | "INFO" | "LIST") | ("INFO" | "LOLWUT" | "LASTSAVE" | "ROLE", _) => Self::Kind,
            // Valkey counts the argument of a queued command, too.
            ("OBJECT", "REFCOUNT") => Self::Kind,
            ("MEMORY", "USAGE") => Self::Shape,
            ("HELLO", _) => Self::Hello,
            _ => Self::Exact,
        }
    }

    pub fn holds(self, ours: &Frame, theirs: &Frame) -> bool {
        if ours.raw == theirs.raw {
            return true;
        }
        if ours.is_error()
            || theirs.is_error()
            || ours.kind() != theirs.kind()
            || ours.is_null() != theirs.is_null()
        {
            return false;
        }
        match self {
            Self::Exact => false,
            Self::Unordered => sorted(ours, 1) == sorted(theirs, 1),
            Self::UnorderedPairs => sorted(ours, 2) == sorted(theirs, 2),
            Self::UnorderedDeep => canonical(ours) == canonical(theirs),
            Self::Near(tolerance) => near(ours, theirs, tolerance),
            Self::Shape => same_shape(ours, theirs),
            Self::Kind => true,
            Self::Hello => hello_fields(ours) == hello_fields(theirs),
        }
    }
}

fn sorted(frame: &Frame, width: usize) -> Vec<Vec<&[u8]>> {
    let mut parts: Vec<Vec<&[u8]>> =
        frame.items.chunks(width).map(|part| part.iter().map(|item| item.raw.as_ref()).collect()).collect();
    parts.sort();
    parts
}

fn canonical(frame: &Frame) -> Vec<u8> {
    if frame.items.is_empty() {
        return frame.raw.to_vec();
    }
    let mut parts: Vec<_> = frame.items.iter().map(canonical).collect();
    parts.sort();
    let mut bytes = vec![frame.kind()];
    bytes.extend_from_slice(frame.text());
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes
}

/// Negative answers and zero have a meaning of their own.
fn near(ours: &Frame, theirs: &Frame, tolerance: i64) -> bool {
    if !ours.items.is_empty() && ours.items.len() == theirs.items.len() {
        let mut items = ours.items.iter().zip(&theirs.items);
        return items.all(|(ours, theirs)| ours.raw == theirs.raw || near(ours, theirs, tolerance));
    }
    match (ours.integer(), theirs.integer()) {
        (Some(ours), Some(theirs)) => {
            0 < ours && 0 < theirs && ours.abs_diff(theirs) <= tolerance.unsigned_abs()
        }
        _ => false,
    }
}

fn same_shape(ours: &Frame, theirs: &Frame) -> bool {
    ours.kind() == theirs.kind()
        && ours.is_null() == theirs.is_null()
        && ours.items.len() == theirs.items.len()
        && ours.items.iter().zip(&theirs.items).all(|(ours, theirs)| same_shape(ours, theirs))
}

fn hello_fields(frame: &Frame) -> Vec<(&[u8], Option<&[u8]>)> {
    // Valkey counts its scripting engine among the modules; Keyward has no modules.
    let own: [&[u8]; 5] = [b"server", b"version", b"id", b"availability_zone", b"modules"];
    frame
        .items
        .chunks_exact(2)
        .map(|pair| (pair[0].text(), (!own.contains(&pair[0].text())).then(|| pair[1].raw.as_ref())))
        .collect()
}

/// What was pushed, in a form that is equal where a hash table decides on the order: of one message's copies for
/// several patterns, and of the confirmations of one UNSUBSCRIBE without channels, whose channels and remaining
/// counts are sorted apart from each other.
pub fn normal_pushes<'a>(pushes: impl Iterator<Item = &'a Frame>) -> Vec<Vec<Vec<u8>>> {
    let mut pushes: Vec<Vec<Vec<u8>>> =
        pushes.map(|push| push.items.iter().map(|item| item.raw.to_vec()).collect()).collect();
    for run in pushes.chunk_by_mut(same_event) {
        match run[0].len() {
            3 if 1 < run.len() => {
                let mut counts: Vec<_> =
                    run.iter_mut().map(|push| push.pop().expect("three parts")).collect();
                run.sort();
                counts.sort();
                run.iter_mut().zip(counts).for_each(|(push, count)| push.push(count));
            }
            _ => run.sort(),
        }
    }
    pushes
}

/// Copies of one message for several patterns, or confirmations of leaving channels.
fn same_event(one: &Vec<Vec<u8>>, next: &Vec<Vec<u8>>) -> bool {
    match (one.as_slice(), next.as_slice()) {
        ([kind, _, channel, message], [next_kind, _, next_channel, next_message]) => {
            (kind, channel, message) == (next_kind, next_channel, next_message)
        }
        ([kind, _, _], [next_kind, _, _]) => kind == next_kind && kind.ends_with(b"unsubscribe\r\n"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::resp_client::split_frame;

    fn frame(bytes: &str) -> Frame {
        split_frame(&mut BytesMut::from(bytes)).unwrap().unwrap()
    }

    fn check(rule: Equality, ours: &str, theirs: &str, equal: bool) {
        assert_eq!(rule.holds(&frame(ours), &frame(theirs)), equal, "{rule:?} {ours:?} {theirs:?}");
    }

    #[test]
    fn each_rule_forgives_what_it_names_and_nothing_else() {
        check(Equality::Exact, "+OK\r\n", "+OK\r\n", true);
        check(Equality::Exact, "$2\r\nOK\r\n", "+OK\r\n", false);
        check(Equality::Unordered, "*2\r\n:1\r\n:2\r\n", "*2\r\n:2\r\n:1\r\n", true);
        check(Equality::Unordered, "*2\r\n:1\r\n:2\r\n", "~2\r\n:2\r\n:1\r\n", false);
        check(Equality::Unordered, "*2\r\n:1\r\n:1\r\n", "*2\r\n:2\r\n:1\r\n", false);
        check(
            Equality::UnorderedPairs,
            "*4\r\n:1\r\n:2\r\n:3\r\n:4\r\n",
            "*4\r\n:3\r\n:4\r\n:1\r\n:2\r\n",
            true,
        );
        check(
            Equality::UnorderedPairs,
            "*4\r\n:1\r\n:2\r\n:3\r\n:4\r\n",
            "*4\r\n:3\r\n:2\r\n:1\r\n:4\r\n",
            false,
        );
        check(Equality::Near(3), ":100\r\n", ":98\r\n", true);
        check(Equality::Near(3), ":100\r\n", ":-1\r\n", false);
        check(Equality::Near(3), ":-2\r\n", ":-1\r\n", false);
        check(Equality::Shape, "*1\r\n$1\r\na\r\n", "*1\r\n$2\r\nbb\r\n", true);
        check(Equality::Shape, "*1\r\n$1\r\na\r\n", "*0\r\n", false);
        check(Equality::Shape, "$1\r\na\r\n", "$-1\r\n", false);
        check(Equality::Kind, "-ERR a\r\n", "-ERR b\r\n", false);
    }

    #[test]
    fn confirmations_of_leaving_all_channels_may_come_in_any_order() {
        let left =
            |channel: &str, count: u8| frame(&format!("*3\r\n+unsubscribe\r\n+{channel}\r\n:{count}\r\n"));
        let ours = [left("a", 1), left("b", 0)];
        let theirs = [left("b", 1), left("a", 0)];
        assert_eq!(normal_pushes(ours.iter()), normal_pushes(theirs.iter()));
        assert_ne!(normal_pushes(ours.iter()), normal_pushes(ours[..1].iter()));
    }
}

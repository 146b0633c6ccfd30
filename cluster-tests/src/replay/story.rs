//! The story of an incident, in the form of the simulation's: a line for each thing that happened, by one clock.

use std::collections::BTreeSet;
use std::time::Duration;

use keyward_proto::flight::Recorded;
use keyward_proto::ids::NodeId;
use keyward_proto::time::Monotonic;
use keyward_replication::recorder::{Record as NodeRecord, ShardView, Writable};
use keyward_sentinel::rules::recorder::Record as SentinelRecord;

use super::{Incident, Names, SHORT};

/// Begins a line of what all sentinels apply.
const AGREED: &str = "the sentinels have agreed on ";

/// Which part of the recordings is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    All,
    /// So much before the last change of a primary, and so much after.
    LastFailover {
        before: Duration,
        after: Duration,
    },
}

/// A line for each thing that happened; times are milliseconds from the last change of a primary on, or from the begin.
pub fn story(incident: &Incident, span: Span) -> Vec<String> {
    let mut lines: Vec<(i128, &str, String)> = Vec::new();
    let one_clock = incident.one_clock();
    for flight in &incident.nodes {
        let name = incident.name_of(&flight.header.id);
        for recorded in &flight.records {
            let at = incident.time(&flight.header, recorded.at);
            lines.push((at, name, of_node(incident, recorded)));
        }
    }
    for flight in &incident.sentinels {
        for recorded in &flight.records {
            let at = incident.time(&flight.header, recorded.at);
            lines.extend(
                of_sentinel(incident, recorded).into_iter().map(|text| (at, &*flight.header.name, text)),
            );
        }
    }
    lines.sort_by_key(|(at, ..)| *at);
    // All sentinels apply all entries: what is in one is told once.
    let mut told = BTreeSet::new();
    lines.retain(|(.., text)| !text.starts_with(AGREED) || told.insert(text.clone()));
    let changed = last_change(incident);
    let zero = changed.or_else(|| lines.first().map(|(at, ..)| *at)).unwrap_or_default();
    if let (Some(changed), Span::LastFailover { before, after }) = (changed, span) {
        let (before, after) = (nanos(before), nanos(after));
        lines.retain(|(at, ..)| (changed - before..=changed + after).contains(at));
    }
    let width = lines.iter().map(|(_, name, _)| name.len()).max().unwrap_or_default();
    let mut story: Vec<String> = lines
        .iter()
        .map(|(at, name, text)| format!("{:12.3} ms  {name:width$}  {text}", (at - zero) as f64 / 1e6))
        .collect();
    if !one_clock {
        story.insert(0, "(Several machines: their wall clocks are taken for equal.)".to_owned());
    }
    story
}

fn nanos(duration: Duration) -> i128 {
    i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX)
}

/// When somebody first knew of the latest term.
fn last_change(incident: &Incident) -> Option<i128> {
    let changes = incident.nodes.iter().flat_map(|flight| {
        flight.records.iter().filter_map(|recorded| match &recorded.record {
            NodeRecord::Topology(ShardView { shard: Some(shard), .. }) if shard.primary.is_some() => {
                Some((shard.term, incident.time(&flight.header, recorded.at)))
            }
            _ => None,
        })
    });
    let changes: Vec<_> = changes.collect();
    let latest = changes.iter().map(|(term, _)| *term).max()?;
    changes.iter().filter(|(term, _)| *term == latest).map(|(_, at)| *at).min()
}

fn of_node(incident: &Incident, recorded: &Recorded<NodeRecord>) -> String {
    let until = |messages: u64| match messages {
        1 => String::new(),
        _ => format!(" (within {:.0} ms)", recorded.until.since(recorded.at).as_secs_f64() * 1e3),
    };
    let lease = |lease: Monotonic| match lease {
        Monotonic::ZERO => String::new(),
        // It has promised nothing to anybody, or waits for nobody.
        lease if lease.as_nanos() == u64::MAX => ", its lease has no end".to_owned(),
        // Its clock is another one.
        lease => format!(", may serve for {:.0} ms more", lease.since(recorded.until).as_secs_f64() * 1e3),
    };
    let plural = |count: u64, what: &str| match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    };
    match &recorded.record {
        NodeRecord::Started { incarnation, last, applied, config, .. } => format!(
            "STARTS: incarnation {incarnation}, log {last} of which {applied} is applied, leases of {} ms",
            config.lease.as_millis()
        ),
        NodeRecord::Topology(ShardView { version, shard: None, .. }) => {
            format!("hears of topology {version}: it belongs to no shard")
        }
        NodeRecord::Topology(ShardView { version, shard: Some(shard), .. }) => {
            let names = |ids: &mut dyn Iterator<Item = &NodeId>| {
                ids.map(|id| incident.name(id)).collect::<Vec<_>>().join(" ")
            };
            let led = shard.primary.as_ref().map_or("nobody", |primary| incident.name(primary));
            let restarted = match shard.restarted.len() {
                0 => String::new(),
                _ => format!("; restarted: {}", names(&mut shard.restarted.iter())),
            };
            format!(
                "hears of topology {version}: term {} of {} is led by {led}; in sync: {}{restarted}",
                shard.term,
                shard.name,
                names(&mut shard.in_sync.iter())
            )
        }
        NodeRecord::State { state, term, writable } => {
            let writable = if *writable == Writable::Yes { ", takes writes" } else { "" };
            format!("IS {state:?} in term {term}{writable}")
        }
        NodeRecord::Progress { last, commit, lease_until, steps } => {
            format!("log {last}, committed {commit}{}{}", lease(*lease_until), until(*steps))
        }
        NodeRecord::Appends { messages, end, commit, .. } => format!(
            "<- {} with its primary's log up to {end}, committed {commit}{}",
            plural(*messages, "message"),
            until(*messages)
        ),
        NodeRecord::Chunks { messages, parts, .. } => {
            format!(
                "<- {} of a full sync, {}{}",
                plural(*messages, "message"),
                plural(*parts, "part"),
                until(*messages)
            )
        }
        NodeRecord::AcksSent { messages, held, .. } => {
            format!("-> {}: holds {held}{}", plural(*messages, "acknowledgement"), until(*messages))
        }
        NodeRecord::Acks { link, messages, held } => {
            format!("<- {} by link {link}: {held}{}", plural(*messages, "acknowledgement"), until(*messages))
        }
        NodeRecord::Heard(words) => format!("<- {}", plain(words, &incident.short)),
        NodeRecord::Did(words) => format!("-> {}", plain(words, &incident.short)),
    }
}

fn of_sentinel(incident: &Incident, recorded: &Recorded<SentinelRecord>) -> Vec<String> {
    match &recorded.record {
        SentinelRecord::Knows(topology) => vec![format!("knows topology {}", topology.version)],
        SentinelRecord::Applied { raft_index, batch } => {
            let commands = batch.commands.iter();
            commands
                .map(|command| {
                    let words = keyward_proto::flight::words(command);
                    format!("{AGREED}{raft_index}: {}", plain(&words, &incident.short))
                })
                .collect()
        }
        SentinelRecord::Leader { raft_term, leader } => {
            let leader =
                leader.map_or("nobody".to_owned(), |id| incident.name_of(&id.to_string()).to_owned());
            vec![format!("{leader} leads the sentinels in Raft's term {raft_term}")]
        }
        SentinelRecord::Heard(words) => vec![format!("<- {}", plain(words, &incident.short))],
        SentinelRecord::Did(words) => vec![format!("-> {}", plain(words, &incident.short))],
    }
}

impl Incident {
    pub(super) fn name_of<'a>(&'a self, id: &'a str) -> &'a str {
        self.names.get(id).map_or(id, String::as_str)
    }
}

/// Values as Rust shows them, as people want to read them: names for identifiers, numbers and positions alone.
fn plain(words: &str, short: &Names) -> String {
    let mut text = named(words, short);
    for kind in ["Term", "LogIndex", "Incarnation", "LinkId", "UplinkId", "RequestId", "QuiesceId", "Ticket"]
    {
        text = unwrapped(&text, &format!("{kind}("));
    }
    positions(&text)
}

/// With names for the begins of identifiers.
fn named(text: &str, short: &Names) -> String {
    let is_word = |c: char| c.is_alphanumeric();
    let mut out = String::new();
    for part in text.split_inclusive(|c| !is_word(c)) {
        let word = part.trim_end_matches(|c| !is_word(c));
        let name = short.get(word).filter(|_| word.len() == SHORT);
        out.push_str(name.map_or(word, String::as_str));
        out.push_str(&part[word.len()..]);
    }
    out
}

/// `Kind(x)` as `x`.
fn unwrapped(text: &str, open: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(open) {
        let (before, behind) = (&rest[..at], &rest[at + open.len()..]);
        // The end of a longer name, or cut off.
        let is_whole = !before.ends_with(|c: char| c.is_alphanumeric());
        let Some(end) = behind.find(')').filter(|_| is_whole) else {
            out.push_str(&rest[..at + open.len()]);
            rest = behind;
            continue;
        };
        out.push_str(before);
        out.push_str(&behind[..end]);
        rest = &behind[end + 1..];
    }
    out + rest
}

/// `Position { term: 1, index: 2 }` as `1.2`.
fn positions(text: &str) -> String {
    const OPEN: &str = "Position { term: ";
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(OPEN) {
        let behind = &rest[at + OPEN.len()..];
        let parts =
            behind.split_once(" }").and_then(|(inner, after)| Some((inner.split_once(", index: ")?, after)));
        let Some(((term, index), after)) = parts else { break };
        out.push_str(&rest[..at]);
        out.push_str(&format!("{term}.{index}"));
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_for_people() {
        let names = Names::from([("557dc53f".to_owned(), "127.0.0.1:6379".to_owned())]);
        let words = "StartReceived(UplinkId(5), Start { term: Term(2), sync: Partial(Position { term: Term(1), \
                     index: LogIndex(2) }) }) of 557dc53f";
        let expected = "StartReceived(5, Start { term: 2, sync: Partial(1.2) }) of 127.0.0.1:6379";
        assert_eq!(plain(words, &names), expected);
        assert_eq!(
            plain("Hello { last: Position { term: Term(1), ind ...", &names),
            "Hello { last: Position { term: 1, ind ..."
        );
        assert_eq!(plain("NoTerm(3) Term(", &names), "NoTerm(3) Term(");
    }
}

//! CLUSTERSCAN: a walk over the keys of a cluster, one slot after the other, that a client can follow from node to node.
//!
//! A cursor is `fingerprint-{tag}-position`. The tag belongs to the slot, so who routes by the cursor as if it was a key
//! finds the slot's node. The position counts among the hashes of one process, which the fingerprint names: elsewhere, and
//! after a restart, the slot begins anew. A fingerprint of `0` stands for the beginning.

use std::sync::LazyLock;

use keyward_commands::scan::{ScanOptions, Scanned, parse_cursor};
use keyward_proto::resp::Args;
use keyward_proto::resp::number::parse_i64;
use keyward_proto::slot::{SLOT_COUNT, Slot};
use keyward_store::keys::Step;
use keyward_store::table::{ScanPosition, hash_of};

use super::cluster::require_cluster;
use super::{ServerCommand, ServerContext, ServerOutcome, ServerResult, read};
use crate::command::CommandError;
use crate::command::spec::{NOT_KEY, Scope, TOUCHES_ARBITRARY_KEYS, category};
use crate::routing::Owner;

/// Tags are made of these, as short as possible, and the first in this order.
const TAG_BYTES: &[u8; 62] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
/// Every slot has a tag that is no longer.
const TAG_LEN_MAX: u32 = 3;
/// Of the beginning of a slot.
const ANYWHERE: &str = "0";

/// Of this process.
static FINGERPRINT: LazyLock<String> = LazyLock::new(|| {
    const LEN: usize = 6;
    let mut hash = hash_of(b"fingerprint");
    let mut next = || {
        let byte = TAG_BYTES[(hash % TAG_BYTES.len() as u64) as usize];
        hash /= TAG_BYTES.len() as u64;
        char::from(byte)
    };
    (0..LEN).map(|_| next()).collect()
});

/// A tag for each slot.
static TAGS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut tags = vec![String::new(); usize::from(SLOT_COUNT)];
    let mut note = |tag: &str| {
        let known = &mut tags[Slot::of(tag.as_bytes()).index()];
        if known.is_empty() {
            *known = tag.to_owned();
        }
    };
    for len in 1..=TAG_LEN_MAX {
        for number in 0..TAG_BYTES.len().pow(len) {
            let digit = |place| TAG_BYTES[number / TAG_BYTES.len().pow(place) % TAG_BYTES.len()];
            let tag: String = (0..len).rev().map(|place| char::from(digit(place))).collect();
            note(&tag);
        }
    }
    tags
});

/// Where a walk goes on.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Slot(Slot),
    Within(Slot, ScanPosition),
    End,
}

impl Next {
    fn cursor(&self) -> String {
        let text = |fingerprint: &str, slot: &Slot, position| {
            format!("{fingerprint}-{{{}}}-{position}", TAGS[slot.index()])
        };
        match self {
            Next::Slot(slot) => text(ANYWHERE, slot, 0),
            Next::Within(slot, position) => text(&FINGERPRINT, slot, *position),
            Next::End => "0".into(),
        }
    }
}

/// `CLUSTERSCAN cursor [MATCH pattern] [COUNT count] [TYPE type] [SLOT slot]`
pub(super) const CLUSTERSCAN: ServerCommand =
    read("clusterscan", clusterscan, -2, TOUCHES_ARBITRARY_KEYS, "9.1.0")
        .key(1, NOT_KEY)
        .categories(category::KEYSPACE)
        .tips(&["nondeterministic_output", "request_policy:special", "response_policy:special"])
        .scope(Scope::Walk);
fn clusterscan(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    require_cluster(ctx)?;
    let mut only = None;
    let options = ScanOptions::parse_with(args, 2, Scanned::Keys, |rest| {
        let Some(number) = rest.value_of("slot") else { return Ok(false) };
        if only.is_some() {
            return Err(CommandError::err("SLOT option can only be specified once"));
        }
        only = Some(parse_slot(number)?);
        Ok(true)
    })?;
    let cursor = args.at(1);
    if cursor == b"0" {
        let first = match (only, options.slot()) {
            (Some(slot), Some(matching)) if slot != matching => Next::End,
            (Some(slot), _) | (None, Some(slot)) => Next::Slot(slot),
            (None, None) => Slot::new(0).map_or(Next::End, Next::Slot),
        };
        return Ok(nothing(ctx, &first));
    }
    let (slot, position) = parse_position(cursor)?;
    if only.is_some_and(|only| only != slot) {
        return Err(CommandError::err("Cursor slot mismatch with SLOT argument"));
    }
    match options.slot() {
        Some(matching) if slot < matching && only.is_none() => Ok(nothing(ctx, &Next::Slot(matching))),
        Some(matching) if slot != matching => Ok(nothing(ctx, &Next::End)),
        matching => {
            let last = only.or(matching).or(Slot::new(SLOT_COUNT - 1)).unwrap_or(slot);
            walk(ctx, &options, (slot, position), last);
            Ok(ServerOutcome::Reply)
        }
    }
}

/// Up to `last`, as far as slots are this shard's. The slot behind them is another node's to walk over.
fn walk(
    ctx: &mut ServerContext<'_, '_>,
    options: &ScanOptions<'_>,
    (mut slot, mut position): (Slot, ScanPosition),
    last: Slot,
) {
    let routing = ctx.server.routing();
    let now = ctx.keys.now;
    let start = ctx.out.deferred();
    let elements = &mut ctx.out;
    let (mut visited, mut count) = (0, 0);
    let next = loop {
        if options.count <= visited || elements.is_full() {
            break if position == 0 { Next::Slot(slot) } else { Next::Within(slot, position) };
        }
        let step = ctx.keys.scan_slot(slot, position, &mut |entry| {
            visited += 1;
            if options.shows(entry, now) {
                elements.bulk(entry.key());
                count += 1;
            }
        });
        if let Step::Next(next) = step {
            position = next;
            continue;
        }
        position = 0;
        match Slot::new(slot.number() + 1).filter(|_| slot != last) {
            None => break Next::End,
            Some(next) if routing.owner(next) != Owner::Mine => break Next::Slot(next),
            Some(next) => slot = next,
        }
    };
    elements.finish(start, |out| {
        out.array(2);
        out.bulk_str(&next.cursor());
        out.array(count);
    });
}

fn parse_slot(argument: &[u8]) -> Result<Slot, CommandError> {
    let number = parse_i64(argument).and_then(|number| u16::try_from(number).ok());
    number.and_then(Slot::new).ok_or_else(|| CommandError::err("Invalid or out of range slot"))
}

/// The slot of a cursor, and the position if it is one of this process.
fn parse_position(cursor: &[u8]) -> Result<(Slot, ScanPosition), CommandError> {
    let invalid = || CommandError::err("Invalid cursor");
    let parts: Vec<&[u8]> = cursor.split(|byte| *byte == b'-').collect();
    let [fingerprint, _, position] = parts[..] else { return Err(invalid()) };
    let position = parse_cursor(position).map_err(|_| invalid())?;
    let is_ours = fingerprint == FINGERPRINT.as_bytes();
    let position = ScanPosition::try_from(position).ok().filter(|_| is_ours);
    Ok((Slot::of(cursor), position.unwrap_or(0)))
}

fn nothing(ctx: &mut ServerContext<'_, '_>, next: &Next) -> ServerOutcome {
    ctx.out.array(2);
    ctx.out.bulk_str(&next.cursor());
    ctx.out.array(0);
    ServerOutcome::Reply
}

#[cfg(test)]
mod tests {
    use keyward_replication::gate::GateState;

    use super::*;
    use crate::testing::{TestNode, check, check_on, two_shards};

    /// The primary of the slots up to 8191.
    fn node() -> TestNode {
        let node = TestNode::with_arguments(&["--sentinels", "localhost:1", "--cluster-enabled", "yes"]);
        node.executor.server().set_routing(two_shards(1, Some(3)));
        node.publish(GateState::Primary, 0);
        node
    }

    fn cursor(text: &str) -> String {
        format!("*2\r\n${}\r\n{text}\r\n*0\r\n", text.len())
    }

    #[test]
    fn only_a_cluster_is_walked_over() {
        let disabled = "-ERR This instance has cluster support disabled\r\n";
        check(&[("CLUSTERSCAN 0", disabled), ("CLUSTERSCAN x FOO", disabled)]);
    }

    /// As the real Valkey answers.
    #[test]
    fn what_is_wrong_is_said_in_valkeys_words() {
        let mut node = node();
        for (request, error) in [
            ("CLUSTERSCAN", "ERR wrong number of arguments for 'clusterscan' command"),
            // Who routes by the cursor goes by its slot.
            ("CLUSTERSCAN 0", "MOVED 13907 host3:6379"),
            ("CLUSTERSCAN abc", "ERR Invalid cursor"),
            ("CLUSTERSCAN 0-{06S}-0 FOO", "ERR syntax error"),
            ("CLUSTERSCAN 0-{06S}-0 SLOT", "ERR syntax error"),
            ("CLUSTERSCAN 0-{06S}-0 COUNT 0", "ERR syntax error"),
            ("CLUSTERSCAN 0-{06S}-0 COUNT x", "ERR value is not an integer or out of range"),
            ("CLUSTERSCAN 0-{06S}-0 SLOT 16384", "ERR Invalid or out of range slot"),
            ("CLUSTERSCAN 0-{06S}-0 SLOT -1", "ERR Invalid or out of range slot"),
            ("CLUSTERSCAN abc SLOT x", "ERR Invalid or out of range slot"),
            ("CLUSTERSCAN 0-{06S}-0 SLOT 0 SLOT x", "ERR SLOT option can only be specified once"),
            ("CLUSTERSCAN 0-{06S}-0 SLOT 1", "ERR Cursor slot mismatch with SLOT argument"),
            ("CLUSTERSCAN 0-{06S}-0 TYPE foo SLOT x", "ERR unknown type name 'foo'"),
            ("CLUSTERSCAN 0-{06S}-0 NOVALUES", "ERR NOVALUES option can only be used in HSCAN"),
        ] {
            assert_eq!(node.run(request), format!("-{error}\r\n"), "{request}");
        }
    }

    #[test]
    fn a_walk_goes_as_far_as_the_slots_are_this_nodes() {
        let mut node = node();
        check_on(
            &mut node,
            &[
                ("CLUSTERSCAN 0-{06S}-0", &cursor("0-{8YG}-0")),
                ("CLUSTERSCAN 0-{06S}-0 SLOT 0", &cursor("0")),
                ("SET {Qi}a 1", "+OK\r\n"),
                ("RPUSH b 1", ":1\r\n"),
                ("CLUSTERSCAN 0-{06S}-0", "*2\r\n$9\r\n0-{8YG}-0\r\n*2\r\n$5\r\n{Qi}a\r\n$1\r\nb\r\n"),
                ("CLUSTERSCAN 0-{06S}-0 TYPE list", "*2\r\n$9\r\n0-{8YG}-0\r\n*1\r\n$1\r\nb\r\n"),
                ("CLUSTERSCAN 0-{Qi}-0 SLOT 1", "*2\r\n$1\r\n0\r\n*1\r\n$5\r\n{Qi}a\r\n"),
                ("CLUSTERSCAN zz-{Qi}-7 SLOT 1", "*2\r\n$1\r\n0\r\n*1\r\n$5\r\n{Qi}a\r\n"),
                // A pattern that only keys of one slot match leads there.
                ("CLUSTERSCAN 0-{06S}-0 MATCH {b}*", &cursor("0-{b}-0")),
                ("CLUSTERSCAN 0-{06S}-0 MATCH {b}* SLOT 0", &cursor("0")),
                ("CLUSTERSCAN 0-{b}-0 MATCH b", "*2\r\n$1\r\n0\r\n*1\r\n$1\r\nb\r\n"),
                ("CLUSTERSCAN 0-{b}-0 MATCH {06S}", &cursor("0")),
            ],
        );
    }

    #[test]
    fn a_walk_in_steps_finds_every_key() {
        let mut node = node();
        let keys: Vec<String> = ["{06S}", "{Qi}", "{avs}", "{8YG}"]
            .iter()
            .flat_map(|tag| (0..40).map(move |number| format!("{tag}{number}")))
            .collect();
        for key in &keys {
            node.run(&format!("SET {key} v"));
        }
        let (mut found, mut at, mut calls) = (Vec::new(), "0-{06S}-0".to_owned(), 0);
        while !at.contains("8YG") {
            let reply = node.run(&format!("CLUSTERSCAN {at} COUNT 7"));
            let words: Vec<&str> = reply.split("\r\n").filter(|word| word.contains('{')).collect();
            assert_ne!(words[0], at);
            at = words[0].to_owned();
            found.extend(words[1..].iter().map(|key| (*key).to_owned()));
            calls += 1;
        }
        assert!((10..60).contains(&calls), "{calls}");
        found.sort();
        let mut mine: Vec<&String> = keys.iter().filter(|key| !key.contains("8YG")).collect();
        mine.sort();
        assert_eq!(found.iter().collect::<Vec<_>>(), mine);
    }

    #[test]
    fn the_tag_of_a_slot_is_the_first_of_the_shortest() {
        for (slot, tag) in [(0, "06S"), (1, "Qi"), (80, "avs"), (3300, "b"), (16383, "6ZJ")] {
            assert_eq!(TAGS[slot], tag);
        }
        for slot in Slot::all() {
            assert_eq!(Slot::of(TAGS[slot.index()].as_bytes()), slot);
        }
    }

    #[test]
    fn a_cursor_counts_only_where_it_was_made() {
        let slot = |number| Slot::new(number).unwrap();
        for next in [Next::Slot(slot(1)), Next::Within(slot(1), 7), Next::Within(slot(16383), u32::MAX)] {
            let (Next::Slot(at) | Next::Within(at, _)) = next else { continue };
            let position = if let Next::Within(_, position) = next { position } else { 0 };
            assert_eq!(parse_position(next.cursor().as_bytes()), Ok((at, position)));
        }
        let ours = format!("{}-{{Qi}}-", *FINGERPRINT);
        let position = |text: &str| parse_position(text.as_bytes()).map(|(slot, at)| (slot.number(), at));
        for (cursor, expect) in [
            ("0-{Qi}-5", Some((1, 0))),
            ("-{Qi}-5", Some((1, 0))),
            ("abcdef-x{Qi}y- +05", Some((1, 0))),
            (&format!("{ours} +05"), Some((1, 5))),
            (&format!("{ours}4294967296"), Some((1, 0))),
            ("0-{a-b}-0", None),
            ("0-{Qi}", None),
            ("0-{Qi}-", None),
            ("0-{Qi}-x", None),
            ("0-{Qi}--1", None),
            ("0-{Qi}-99999999999999999999999", None),
            ("1", None),
            ("", None),
        ] {
            let invalid = CommandError::err("Invalid cursor");
            assert_eq!(position(cursor), expect.ok_or(invalid), "{cursor}");
        }
    }
}

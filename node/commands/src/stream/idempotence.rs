//! XADD IDMP and IDMPAUTO, XCFGSET: what a producer sends again is not added again, as in Redis 8.6.
//!
//! What is remembered lies in two groups of the stream that clients are not shown ([`HIDDEN_GROUPS`]), in a form that all
//! effects and files have: so replicas, logs, files, DUMP and COPY carry it, whatever version they are of, and Valkey keeps
//! it, although it takes the groups for somebody's.
//! - [`IIDS`] has a consumer for each ID of a producer; what is pending for it is the entry, since it was added. Its last
//!   ID is the stream's configuration (seconds, how many of a producer), what it has read the number of IDs ever added.
//! - [`ORDER`] has a consumer for each producer; what is pending for it are all its entries that are remembered. What it
//!   has read is the number of duplicates.

use std::sync::Arc;

use keyward_proto::resp::{Args, ReplyWriter};
use keyward_store::keys::Keys;
use keyward_store::types::StreamId;
use keyward_store::types::stream::{Group, HIDDEN_GROUPS, Stream};
use twox_hash::XxHash3_128;

use super::claim::{Told, propagate_claims};
use super::group::propagate_position;
use crate::spec::{FAST, RW, UPDATE};
use crate::{CommandError, CommandResult, Cursor, DataCommand, DataContext, Outcome, parse_i64_arg, write};

const IIDS: &[u8] = HIDDEN_GROUPS[0];
const ORDER: &[u8] = HIDDEN_GROUPS[1];
const SECONDS_MAX: u64 = 86_400;
const LEN_MAX: u64 = 10_000;
/// Of those whose time is over, so many are forgotten with each that is added.
const FORGOTTEN_AT_ONCE: usize = 100;

/// How long and how much is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Config {
    seconds: u64,
    /// IDs of each producer.
    len: u64,
}

impl Config {
    const DEFAULT: Config = Config { seconds: 100, len: 100 };

    fn of(stream: &Stream) -> Config {
        let id = stream.group(IIDS).map(|group| group.last_id);
        id.map_or(Config::DEFAULT, |id| Config { seconds: id.ms, len: id.seq })
    }

    fn as_id(self) -> StreamId {
        StreamId::new(self.seconds, self.len)
    }

    /// Whether what was added then is to be forgotten.
    fn is_over(self, added_at: i64, now: i64) -> bool {
        let millis = i64::try_from(self.seconds).unwrap_or(i64::MAX).saturating_mul(1000);
        added_at.saturating_add(millis) <= now
    }
}

/// What XADD is told of an entry's origin.
#[derive(Debug, Clone, Copy)]
pub(super) enum Origin<'a> {
    /// IDMP: the producer, and its ID of the entry.
    Named(&'a [u8], &'a [u8]),
    /// IDMPAUTO: the producer. What has the same content is the same.
    ByContent(&'a [u8]),
}

impl<'a> Origin<'a> {
    /// Reads the option, if it comes next.
    pub(super) fn read(cursor: &mut Cursor<'a>) -> Result<Option<Self>, CommandError> {
        let origin = if let Some(mut words) = cursor.values_of("idmp", 2) {
            words.next().zip(words.next()).map(|(producer, iid)| Origin::Named(producer, iid))
        } else {
            cursor.value_of("idmpauto").map(Origin::ByContent)
        };
        match origin {
            Some(Origin::Named(b"", _) | Origin::Named(_, b"") | Origin::ByContent(b"")) => {
                Err(CommandError::err("a producer ID or idempotent ID is empty"))
            }
            origin => Ok(origin),
        }
    }

    pub(super) fn of_entry(self, fields: &[&[u8]]) -> Produced<'a> {
        match self {
            Origin::Named(producer, iid) => Produced::new(producer, iid),
            Origin::ByContent(producer) => {
                let mut content = Vec::new();
                for text in fields {
                    content.extend_from_slice(&text.len().to_le_bytes());
                    content.extend_from_slice(text);
                }
                Produced::new(producer, &XxHash3_128::oneshot(&content).to_be_bytes())
            }
        }
    }
}

/// An entry, as its producer knows it.
#[derive(Debug)]
pub(super) struct Produced<'a> {
    producer: &'a [u8],
    /// Of the consumer that stands for it: the producer, with its length before it, and the ID.
    name: Vec<u8>,
}

impl<'a> Produced<'a> {
    fn new(producer: &'a [u8], iid: &[u8]) -> Self {
        let mut name = format!("{}:", producer.len()).into_bytes();
        name.extend_from_slice(producer);
        name.extend_from_slice(iid);
        Produced { producer, name }
    }

    /// The entry that was added for it, and when, as far as is remembered.
    fn entry(&self, stream: &Stream) -> Option<(StreamId, i64)> {
        let iids = stream.group(IIDS)?;
        let id = iids.consumer(&self.name)?.pending().next()?;
        Some((id, iids.pending_at(id)?.delivered_at))
    }

    /// The entry that was added for it before, even if it has been deleted. Then this is a duplicate, and counted.
    pub(super) fn original(&self, keys: &mut Keys<'_>, key: &[u8]) -> Result<Option<StreamId>, CommandError> {
        let now = keys.now;
        let Some(stream) = keys.stream_mut(key)? else { return Ok(None) };
        let config = Config::of(stream);
        let entry = self.entry(stream).filter(|(_, at)| !config.is_over(*at, now));
        let Some((id, _)) = entry else { return Ok(None) };
        if let Some(order) = stream.group_mut(ORDER) {
            order.entries_read = order.entries_read.saturating_add(1);
            let position = (order.last_id, order.entries_read);
            propagate_position(keys, b"SETID", [key, ORDER], position, &[]);
        }
        keys.modified_aside();
        Ok(Some(id))
    }

    /// Remembers the entry that was added for it, and forgets what is too old and too much.
    pub(super) fn remember(&self, keys: &mut Keys<'_>, key: &[u8], id: StreamId) -> Result<(), CommandError> {
        let now = keys.now;
        make_groups(keys, key, Config::DEFAULT, [0, 0])?;
        for old in self.forgotten(keys, key)? {
            forget(keys, key, old)?;
        }
        let Some(stream) = keys.stream_mut(key)? else { return Ok(()) };
        let mut told = Told::seen(now, now);
        for (group, consumer) in [(IIDS, &*self.name), (ORDER, self.producer)] {
            let Some(group) = stream.group_mut(group) else { continue };
            group.create_consumer(consumer, now, now);
            group.deliver(id, consumer, now, 1);
        }
        if let Some(iids) = stream.group_mut(IIDS) {
            iids.entries_read = iids.entries_read.saturating_add(1);
            told.position = Some((iids.last_id, iids.entries_read));
        }
        propagate_claims(keys, [key, IIDS, &self.name], told, &[(id, now, 1)]);
        told.position = None;
        propagate_claims(keys, [key, ORDER, self.producer], told, &[(id, now, 1)]);
        Ok(())
    }

    /// The entries that make room: of all producers those whose time is over, of this one those that are too many, and the
    /// one that had the same ID.
    fn forgotten(&self, keys: &mut Keys<'_>, key: &[u8]) -> Result<Vec<StreamId>, CommandError> {
        let now = keys.now;
        let Some(stream) = keys.stream_mut(key)? else { return Ok(Vec::new()) };
        if let Some(iids) = stream.group_mut(IIDS) {
            iids.order_by_time();
        }
        let config = Config::of(stream);
        let by_time = stream.group(IIDS).into_iter().flat_map(Group::pending_by_time);
        let over = by_time.take(FORGOTTEN_AT_ONCE).take_while(|(at, _)| config.is_over(*at, now));
        let mut ids: Vec<StreamId> = over.map(|(_, id)| id).collect();
        ids.extend(self.entry(stream).map(|(id, _)| id));
        if let Some(own) = stream.group(ORDER).and_then(|order| order.consumer(self.producer)) {
            let len = usize::try_from(config.len).unwrap_or(usize::MAX);
            ids.extend(own.pending().take((own.pending().len() + 1).saturating_sub(len)));
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }
}

/// Forgets an entry.
fn forget(keys: &mut Keys<'_>, key: &[u8], id: StreamId) -> Result<(), CommandError> {
    let Some(stream) = keys.stream_mut(key)? else { return Ok(()) };
    let consumer = |stream: &Stream, group| {
        stream.group(group).and_then(|group| Some(Arc::clone(&group.pending_at(id)?.consumer)))
    };
    let (name, producer) = (consumer(stream, IIDS), consumer(stream, ORDER));
    let mut is_last = false;
    if let (Some(iids), Some(name)) = (stream.group_mut(IIDS), &name) {
        iids.delete_consumer(name);
    }
    if let (Some(order), Some(producer)) = (stream.group_mut(ORDER), &producer) {
        order.acknowledge(id);
        is_last = order.consumer(producer).is_some_and(|consumer| consumer.pending().len() == 0);
        if is_last {
            order.delete_consumer(producer);
        }
    }
    if let Some(name) = name {
        keys.propagate_as(key, &[b"XGROUP", b"DELCONSUMER", key, IIDS, &name]);
    }
    match producer {
        Some(producer) if is_last => {
            keys.propagate_as(key, &[b"XGROUP", b"DELCONSUMER", key, ORDER, &producer]);
        }
        Some(_) => keys.propagate_as(key, &[b"XACK", key, ORDER, id.to_string().as_bytes()]),
        None => {}
    }
    Ok(())
}

/// Makes what is not there. `counts`: what the groups have read.
fn make_groups(
    keys: &mut Keys<'_>,
    key: &[u8],
    config: Config,
    counts: [i64; 2],
) -> Result<(), CommandError> {
    for ((name, id), count) in [(IIDS, config.as_id()), (ORDER, StreamId::ZERO)].into_iter().zip(counts) {
        let Some(stream) = keys.stream_mut(key)? else { return Ok(()) };
        if stream.create_group(name, id, count) {
            propagate_position(keys, b"CREATE", [key, name], (id, count), &[]);
        }
    }
    Ok(())
}

/// `XCFGSET key [IDMP-DURATION seconds] [IDMP-MAXSIZE len]`: what is remembered goes, if it changes anything.
pub(super) const XCFGSET: DataCommand = write("xcfgset", xcfgset, -2, FAST, "8.6.0").key(1, RW | UPDATE);
fn xcfgset(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let (mut seconds, mut len) = (None, None);
    let mut options = Cursor::new(args, 2);
    while !options.is_at_end() {
        if let Some(value) = options.value_of("idmp-duration") {
            seconds = Some(within(value, SECONDS_MAX, "invalid duration")?);
        } else if let Some(value) = options.value_of("idmp-maxsize") {
            len = Some(within(value, LEN_MAX, "invalid maxsize")?);
        } else {
            return Err(CommandError::Syntax);
        }
    }
    if seconds.is_none() && len.is_none() {
        return Err(CommandError::Syntax);
    }
    let (key, keys) = (args.at(1), &mut *ctx.keys);
    let stream = keys.stream_mut(key)?.ok_or(CommandError::NoSuchKey)?;
    let old = Config::of(stream);
    let new = Config { seconds: seconds.unwrap_or(old.seconds), len: len.unwrap_or(old.len) };
    if new != old {
        let counts = [IIDS, ORDER].map(|name| stream.group(name).map_or(0, |group| group.entries_read));
        for name in [IIDS, ORDER] {
            let destroyed = keys.stream_mut(key)?.is_some_and(|stream| stream.destroy_group(name));
            if destroyed {
                keys.propagate_as(key, &[b"XGROUP", b"DESTROY", key, name]);
            }
        }
        make_groups(keys, key, new, counts)?;
        keys.modified_aside();
    }
    ctx.out.ok();
    Ok(Outcome::Reply)
}

fn within(argument: &[u8], max: u64, error: &'static str) -> Result<u64, CommandError> {
    let value = parse_i64_arg(argument).ok().and_then(|value| u64::try_from(value).ok());
    value.filter(|value| (1..=max).contains(value)).ok_or_else(|| CommandError::err(error))
}

/// What XINFO STREAM tells of a stream of which anything is remembered.
pub(super) fn info(stream: &Stream) -> Option<[(&'static str, i64); 6]> {
    let (iids, order) = stream.group(IIDS).zip(stream.group(ORDER))?;
    let number = |len: usize| i64::try_from(len).unwrap_or(i64::MAX);
    let config = Config::of(stream);
    Some([
        ("idmp-duration", config.seconds.cast_signed()),
        ("idmp-maxsize", config.len.cast_signed()),
        ("pids-tracked", number(order.consumers().len())),
        ("iids-tracked", number(iids.pending_len())),
        ("iids-added", iids.entries_read),
        ("iids-duplicates", order.entries_read),
    ])
}

/// Writes it.
pub(super) fn write_info(stream: &Stream, out: &mut ReplyWriter<'_>) {
    for (name, value) in info(stream).into_iter().flatten() {
        out.bulk_str(name);
        out.integer(value);
    }
}

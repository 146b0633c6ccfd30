//! What comes after an ID: XREAD, and XREADGROUP for the consumers of a group; both also wait for it.
//!
//! Who waits is executed again when something came. Until then `$` has become the last ID of the beginning, and a group
//! that has gone is an error.

use keyward_proto::resp::number::parse_i64;
use keyward_proto::resp::{Args, ReplyWriter};
use keyward_store::keys::Keys;
use keyward_store::types::StreamId;
use keyward_store::types::stream::{Stream, UNKNOWN};

use super::claim::{EFFECT_ID_BYTES, Told, propagate_claims, propagate_seen};
use super::group::{consumer_created, no_key_or_group};
use super::range::{write_entries, write_entry};
use super::{parse_id, write_id};
use crate::spec::{ACCESS, BLOCKING, Begin, Find, KeySpec, RO};
use crate::{
    Block, CommandError, CommandResult, Cursor, DataCommand, DataContext, OnTimeout, Outcome, parse_i64_arg,
    read, write,
};

const fn behind_streams(from: i8) -> KeySpec {
    let find = Find::Range { last: -1, step: 1, limit: 2 };
    KeySpec { flags: RO | ACCESS, begin: Begin::Keyword(b"STREAMS", from), find }
}

/// The request of both.
struct Request<'a> {
    args: Args<'a>,
    count: usize,
    timeout_ms: Option<u64>,
    no_ack: bool,
    /// Group and consumer.
    reader: Option<(&'a [u8], &'a [u8])>,
    first_key: usize,
    keys: usize,
}

impl<'a> Request<'a> {
    fn parse(args: Args<'a>, name: &str, now: i64) -> Result<Request<'a>, CommandError> {
        let for_group = name == "xreadgroup";
        let only_for_group = |option: &str| {
            CommandError::err(format!(
                "The {option} option is only supported by XREADGROUP. You called XREAD instead."
            ))
        };
        let mut options = Cursor::new(args, 1);
        let (mut count, mut timeout_ms, mut no_ack, mut reader) = (0, None, false, None);
        let first_key = loop {
            if options.is_at_end() {
                return Err(CommandError::Syntax);
            }
            if let Some(timeout) = options.value_of("block") {
                timeout_ms = Some(parse_milliseconds(timeout, now)?);
            } else if let Some(value) = options.value_of("count") {
                count = parse_i64_arg(value)?.max(0);
            } else if options.value_of("streams").is_some() {
                break options.position() - 1;
            } else if let Some(mut names) = options.values_of("group", 2) {
                if !for_group {
                    return Err(only_for_group("GROUP"));
                }
                reader = names.next().zip(names.next());
            } else if options.word("noack") {
                if !for_group {
                    return Err(only_for_group("NOACK"));
                }
                no_ack = true;
            } else {
                return Err(CommandError::Syntax);
            }
        };
        let rest = args.len() - first_key;
        if !rest.is_multiple_of(2) {
            let symbol = if for_group { '>' } else { '$' };
            return Err(CommandError::err(format!(
                "Unbalanced '{name}' list of streams: for each stream key an ID or '{symbol}' must be specified."
            )));
        }
        if for_group && reader.is_none() {
            return Err(CommandError::err("Missing GROUP option for XREADGROUP"));
        }
        let count = if count == 0 { usize::MAX } else { usize::try_from(count).unwrap_or(usize::MAX) };
        Ok(Request { args, count, timeout_ms, no_ack, reader, first_key, keys: rest / 2 })
    }

    /// Keys with the words that stand for their IDs.
    fn streams(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let (keys, ids) = (self.args.iter().skip(self.first_key), self.first_key + self.keys);
        keys.zip(self.args.iter().skip(ids)).take(self.keys)
    }

    /// Nothing was there.
    fn wait(&self, out: &mut ReplyWriter<'_>, instead: Option<Vec<Box<[u8]>>>) -> Outcome {
        let Some(timeout_ms) = self.timeout_ms else {
            out.null_array();
            return Outcome::Reply;
        };
        let keys = self.streams().map(|(key, _)| key.into()).collect();
        let null = OnTimeout::NullArray;
        let ends_without_key = self.reader.is_some();
        Outcome::Block(Block {
            keys,
            timeout_ms,
            on_timeout: null,
            in_transaction: null,
            instead,
            ends_without_key,
        })
    }
}

/// A timeout in whole milliseconds.
fn parse_milliseconds(argument: &[u8], now: i64) -> Result<u64, CommandError> {
    let timeout =
        parse_i64(argument).ok_or_else(|| CommandError::err("timeout is not an integer or out of range"))?;
    match u64::try_from(timeout) {
        Err(_) => Err(CommandError::err("timeout is negative")),
        Ok(_) if i64::MAX.saturating_sub(now) < timeout => Err(CommandError::err("timeout is out of range")),
        Ok(timeout) => Ok(timeout),
    }
}

/// The reply: keys with their entries, of which the first decides that there is one.
struct Replies {
    start: Option<(keyward_proto::resp::reply::Deferred, usize)>,
}

impl Replies {
    fn begin(&mut self, out: &mut ReplyWriter<'_>, key: &[u8]) {
        let (_, len) = self.start.get_or_insert_with(|| (out.deferred(), 0));
        *len += 1;
        if !out.is_resp3() {
            out.array(2);
        }
        out.bulk(key);
    }

    /// Whether there was anything.
    fn finish(self, out: &mut ReplyWriter<'_>) -> bool {
        let Some((start, len)) = self.start else { return false };
        if out.is_resp3() {
            out.finish_map(start, len)
        } else {
            out.finish_array(start, len)
        }
        true
    }
}

/// `XREAD [COUNT count] [BLOCK milliseconds] STREAMS key [key ...] id [id ...]`
pub(super) const XREAD: DataCommand = read("xread", xread, -4, BLOCKING, "5.0.0").key_spec(behind_streams(1));
fn xread(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let request = Request::parse(args, "xread", ctx.keys.now)?;
    let mut after = Vec::new();
    for (key, word) in request.streams() {
        let stream = ctx.keys.stream(key)?;
        after.push(parse_position(word, stream)?);
    }
    let mut replies = Replies { start: None };
    for ((key, _), after) in request.streams().zip(&after) {
        let Some(stream) = ctx.keys.stream(key)? else { continue };
        let Some(start) = after.next() else { continue };
        let mut entries = stream.range(start, StreamId::MAX).take(request.count).peekable();
        if entries.peek().is_some() {
            replies.begin(&mut ctx.out, key);
            write_entries(&mut ctx.out, entries);
        }
    }
    if replies.finish(&mut ctx.out) {
        return Ok(Outcome::Reply);
    }
    // What `$` meant is what it goes on to mean.
    let ids = request.first_key + request.keys;
    let instead = args.iter().enumerate().map(|(at, word)| match at.checked_sub(ids) {
        Some(index) if word == b"$" => after[index].to_string().into_bytes().into(),
        _ => word.into(),
    });
    let instead = request.timeout_ms.is_some().then(|| instead.collect());
    Ok(request.wait(&mut ctx.out, instead))
}

/// After which ID XREAD reads.
fn parse_position(word: &[u8], stream: Option<&Stream>) -> Result<StreamId, CommandError> {
    match word {
        b"$" => Ok(stream.map(Stream::last_id).unwrap_or_default()),
        b"+" => Ok(stream.and_then(Stream::last).and_then(|last| last.id.previous()).unwrap_or_default()),
        b">" => Err(CommandError::err(
            "The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> option.",
        )),
        id => parse_id(id),
    }
}

/// `XREADGROUP GROUP group consumer [COUNT count] [BLOCK milliseconds] [NOACK] STREAMS key [key ...] id [id ...]`
pub(super) const XREADGROUP: DataCommand =
    write("xreadgroup", xreadgroup, -7, BLOCKING, "5.0.0").key_spec(behind_streams(4));
fn xreadgroup(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let request = Request::parse(args, "xreadgroup", ctx.keys.now)?;
    let Some((group, consumer)) = request.reader else { return Err(CommandError::Syntax) };
    let mut wanted = Vec::new();
    for (key, word) in request.streams() {
        let stream = ctx.keys.stream(key)?.filter(|stream| stream.group(group).is_some());
        let stream = stream.ok_or_else(|| no_key_or_group(key, group, " in XREADGROUP with GROUP option"))?;
        let most = request.count.min(usize::try_from(stream.len()).unwrap_or(usize::MAX));
        ctx.keys.check_entry(|| most.saturating_mul(EFFECT_ID_BYTES))?;
        wanted.push(parse_wanted(word)?);
    }
    let mut replies = Replies { start: None };
    for ((key, _), wanted) in request.streams().zip(wanted) {
        let names = [key, group, consumer];
        let created = see(ctx.keys, names)?;
        let mut read = match wanted {
            Some(after) => read_pending(ctx, &mut replies, &request, names, after)?,
            None => read_new(ctx, &mut replies, &request, names)?,
        };
        read.created = created;
        read.finish(ctx.keys, names);
    }
    if replies.finish(&mut ctx.out) { Ok(Outcome::Reply) } else { Ok(request.wait(&mut ctx.out, None)) }
}

/// After which ID a consumer reads what is pending for it; `None`: it reads what is new.
fn parse_wanted(word: &[u8]) -> Result<Option<StreamId>, CommandError> {
    let meaningless = |symbol: &str| {
        CommandError::err(format!(
            "The {symbol} ID is meaningless in the context of XREADGROUP: you want to read the history of this \
             consumer by specifying a proper ID, or use the > ID to get new messages. The {symbol} ID would just \
             return an empty result set."
        ))
    };
    match word {
        b"$" => Err(meaningless("$")),
        b"+" => Err(meaningless("+")),
        b">" => Ok(None),
        id => Ok(Some(parse_id(id)?).filter(|id| *id != StreamId::MAX)),
    }
}

/// The consumer asks for something; whether it is new.
fn see(keys: &mut Keys<'_>, [key, group, consumer]: [&[u8]; 3]) -> Result<bool, CommandError> {
    let now = keys.now;
    let group = keys.stream_mut(key)?.and_then(|stream| stream.group_mut(group));
    let Some(group) = group else { return Ok(false) };
    let created = group.create_consumer(consumer, now, UNKNOWN);
    if let Some(consumer) = group.consumer_mut(consumer) {
        consumer.seen_at = now;
    }
    if created {
        consumer_created(keys, key);
    }
    Ok(created)
}

/// What reading one stream has changed.
#[derive(Default)]
struct Done {
    told: Told,
    /// The consumer is new.
    created: bool,
    claims: Vec<(StreamId, i64, u64)>,
}

impl Done {
    fn seen(told: Told) -> Done {
        Done { told, ..Done::default() }
    }

    fn finish(self, keys: &mut Keys<'_>, names: [&[u8]; 3]) {
        if self.claims.is_empty() && (self.created || self.told.position.is_some()) {
            propagate_seen(keys, names, self.told);
        }
        propagate_claims(keys, names, self.told, &self.claims);
        if !self.claims.is_empty() || self.told.position.is_some() {
            keys.modified_aside();
        }
    }
}

/// Reads what is pending for the consumer, after an ID: there is always a reply, and each is one more delivery.
fn read_pending(
    ctx: &mut DataContext<'_, '_>,
    replies: &mut Replies,
    request: &Request<'_>,
    [key, name, consumer_name]: [&[u8]; 3],
    after: StreamId,
) -> Result<Done, CommandError> {
    let now = ctx.keys.now;
    let Some(stream) = ctx.keys.stream_mut(key)? else { return Ok(Done::default()) };
    let Some(group) = stream.group(name) else { return Ok(Done::default()) };
    let Some(consumer) = group.consumer(consumer_name) else { return Ok(Done::default()) };
    let out = &mut ctx.out;
    replies.begin(out, key);
    let start = out.deferred();
    let (mut len, mut claims) = (0, Vec::new());
    for id in after.next().into_iter().flat_map(|start| consumer.pending_from(start)).take(request.count) {
        match (stream.get(id), group.pending_at(id)) {
            (Some(entry), Some(pending)) => {
                write_entry(out, &entry);
                claims.push((id, now, pending.deliveries_with(1)));
            }
            _ => {
                out.array(2);
                write_id(out, id);
                out.null_array();
            }
        }
        len += 1;
    }
    out.finish_array(start, len);
    let told = Told::seen(now, consumer.active_at);
    if let Some(group) = stream.group_mut(name) {
        claims.iter().for_each(|(id, at, count)| group.deliver(*id, consumer_name, *at, *count));
    }
    Ok(Done { claims, ..Done::seen(told) })
}

/// Reads what the group has not read yet, if there is anything: it is pending then, unless nobody wants to acknowledge.
fn read_new(
    ctx: &mut DataContext<'_, '_>,
    replies: &mut Replies,
    request: &Request<'_>,
    [key, name, consumer_name]: [&[u8]; 3],
) -> Result<Done, CommandError> {
    let now = ctx.keys.now;
    let Some(stream) = ctx.keys.stream_mut(key)? else { return Ok(Done::default()) };
    let Some(group) = stream.group(name) else { return Ok(Done::default()) };
    let mut told = Told::seen(now, group.consumer(consumer_name).map_or(UNKNOWN, |c| c.active_at));
    let (mut last_id, mut entries_read) = (group.last_id, group.entries_read);
    let Some(start) = last_id.next() else { return Ok(Done::seen(told)) };
    let mut entries = stream.range(start, StreamId::MAX).take(request.count).peekable();
    if entries.peek().is_none() {
        return Ok(Done::seen(told));
    }
    let mut ids = Vec::new();
    replies.begin(&mut ctx.out, key);
    let read = entries.inspect(|entry| {
        entries_read = stream.entries_read_after(last_id, entries_read, entry.id);
        last_id = entry.id;
        ids.push(entry.id);
    });
    write_entries(&mut ctx.out, read);
    told.position = Some((last_id, entries_read));
    let mut claims = Vec::new();
    if !request.no_ack {
        claims = ids.into_iter().map(|id| (id, now, 1)).collect();
        told.active_at = now;
    }
    stream.set_group_position(name, last_id, entries_read);
    if let Some(group) = stream.group_mut(name) {
        claims.iter().for_each(|(id, at, count)| group.deliver(*id, consumer_name, *at, *count));
        if let Some(consumer) = group.consumer_mut(consumer_name) {
            consumer.active_at = told.active_at;
        }
    }
    Ok(Done { claims, ..Done::seen(told) })
}

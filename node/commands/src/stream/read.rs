//! What comes after an ID: XREAD, and XREADGROUP for the consumers of a group; both also wait for it.
//!
//! Who waits is executed again when something came. Until then `$` has become the last ID of the beginning, and a group
//! that has gone is an error. With CLAIM also the time brings something, so it is executed again when that may be.

use keyward_proto::resp::number::parse_i64;
use keyward_proto::resp::{Args, ReplyWriter};
use keyward_store::keys::Keys;
use keyward_store::types::StreamId;
use keyward_store::types::stream::{Group, Pending, Stream, UNKNOWN};

use super::claim::{EFFECT_ID_BYTES, Told, propagate_claims, propagate_gone, propagate_seen};
use super::group::{consumer_created, no_key_or_group};
use super::range::{write_delivered, write_entries, write_entry};
use super::{parse_id, write_id};
use crate::spec::{ACCESS, BLOCKING, Begin, Find, KeySpec, RO};
use crate::{
    Block, CommandError, CommandResult, Cursor, DataCommand, DataContext, OnTimeout, Outcome, parse_i64_arg,
    read, write,
};

/// With CLAIM: so many pending entries are looked at for each that is wanted, as those are that do not exist any more.
const CLAIM_ATTEMPTS: usize = 10;
/// With CLAIM: who waits looks again at the earliest after so many milliseconds.
const AGAIN_MS_MIN: i64 = 10;

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
    /// CLAIM: for how many milliseconds what is claimed has been pending at least.
    min_idle: Option<i64>,
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
        let (mut count, mut timeout_ms, mut no_ack, mut min_idle, mut reader) = (0, None, false, None, None);
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
            } else if let Some(time) = options.value_of("claim") {
                if !for_group {
                    return Err(only_for_group("CLAIM"));
                }
                min_idle = Some(parse_min_idle(time)?);
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
        Ok(Request { args, count, timeout_ms, no_ack, min_idle, reader, first_key, keys: rest / 2 })
    }

    /// Keys with the words that stand for their IDs.
    fn streams(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let (keys, ids) = (self.args.iter().skip(self.first_key), self.first_key + self.keys);
        keys.zip(self.args.iter().skip(ids)).take(self.keys)
    }

    /// At how many pending entries of a stream CLAIM looks.
    fn claim_attempts(&self) -> usize {
        self.count.saturating_mul(CLAIM_ATTEMPTS)
    }

    /// After how many milliseconds something may have been pending for long enough. What is delivered from now on is so at
    /// the earliest after all of that time.
    fn again_ms(&self, keys: &mut Keys<'_>, group: &[u8], min_idle: i64) -> Result<u64, CommandError> {
        let (now, mut again) = (keys.now, min_idle);
        for (key, _) in self.streams() {
            let group = keys.stream(key)?.and_then(|stream| stream.group(group));
            if let Some((at, _)) = group.and_then(|group| group.pending_by_time().next()) {
                again = again.min(at.saturating_add(min_idle).saturating_sub(now));
            }
        }
        Ok(again.max(AGAIN_MS_MIN).cast_unsigned())
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
            again_ms: None,
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

fn parse_min_idle(argument: &[u8]) -> Result<i64, CommandError> {
    let time = parse_i64(argument).ok_or_else(|| CommandError::err("min-idle-time is not an integer"))?;
    if time < 0 { Err(CommandError::err("min-idle-time must be a positive integer")) } else { Ok(time) }
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

/// `XREADGROUP GROUP group consumer [COUNT count] [BLOCK milliseconds] [CLAIM min-idle-time] [NOACK] STREAMS key
/// [key ...] id [id ...]`
///
/// CLAIM is of Redis 8.4.
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
        let pending = || stream.group(group).map_or(0, Group::pending_len);
        let claims = request.min_idle.map_or(0, |_| request.claim_attempts().min(pending()));
        ctx.keys.check_entry(|| most.saturating_add(claims).saturating_mul(EFFECT_ID_BYTES))?;
        wanted.push(parse_wanted(word)?);
    }
    let mut replies = Replies { start: None };
    for ((key, _), wanted) in request.streams().zip(wanted) {
        let names = [key, group, consumer];
        let created = see(ctx.keys, names)?;
        let mut read = match (wanted, request.min_idle) {
            (Some(after), _) => read_pending(ctx, &mut replies, &request, names, after)?,
            (None, None) => read_new(ctx, &mut replies, &request, names)?,
            (None, Some(min_idle)) => read_idle_and_new(ctx, &mut replies, &request, names, min_idle)?,
        };
        read.created = created;
        read.finish(ctx.keys, names);
    }
    if replies.finish(&mut ctx.out) {
        return Ok(Outcome::Reply);
    }
    let mut outcome = request.wait(&mut ctx.out, None);
    if let (Outcome::Block(block), Some(min_idle)) = (&mut outcome, request.min_idle) {
        block.again_ms = Some(request.again_ms(ctx.keys, group, min_idle)?);
    }
    Ok(outcome)
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
    /// Pending entries that do not exist any more.
    gone: Vec<StreamId>,
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
        propagate_gone(keys, names[0], names[1], &self.gone);
        if !self.claims.is_empty() || !self.gone.is_empty() || self.told.position.is_some() {
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

/// As [`read_new`], but first comes what has been pending for at least `min_idle`, for whomever: it is pending for this
/// consumer then. Each entry says how long it had not been delivered, and how often it had been: never, if it is new.
fn read_idle_and_new(
    ctx: &mut DataContext<'_, '_>,
    replies: &mut Replies,
    request: &Request<'_>,
    [key, name, consumer_name]: [&[u8]; 3],
    min_idle: i64,
) -> Result<Done, CommandError> {
    let now = ctx.keys.now;
    let Some(stream) = ctx.keys.stream_mut(key)? else { return Ok(Done::default()) };
    let Some(group) = stream.group_mut(name) else { return Ok(Done::default()) };
    group.order_by_time();
    let mut told = Told::seen(now, group.consumer(consumer_name).map_or(UNKNOWN, |c| c.active_at));
    let (mut last_id, mut entries_read) = (group.last_id, group.entries_read);
    let Idle { found, gone } = Idle::find(stream, name, request, now.saturating_sub(min_idle));
    let new = last_id.next().into_iter().flat_map(|start| stream.range(start, StreamId::MAX));
    let mut new = new.take(request.count - found.len()).peekable();
    let mut claims = Vec::new();
    if found.is_empty() && new.peek().is_none() {
        drop(new);
    } else {
        replies.begin(&mut ctx.out, key);
        let (start, mut len) = (ctx.out.deferred(), 0);
        for (id, pending) in found {
            let Some(entry) = stream.get(id) else { continue };
            write_delivered(&mut ctx.out, &entry, (now - pending.delivered_at).max(0), pending.deliveries);
            claims.push((id, now, pending.deliveries_with(1)));
            len += 1;
        }
        for entry in new {
            write_delivered(&mut ctx.out, &entry, 0, 0);
            entries_read = stream.entries_read_after(last_id, entries_read, entry.id);
            last_id = entry.id;
            told.position = Some((last_id, entries_read));
            if !request.no_ack {
                claims.push((entry.id, now, 1));
            }
            len += 1;
        }
        ctx.out.finish_array(start, len);
    }
    if !claims.is_empty() {
        told.active_at = now;
    }
    if told.position.is_some() {
        stream.set_group_position(name, last_id, entries_read);
    }
    if let Some(group) = stream.group_mut(name) {
        claims.iter().for_each(|(id, at, count)| group.deliver(*id, consumer_name, *at, *count));
        for id in &gone {
            group.acknowledge(*id);
        }
        if let Some(consumer) = group.consumer_mut(consumer_name) {
            consumer.active_at = told.active_at;
        }
    }
    Ok(Done { claims, gone, ..Done::seen(told) })
}

/// What has been pending for long in a group.
#[derive(Default)]
struct Idle {
    /// What has been for longest comes first.
    found: Vec<(StreamId, Pending)>,
    /// What does not exist any more: it is not pending any longer, as with XAUTOCLAIM.
    gone: Vec<StreamId>,
}

impl Idle {
    /// What was delivered at this time at the latest.
    fn find(stream: &Stream, group: &[u8], request: &Request<'_>, until: i64) -> Idle {
        let mut idle = Idle::default();
        let Some(group) = stream.group(group) else { return idle };
        let delivered = group.pending_by_time().take_while(|(at, _)| *at <= until);
        for (_, id) in delivered.take(request.claim_attempts()) {
            if idle.found.len() == request.count {
                break;
            }
            match group.pending_at(id) {
                Some(pending) if stream.get(id).is_some() => idle.found.push((id, pending.clone())),
                _ => idle.gone.push(id),
            }
        }
        idle
    }
}

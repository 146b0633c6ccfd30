//! Giving what is pending to another consumer: XCLAIM, XAUTOCLAIM; and XCLAIM as the effect of all that delivers.
//!
//! As an effect XCLAIM decides nothing: it makes each of its IDs pending for the consumer, with the time and count that it
//! names, whatever was before and whether the entry exists or not. Beside Valkey's words it knows `SEEN` and `ACTIVE`, the
//! consumer's times, and `ENTRIESREAD`, what the group has read up to `LASTID`. An ID of zero is none.

use keyward_proto::resp::number::parse_i64;
use keyward_proto::resp::{Args, ReplyWriter};
use keyward_store::keys::{Keys, Mode};
use keyward_store::types::StreamId;
use keyward_store::types::stream::{Group, Stream, UNKNOWN};

use super::group::{consumer_created, no_key_or_group};
use super::ids::parse_start;
use super::range::write_entry;
use super::{parse_id, write_id};
use crate::spec::{DELETE, FAST, RW, UPDATE};
use crate::{CommandError, CommandResult, Cursor, DataCommand, DataContext, Outcome, parse_i64_arg, write};

/// IDs of one effect.
const EFFECT_IDS_MAX: usize = 1024;
/// No ID has a longer text, with what stands around it in an effect.
pub(super) const EFFECT_ID_BYTES: usize = 48;

/// What an effect tells of a consumer and its group.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Told {
    pub(super) seen_at: i64,
    pub(super) active_at: i64,
    /// The group's last ID, and the entries that it has read.
    pub(super) position: Option<(StreamId, i64)>,
}

impl Told {
    pub(super) fn seen(seen_at: i64, active_at: i64) -> Told {
        Told { seen_at, active_at, position: None }
    }
}

/// The effect of deliveries: entries with the time of their delivery and how often they were delivered.
pub(super) fn propagate_claims(
    keys: &mut Keys<'_>,
    names: [&[u8]; 3],
    told: Told,
    claims: &[(StreamId, i64, u64)],
) {
    if !keys.is_logging() {
        return;
    }
    for alike in claims.chunk_by(|a, b| (a.1, a.2) == (b.1, b.2)) {
        for some in alike.chunks(EFFECT_IDS_MAX) {
            propagate_some(keys, names, told, some);
        }
    }
}

/// The effect of having been seen, without a delivery.
pub(super) fn propagate_seen(keys: &mut Keys<'_>, names: [&[u8]; 3], told: Told) {
    propagate_some(keys, names, told, &[(StreamId::ZERO, 0, 0)]);
}

fn propagate_some(
    keys: &mut Keys<'_>,
    [key, group, consumer]: [&[u8]; 3],
    told: Told,
    claims: &[(StreamId, i64, u64)],
) {
    let Some((_, at, count)) = claims.first() else { return };
    let ids: Vec<String> = claims.iter().map(|(id, ..)| id.to_string()).collect();
    let [at, seen, active] = [*at, told.seen_at, told.active_at].map(|time| time.to_string());
    let count = count.to_string();
    let mut command: Vec<&[u8]> = vec![b"XCLAIM", key, group, consumer, b"0"];
    command.extend(ids.iter().map(String::as_bytes));
    command.extend([&b"TIME"[..], at.as_bytes(), b"RETRYCOUNT", count.as_bytes(), b"FORCE", b"JUSTID"]);
    command.extend([&b"SEEN"[..], seen.as_bytes(), b"ACTIVE", active.as_bytes()]);
    let position = told.position.map(|(id, read)| (id.to_string(), read.to_string()));
    if let Some((id, read)) = &position {
        command.extend([&b"LASTID"[..], id.as_bytes(), b"ENTRIESREAD", read.as_bytes()]);
    }
    keys.propagate_as(key, &command);
}

/// The effect of entries of which nothing is pending any more.
pub(super) fn propagate_gone(keys: &mut Keys<'_>, key: &[u8], group: &[u8], gone: &[StreamId]) {
    for some in gone.chunks(EFFECT_IDS_MAX) {
        let ids: Vec<String> = some.iter().map(ToString::to_string).collect();
        let lead: [&[u8]; 3] = [b"XACK", key, group];
        let command: Vec<&[u8]> = lead.into_iter().chain(ids.iter().map(String::as_bytes)).collect();
        keys.propagate_as(key, &command);
    }
}

/// `XCLAIM key group consumer min-idle-time id [id ...] [IDLE ms] [TIME ms] [RETRYCOUNT count] [FORCE] [JUSTID]
/// [LASTID id]`
pub(super) const XCLAIM: DataCommand =
    write("xclaim", xclaim, -6, FAST, "5.0.0").key(1, RW | UPDATE).tips(&["nondeterministic_output"]);
fn xclaim(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    if ctx.keys.mode() == Mode::Apply {
        return apply(ctx, args);
    }
    let (key, name) = (args.at(1), args.at(2));
    group_of(ctx.keys, key, name)?;
    let request = Request::parse(args, ctx.keys.now)?;
    ctx.keys.check_entry(|| request.ids.len() * EFFECT_ID_BYTES)?;
    let stream = ctx.keys.stream_mut(key)?.ok_or(CommandError::NoSuchKey)?;
    let done = request.run(stream, name, args.at(3));
    let Some(stream) = ctx.keys.stream(key)? else { return Ok(Outcome::Reply) };
    done.write_claimed(&mut ctx.out, stream, request.shown);
    done.finish(ctx.keys, [key, name, args.at(3)]);
    Ok(Outcome::Reply)
}

/// The group at a key.
///
/// # Errors
/// There is no such group, or no stream.
fn group_of<'s>(keys: &'s mut Keys<'_>, key: &[u8], name: &[u8]) -> Result<&'s mut Group, CommandError> {
    let group = keys.stream_mut(key)?.and_then(|stream| stream.group_mut(name));
    group.ok_or_else(|| no_key_or_group(key, name, ""))
}

/// What is told of each claimed entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    Entries,
    /// JUSTID: that is no delivery, either.
    Ids,
}

#[derive(Debug)]
struct Request {
    now: i64,
    min_idle: i64,
    ids: Vec<StreamId>,
    delivered_at: i64,
    deliveries: Option<u64>,
    force: bool,
    shown: Shown,
    last_id: StreamId,
}

impl Request {
    fn parse(args: Args<'_>, now: i64) -> Result<Request, CommandError> {
        let number = |value: &[u8], text: &'static str| {
            parse_i64(value).ok_or_else(|| CommandError::err(format!("Invalid {text} argument for XCLAIM")))
        };
        let min_idle = number(args.at(4), "min-idle-time")?;
        let ids: Vec<StreamId> = args.iter().skip(5).map_while(|id| parse_id(id).ok()).collect();
        let mut options = Cursor::new(args, 5 + ids.len());
        let (mut time, mut deliveries) = (None, None);
        let (mut force, mut shown, mut last_id) = (false, Shown::Entries, StreamId::ZERO);
        while let Some(next) = options.peek() {
            if options.word("force") {
                force = true;
            } else if options.word("justid") {
                shown = Shown::Ids;
            } else if let Some(idle) = options.value_of("idle") {
                time = Some(now.wrapping_sub(number(idle, "IDLE option")?));
            } else if let Some(at) = options.value_of("time") {
                time = Some(number(at, "TIME option")?);
            } else if let Some(count) = options.value_of("retrycount") {
                deliveries = u64::try_from(number(count, "RETRYCOUNT option")?).ok();
            } else if let Some(id) = options.value_of("lastid") {
                last_id = parse_id(id)?;
            } else {
                return Err(CommandError::quoting("Unrecognized XCLAIM option '", next, "'"));
            }
        }
        // What cannot be is taken for now: clients compute times by their own clocks.
        let delivered_at = time.filter(|at| (0..=now).contains(at)).unwrap_or(now);
        Ok(Request { now, min_idle: min_idle.max(0), ids, delivered_at, deliveries, force, shown, last_id })
    }

    fn run(&self, stream: &mut Stream, name: &[u8], consumer: &[u8]) -> Done {
        let mut done = Done::begin(self.now);
        let exists: Vec<bool> = self.ids.iter().map(|id| stream.get(*id).is_some()).collect();
        let Some(group) = stream.group_mut(name) else { return done };
        if group.last_id < self.last_id {
            group.last_id = self.last_id;
            done.told.position = Some((group.last_id, group.entries_read));
        }
        done.see(group, consumer);
        for (id, exists) in self.ids.iter().zip(exists) {
            let more = u64::from(self.shown == Shown::Entries);
            let pending = group.pending_at(*id).map(|p| (p.delivered_at, p.deliveries_with(more)));
            if !exists {
                done.gone.extend(group.acknowledge(*id).then_some(*id));
                continue;
            }
            let count = match pending {
                Some((at, _)) if self.min_idle != 0 && self.now.wrapping_sub(at) < self.min_idle => continue,
                Some((_, count)) => count,
                None if self.force => 1 + more,
                None => continue,
            };
            let count = self.deliveries.unwrap_or(count);
            done.claim(group, consumer, (*id, self.delivered_at, count));
        }
        done
    }
}

/// What a claim has come to.
#[derive(Debug)]
struct Done {
    told: Told,
    created: bool,
    claimed: Vec<(StreamId, i64, u64)>,
    /// Entries that do not exist any more.
    gone: Vec<StreamId>,
}

impl Done {
    fn begin(now: i64) -> Done {
        Done { told: Told::seen(now, UNKNOWN), created: false, claimed: Vec::new(), gone: Vec::new() }
    }

    /// The consumer asks for something.
    fn see(&mut self, group: &mut Group, consumer: &[u8]) {
        self.created = group.create_consumer(consumer, self.told.seen_at, UNKNOWN);
        if let Some(consumer) = group.consumer_mut(consumer) {
            consumer.seen_at = self.told.seen_at;
            self.told.active_at = consumer.active_at;
        }
    }

    fn claim(&mut self, group: &mut Group, consumer: &[u8], claim: (StreamId, i64, u64)) {
        group.deliver(claim.0, consumer, claim.1, claim.2);
        self.told.active_at = self.told.seen_at;
        if let Some(consumer) = group.consumer_mut(consumer) {
            consumer.active_at = self.told.seen_at;
        }
        self.claimed.push(claim);
    }

    fn write_claimed(&self, out: &mut ReplyWriter<'_>, stream: &Stream, shown: Shown) {
        out.array(self.claimed.len());
        for (id, ..) in &self.claimed {
            match stream.get(*id) {
                Some(entry) if shown == Shown::Entries => write_entry(out, &entry),
                _ => write_id(out, *id),
            }
        }
    }

    fn finish(self, keys: &mut Keys<'_>, names: [&[u8]; 3]) {
        let key = names[0];
        if self.created {
            consumer_created(keys, key);
        }
        if self.created || self.told.position.is_some() && self.claimed.is_empty() {
            propagate_seen(keys, names, self.told);
        }
        propagate_claims(keys, names, self.told, &self.claimed);
        propagate_gone(keys, key, names[1], &self.gone);
        if !self.claimed.is_empty() || !self.gone.is_empty() || self.told.position.is_some() {
            keys.modified_aside();
        }
    }
}

/// XCLAIM as an effect, or out of another program's log.
fn apply(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let ids: Vec<StreamId> = args.iter().skip(5).map_while(|id| parse_id(id).ok()).collect();
    let mut options = Cursor::new(args, 5 + ids.len());
    let (mut at, mut deliveries, mut last_id) = (ctx.keys.now, 1, None);
    let (mut seen_at, mut active_at, mut entries_read) = (None, None, None);
    while !options.is_at_end() {
        if let Some(time) = options.value_of("time") {
            at = parse_i64_arg(time)?;
        } else if let Some(count) = options.value_of("retrycount") {
            deliveries = parse_i64_arg(count)?.cast_unsigned();
        } else if let Some(id) = options.value_of("lastid") {
            last_id = Some(parse_id(id)?);
        } else if let Some(time) = options.value_of("seen") {
            seen_at = Some(parse_i64_arg(time)?);
        } else if let Some(time) = options.value_of("active") {
            active_at = Some(parse_i64_arg(time)?);
        } else if let Some(count) = options.value_of("entriesread") {
            entries_read = Some(parse_i64_arg(count)?);
        } else if !options.word("force") && !options.word("justid") {
            return Err(CommandError::Syntax);
        }
    }
    let consumer = args.at(3);
    let group = group_of(ctx.keys, args.at(1), args.at(2))?;
    group.create_consumer(consumer, at, UNKNOWN);
    for id in ids.into_iter().filter(|id| *id != StreamId::ZERO) {
        group.deliver(id, consumer, at, deliveries);
    }
    if let Some(id) = last_id
        && (entries_read.is_some() || group.last_id < id)
    {
        group.last_id = id;
    }
    group.entries_read = entries_read.unwrap_or(group.entries_read);
    if let Some(consumer) = group.consumer_mut(consumer) {
        consumer.seen_at = seen_at.unwrap_or(at);
        consumer.active_at = active_at.unwrap_or(at);
    }
    ctx.out.array(0);
    Ok(Outcome::Reply)
}

/// `XAUTOCLAIM key group consumer min-idle-time start [COUNT count] [JUSTID]`
pub(super) const XAUTOCLAIM: DataCommand =
    write("xautoclaim", xautoclaim, -6, FAST, "6.2.0").key(1, RW | DELETE).tips(&["nondeterministic_output"]);
fn xautoclaim(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let request = AutoRequest::parse(args, ctx.keys.now)?;
    let (key, name, consumer) = (args.at(1), args.at(2), args.at(3));
    let pending = group_of(ctx.keys, key, name)?.pending_len();
    ctx.keys.check_entry(|| request.count.min(pending) * EFFECT_ID_BYTES)?;
    let stream = ctx.keys.stream_mut(key)?.ok_or(CommandError::NoSuchKey)?;
    let (done, next) = request.run(stream, name, consumer);
    let Some(stream) = ctx.keys.stream(key)? else { return Ok(Outcome::Reply) };
    ctx.out.array(3);
    write_id(&mut ctx.out, next);
    done.write_claimed(&mut ctx.out, stream, request.shown);
    ctx.out.array(done.gone.len());
    done.gone.iter().for_each(|id| write_id(&mut ctx.out, *id));
    done.finish(ctx.keys, [key, name, consumer]);
    Ok(Outcome::Reply)
}

#[derive(Debug)]
struct AutoRequest {
    now: i64,
    min_idle: i64,
    start: StreamId,
    count: usize,
    shown: Shown,
}

impl AutoRequest {
    fn parse(args: Args<'_>, now: i64) -> Result<AutoRequest, CommandError> {
        const COUNT_MAX: i64 = i64::MAX / 16;
        let invalid = || CommandError::err("Invalid min-idle-time argument for XAUTOCLAIM");
        let min_idle = parse_i64(args.at(4)).ok_or_else(invalid)?.max(0);
        let start = parse_start(args.at(5))?;
        let mut request = AutoRequest { now, min_idle, start, count: 100, shown: Shown::Entries };
        let mut options = Cursor::new(args, 6);
        while !options.is_at_end() {
            if let Some(count) = options.value_of("count") {
                let count = parse_i64(count).filter(|count| (1..=COUNT_MAX).contains(count));
                let count = count.and_then(|count| usize::try_from(count).ok());
                request.count = count.ok_or_else(|| CommandError::err("COUNT must be > 0"))?;
            } else if options.word("justid") {
                request.shown = Shown::Ids;
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(request)
    }

    /// What was done, and where the next call is to begin: zero at the end.
    fn run(&self, stream: &mut Stream, name: &[u8], consumer: &[u8]) -> (Done, StreamId) {
        /// So many pending entries are looked at for each that is wanted.
        const ATTEMPTS: usize = 10;
        let mut done = Done::begin(self.now);
        if let Some(group) = stream.group_mut(name) {
            done.see(group, consumer);
        }
        let (mut found, mut attempts) = (0, self.count.saturating_mul(ATTEMPTS));
        let (mut claims, mut next) = (Vec::new(), StreamId::ZERO);
        if let Some(group) = stream.group(name) {
            for (id, pending) in group.pending(self.start, StreamId::MAX) {
                if attempts == 0 || found == self.count {
                    next = id;
                    break;
                }
                attempts -= 1;
                if stream.get(id).is_none() {
                    done.gone.push(id);
                    found += 1;
                } else if self.min_idle == 0 || self.min_idle <= self.now.wrapping_sub(pending.delivered_at) {
                    let count = pending.deliveries_with(u64::from(self.shown == Shown::Entries));
                    claims.push((id, self.now, count));
                    found += 1;
                }
            }
        }
        if let Some(group) = stream.group_mut(name) {
            claims.into_iter().for_each(|claim| done.claim(group, consumer, claim));
            for id in &done.gone {
                group.acknowledge(*id);
            }
        }
        (done, next)
    }
}

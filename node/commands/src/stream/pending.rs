//! What consumers have not acknowledged: XPENDING.

use keyward_proto::resp::Args;
use keyward_store::types::StreamId;
use keyward_store::types::stream::{Group, Pending};

use super::group::no_key_or_group;
use super::ids::{parse_end, parse_start};
use super::write_id;
use crate::spec::{ACCESS, RO};
use crate::{CommandError, CommandResult, DataCommand, DataContext, Outcome, ascii_eq, parse_i64_arg, read};

/// `XPENDING key group [[IDLE min-idle-time] start end count [consumer]]`
pub(super) const XPENDING: DataCommand =
    read("xpending", xpending, -3, 0, "5.0.0").key(1, RO | ACCESS).tips(&["nondeterministic_output"]);
fn xpending(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let request = Request::parse(args)?;
    let (key, name, now) = (args.at(1), args.at(2), ctx.keys.now);
    let group = ctx.keys.stream(key)?.and_then(|stream| stream.group(name));
    let group = group.ok_or_else(|| no_key_or_group(key, name, ""))?;
    match request {
        Some(request) => request.write(group, now, &mut ctx.out),
        None => write_summary(group, &mut ctx.out),
    }
    Ok(Outcome::Reply)
}

type Out<'a> = keyward_proto::resp::ReplyWriter<'a>;

fn write_summary(group: &Group, out: &mut Out<'_>) {
    out.array(4);
    out.len(group.pending_len());
    let mut ids = group.pending(StreamId::ZERO, StreamId::MAX).map(|(id, _)| id);
    let Some(first) = ids.next() else {
        out.null();
        out.null();
        return out.null_array();
    };
    write_id(out, first);
    write_id(out, ids.next_back().unwrap_or(first));
    let start = out.deferred();
    let mut len = 0;
    for (name, consumer) in group.consumers().filter(|(_, consumer)| consumer.pending().len() > 0) {
        out.array(2);
        out.bulk(name);
        out.bulk_integer(consumer.pending().len() as i64);
        len += 1;
    }
    out.finish_array(start, len);
}

/// The form with a range.
struct Request<'a> {
    min_idle: i64,
    start: StreamId,
    end: StreamId,
    count: usize,
    consumer: Option<&'a [u8]>,
}

impl<'a> Request<'a> {
    fn parse(args: Args<'a>) -> Result<Option<Request<'a>>, CommandError> {
        let len = args.len();
        if len == 3 {
            return Ok(None);
        }
        if !(6..=9).contains(&len) {
            return Err(CommandError::Syntax);
        }
        let (mut min_idle, mut first) = (0, 3);
        if ascii_eq(args.at(3), "idle") {
            min_idle = parse_i64_arg(args.at(4))?;
            first = 5;
            if len < 8 {
                return Err(CommandError::Syntax);
            }
        }
        let count = parse_i64_arg(args.at(first + 2))?.max(0);
        Ok(Some(Request {
            min_idle,
            start: parse_start(args.at(first))?,
            end: parse_end(args.at(first + 1))?,
            count: usize::try_from(count).unwrap_or(usize::MAX),
            consumer: args.get(first + 3),
        }))
    }

    fn write(&self, group: &Group, now: i64, out: &mut Out<'_>) {
        let Some(name) = self.consumer else {
            return self.write_all(group.pending(self.start, self.end), now, out);
        };
        let Some(consumer) = group.consumer(name) else { return out.array(0) };
        let ids = consumer.pending_from(self.start).take_while(|id| *id <= self.end);
        self.write_all(ids.filter_map(|id| Some((id, group.pending_at(id)?))), now, out);
    }

    fn write_all<'p>(&self, all: impl Iterator<Item = (StreamId, &'p Pending)>, now: i64, out: &mut Out<'_>) {
        let idle = |pending: &Pending| now.wrapping_sub(pending.delivered_at);
        let wanted = all.filter(|(_, pending)| self.min_idle == 0 || self.min_idle <= idle(pending));
        let start = out.deferred();
        let mut len = 0;
        for (id, pending) in wanted.take(self.count) {
            out.array(4);
            write_id(out, id);
            out.bulk(&pending.consumer);
            out.integer(idle(pending).max(0));
            out.integer(pending.deliveries.cast_signed());
            len += 1;
        }
        out.finish_array(start, len);
    }
}

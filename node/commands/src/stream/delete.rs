//! Deleting entries by their IDs: XDEL, and XDELEX and XACKDEL, which look at what groups still have to do.
//!
//! XDELEX and XACKDEL are of Valkey 9.2 and Redis 8.2. Their effects are XACK and XDEL, so that older programs apply them.

use keyward_proto::resp::Args;
use keyward_store::events::EventClass;
use keyward_store::keys::Keys;
use keyward_store::types::StreamId;
use keyward_store::types::stream::Stream;

use super::ids::parse_id;
use crate::spec::{DELETE, FAST, RW};
use crate::{CommandError, CommandResult, Cursor, DataCommand, DataContext, Outcome, parse_i64_arg, write};

/// `XDEL key id [id ...]`
pub(super) const XDEL: DataCommand = write("xdel", xdel, -3, FAST, "5.0.0").key(1, RW | DELETE);
fn xdel(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let key = args.at(1);
    let Some(stream) = ctx.keys.stream_mut(key)? else {
        ctx.out.integer(0);
        return Ok(Outcome::Reply);
    };
    let ids = args.iter().skip(2).map(parse_id).collect::<Result<Vec<_>, _>>()?;
    let deleted = ids.into_iter().filter(|id| stream.delete(*id)).count();
    if deleted > 0 {
        ctx.keys.modified(key);
        ctx.keys.propagate(key, args);
        ctx.keys.notify(EventClass::Stream, "xdel", key);
    }
    ctx.out.len(deleted);
    Ok(Outcome::Reply)
}

/// What becomes of the places at which groups have a deleted entry as pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum References {
    /// KEEPREF
    Keep,
    /// DELREF
    Delete,
    /// ACKED: an entry is deleted only if no group needs it any more.
    Acknowledged,
}

/// What has become of an entry, as the reply says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Missing = -1,
    Deleted = 1,
    /// A group needs it yet.
    Kept = 2,
}

/// `XDELEX key [KEEPREF | DELREF | ACKED] IDS numids id [id ...]`
pub(super) const XDELEX: DataCommand = write("xdelex", xdelex, -5, FAST, "9.2.0").key(1, RW | DELETE);
fn xdelex(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let (references, ids) = parse(args, 2)?;
    let Some(stream) = ctx.keys.stream_mut(args.at(1))? else { return all_missing(ctx, ids.len()) };
    let mut changes = Changes::default();
    let fates = ids.iter().map(|id| changes.delete(stream, *id, references)).collect();
    changes.commit(ctx.keys, args.at(1));
    reply(ctx, fates)
}

/// `XACKDEL key group [KEEPREF | DELREF | ACKED] IDS numids id [id ...]`
pub(super) const XACKDEL: DataCommand = write("xackdel", xackdel, -6, FAST, "9.2.0").key(1, RW | DELETE);
fn xackdel(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let (references, ids) = parse(args, 3)?;
    let name = args.at(2);
    let stream = ctx.keys.stream_mut(args.at(1))?.filter(|stream| stream.group(name).is_some());
    let Some(stream) = stream else { return all_missing(ctx, ids.len()) };
    let mut changes = Changes::default();
    let fates = ids.iter().map(|id| {
        if !changes.acknowledge(stream, name, *id) {
            return Fate::Missing;
        }
        match changes.delete(stream, *id, references) {
            // It was deleted before, and is now of no group's any more.
            Fate::Missing => Fate::Deleted,
            fate => fate,
        }
    });
    let fates = fates.collect();
    changes.commit(ctx.keys, args.at(1));
    reply(ctx, fates)
}

/// What was done to a stream, by whose effects it can be done again.
#[derive(Debug, Default)]
struct Changes {
    acknowledged: Vec<(Vec<u8>, StreamId)>,
    deleted: Vec<StreamId>,
}

impl Changes {
    fn acknowledge(&mut self, stream: &mut Stream, group: &[u8], id: StreamId) -> bool {
        let is_pending = stream.group_mut(group).is_some_and(|group| group.acknowledge(id));
        if is_pending {
            self.acknowledged.push((group.to_vec(), id));
        }
        is_pending
    }

    fn delete(&mut self, stream: &mut Stream, id: StreamId, references: References) -> Fate {
        match references {
            References::Keep => {}
            // Also of an entry that is not there any more.
            References::Delete => {
                let pending = stream.groups().filter(|(_, group)| group.pending_at(id).is_some());
                let names: Vec<Vec<u8>> = pending.map(|(name, _)| name.to_vec()).collect();
                for name in names {
                    self.acknowledge(stream, &name, id);
                }
            }
            References::Acknowledged => {
                let mut groups = stream.groups().map(|(_, group)| group);
                let is_needed = groups.any(|group| group.last_id < id || group.pending_at(id).is_some());
                if is_needed && stream.get(id).is_some() {
                    return Fate::Kept;
                }
            }
        }
        if !stream.delete(id) {
            return Fate::Missing;
        }
        self.deleted.push(id);
        Fate::Deleted
    }

    fn commit(self, keys: &mut Keys<'_>, key: &[u8]) {
        if !self.acknowledged.is_empty() {
            keys.modified_aside();
        }
        for (group, id) in self.acknowledged {
            keys.propagate_as(key, &[b"XACK", key, &group, id.to_string().as_bytes()]);
        }
        if !self.deleted.is_empty() {
            let ids: Vec<String> = self.deleted.iter().map(ToString::to_string).collect();
            let words: Vec<&[u8]> =
                [b"XDEL".as_slice(), key].into_iter().chain(ids.iter().map(String::as_bytes)).collect();
            keys.modified(key);
            keys.propagate_as(key, &words);
            keys.notify(EventClass::Stream, "xdel", key);
        }
    }
}

/// The options and the IDs, in any order, from argument `first` on.
fn parse(args: Args<'_>, first: usize) -> Result<(References, Vec<StreamId>), CommandError> {
    const WORDS: [(&str, References); 3] =
        [("keepref", References::Keep), ("delref", References::Delete), ("acked", References::Acknowledged)];
    let (mut references, mut ids) = (None, None);
    let mut rest = Cursor::new(args, first);
    while !rest.is_at_end() {
        if let Some((_, word)) = WORDS.into_iter().find(|(word, _)| rest.word(word)) {
            if references.replace(word).is_some() {
                return Err(CommandError::Syntax);
            }
        } else if ids.is_none()
            && let Some(count) = rest.value_of("ids")
        {
            let count = parse_i64_arg(count).ok().and_then(|count| usize::try_from(count).ok());
            let count = count
                .filter(|count| 0 < *count)
                .ok_or_else(|| CommandError::err("Number of IDs must be a positive integer"))?;
            let mut given = Vec::new();
            for _ in 0..count {
                given.push(parse_id(rest.take().ok_or_else(wrong_count)?)?);
            }
            ids = Some(given);
        } else {
            return Err(if ids.is_some() { wrong_count() } else { CommandError::Syntax });
        }
    }
    Ok((references.unwrap_or(References::Keep), ids.ok_or(CommandError::Syntax)?))
}

fn wrong_count() -> CommandError {
    CommandError::err("The `numids` parameter must match the number of arguments")
}

fn all_missing(ctx: &mut DataContext<'_, '_>, count: usize) -> CommandResult {
    reply(ctx, vec![Fate::Missing; count])
}

fn reply(ctx: &mut DataContext<'_, '_>, fates: Vec<Fate>) -> CommandResult {
    ctx.out.array(fates.len());
    fates.into_iter().for_each(|fate| ctx.out.integer(fate as i64));
    Ok(Outcome::Reply)
}

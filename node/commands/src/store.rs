//! A result in the place of whatever its key held: SINTERSTORE, ZUNIONSTORE, SORT with STORE, GEOSEARCHSTORE and their
//! like.

use keyward_proto::resp::Args;
use keyward_store::effects::Place;
use keyward_store::entry::{NewValue, Value};
use keyward_store::events::EventClass;
use keyward_store::keys::{Expiry, Keys};
use keyward_store::lazyfree::Cause;

use crate::spec::{ACCESS, KeyFlags, OW, RO, UPDATE};
use crate::{CommandResult, DataContext, Outcome};

/// How other nodes come to the same.
pub(crate) enum Effect<'a> {
    /// They compute it, too.
    Request(Args<'a>),
    /// They are told.
    Result,
}

impl<'a> Effect<'a> {
    /// Of what was computed from the keys `sources` alone: the request, if it touches one slot.
    pub(crate) fn of<'s>(
        keys: &Keys<'_>,
        args: Args<'a>,
        destination: &[u8],
        mut sources: impl Iterator<Item = &'s [u8]>,
    ) -> Effect<'a> {
        if sources.all(|source| keys.same_slot(source, destination)) {
            Effect::Request(args)
        } else {
            Effect::Result
        }
    }
}

/// Stores a result of `len` elements, or none if it is empty, and replies with its length.
pub(crate) fn store_result(
    ctx: &mut DataContext<'_, '_>,
    destination: &[u8],
    (len, result): (usize, Value),
    effect: Effect<'_>,
    (class, event): (EventClass, &'static str),
) -> CommandResult {
    let keys = &mut *ctx.keys;
    if len == 0 {
        if let Some(entry) = keys.remove_live(destination) {
            keys.discard(entry, Cause::Replaced);
            keys.propagate_as(destination, &[b"DEL", destination]);
            keys.notify(EventClass::Generic, "del", destination);
        }
    } else {
        match effect {
            Effect::Request(args) => keys.propagate(destination, args),
            Effect::Result => keys.propagate_value(destination, Place::Occupied, result.as_ref(), None)?,
        }
        keys.insert(destination, NewValue::Value(result), Expiry::None);
        keys.modified(destination);
        keys.signal_ready(destination);
        keys.notify(class, event, destination);
    }
    ctx.out.len(len);
    Ok(Outcome::Reply)
}

/// The keys of a request that may store what it has read from its first one.
pub(crate) fn visit_keys(destination: Option<usize>, visit: &mut dyn FnMut(usize, KeyFlags)) {
    visit(1, RO | ACCESS);
    if let Some(at) = destination {
        visit(at, OW | UPDATE);
    }
}

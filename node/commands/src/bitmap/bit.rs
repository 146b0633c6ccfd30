//! Single bits: GETBIT, SETBIT.

use keyward_proto::resp::Args;

use super::{Unit, bytes_up_to, parse_offset, read_bits, write_bits};
use crate::spec::{ACCESS, DENYOOM, FAST, RO, RW, UPDATE};
use crate::{CommandError, CommandResult, DataCommand, DataContext, Outcome, read, write};
use keyward_store::events::EventClass;

/// `SETBIT key offset value`: the bit that was there. An effect only if something has changed.
pub(super) const SETBIT: DataCommand =
    write("setbit", setbit, 4, DENYOOM, "2.2.0").key(1, RW | ACCESS | UPDATE);
fn setbit(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let key = args.at(1);
    let offset = parse_offset(ctx, args.at(2), Unit::Bits)?;
    let bit = match args.at(3) {
        b"0" => 0,
        b"1" => 1,
        _ => return Err(CommandError::err("bit is not an integer or out of range")),
    };
    let (bytes, grown) = bytes_up_to(ctx, key, offset >> 3)?;
    let old = read_bits(bytes, offset, 1);
    write_bits(bytes, offset, 1, bit);
    if grown || old != bit {
        ctx.keys.modified(key);
        ctx.keys.propagate(key, args);
        ctx.keys.notify(EventClass::String, "setbit", key);
    }
    ctx.out.integer(old.cast_signed());
    Ok(Outcome::Reply)
}

/// `GETBIT key offset`
pub(super) const GETBIT: DataCommand = read("getbit", getbit, 3, FAST, "2.2.0").key(1, RO | ACCESS);
fn getbit(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let offset = parse_offset(ctx, args.at(2), Unit::Bits)?;
    let bytes = ctx.keys.string(args.at(1))?.unwrap_or_default();
    ctx.out.integer(read_bits(bytes, offset, 1).cast_signed());
    Ok(Outcome::Reply)
}

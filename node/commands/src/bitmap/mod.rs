//! Commands of the group bitmap: a string as bits, the highest of its first byte first. Beyond its end all are zero.
//!
//! - [`bit`]: single bits
//! - [`count`]: how many are set, and where the first one is
//! - [`combine`]: several strings, bit by bit
//! - [`field`]: integers of any width at any position

mod bit;
mod combine;
mod count;
mod field;

use keyward_proto::resp::number::parse_i64;

use crate::spec::{Group, family};
use crate::{CommandError, DataCommand, DataContext};
use bit::{GETBIT, SETBIT};
use combine::BITOP;
use count::{BITCOUNT, BITPOS};
use field::{BITFIELD, BITFIELD_RO};
use keyward_store::entry::{NewValue, Value, ValueRef};
use keyward_store::keys::{Expiry, Mode};

/// The commands of the group.
pub(super) const COMMANDS: [DataCommand; 7] =
    family(Group::Bitmap, [BITCOUNT, BITFIELD, BITFIELD_RO, BITOP, BITPOS, GETBIT, SETBIT]);

/// What the offset of a bit counts in.
#[derive(Debug, Clone, Copy)]
enum Unit {
    Bits,
    /// In fields of so many bits, if a `#` stands before it.
    Fields(u8),
}

/// The position of a bit of a string that would not be too long. What the primary has allowed is not checked again.
///
/// Differs from Valkey: `#` with a number whose product with the width overflows is refused; there it names a bit
/// that nobody meant.
fn parse_offset(ctx: &DataContext<'_, '_>, argument: &[u8], unit: Unit) -> Result<usize, CommandError> {
    let offset = match (unit, argument) {
        (Unit::Fields(width), [b'#', number @ ..]) => {
            parse_i64(number).and_then(|number| number.checked_mul(i64::from(width)))
        }
        (Unit::Bits | Unit::Fields(_), _) => parse_i64(argument),
    };
    let allowed =
        |offset: &usize| ctx.keys.mode() == Mode::Apply || offset >> 3 < ctx.limits.string_bytes_max;
    offset
        .and_then(|offset| usize::try_from(offset).ok())
        .filter(allowed)
        .ok_or_else(|| CommandError::err("bit offset is not an integer or out of range"))
}

/// The string at a key, for changing it: made of zeros or grown by them until it has the byte `last`; and whether that
/// was necessary.
fn bytes_up_to<'a>(
    ctx: &'a mut DataContext<'_, '_>,
    key: &[u8],
    last: usize,
) -> Result<(&'a mut Vec<u8>, bool), CommandError> {
    let missing = match ctx.keys.get_mut(key).map(|entry| entry.value()) {
        None => true,
        Some(ValueRef::String(_)) => false,
        Some(_) => return Err(CommandError::WrongType),
    };
    if missing {
        ctx.keys.insert(key, NewValue::Value(Value::raw(Vec::new())), Expiry::None);
    }
    let bytes = ctx.keys.get_mut(key).expect("it is there, under the same lock").raw_mut();
    let grows = bytes.len() <= last;
    if grows {
        bytes.resize(last + 1, 0);
    }
    Ok((bytes, missing || grows))
}

/// `width` bits from position `offset` on, at most 64.
fn read_bits(bytes: &[u8], offset: usize, width: u8) -> u64 {
    let last = offset.saturating_add(usize::from(width)).saturating_sub(1) >> 3;
    let byte = |at: usize| u128::from(bytes.get(at).copied().unwrap_or(0));
    let window = (offset >> 3..=last).fold(0u128, |window, at| window << 8 | byte(at));
    let behind = (last + 1) * 8 - offset - usize::from(width);
    low_bits((window >> behind) & u128::from(u64::MAX), width)
}

#[allow(clippy::cast_possible_truncation, reason = "the caller has left 64 bits")]
fn low_bits(window: u128, width: u8) -> u64 {
    window as u64 & mask(width)
}

/// Sets `width` bits from position `offset` on, which lie within the string.
fn write_bits(bytes: &mut [u8], offset: usize, width: u8, value: u64) {
    for at in 0..width {
        let (offset, bit) = (offset + usize::from(at), value >> (width - 1 - at) & 1);
        let (mask, byte) = (0x80 >> (offset & 7), &mut bytes[offset >> 3]);
        *byte = if bit == 0 { *byte & !mask } else { *byte | mask };
    }
}

/// A number whose lowest `width` bits are set, of 1 to 64.
fn mask(width: u8) -> u64 {
    u64::MAX >> (64 - u32::from(width.clamp(1, 64)))
}

#[cfg(test)]
mod tests;

//! BITFIELD: integers of any width at any position of a string.

use keyward_proto::resp::Args;

use super::{Unit, bytes_up_to, mask, parse_offset, read_bits, write_bits};
use crate::spec::{ACCESS, DENYOOM, FAST, RO, RW, UPDATE, VARIABLE_FLAGS};
use crate::{
    CommandError, CommandResult, Cursor, DataCommand, DataContext, Outcome, ascii_eq, parse_i64_arg, read,
    write,
};
use keyward_store::events::EventClass;

/// `i8`, `u63`: how a field is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Encoding {
    signed: bool,
    width: u8,
}

/// What happens to a result that the field cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Overflow {
    Wrap,
    /// The nearest value that it can hold.
    Saturate,
    /// The field stays, and the reply is null.
    Fail,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Get,
    Set(i64, Overflow),
    Add(i64, Overflow),
}

#[derive(Debug, Clone, Copy)]
struct Step {
    encoding: Encoding,
    offset: usize,
    action: Action,
}

/// `BITFIELD key [GET encoding offset | [OVERFLOW WRAP | SAT | FAIL] SET encoding offset value | INCRBY encoding offset
/// increment ...]`: a reply for each step.
pub(super) const BITFIELD: DataCommand =
    write("bitfield", bitfield, -2, DENYOOM, "3.2.0").key(1, RW | UPDATE | ACCESS | VARIABLE_FLAGS);
fn bitfield(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let steps = parse_steps(ctx, args)?;
    let written = steps.iter().filter(|step| step.action != Action::Get).map(Step::last_bit).max();
    let Some(last_bit) = written else { return read_all(ctx, args.at(1), &steps) };
    write_all(ctx, args, &steps, last_bit >> 3)
}

/// `BITFIELD_RO key [GET encoding offset ...]`
pub(super) const BITFIELD_RO: DataCommand =
    read("bitfield_ro", bitfield_ro, -2, FAST, "6.0.0").key(1, RO | ACCESS);
fn bitfield_ro(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let steps = parse_steps(ctx, args)?;
    if steps.iter().any(|step| step.action != Action::Get) {
        return Err(CommandError::err("BITFIELD_RO only supports the GET subcommand"));
    }
    read_all(ctx, args.at(1), &steps)
}

fn read_all(ctx: &mut DataContext<'_, '_>, key: &[u8], steps: &[Step]) -> CommandResult {
    let bytes = ctx.keys.string(key)?.unwrap_or_default();
    ctx.out.array(steps.len());
    steps.iter().for_each(|step| ctx.out.integer(step.read(bytes)));
    Ok(Outcome::Reply)
}

/// Differs from Valkey: a string that has only grown, because every step failed, has an effect; there its replicas have it
/// shorter. As there it has no event.
fn write_all(ctx: &mut DataContext<'_, '_>, args: Args<'_>, steps: &[Step], last: usize) -> CommandResult {
    let key = args.at(1);
    let (bytes, has_grown) = bytes_up_to(ctx, key, last)?;
    let mut changed = false;
    let mut replies = Vec::with_capacity(steps.len());
    for step in steps {
        let old = step.read(bytes);
        let (new, reply) = step.run(old);
        if let Some(new) = new {
            write_bits(bytes, step.offset, step.encoding.width, new.cast_unsigned());
            changed |= has_grown || step.read(bytes) != old;
        }
        replies.push(reply);
    }
    if has_grown || changed {
        ctx.keys.modified(key);
        ctx.keys.propagate(key, args);
    }
    if changed {
        ctx.keys.notify(EventClass::String, "setbit", key);
    }
    ctx.out.array(replies.len());
    for reply in replies {
        match reply {
            Some(value) => ctx.out.integer(value),
            None => ctx.out.null(),
        }
    }
    Ok(Outcome::Reply)
}

fn parse_steps(ctx: &DataContext<'_, '_>, args: Args<'_>) -> Result<Vec<Step>, CommandError> {
    let (mut rest, mut overflow, mut steps) = (Cursor::new(args, 2), Overflow::Wrap, Vec::new());
    while !rest.is_at_end() {
        if let Some(word) = rest.value_of("overflow") {
            overflow = Overflow::parse(word)?;
        } else if let Some(field) = rest.values_of("get", 2) {
            steps.push(parse_step(ctx, field, |_| Ok(Action::Get))?);
        } else if let Some(field) = rest.values_of("set", 3) {
            steps.push(parse_step(ctx, field, |value| Ok(Action::Set(parse_i64_arg(value)?, overflow)))?);
        } else if let Some(field) = rest.values_of("incrby", 3) {
            steps.push(parse_step(ctx, field, |by| Ok(Action::Add(parse_i64_arg(by)?, overflow)))?);
        } else {
            return Err(CommandError::Syntax);
        }
    }
    Ok(steps)
}

/// `encoding offset [value]`
fn parse_step<'a>(
    ctx: &DataContext<'_, '_>,
    mut field: impl Iterator<Item = &'a [u8]>,
    action: impl FnOnce(&[u8]) -> Result<Action, CommandError>,
) -> Result<Step, CommandError> {
    let mut next = || field.next().unwrap_or_default();
    let encoding = Encoding::parse(next())?;
    let offset = parse_offset(ctx, next(), Unit::Fields(encoding.width))?;
    Ok(Step { encoding, offset, action: action(next())? })
}

impl Step {
    fn last_bit(&self) -> usize {
        self.offset + usize::from(self.encoding.width) - 1
    }

    fn read(&self, bytes: &[u8]) -> i64 {
        self.encoding.value_of(read_bits(bytes, self.offset, self.encoding.width))
    }

    /// What the field holds then, if it changes, and the reply.
    fn run(&self, old: i64) -> (Option<i64>, Option<i64>) {
        match self.action {
            Action::Get => (None, Some(old)),
            Action::Set(value, overflow) => {
                let new = self.encoding.fit(self.encoding.operand(value), overflow);
                (new, new.map(|_| old))
            }
            Action::Add(by, overflow) => {
                let new = self.encoding.fit(i128::from(old) + i128::from(by), overflow);
                (new, new)
            }
        }
    }
}

impl Overflow {
    fn parse(word: &[u8]) -> Result<Overflow, CommandError> {
        const WORDS: [(&str, Overflow); 3] =
            [("wrap", Overflow::Wrap), ("sat", Overflow::Saturate), ("fail", Overflow::Fail)];
        let found = WORDS.into_iter().find(|(name, _)| ascii_eq(word, name));
        let invalid = || CommandError::err("Invalid OVERFLOW type specified");
        found.map(|(_, overflow)| overflow).ok_or_else(invalid)
    }
}

impl Encoding {
    fn parse(text: &[u8]) -> Result<Encoding, CommandError> {
        let invalid = || {
            CommandError::err(
                "Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.",
            )
        };
        let (signed, width_max, width) = match text {
            [b'i', width @ ..] => (true, 64, width),
            [b'u', width @ ..] => (false, 63, width),
            _ => return Err(invalid()),
        };
        let width = parse_i64_arg(width).ok().and_then(|width| u8::try_from(width).ok());
        let width = width.filter(|width| (1..=width_max).contains(width)).ok_or_else(invalid)?;
        Ok(Encoding { signed, width })
    }

    /// The number that these bits are.
    fn value_of(self, bits: u64) -> i64 {
        let unused = 64 - u32::from(self.width);
        if self.signed { (bits << unused).cast_signed() >> unused } else { bits.cast_signed() }
    }

    fn limits(self) -> (i128, i128) {
        let max = mask(self.width) >> u32::from(self.signed);
        let max = i128::from(max);
        (if self.signed { -max - 1 } else { 0 }, max)
    }

    /// A value to be stored: for an unsigned field a negative one is a large one.
    fn operand(self, value: i64) -> i128 {
        if self.signed { i128::from(value) } else { i128::from(value.cast_unsigned()) }
    }

    /// A number as the field can hold it.
    fn fit(self, value: i128, overflow: Overflow) -> Option<i64> {
        let (min, max) = self.limits();
        if (min..=max).contains(&value) {
            return i64::try_from(value).ok();
        }
        match overflow {
            Overflow::Fail => None,
            Overflow::Saturate => i64::try_from(value.clamp(min, max)).ok(),
            Overflow::Wrap => Some(self.value_of(low_word(value) & mask(self.width))),
        }
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the lower half is what is wanted"
)]
fn low_word(value: i128) -> u64 {
    value as u64
}

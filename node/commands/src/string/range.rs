//! Parts of a string: APPEND, GETRANGE, SETRANGE, STRLEN, SUBSTR.

use keyward_proto::resp::Args;

use crate::spec::{ACCESS, DENYOOM, FAST, INSERT, RO, RW, UPDATE};
use crate::{CommandError, CommandResult, DataCommand, DataContext, Outcome, parse_i64_arg, read, write};
use keyward_store::entry::{Entry, NewValue, ValueRef};
use keyward_store::events::EventClass;
use keyward_store::keys::{Expiry, Mode};

/// Strings up to this length are allowed whatever the configuration says: it accepts no lower limit.
const ALWAYS_ALLOWED: usize = 1 << 20;

/// The new length, or `ERR string exceeds maximum allowed size (proto-max-bulk-len)`. What the primary has allowed is
/// not checked again.
fn check_len(ctx: &DataContext<'_, '_>, base: usize, more: usize) -> Result<usize, CommandError> {
    let len = base.checked_add(more);
    let allowed = |len: &usize| {
        *len <= ALWAYS_ALLOWED || ctx.keys.mode() == Mode::Apply || *len <= ctx.limits.string_bytes_max
    };
    len.filter(allowed)
        .ok_or_else(|| CommandError::err("string exceeds maximum allowed size (proto-max-bulk-len)"))
}

/// The length of the string at a key, which is about to change; `None` if there is no key.
fn len_to_change(ctx: &mut DataContext<'_, '_>, key: &[u8]) -> Result<Option<usize>, CommandError> {
    match ctx.keys.get_mut(key).map(|e| e.value()) {
        None => Ok(None),
        Some(ValueRef::String(value)) => Ok(Some(value.len())),
        Some(_) => Err(CommandError::WrongType),
    }
}

fn entry<'a>(ctx: &'a mut DataContext<'_, '_>, key: &[u8]) -> &'a mut Entry {
    ctx.keys.get_mut(key).expect("its length was just read under the same lock")
}

/// `APPEND key value`
pub(super) const APPEND: DataCommand =
    write("append", append, 3, DENYOOM | FAST, "2.0.0").key(1, RW | INSERT);
fn append(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let (key, value) = (args.at(1), args.at(2));
    let len = match len_to_change(ctx, key)? {
        None => {
            ctx.keys.insert(key, NewValue::Bytes(value), Expiry::None);
            value.len()
        }
        Some(old) => {
            let len = check_len(ctx, old, value.len())?;
            entry(ctx, key).raw_mut().extend_from_slice(value);
            len
        }
    };
    changed(ctx, args, "append");
    ctx.out.len(len);
    Ok(Outcome::Reply)
}

/// `SETRANGE key offset value`: zero bytes fill a gap.
pub(super) const SETRANGE: DataCommand = write("setrange", setrange, 4, DENYOOM, "2.2.0").key(1, RW | UPDATE);
fn setrange(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let (key, value) = (args.at(1), args.at(3));
    let offset = parse_i64_arg(args.at(2))?;
    let offset = usize::try_from(offset).map_err(|_| CommandError::err("offset is out of range"))?;
    let old = len_to_change(ctx, key)?;
    if value.is_empty() {
        ctx.out.len(old.unwrap_or(0));
        return Ok(Outcome::Reply);
    }
    let end = check_len(ctx, offset, value.len())?;
    if old.is_none() {
        ctx.keys.insert(key, NewValue::Bytes(&[]), Expiry::None);
    }
    let bytes = entry(ctx, key).raw_mut();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(value);
    let len = bytes.len();
    changed(ctx, args, "setrange");
    ctx.out.len(len);
    Ok(Outcome::Reply)
}

fn changed(ctx: &mut DataContext<'_, '_>, args: Args<'_>, event: &'static str) {
    let key = args.at(1);
    ctx.keys.modified(key);
    ctx.keys.propagate(key, args);
    ctx.keys.notify(EventClass::String, event, key);
}

/// `GETRANGE key start end`: both ends inclusive, negative positions count from the end.
pub(super) const GETRANGE: DataCommand = read("getrange", getrange, 4, 0, "2.4.0").key(1, RO | ACCESS);
fn getrange(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let (start, end) = (parse_i64_arg(args.at(2))?, parse_i64_arg(args.at(3))?);
    let value = ctx.keys.string(args.at(1))?.unwrap_or_default();
    ctx.out.bulk(part(value, start, end));
    Ok(Outcome::Reply)
}

/// `SUBSTR key start end`: the old name of GETRANGE.
pub(super) const SUBSTR: DataCommand = read("substr", substr, 4, 0, "1.0.0").key(1, RO | ACCESS);
fn substr(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    getrange(ctx, args)
}

fn part(value: &[u8], start: i64, end: i64) -> &[u8] {
    if start < 0 && end < 0 && end < start {
        return &[];
    }
    let len = i64::try_from(value.len()).unwrap_or(i64::MAX);
    let position = |p: i64| if p < 0 { p.saturating_add(len).max(0) } else { p };
    let (start, end) = (position(start), position(end).min(len - 1));
    match (usize::try_from(start), usize::try_from(end)) {
        (Ok(start), Ok(end)) => value.get(start..=end).unwrap_or_default(),
        (Ok(_) | Err(_), _) => &[],
    }
}

/// `STRLEN key`
pub(super) const STRLEN: DataCommand = read("strlen", strlen, 2, FAST, "2.2.0").key(1, RO);
fn strlen(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let len = ctx.keys.string(args.at(1))?.map_or(0, <[u8]>::len);
    ctx.out.len(len);
    Ok(Outcome::Reply)
}

#[cfg(test)]
mod tests {
    use super::part;

    #[test]
    fn parts() {
        for (start, end, expect) in [
            (0, -1, "hello"),
            (1, 3, "ell"),
            (-3, -2, "ll"),
            (-300, 2, "hel"),
            (2, 300, "llo"),
            (-1, -5, ""),
            (-1, 0, ""),
            (5, 9, ""),
            (3, 1, ""),
            (-100, -50, "h"),
            (i64::MIN, i64::MAX, "hello"),
            (i64::MAX, i64::MAX, ""),
        ] {
            assert_eq!(part(b"hello", start, end), expect.as_bytes(), "{start} {end}");
        }
        assert_eq!(part(b"", 0, -1), b"");
    }
}

//! DUMP and RESTORE: a value as bytes that Valkey and Redis understand as well.
//!
//! Differs from Valkey: a payload with bytes between value and footer is refused, and one is always looked through
//! (`sanitize-dump-payload yes`).

use keyward_proto::resp::Args;

use crate::command::{CommandError, CommandResult, Ctx, Outcome, ascii_eq, parse_i64_arg};
use crate::keyspace::garbage::Cause;
use crate::keyspace::keys::Keys;
use crate::notify::EventClass;
use crate::rdb::payload;
use crate::rdb::record::Access;

/// `DUMP key`
pub(in crate::command) fn dump(ctx: &mut Ctx<'_, '_>, args: Args<'_>) -> CommandResult {
    let compression = ctx.server.settings().rdb_compression;
    match ctx.keys.read(args.at(1)) {
        Some(entry) => ctx.out.bulk(&payload::save(entry.value(), compression)),
        None => ctx.out.null(),
    }
    Ok(Outcome::Reply)
}

#[derive(Debug, Default)]
struct Options {
    replace: bool,
    /// The time to live is a point in time.
    absolute: bool,
    access: Option<Access>,
}

impl Options {
    fn parse(args: Args<'_>) -> Result<Self, CommandError> {
        let mut options = Options::default();
        let mut at = 4;
        while let Some(word) = args.get(at) {
            let value = args.get(at + 1);
            match (value, options.access) {
                _ if ascii_eq(word, "replace") => options.replace = true,
                _ if ascii_eq(word, "absttl") => options.absolute = true,
                (Some(value), None | Some(Access::IdleSeconds(_))) if ascii_eq(word, "idletime") => {
                    let seconds = u64::try_from(parse_i64_arg(value)?)
                        .map_err(|_| CommandError::err("Invalid IDLETIME value, must be >= 0"))?;
                    options.access = Some(Access::IdleSeconds(seconds));
                    at += 1;
                }
                (Some(value), None | Some(Access::Frequency(_))) if ascii_eq(word, "freq") => {
                    let frequency = u8::try_from(parse_i64_arg(value)?)
                        .map_err(|_| CommandError::err("Invalid FREQ value, must be >= 0 and <= 255"))?;
                    options.access = Some(Access::Frequency(frequency));
                    at += 1;
                }
                _ => return Err(CommandError::Syntax),
            }
            at += 1;
        }
        Ok(options)
    }
}

/// `RESTORE key ttl serialized-value [REPLACE] [ABSTTL] [IDLETIME seconds] [FREQ frequency]`
pub(in crate::command) fn restore(ctx: &mut Ctx<'_, '_>, args: Args<'_>) -> CommandResult {
    let options = Options::parse(args)?;
    let (key, payload) = (args.at(1), args.at(3));
    if !options.replace && ctx.keys.get_mut(key).is_some() {
        return Err(CommandError::coded("BUSYKEY Target key name already exists."));
    }
    let ttl = parse_i64_arg(args.at(2))?;
    if ttl < 0 {
        return Err(CommandError::err("Invalid TTL value, must be >= 0"));
    }
    let value = payload::verified(payload)
        .ok_or_else(|| CommandError::err("DUMP payload version or checksum are wrong"))?;
    let loaded = payload::load(value).map_err(|_| CommandError::err("Bad data format"))?;
    let keys = &mut *ctx.keys;
    let expire_at = match ttl {
        0 => None,
        at if options.absolute => Some(at),
        ttl => Some(ttl.saturating_add(keys.now)),
    };
    let access = keys.access_of(options.access);
    if expire_at.is_some_and(|at| keys.is_past(at)) {
        // It would expire at once; what it was to replace goes.
        if let Some(entry) = keys.remove_live(key) {
            keys.discard(entry, Cause::Replaced);
            keys.propagate_as(key, &[b"DEL", key]);
            keys.notify(EventClass::Generic, "del", key);
        }
    } else {
        keys.insert_entry(loaded.into_entry(key, expire_at, access));
        keys.modified(key);
        keys.signal_ready(key);
        propagate(keys, args, expire_at);
        keys.notify(EventClass::Generic, "restore", key);
    }
    ctx.out.ok();
    Ok(Outcome::Reply)
}

/// As the request was, with its expiry as a point in time.
fn propagate(keys: &mut Keys<'_>, args: Args<'_>, expire_at: Option<i64>) {
    let key = args.at(1);
    let Some(at) = expire_at else { return keys.propagate(key, args) };
    let mut number = itoa::Buffer::new();
    let mut command: Vec<&[u8]> = args.iter().collect();
    command[2] = number.format(at).as_bytes();
    command.push(b"ABSTTL");
    keys.propagate_as(key, &command);
}

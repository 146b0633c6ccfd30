//! DUMP and RESTORE: a value as bytes that Valkey and Redis understand as well.
//!
//! Differs from Valkey: a payload with bytes between value and footer is refused, and one is always looked through
//! (`sanitize-dump-payload yes`).

use keyward_proto::resp::Args;

use crate::spec::{ACCESS, ASKING, DENYOOM, Group, OW, RO, UPDATE, category};
use crate::{
    CommandError, CommandResult, Cursor, DataCommand, DataContext, Outcome, parse_i64_arg, read, write,
};
use keyward_store::events::EventClass;
use keyward_store::keys::Keys;
use keyward_store::lazyfree::Cause;
use keyward_store::rdb::payload;
use keyward_store::rdb::record::Access;

/// `DUMP key`
pub(super) const DUMP: DataCommand =
    read("dump", dump, 2, 0, "2.6.0").key(1, RO | ACCESS).tips(&["nondeterministic_output"]);
fn dump(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    match ctx.keys.read(args.at(1)) {
        Some(entry) => ctx.out.bulk(&payload::save(entry.value(), ctx.limits.compression)),
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
        let mut rest = Cursor::new(args, 4);
        while !rest.is_at_end() {
            let may_be_idle = matches!(options.access, None | Some(Access::IdleSeconds(_)));
            let may_be_frequent = matches!(options.access, None | Some(Access::Frequency(_)));
            if rest.word("replace") {
                options.replace = true;
            } else if rest.word("absttl") {
                options.absolute = true;
            } else if may_be_idle && let Some(value) = rest.value_of("idletime") {
                let seconds = u64::try_from(parse_i64_arg(value)?)
                    .map_err(|_| CommandError::err("Invalid IDLETIME value, must be >= 0"))?;
                options.access = Some(Access::IdleSeconds(seconds));
            } else if may_be_frequent && let Some(value) = rest.value_of("freq") {
                let frequency = u8::try_from(parse_i64_arg(value)?)
                    .map_err(|_| CommandError::err("Invalid FREQ value, must be >= 0 and <= 255"))?;
                options.access = Some(Access::Frequency(frequency));
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(options)
    }
}

/// `RESTORE key ttl serialized-value [REPLACE] [ABSTTL] [IDLETIME seconds] [FREQ frequency]`
pub(super) const RESTORE: DataCommand = write("restore", restore, -4, DENYOOM, "2.6.0")
    .key(1, OW | UPDATE)
    .categories(category::DANGEROUS | category::KEYSPACE);
pub(super) const RESTORE_ASKING: DataCommand =
    write("restore-asking", restore, -4, DENYOOM | ASKING, "3.0.0")
        .key(1, OW | UPDATE)
        .group(Group::Server)
        .categories(category::DANGEROUS | category::KEYSPACE);
fn restore(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
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
    let loaded = payload::load(value, ctx.keys.limits()).map_err(|_| CommandError::err("Bad data format"))?;
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

#[cfg(test)]
mod tests {
    use crate::testing::{TestKeyspace, check};
    use keyward_store::entry::{Entry, NewValue, ValueRef};
    use keyward_store::rdb::{Compression, payload};
    use keyward_store::types::List;

    fn of_string(text: &str) -> Vec<u8> {
        payload::save(ValueRef::String(text.as_bytes()), Compression::Lzf)
    }

    fn of_list(elements: &[&str]) -> Vec<u8> {
        let mut list = List::default();
        elements.iter().for_each(|e| list.push_back(e.as_bytes()));
        payload::save(Entry::new(b"", NewValue::Value(list.into()), None, 0).value(), Compression::Lzf)
    }

    fn restore(keyspace: &mut TestKeyspace, key: &str, ttl: &str, payload: &[u8], options: &str) -> String {
        let mut words: Vec<&[u8]> = vec![b"RESTORE", key.as_bytes(), ttl.as_bytes(), payload];
        words.extend(options.split_whitespace().map(str::as_bytes));
        keyspace.run_words(&words)
    }

    #[test]
    fn dump_gives_what_restore_takes() {
        check(&[("DUMP nothing", "$-1\r\n")]);
        let mut keyspace = TestKeyspace::new();
        let dump = |keyspace: &mut TestKeyspace, setup: &str, key: &str| {
            keyspace.run(setup);
            let reply = keyspace.run_raw(&[b"DUMP", key.as_bytes()]);
            let payload = reply.splitn(2, |b| *b == b'\n').nth(1).unwrap();
            let payload = &payload[..payload.len() - 2];
            assert_eq!(restore(keyspace, "copy", "0", payload, "REPLACE"), "+OK\r\n");
        };
        dump(&mut keyspace, "SET s hello", "s");
        dump(&mut keyspace, "RPUSH l a 1 b", "l");
        assert_eq!(keyspace.run("LRANGE copy 0 -1"), "*3\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\nb\r\n");
    }

    #[test]
    fn mistakes_are_answered_in_valkeys_words_and_order() {
        let mut keyspace = TestKeyspace::new();
        keyspace.run("SET there 1");
        let good = of_string("x");
        let mut bad = good.clone();
        bad[1] ^= 1;
        let empty = of_list(&[]);
        for (key, ttl, payload, options, reply) in [
            ("there", "x", &bad, "FOO", "-ERR syntax error"),
            ("k", "0", &good, "IDLETIME", "-ERR syntax error"),
            ("k", "0", &good, "IDLETIME 1 FREQ 1", "-ERR syntax error"),
            ("k", "0", &good, "IDLETIME x", "-ERR value is not an integer or out of range"),
            ("k", "0", &good, "IDLETIME -1", "-ERR Invalid IDLETIME value, must be >= 0"),
            ("k", "0", &good, "FREQ 256", "-ERR Invalid FREQ value, must be >= 0 and <= 255"),
            ("there", "x", &bad, "", "-BUSYKEY Target key name already exists."),
            ("there", "x", &bad, "REPLACE", "-ERR value is not an integer or out of range"),
            ("k", "-1", &bad, "", "-ERR Invalid TTL value, must be >= 0"),
            ("k", "0", &bad, "", "-ERR DUMP payload version or checksum are wrong"),
            ("k", "0", &empty, "", "-ERR Bad data format"),
        ] {
            let reply = format!("{reply}\r\n");
            assert_eq!(restore(&mut keyspace, key, ttl, payload, options), reply, "{options}");
        }
        assert_eq!(keyspace.run("EXISTS there k"), ":1\r\n");
    }

    #[test]
    fn a_time_to_live_is_relative_or_a_point_in_time() {
        let mut keyspace = TestKeyspace::replicated();
        let payload = of_string("x");
        assert_eq!(restore(&mut keyspace, "k", "0", &payload, ""), "+OK\r\n");
        assert_eq!(keyspace.run("TTL k"), ":-1\r\n");
        restore(&mut keyspace, "k", "100000", &payload, "REPLACE IDLETIME 50");
        assert_eq!(
            (keyspace.run("TTL k"), keyspace.run("OBJECT IDLETIME k")),
            (":100\r\n".into(), ":50\r\n".into())
        );
        restore(&mut keyspace, "k", "99999999999999", &payload, "REPLACE ABSTTL");
        assert_eq!(keyspace.run("PEXPIRETIME k"), ":99999999999999\r\n");
        let effects = keyspace.effects();
        assert!(
            effects.iter().skip(1).all(|e| e.starts_with("RESTORE k ") && e.contains(" ABSTTL")),
            "{effects:?}"
        );
        // What has expired already replaces by deleting.
        assert_eq!(restore(&mut keyspace, "k", "5", &payload, "REPLACE ABSTTL"), "+OK\r\n");
        assert_eq!(keyspace.run("EXISTS k"), ":0\r\n");
        assert_eq!(restore(&mut keyspace, "k", "5", &payload, "ABSTTL"), "+OK\r\n");
        assert_eq!(keyspace.effects(), ["DEL k"]);
    }

    #[test]
    fn a_replica_restores_the_same() {
        let mut keyspace = TestKeyspace::replicated();
        restore(&mut keyspace, "l", "100000", &of_list(&["a", "b"]), "");
        restore(&mut keyspace, "s", "0", &of_string("x"), "REPLACE");
        let expected = [keyspace.run("PEXPIRETIME l"), keyspace.run("LRANGE l 0 -1"), keyspace.run("GET s")];
        let mut replica = keyspace.replica();
        assert_eq!(
            [replica.run("PEXPIRETIME l"), replica.run("LRANGE l 0 -1"), replica.run("GET s")],
            expected
        );
    }
}

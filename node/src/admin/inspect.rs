//! Subcommands of DEBUG that look at single values, or make many: what tests and tools of Valkey ask for.
//!
//! Differs from Valkey: values are kept otherwise here, so what only tells of Valkey's own structures is a figure that
//! means the same as far as there is one.

use std::fmt::Write;

use keyward_commands::encoding;
use keyward_proto::resp::Args;
use keyward_proto::resp::number::parse_i64;
use keyward_proto::slot::Slot;
use keyward_replication::reply::ReplyCondition;
use keyward_store::DbIndex;
use keyward_store::entry::{Entry, NewValue, ValueRef};
use keyward_store::keys::Expiry;
use keyward_store::rdb::{Compression, payload};
use keyward_store::table::hash_of;
use keyward_store::types::Collection;

use crate::admin::{ServerContext, ServerOutcome, ServerResult};
use crate::command::{CommandError, ascii_eq, parse_i64_arg};
use crate::tracking::Cause;

/// Bytes of DUMP beside the value: its type, the version, and the checksum.
const AROUND_VALUE_BYTES: usize = 11;
/// Bits of an LRU clock in Valkey.
const LRU_BITS: u32 = 24;

fn no_key() -> CommandError {
    CommandError::err("no such key")
}

/// Looks at the entry of a key.
fn with_entry<R>(
    ctx: &mut ServerContext<'_, '_>,
    key: &[u8],
    look: impl FnOnce(&Entry) -> R,
) -> Result<R, CommandError> {
    let db = ctx.session.db;
    let found = ctx.keys.with_slot(Slot::of(key), |state| state.table(db)?.get(hash_of(key), key).map(look));
    found.ok_or_else(no_key)
}

/// `DEBUG OBJECT key [FAST]`
pub(super) fn object(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    let key = args.at(2);
    let fast = args.get(3).is_some_and(|word| ascii_eq(word, "FAST"));
    let (clock, now) = (ctx.keys.access_clock(), ctx.server.clock.unix_millis().0 / 1000);
    let text = with_entry(ctx, key, |entry| {
        let idle = clock.idle_seconds(entry.access());
        let lru = (now - i64::from(idle)).rem_euclid(1 << LRU_BITS);
        // No address: whoever sees it would know where to aim.
        let mut text =
            format!("Value at:0x{:012x} refcount:1 encoding:{}", hash_of(entry.key()), encoding(entry));
        if !fast {
            let dumped = payload::save(entry.value(), Compression::Lzf);
            push(&mut text, format_args!(" serializedlength:{}", dumped.len() - AROUND_VALUE_BYTES));
        }
        push(&mut text, format_args!(" lru:{lru} lru_seconds_idle:{idle}"));
        text
    })?;
    ctx.out.simple(&text);
    Ok(ServerOutcome::Reply)
}

fn push(text: &mut String, more: std::fmt::Arguments<'_>) {
    let written = text.write_fmt(more);
    debug_assert!(written.is_ok(), "writing to a string does not fail");
}

/// `DEBUG SDSLEN key`: lengths of the key and of its string.
pub(super) fn sdslen(ctx: &mut ServerContext<'_, '_>, key: &[u8]) -> ServerResult {
    let lengths = with_entry(ctx, key, |entry| match entry.value() {
        ValueRef::String(value) if encoding(entry) != "int" => Some((entry.key().len(), value.len())),
        _ => None,
    })?;
    let (key, value) = lengths.ok_or_else(|| CommandError::err("Not an sds encoded string."))?;
    let text = format!(
        "key_sds_len:{key} key_sds_avail:0 obj_alloc:{} val_sds_len:{value} val_sds_avail:0 val_alloc:{value}",
        key + value
    );
    ctx.out.simple(&text);
    Ok(ServerOutcome::Reply)
}

/// `DEBUG LISTPACK key` and `DEBUG QUICKLIST key`: the log says what is known of the value.
pub(super) fn structure(ctx: &mut ServerContext<'_, '_>, key: &[u8], wanted: &str) -> ServerResult {
    let (found, bytes) = with_entry(ctx, key, |entry| {
        (encoding(entry), payload::save(entry.value(), Compression::None).len())
    })?;
    if found != wanted {
        return Err(CommandError::err(format!("Not a {wanted} encoded object.")));
    }
    let name = String::from_utf8_lossy(key);
    tracing::info!(key = %name, encoding = found, bytes, "DEBUG");
    let title = if wanted == "listpack" { "Listpack" } else { "Quicklist" };
    ctx.out.simple(&format!("{title} structure printed on stdout"));
    Ok(ServerOutcome::Reply)
}

/// `DEBUG HTSTATS dbid [FULL]`
pub(super) fn table_stats(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    let known = ctx.server.settings().databases();
    let number = parse_i64_arg(args.at(2))?;
    let db = DbIndex::try_from(number).ok().filter(|db| *db < known);
    let db = db.ok_or_else(|| CommandError::err("Out of range database"))?;
    let count = ctx.keys.counts_of_all().get(&db).copied().unwrap_or_default();
    let mut text = String::from("[Dictionary HT]\n");
    let expiring = usize::try_from(count.expires).unwrap_or(0);
    for (title, keys) in [("", count.keys()), ("[Expires HT]\n", expiring)] {
        text.push_str(title);
        if keys != 0 {
            push_table(&mut text, keys);
        }
    }
    ctx.out.verbatim("txt", text.as_bytes());
    Ok(ServerOutcome::Reply)
}

/// `DEBUG HTSTATS-KEY key [FULL]`
pub(super) fn table_stats_of_key(ctx: &mut ServerContext<'_, '_>, key: &[u8]) -> ServerResult {
    let len = with_entry(ctx, key, |entry| match encoding(entry) {
        "hashtable" | "skiplist" => entry.value().collection().map(Collection::pieces),
        _ => None,
    })?;
    let text = "The value stored at the specified key is not represented using an hash table";
    let len = len.ok_or_else(|| CommandError::err(text))?;
    let mut text = String::new();
    push_table(&mut text, len);
    ctx.out.verbatim("txt", text.as_bytes());
    Ok(ServerOutcome::Reply)
}

fn push_table(text: &mut String, len: usize) {
    push(
        text,
        format_args!(
            "Hash table 0 stats (main hash table):\n table size: {}\n number of entries: {len}\n rehashing index: -1\n",
            len.next_power_of_two()
        ),
    );
}

/// `DEBUG POPULATE count [prefix] [size]`: keys `prefix:0`, `prefix:1` ... that are not there yet.
///
/// Differs from Valkey: not where there is a write log, which would not have them.
pub(super) fn populate(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    const LOGGED: &str =
        "DEBUG POPULATE writes nothing to the write log: not with appendonly yes or with sentinels";
    let count = parse_i64(args.at(2)).filter(|count| 0 <= *count);
    let count = count.ok_or_else(|| CommandError::err("value is out of range, must be positive"))?;
    let prefix = args.get(3).unwrap_or(b"key");
    let size = args.get(4).map(parse_i64_arg).transpose()?.and_then(|size| usize::try_from(size).ok());
    if ctx.keys.is_logging() || !ctx.server.shared.gate.is_standalone() {
        return Err(CommandError::err(LOGGED));
    }
    ctx.keys.db = ctx.session.db;
    for number in 0..count {
        let key = [prefix, format!(":{number}").as_bytes()].concat();
        let mut value = format!("value:{number}").into_bytes();
        if let Some(size) = size.filter(|size| *size != 0) {
            value.resize(size, 0);
        }
        ctx.keys.lock_one(Slot::of(&key));
        if ctx.keys.get_mut(&key).is_none() {
            ctx.keys.insert(&key, NewValue::Bytes(&value), Expiry::None);
            ctx.keys.modified(&key);
        }
        ctx.keys.unlock();
    }
    if ctx.keys.has_changes() {
        let cause = Cause { client: Some(ctx.session.client.id), condition: ReplyCondition::default() };
        ctx.server.tell_changes(&ctx.keys.take_changes(), cause);
    }
    ctx.out.ok();
    Ok(ServerOutcome::Reply)
}

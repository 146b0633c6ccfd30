//! The codec as a whole: everything that is saved is loaded again, and damage of any kind is an error.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::check::{Keys, check};
use super::file::{Reader, Trust, Writer};
use super::record::{Access, Record};
use super::value::{load, load_body, skip_body};
use super::*;
use crate::entry::{Entry, NewValue, Value, ValueRef};
use crate::types::{Hash, Limits, List, Set, SortedSet};

/// A text that two values share only if they are equal, in the order of the value.
fn text(value: ValueRef<'_>) -> String {
    let escape = |bytes: &[u8]| bytes.escape_ascii().to_string();
    let mut parts: Vec<String> = match value {
        ValueRef::String(bytes) => vec![escape(bytes)],
        ValueRef::List(list) => list.iter().map(|e| escape(&e)).collect(),
        ValueRef::Set(set) => set.iter().map(|e| escape(&e)).collect(),
        ValueRef::Hash(hash) => {
            let time =
                |name: &[u8]| hash.expire_at(name).flatten().map_or(String::new(), |at| format!("@{at}"));
            hash.iter().map(|(f, v)| format!("{}={}{}", escape(&f), escape(&v), time(&f))).collect()
        }
        ValueRef::SortedSet(set) => set.iter().map(|(m, s)| format!("{}={s}", escape(&m))).collect(),
        ValueRef::Stream(stream) => stream.iter().map(|entry| format!("{entry:?}")).collect(),
    };
    if matches!(value, ValueRef::Set(_) | ValueRef::Hash(_)) {
        parts.sort();
    }
    format!("{} {}", value.type_name(), parts.join(" "))
}

fn text_of_body(type_byte: u8, body: &[u8]) -> Result<String, RdbError> {
    let bytes = [&[type_byte], body].concat();
    load(&bytes, &Limits::default()).map(|loaded| text(loaded.into_entry(b"k", None, 0).value()))
}

/// Some value of every type, of strings that encodings treat differently.
fn samples() -> Vec<Entry> {
    let mut rng = SmallRng::seed_from_u64(7);
    let mut strings: Vec<Vec<u8>> = [
        "",
        "a",
        "0",
        "-1",
        "63",
        "127",
        "128",
        "-4096",
        "4095",
        "65535",
        "8388607",
        "-8388608",
        "2147483647",
        "-2147483648",
        "2147483648",
        "9223372036854775807",
        "-9223372036854775808",
        "007",
        "1.5",
        "\r\n",
    ]
    .iter()
    .map(|s| s.as_bytes().to_vec())
    .collect();
    for len in [20, 21, 63, 64, 250, 254, 300, 4095, 4096, 20_000] {
        strings.push(vec![b'x'; len]);
        strings.push((0..len).map(|_| rng.random()).collect());
    }
    let mut values: Vec<Value> = Vec::new();
    for count in [1, 3, strings.len()] {
        let (mut list, mut set, mut zset) = (List::default(), Set::default(), SortedSet::default());
        let (mut hash, mut volatile) = (Hash::default(), Hash::default());
        for (i, s) in strings.iter().take(count).enumerate() {
            list.push_back(s);
            set.insert(s);
            hash.set(s, &strings[strings.len() - 1 - i]);
            zset.insert(s, [0.0, -1.5, f64::INFINITY, 1e300, f64::NEG_INFINITY, 3.0, 0.1][i % 7]);
            match i % 3 {
                0 => volatile.set_until(s, s, [0, 1, i64::MAX, 1_704_067_200_000][i % 4]),
                _ => volatile.set(s, s),
            };
        }
        values.extend([list.into(), set.into(), hash.into(), zset.into(), volatile.into()]);
    }
    let mut integers = Set::default();
    for i in 0..1000 {
        integers.insert(format!("{}", i * i * i - 500_000_000).as_bytes());
    }
    values.push(integers.into());
    let strings = strings.iter().map(|s| Entry::new(b"key", NewValue::Bytes(s), None, 0));
    let collections = values.into_iter().map(|v| Entry::new(b"key", NewValue::Value(v), Some(7), 0));
    strings.chain(collections).collect()
}

fn saved(entry: &Entry) -> Vec<u8> {
    let mut out = Vec::new();
    record::save(
        entry.key(),
        entry.value(),
        entry.expire_at(),
        Some(Access::IdleSeconds(5)),
        Compression::Lzf,
        &mut out,
    );
    out
}

#[test]
fn every_value_is_loaded_as_it_was_saved() {
    for entry in samples() {
        for compression in [Compression::None, Compression::Lzf] {
            let payload = payload::save(entry.value(), compression);
            let loaded = payload::load(payload::verified(&payload).unwrap(), &Limits::default()).unwrap();
            let copy = loaded.into_entry(b"key", None, 0);
            assert_eq!(text(copy.value()), text(entry.value()));
            assert_eq!(copy.is_raw(), entry.is_raw());
        }
        let record = saved(&entry);
        let opened = Record::open(&record).unwrap();
        assert_eq!((&*opened.key, opened.expire_at), (&b"key"[..], entry.expire_at()));
        assert_eq!(opened.access, Some(Access::IdleSeconds(5)));
        assert_eq!(
            text(opened.value(&Limits::default()).unwrap().into_entry(b"", None, 0).value()),
            text(entry.value())
        );
    }
}

fn file() -> Vec<u8> {
    written(Writer::new(Vec::new()).unwrap())
}

fn written(mut writer: Writer<Vec<u8>>) -> Vec<u8> {
    writer.aux("redis-bits", b"64").unwrap();
    writer.function(b"#!lua name=mylib\nredis.register_function('f', function() return 1 end)").unwrap();
    writer.resize_db(0, 8, 1).unwrap();
    for (i, entry) in samples().iter().enumerate() {
        writer.records((i % 3) as u16, &saved(entry)).unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn a_file_is_read_as_it_was_written() {
    let count = samples().len() as u64;
    let without_checksum = written(Writer::without_checksum(Vec::new()).unwrap());
    for (file, message) in [(file(), "checksum too."), (without_checksum, "no checksum.")] {
        assert!(file.starts_with(b"REDIS0010"));
        let report = check(&file[..], Some(file.len() as u64));
        assert!(report.error.is_none(), "{report}");
        assert_eq!(report.databases.values().map(|keys| keys.all).sum::<u64>(), count);
        assert_eq!(report.databases[&0].all, count.div_ceil(3));
        assert_eq!((report.facts.functions.len(), report.facts.keys_hint), (1, 8));
        assert_eq!(report.facts.aux, [(b"redis-bits".to_vec(), b"64".to_vec())]);
        assert!(report.to_string().ends_with(message), "{report}");
    }
}

#[test]
fn a_record_larger_than_a_chunk_is_read_whole() {
    let mut writer = Writer::new(Vec::new()).unwrap();
    let mut list = List::default();
    let noise: Vec<u8> = SmallRng::seed_from_u64(1).random_iter().take(700_000).collect();
    (0..5).for_each(|_| list.push_back(&noise));
    let entry = Entry::new(b"key", NewValue::Value(list.into()), None, 0);
    writer.records(3, &saved(&entry)).unwrap();
    let file = writer.finish().unwrap();
    for total in [None, Some(file.len() as u64)] {
        let report = check(&file[..], total);
        assert!(report.error.is_none(), "{report}");
        assert_eq!(report.databases[&3], Keys { all: 1, with_expiry: 0 });
    }
}

#[test]
fn what_follows_the_file_is_left() {
    let bytes = [file(), b"*1\r\n$4\r\nPING\r\n".to_vec()].concat();
    let mut reader = Reader::new(&bytes[..], None, Trust::Verify, VersionCheck::Strict).unwrap();
    while reader.next_chunk().unwrap().is_some() {}
    let (mut rest, inner) = reader.into_rest();
    rest.extend_from_slice(inner);
    assert_eq!(rest, b"*1\r\n$4\r\nPING\r\n");
}

/// Why a file is not loaded.
fn refusal(bytes: &[u8], versions: VersionCheck) -> String {
    let read = |bytes| {
        let mut reader = Reader::new(bytes, None, Trust::Verify, versions)?;
        while reader.next_chunk()?.is_some() {}
        Ok::<(), super::file::FileError>(())
    };
    read(bytes).unwrap_err().to_string()
}

#[test]
fn versions_of_others_are_refused() {
    let check_magic = |magic: &str, expect: &str| {
        assert_eq!(refusal(magic.as_bytes(), VersionCheck::Strict), expect, "{magic}");
    };
    let unknown = |version| format!("RDB version {version} is not known (1 to 11, 80 and 81 are)");
    let relaxed = "; with 'rdb-version-check relaxed' a file of it is loaded if it holds nothing but types that are known, at byte 0";
    for (magic, version) in [("REDIS0012", 12), ("REDIS0079", 79), ("VALKEY082", 82), ("VALKEY999", 999)] {
        check_magic(magic, &format!("{}{relaxed}", unknown(version)));
        let error = refusal(magic.as_bytes(), VersionCheck::Relaxed);
        assert_eq!(error, "it ends too early, at byte 9", "{magic}");
    }
    // What Valkey refuses in any case.
    for (magic, version) in [("REDIS0000", 0), ("REDIS0080", 80), ("VALKEY079", 79), ("VALKEY000", 0)] {
        let expect = format!("{}, at byte 0", unknown(version));
        check_magic(magic, &expect);
        assert_eq!(refusal(magic.as_bytes(), VersionCheck::Relaxed), expect);
    }
    for magic in ["REDIS0011", "VALKEY080", "VALKEY081", "REDIS0001"] {
        check_magic(magic, "it ends too early, at byte 9");
    }
    check_magic("*1\r\n$4\r\nPING\r\n", "it does not begin as an RDB file does, at byte 0");
    check_magic("REDIS", "it ends too early, at byte 0");
}

#[test]
fn a_type_that_is_not_there_is_named_with_its_key() {
    assert_eq!(
        refusal(b"REDIS0011\xfe\x02\x07\x06filter\x01", VersionCheck::Strict),
        "values of this type are not supported: a module's value (type 7), at byte 11, key \"filter\" of database 2"
    );
    let error = refusal(b"REDIS0011\x07\x03mod\x01", VersionCheck::Strict);
    assert!(error.contains("a module's value (type 7)") && error.contains("key \"mod\""), "{error}");
    // The same number is another type in the files of Redis.
    let error = refusal(b"REDIS0012\x16\x01h\x01\x01f\x01v", VersionCheck::Relaxed);
    assert!(error.contains("of a release candidate of Redis 7.4 (type 22)"), "{error}");
    let error = refusal(b"REDIS0012\xf3\x01", VersionCheck::Relaxed);
    assert!(error.contains("metadata of a key, of Redis 8, at byte 9"), "{error}");
}

/// Values that are not supported, by type, with what they are called.
fn unsupported() -> Vec<(u8, Vec<u8>, &'static str)> {
    let time = [9; 8];
    vec![
        (type_byte::MODULE_2, b"\x09\x02\x05\x05\x03abc\x04\0\0\0\0\0\0\0\0\0".to_vec(), "a module's value"),
        (
            type_byte::REDIS_HASH_TTL,
            [&time[..], b"\x02\x05\x01f\x01v\0\x01g\x01w"].concat(),
            "hash with fields that expire, of Redis 7.4 or later",
        ),
        (
            type_byte::REDIS_HASH_LISTPACK_TTL,
            [&time[..], &short(b"listpack")].concat(),
            "hash with fields that expire, of Redis 7.4 or later",
        ),
    ]
}

#[test]
fn a_check_counts_everything_that_is_not_supported() {
    let mut bytes = b"REDIS0012\xfe\x03".to_vec();
    for round in 0..7 {
        for (type_byte, body, _) in unsupported() {
            let key = format!("u{round}");
            bytes.extend([&[type_byte][..], &short(key.as_bytes()), &body].concat());
            bytes.extend(
                [&[type_byte::STRING][..], &short(format!("s{round}:{type_byte}").as_bytes()), b"\x01v"]
                    .concat(),
            );
        }
    }
    bytes.extend([&[opcode::EOF][..], &[0; 8]].concat());
    let report = check(&bytes[..], Some(bytes.len() as u64));
    assert!(report.error.is_none() && !report.is_ok(), "{report}");
    assert_eq!(report.databases[&3], Keys { all: 21, with_expiry: 0 });
    for (type_byte, _, name) in unsupported() {
        let found = &report.unsupported[&type_byte];
        assert_eq!((found.name, found.count, found.first.len()), (name, 7, 5));
    }
    let text = report.to_string();
    assert!(text.contains("RDB version 12 (needs 'rdb-version-check relaxed')"), "{text}");
    assert!(
        text.contains(
            "not supported: a module's value (type 7): 7 keys\n  key \"u0\" of database 3, at byte "
        ),
        "{text}"
    );
    assert!(text.ends_with("ERROR: values of types that are not supported: 21"), "{text}");
    // The same number is a hash of Valkey with a field that expires, in its files.
    let hash = [&b"VALKEY080\x16\x01h\x01\x01f\x01v"[..], &[1; 8], &[opcode::EOF], &[0; 8]].concat();
    let report = check(&hash[..], None);
    assert!(report.is_ok() && report.databases[&0].all == 1, "{report}");
}

#[test]
fn a_modules_own_data_is_passed_over() {
    // "tair-hash" as nine letters, then when (a number: 2, 2), a string, a float, the end.
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let id = b"tair-hash"
        .iter()
        .fold(0_u64, |id, c| id << 6 | letters.iter().position(|l| l == c).unwrap() as u64)
        << 10;
    let mut bytes = b"REDIS0011\xf7\x81".to_vec();
    bytes.extend(id.to_be_bytes());
    bytes.extend(b"\x02\x02\x05\x03abc\x03\0\0\0\0\0\xff\0\0\0\0\0\0\0\0");
    let report = check(&bytes[..], None);
    assert!(report.error.is_none(), "{report}");
    assert_eq!(report.facts.modules, ["tair-hash"]);
}

/// A string of fewer than 64 bytes, as RDB has it.
fn short(bytes: &[u8]) -> Vec<u8> {
    assert!(bytes.len() < 64);
    [&[bytes.len() as u8], bytes].concat()
}

/// Bodies of the encodings that are only read, by type.
fn legacy() -> Vec<(u8, Vec<u8>, &'static str)> {
    let ziplist = b"\x25\0\0\0\x22\0\0\0\x09\0\
        \0\x03abc\x05\xf1\x02\xfd\x02\xc0\x2c\x01\x04\xf0\xff\xff\x7f\x05\xfe\x80\x03\xd0\xff\xff\xff\x7f\x06";
    // The entries by hand: "abc", 0, 12, 300, 8388607, -128, 2147483647, then below an int64 and "z".
    let mut zl = ziplist[..ziplist.len() - 1].to_vec();
    zl.extend(b"\x06\xe0\xff\xff\xff\xff\xff\xff\xff\x7f");
    let last = zl.len() as u32;
    zl.extend(b"\x0a\x01z\xff");
    let total = zl.len() as u32;
    zl[..4].copy_from_slice(&total.to_le_bytes());
    zl[4..8].copy_from_slice(&last.to_le_bytes());
    let pairs = |entries: &[u8], count: u16, last: u32| {
        let mut out = (entries.len() as u32 + 11).to_le_bytes().to_vec();
        out.extend(last.to_le_bytes());
        out.extend(count.to_le_bytes());
        out.extend(entries);
        out.push(0xff);
        out
    };
    let two = pairs(b"\0\x01a\x03\x031.5\x05\x01b\x03\xf3", 4, 10 + 11);
    let listpack =
        b"\x1f\0\0\0\x08\0\x7f\x01\x83abc\x04\xdf\xff\x02\xe0\x03xyz\x05\xf1\xff\x7f\x03\xf2\0\0\x80\x04\xff";
    let mut lp = listpack[..listpack.len() - 1].to_vec();
    lp.extend(b"\xf3\xff\xff\xff\x7f\x05\xf4\0\0\0\0\0\0\0\x80\x09\xff");
    let total = lp.len() as u32;
    lp[..4].copy_from_slice(&total.to_le_bytes());
    let lp_pairs = b"\x14\0\0\0\x04\0\x81a\x02\x831.5\x04\x81b\x02\x02\x01\xff";
    let zl_text = "list abc 0 12 300 8388607 -128 2147483647 9223372036854775807 z";
    let lp_text = "127 abc -1 xyz 32767 -8388608 2147483647 -9223372036854775808";
    let sorted = {
        let mut words: Vec<&str> = lp_text.split(' ').collect();
        words.sort_unstable();
        format!("set {}", words.join(" "))
    };
    let leak = |text: String| -> &'static str { text.leak() };
    vec![
        (type_byte::LIST, b"\x02\x01a\xc0\x05".to_vec(), "list a 5"),
        (type_byte::LIST_ZIPLIST, short(&zl), zl_text),
        (
            type_byte::LIST_QUICKLIST,
            [&b"\x02"[..], &short(&zl), &short(&two)].concat(),
            leak(format!("{zl_text} a 1.5 b 2")),
        ),
        (
            type_byte::LIST_QUICKLIST_2,
            [&b"\x02\x01\x05plain\x02"[..], &short(&lp)].concat(),
            leak(format!("list plain {lp_text}")),
        ),
        (type_byte::SET, b"\x02\x01b\x01a".to_vec(), "set a b"),
        (type_byte::SET_INTSET, short(b"\x02\0\0\0\x02\0\0\0\xff\xff\x05\0"), "set -1 5"),
        (type_byte::SET_INTSET, short(b"\x04\0\0\0\x01\0\0\0\xff\xff\xff\x7f"), "set 2147483647"),
        (type_byte::SET_INTSET, short(b"\x08\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\x80"), "set -9223372036854775808"),
        (type_byte::SET_LISTPACK, short(&lp), leak(sorted)),
        (type_byte::HASH, b"\x01\x01f\x01v".to_vec(), "hash f=v"),
        (type_byte::HASH_2, [&b"\x01\x01f\x01v"[..], &[0xff; 8]].concat(), "hash f=v"),
        (
            type_byte::HASH_ZIPMAP,
            short(b"\x02\x03foo\x03\0bar\x01a\xfe\x01\0\0\0\x02b..\xff"),
            "hash a=b foo=bar",
        ),
        (type_byte::HASH_ZIPLIST, short(&two), "hash a=1.5 b=2"),
        (type_byte::HASH_LISTPACK, short(lp_pairs), "hash a=1.5 b=2"),
        (type_byte::ZSET, b"\x03\x01a\x031.5\x01b\xfe\x01c\xff".to_vec(), "zset c=-inf a=1.5 b=inf"),
        (type_byte::ZSET_2, [&b"\x01\x01a"[..], &1.5_f64.to_le_bytes()].concat(), "zset a=1.5"),
        (type_byte::ZSET_ZIPLIST, short(&two), "zset a=1.5 b=2"),
        (type_byte::ZSET_LISTPACK, short(lp_pairs), "zset a=1.5 b=2"),
    ]
}

#[test]
fn every_encoding_is_read() {
    for (type_byte, body, expect) in legacy() {
        assert_eq!(text_of_body(type_byte, &body).as_deref(), Ok(expect), "type {type_byte}");
        let mut input = Input::new(&body);
        assert_eq!(skip_body(type_byte, &mut input), Ok(()), "type {type_byte}");
        assert!(input.is_empty(), "type {type_byte}");
    }
}

#[test]
fn empty_collections_are_told_apart() {
    let empty_ziplist = short(b"\x0b\0\0\0\x0a\0\0\0\0\0\xff");
    let empty_listpack = short(b"\x07\0\0\0\0\0\xff");
    for (type_byte, body) in [
        (type_byte::LIST, vec![0]),
        (type_byte::SET, vec![0]),
        (type_byte::HASH, vec![0]),
        (type_byte::ZSET_2, vec![0]),
        (type_byte::LIST_ZIPLIST, empty_ziplist.clone()),
        (type_byte::LIST_QUICKLIST, [&b"\x01"[..], &empty_ziplist].concat()),
        (type_byte::LIST_QUICKLIST_2, [&b"\x01\x02"[..], &empty_listpack].concat()),
        (type_byte::HASH_LISTPACK, empty_listpack.clone()),
        (type_byte::SET_LISTPACK, empty_listpack),
        (type_byte::SET_INTSET, short(b"\x02\0\0\0\0\0\0\0")),
        (type_byte::HASH_ZIPMAP, short(b"\0\xff")),
    ] {
        assert_eq!(text_of_body(type_byte, &body), Err(RdbError::Empty), "type {type_byte}");
    }
}

#[test]
fn duplicates_odd_numbers_and_bad_scores_are_refused() {
    let odd = short(b"\x0a\0\0\0\x01\0\x81a\x02\xff");
    let twice = short(b"\x0d\0\0\0\x02\0\x81a\x02\x81a\x02\xff");
    let four = short(b"\x11\0\0\0\x04\0\x81a\x02\x01\x01\x81a\x02\x02\x01\xff");
    for (type_byte, body, expect) in [
        (type_byte::SET, b"\x02\x01a\x01a".to_vec(), "a set has a member twice"),
        (type_byte::SET_LISTPACK, twice, "a set has a member twice"),
        (type_byte::SET_INTSET, short(b"\x02\0\0\0\x02\0\0\0\x05\0\x05\0"), "an intset is damaged"),
        (type_byte::HASH, b"\x02\x01f\x01v\x01f\x01w".to_vec(), "a hash has a field twice"),
        (type_byte::HASH_LISTPACK, four.clone(), "a hash has a field twice"),
        (type_byte::ZSET_LISTPACK, four, "a sorted set has a member twice"),
        (type_byte::HASH_LISTPACK, odd, "a compact collection of pairs has an odd number of elements"),
        (type_byte::ZSET, b"\x01\x01a\xfd".to_vec(), "a score is not a number"),
        (type_byte::ZSET, b"\x01\x01a\x03nan".to_vec(), "a score is not a number"),
        (type_byte::ZSET_2, [&b"\x01\x01a"[..], &f64::NAN.to_le_bytes()].concat(), "a score is not a number"),
        (
            type_byte::HASH_2,
            [&b"\x01\x01f\x01v"[..], &(-2_i64).to_le_bytes()].concat(),
            "a field of a hash expires before there was time",
        ),
        (
            type_byte::HASH_2,
            [&b"\x02\x01f\x01v"[..], &[1; 8], b"\x01f\x01w", &[0xff; 8]].concat(),
            "a hash has a field twice",
        ),
        (
            type_byte::HASH_2,
            [&b"\x02\x01f\x01v"[..], &[0xff; 8], b"\x01f\x01w", &[1; 8]].concat(),
            "a hash has a field twice",
        ),
        (type_byte::HASH_2, b"\x01\x01f\x01v\x01".to_vec(), "it ends too early"),
        (type_byte::HASH_2, [&b"\x09\x01f\x01v"[..], &[1; 8]].concat(), "it ends too early"),
        (type_byte::LIST_QUICKLIST_2, b"\x01\x03\x01a".to_vec(), "a quicklist has a node of an unknown kind"),
        (type_byte::STRING, b"\x01ab".to_vec(), "bytes follow the value"),
    ] {
        assert_eq!(text_of_body(type_byte, &body).unwrap_err().to_string(), expect);
    }
}

#[test]
fn a_length_is_not_believed() {
    for type_byte in 0..=30 {
        for body in [
            &b"\x80\xff\xff\xff\xff"[..],
            b"\x81\xff\xff\xff\xff\xff\xff\xff\xff\0",
            b"\xc3\x01\x81\x7f\xff\xff\xff\xff\xff\xff\xff\0",
        ] {
            assert!(text_of_body(type_byte, body).is_err());
        }
    }
    // In a file the rest of the file is enough to know.
    let bytes = b"REDIS0011\0\x01k\x81\x7f\xff\xff\xff\xff\xff\xff\xffabc";
    let error = check(&bytes[..], Some(bytes.len() as u64)).error.unwrap();
    assert_eq!(error.to_string(), "it ends too early, at byte 9, key \"k\" of database 0, string");
    assert!(check(&bytes[..], None).error.is_some());
}

/// Changes a few bytes, lengths above all, cuts pieces out and puts others in.
fn mutate(rng: &mut SmallRng, bytes: &mut Vec<u8>) {
    for _ in 0..rng.random_range(1..4) {
        let at = rng.random_range(0..bytes.len().max(1)).min(bytes.len().saturating_sub(1));
        if bytes.is_empty() {
            bytes.push(rng.random());
        }
        match rng.random_range(0..8) {
            0 => bytes[at] = rng.random(),
            1 => bytes[at] ^= 1 << rng.random_range(0..8),
            2 => bytes[at] = [0x80, 0x81, 0xc3, 0xff, 0xfe, 0, 0x7f, 0xf0][rng.random_range(0..8)],
            3 => bytes.truncate(at),
            4 => drop(bytes.drain(at..(at + rng.random_range(0..9)).min(bytes.len()))),
            5 => drop(bytes.splice(at..at, (0..rng.random_range(0..9)).map(|_| 0xff))),
            6 => {
                let piece: Vec<u8> = bytes[at..(at + 12).min(bytes.len())].to_vec();
                let to = rng.random_range(0..=bytes.len());
                drop(bytes.splice(to..to, piece));
            }
            _ => {
                let word = rng.random::<u32>().to_le_bytes();
                bytes.iter_mut().skip(at).zip(word).for_each(|(b, w)| *b = w);
            }
        }
    }
}

/// Also called with any bytes by who looks for more: whatever they are, they are loaded or refused, and what is loaded
/// can be saved and loaded again.
fn load_anything(type_byte: u8, body: &[u8]) {
    let mut skipped = Input::new(body);
    let skips = skip_body(type_byte, &mut skipped);
    let mut input = Input::new(body);
    let Ok(loaded) = load_body(type_byte, &mut input, &Limits::default()) else { return };
    assert_eq!(skips, Ok(()), "what is loaded can be passed over");
    assert_eq!(skipped.len(), input.len());
    let entry = loaded.into_entry(b"k", None, 0);
    let payload = payload::save(entry.value(), Compression::Lzf);
    let again = payload::load(payload::verified(&payload).unwrap(), &Limits::default())
        .unwrap()
        .into_entry(b"k", None, 0);
    assert_eq!(text(again.value()), text(entry.value()));
}

#[test]
fn damaged_values_are_refused_or_harmless() {
    let mut bodies: Vec<(u8, Vec<u8>)> = legacy().into_iter().map(|(t, body, _)| (t, body)).collect();
    for entry in samples() {
        let mut body = Vec::new();
        value::save_body(entry.value(), Compression::Lzf, &mut body);
        if body.len() < 2000 {
            bodies.push((value::type_byte(entry.value()), body));
        }
    }
    for seed in 0..40_000 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let (mut type_byte, mut body) = bodies[rng.random_range(0..bodies.len())].clone();
        if rng.random_range(0..10) == 0 {
            type_byte = rng.random_range(0..32);
        }
        mutate(&mut rng, &mut body);
        load_anything(type_byte, &body);
    }
    for seed in 0..10_000 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let all = unsupported();
        let (type_byte, mut body, _) = all[rng.random_range(0..all.len())].clone();
        mutate(&mut rng, &mut body);
        let mut input = Input::new(&body);
        // Whatever comes of it, it comes to an end within the bytes.
        let _skipped = value::foreign::skip_body(type_byte, value::foreign::Dialect::Redis, &mut input);
        assert!(input.len() <= body.len());
    }
}

#[test]
fn damaged_files_are_refused_or_harmless() {
    let mut writer = Writer::new(Vec::new()).unwrap();
    writer.aux("name", b"value").unwrap();
    writer.resize_db(0, 10, 1).unwrap();
    for (i, entry) in samples().iter().filter(|e| saved(e).len() < 300).enumerate() {
        writer.records((i / 10) as u16, &saved(entry)).unwrap();
    }
    let file = writer.finish().unwrap();
    let mut refused = 0;
    for seed in 0..4000 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut bytes = file.clone();
        mutate(&mut rng, &mut bytes);
        let total = rng.random::<bool>().then_some(bytes.len() as u64);
        refused += u32::from(check(&bytes[..], total).error.is_some());
    }
    // All but changes of a checksum to zero, and of what follows it.
    assert!(refused > 3900, "only {refused} were found");
}

#[test]
fn a_payload_with_another_version_or_checksum_is_refused() {
    let entry = Entry::new(b"k", NewValue::Bytes(b"value"), None, 0);
    let payload = payload::save(entry.value(), Compression::Lzf);
    assert_eq!(payload[..payload.len() - 8], *b"\0\x05value\x0a\0");
    assert!(payload::verified(&payload).is_some());
    for i in 0..payload.len() {
        let mut bad = payload.clone();
        bad[i] ^= 1;
        assert!(payload::verified(&bad).is_none());
        assert!(payload::verified(&payload[..i]).is_none());
    }
}

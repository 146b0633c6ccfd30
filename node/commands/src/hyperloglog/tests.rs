//! Replies, bytes and effects of the group hyperloglog.

use super::registers::{self, HEADER_LEN, LEN};
use super::{add, hash};
use crate::testing::{TestKeyspace, check, check_on};

const NOT_VALID: &str = "-WRONGTYPE Key is not a valid HyperLogLog string value.\r\n";
const CORRUPT: &str = "-INVALIDOBJ Corrupted HLL object detected\r\n";
const WRONG_TYPE: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n";

/// What a real server has for these elements.
#[test]
fn the_bytes_are_valkeys() {
    let mut keyspace = TestKeyspace::new();
    check_on(
        &mut keyspace,
        &[
            ("PFADD t", ":1\r\n"),
            ("PFADD t", ":0\r\n"),
            ("PFDEBUG DECODE t", "$7\r\nZ:16384\r\n"),
            ("PFADD t hello \"hello world\" abcdefgh 12345678901234567", ":1\r\n"),
            ("PFADD t hello", ":0\r\n"),
            ("PFCOUNT t", ":4\r\n"),
            ("OBJECT ENCODING t", "$3\r\nraw\r\n"),
            ("PFADD u \"\"", ":1\r\n"),
            ("PFDEBUG DECODE u", "$20\r\nZ:5938 v:2,1 Z:10445\r\n"),
        ],
    );
    let bytes: [u8; 30] = [
        0x48, 0x59, 0x4c, 0x4c, 0x01, 0x00, 0x00, 0x00, 0x04, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x45,
        0x66, 0x80, 0x5e, 0x97, 0x80, 0x40, 0xb5, 0x8c, 0x49, 0xa5, 0x9c, 0x51, 0xa0,
    ];
    assert_eq!(keyspace.run_raw(&[b"GET", b"t"]), [b"$30\r\n", &bytes[..], b"\r\n"].concat());
}

#[test]
fn counts_and_unions() {
    check(&[
        ("PFADD a 1 2 3", ":1\r\n"),
        ("PFADD b 3 4", ":1\r\n"),
        ("PFCOUNT a b none", ":4\r\n"),
        ("PFCOUNT none", ":0\r\n"),
        ("PFCOUNT none none", ":0\r\n"),
        ("PFMERGE d a b none", "+OK\r\n"),
        ("PFCOUNT d", ":4\r\n"),
        ("PFDEBUG ENCODING d", "+sparse\r\n"),
        ("PFDEBUG TODENSE d", ":1\r\n"),
        ("PFDEBUG TODENSE d", ":0\r\n"),
        ("PFDEBUG DECODE d", "-ERR HLL encoding is not sparse\r\n"),
        ("STRLEN d", ":12304\r\n"),
        ("PFCOUNT d", ":4\r\n"),
        ("PFADD d 5", ":1\r\n"),
        ("PFCOUNT d", ":5\r\n"),
        ("PFMERGE e d", "+OK\r\n"),
        ("PFDEBUG ENCODING e", "+dense\r\n"),
        ("PFMERGE f", "+OK\r\n"),
        ("PFCOUNT f", ":0\r\n"),
        ("PFDEBUG ENCODING none", "-ERR The specified key does not exist\r\n"),
        ("PFDEBUG foo d", "-ERR Unknown PFDEBUG subcommand 'foo'\r\n"),
        ("PFDEBUG SIMD OFF", "+disabled\r\n"),
        ("PFDEBUG SIMD x", "-ERR Argument must be ON or OFF\r\n"),
        ("PFSELFTEST", "+OK\r\n"),
    ]);
}

#[test]
fn other_strings_are_refused() {
    let mut keyspace = TestKeyspace::replicated();
    for (value, reply) in [
        (&b"HYLL"[..], NOT_VALID),
        (b"XYLL\x01\0\0\0\0\0\0\0\0\0\0\x80\x7f\xff", NOT_VALID),
        (b"HYLL\x02\0\0\0\0\0\0\0\0\0\0\x80\x7f\xff", NOT_VALID),
        (b"HYLL\x00\0\0\0\0\0\0\0\0\0\0\x80\x7f\xff", NOT_VALID),
        // No registers; one too few; one too many; half of a run.
        (b"HYLL\x01\0\0\0\0\0\0\0\0\0\0\x80", CORRUPT),
        (b"HYLL\x01\0\0\0\0\0\0\0\0\0\0\x80\x7f\xfe", CORRUPT),
        (b"HYLL\x01\0\0\0\0\0\0\0\0\0\0\x80\x7f\xff\x80", CORRUPT),
        (b"HYLL\x01\0\0\0\0\0\0\0\0\0\0\x80\x7f", CORRUPT),
    ] {
        keyspace.run_words(&[b"SET", b"x", value]);
        keyspace.effects();
        for request in ["PFCOUNT x", "PFCOUNT x none", "PFMERGE y x"] {
            assert_eq!(keyspace.run(request), reply, "{request} of {value:?}");
        }
        if reply == NOT_VALID {
            assert_eq!(keyspace.run("PFADD x a"), reply);
        }
        assert_eq!(keyspace.effects(), [] as [String; 0]);
    }
    check(&[("RPUSH l x", ":1\r\n"), ("PFADD l x", WRONG_TYPE), ("PFCOUNT l l", WRONG_TYPE)]);
}

#[test]
fn both_forms_have_the_same_registers() {
    for sparse_bytes_max in [0, 18, 100, 3000, usize::MAX] {
        let (mut limited, mut dense) = (registers::empty(), registers::empty());
        registers::make_dense(&mut dense).unwrap();
        for number in 0..3000u32 {
            let element = number.to_be_bytes();
            let changed = add(&mut limited, &element, sparse_bytes_max).unwrap();
            assert_eq!(changed, add(&mut dense, &element, sparse_bytes_max).unwrap());
            if number % 97 == 0 {
                let all = registers::histogram(&dense).unwrap();
                assert_eq!(registers::histogram(&limited).unwrap(), all);
            }
        }
        let is_sparse = registers::form_of(&limited) == Some(registers::Form::Sparse);
        assert_eq!(is_sparse, sparse_bytes_max == usize::MAX);
        registers::make_dense(&mut limited).unwrap();
        assert_eq!(limited[HEADER_LEN..], dense[HEADER_LEN..]);
    }
}

#[test]
fn damaged_bytes_do_no_harm() {
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    for round in 0..2000 {
        let mut bytes = registers::empty();
        for _ in 0..round % 200 {
            add(&mut bytes, &random().to_le_bytes(), 3000).unwrap();
        }
        for _ in 0..1 + random() % 3 {
            let at = HEADER_LEN + usize::try_from(random()).unwrap() % (bytes.len() - HEADER_LEN);
            bytes[at] = random().to_le_bytes()[0];
        }
        bytes.truncate(bytes.len() - usize::try_from(random() % 2).unwrap());
        let mut merged = Box::new([0; LEN]);
        let whole = registers::merge(&mut merged, &bytes).is_ok();
        assert_eq!(registers::histogram(&bytes).is_ok(), whole);
        for _ in 0..20 {
            let _refused = add(&mut bytes, &random().to_le_bytes(), 3000);
        }
        if registers::make_dense(&mut bytes).is_ok() {
            assert_eq!(registers::form_of(&bytes), Some(registers::Form::Dense));
        }
    }
}

#[test]
fn the_largest_rank_is_that_of_a_hash_of_zeros() {
    assert_eq!(registers::register_of(0), (0, 51));
    assert_eq!(registers::register_of(u64::MAX), (LEN - 1, 1));
    assert_ne!(hash::hash(b"a"), hash::hash(b"b"));
}

/// What a replica holds after the effects is what the primary holds, to the byte.
#[test]
fn a_replica_follows() {
    let mut keyspace = TestKeyspace::replicated();
    let mut effects = Vec::new();
    for request in [
        "PFADD a 1 2 3 4 5",
        "PFADD a 1",
        "PFADD b 9",
        "PFCOUNT a",
        "PFCOUNT a",
        "PFCOUNT a b",
        "PFMERGE c a b",
        "PFMERGE {t}c {t}x",
        "PFDEBUG TODENSE b",
        "PFDEBUG GETREG a",
        "PFADD b x",
    ] {
        keyspace.run(request);
        let new = keyspace.effects();
        effects
            .extend(new.iter().map(|effect| format!("{request} -> {}", effect.split(' ').next().unwrap())));
    }
    let expected = [
        "PFADD a 1 2 3 4 5 -> PFADD",
        "PFADD b 9 -> PFADD",
        "PFCOUNT a -> SETRANGE",
        "PFMERGE c a b -> SET",
        "PFMERGE {t}c {t}x -> PFMERGE",
        "PFDEBUG TODENSE b -> PFDEBUG",
        "PFDEBUG GETREG a -> PFDEBUG",
        "PFADD b x -> PFADD",
    ];
    assert_eq!(effects, expected);
    let mut keyspace = TestKeyspace::replicated();
    for request in
        ["PFADD a 1 2 3", "PFCOUNT a", "PFADD b 9 8", "PFMERGE c a b", "PFDEBUG TODENSE b", "PFADD b x"]
    {
        keyspace.run(request);
    }
    // More than the sparse form has room for: it is the primary that decides.
    for number in 0..4000 {
        keyspace.run(&format!("PFADD many {number}"));
    }
    keyspace.run("PFADD {m}x 1");
    keyspace.run("PFMERGE {m}y {m}x");
    assert_eq!(keyspace.run("PFDEBUG ENCODING many"), "+dense\r\n");
    let mut replica = keyspace.replica();
    for key in ["a", "b", "c", "many", "{m}y"] {
        let get: [&[u8]; 2] = [b"GET", key.as_bytes()];
        assert_eq!(replica.run_raw(&get), keyspace.run_raw(&get), "{key}");
    }
}

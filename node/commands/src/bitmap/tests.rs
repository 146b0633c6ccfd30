//! Replies and effects of the group bitmap.

use super::{mask, read_bits, write_bits};
use crate::testing::{TestKeyspace, check, check_on};

const SYNTAX: &str = "-ERR syntax error\r\n";
const OFFSET: &str = "-ERR bit offset is not an integer or out of range\r\n";
const ENCODING: &str =
    "-ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.\r\n";
const WRONG_TYPE: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n";

#[test]
fn bits_are_read_and_written_wherever_they_lie() {
    for width in 1..=64 {
        for offset in 0..20 {
            let mut bytes = vec![0x5a; 12];
            let value = 0x0123_4567_89ab_cdef & mask(width);
            write_bits(&mut bytes, offset, width, value);
            assert_eq!(read_bits(&bytes, offset, width), value, "{width} bits at {offset}");
            write_bits(&mut bytes, offset, width, u64::MAX);
            let around = offset + usize::from(width);
            assert_eq!(read_bits(&bytes, around, 8), read_bits(&[0x5a; 12], around, 8));
        }
    }
    assert_eq!(read_bits(&[0xff], 4, 16), 0xf000, "zeros follow");
    assert_eq!(read_bits(&[], usize::MAX >> 1, 64), 0);
}

#[test]
fn single_bits() {
    check(&[
        ("SETBIT a 7 1", ":0\r\n"),
        ("SETBIT a 7 1", ":1\r\n"),
        ("GET a", "$1\r\n\u{1}\r\n"),
        ("GETBIT a 7", ":1\r\n"),
        ("GETBIT a 100", ":0\r\n"),
        ("SETBIT a 17 0", ":0\r\n"),
        ("STRLEN a", ":3\r\n"),
        ("OBJECT ENCODING a", "$3\r\nraw\r\n"),
        ("SETBIT a -1 1", OFFSET),
        ("SETBIT a x 1", OFFSET),
        ("SETBIT a 4294967296 1", OFFSET),
        ("GETBIT a 4294967296", OFFSET),
        ("SETBIT a 0 2", "-ERR bit is not an integer or out of range\r\n"),
        ("RPUSH l x", ":1\r\n"),
        ("SETBIT l 0 1", WRONG_TYPE),
        ("GETBIT l 0", WRONG_TYPE),
    ]);
}

#[test]
fn counts_and_positions() {
    check(&[
        ("SET a foobar", "+OK\r\n"),
        ("BITCOUNT a", ":26\r\n"),
        ("BITCOUNT a 0 0", ":4\r\n"),
        ("BITCOUNT a 1", ":22\r\n"),
        ("BITCOUNT a 5 30 BIT", ":17\r\n"),
        ("BITCOUNT a 5 6 BIT", ":2\r\n"),
        ("BITCOUNT a -2 -1 bit", ":1\r\n"),
        ("BITCOUNT a -1 -2", ":0\r\n"),
        ("BITCOUNT a 2 1", ":0\r\n"),
        ("BITCOUNT a 0 1 NIBBLE", SYNTAX),
        ("BITCOUNT a 0 1 BIT x", SYNTAX),
        ("BITCOUNT a x", "-ERR value is not an integer or out of range\r\n"),
        ("BITCOUNT none 0 5", ":0\r\n"),
        ("BITPOS a 1", ":1\r\n"),
        ("BITPOS a 0", ":0\r\n"),
        ("BITPOS a 1 2", ":17\r\n"),
        ("BITPOS a 1 3 -1 BIT", ":5\r\n"),
        ("BITPOS a 1 3 4 BIT", ":-1\r\n"),
        ("BITPOS a 2", "-ERR The bit argument must be 1 or 0.\r\n"),
        ("BITPOS none 1", ":-1\r\n"),
        ("BITPOS none 0", ":0\r\n"),
        ("BITFIELD f SET u16 0 65535", "*1\r\n:0\r\n"),
        ("BITPOS f 0", ":16\r\n"),
        ("BITPOS f 0 1", ":16\r\n"),
        ("BITPOS f 0 0 -1", ":-1\r\n"),
        ("BITPOS f 0 5", ":-1\r\n"),
        ("RPUSH l x", ":1\r\n"),
        ("BITCOUNT l", WRONG_TYPE),
        ("BITPOS l 1", WRONG_TYPE),
    ]);
}

#[test]
fn strings_are_combined() {
    let mut keyspace = TestKeyspace::replicated();
    check_on(
        &mut keyspace,
        &[
            ("SET a abc", "+OK\r\n"),
            ("SET b a", "+OK\r\n"),
            ("BITOP AND d a b", ":3\r\n"),
            ("GET d", "$3\r\na\0\0\r\n"),
            ("BITOP or d a none b", ":3\r\n"),
            ("GET d", "$3\r\nabc\r\n"),
            ("BITOP XOR d a b", ":3\r\n"),
            ("GET d", "$3\r\n\0bc\r\n"),
            ("BITOP AND {d} {d}", ":0\r\n"),
            ("BITOP NOT d a b", "-ERR BITOP NOT must be called with a single source key.\r\n"),
            ("BITOP DIFF d a b", SYNTAX),
            ("RPUSH l x", ":1\r\n"),
            ("BITOP AND d a l", WRONG_TYPE),
            ("BITOP AND l a b", ":3\r\n"),
            ("OBJECT ENCODING l", "$3\r\nraw\r\n"),
            ("BITOP AND l none", ":0\r\n"),
            ("EXISTS l", ":0\r\n"),
        ],
    );
    let effects = keyspace.effects();
    assert_eq!(effects[effects.len() - 2..], ["SET l a\0\0", "DEL l"]);
    check_on(&mut keyspace, &[("SET {d}x a", "+OK\r\n"), ("BITOP NOT d {d}x", ":1\r\n")]);
    assert_eq!(keyspace.effects(), ["SET {d}x a", "BITOP NOT d {d}x"]);
}

#[test]
fn fields() {
    check(&[
        ("BITFIELD a SET u8 0 255 GET i8 0 GET u4 2 INCRBY u8 0 10", "*4\r\n:0\r\n:-1\r\n:15\r\n:9\r\n"),
        ("BITFIELD a OVERFLOW SAT INCRBY i8 #1 100 INCRBY i8 #1 100", "*2\r\n:100\r\n:127\r\n"),
        ("BITFIELD a OVERFLOW SAT INCRBY i8 #1 -300", "*1\r\n:-128\r\n"),
        ("BITFIELD a OVERFLOW FAIL INCRBY i8 #1 -1 SET u8 0 256", "*2\r\n$-1\r\n$-1\r\n"),
        ("BITFIELD a OVERFLOW SAT SET u8 0 -1 GET u8 0", "*2\r\n:9\r\n:255\r\n"),
        (
            "BITFIELD a SET i64 64 -9223372036854775808 INCRBY i64 64 -1",
            "*2\r\n:0\r\n:9223372036854775807\r\n",
        ),
        ("STRLEN a", ":16\r\n"),
        ("BITFIELD a", "*0\r\n"),
        ("BITFIELD none GET u63 1000", "*1\r\n:0\r\n"),
        ("EXISTS none", ":0\r\n"),
        ("BITFIELD a GET u64 0", ENCODING),
        ("BITFIELD a GET i0 0", ENCODING),
        ("BITFIELD a GET U8 0", ENCODING),
        ("BITFIELD a GET u8 -1", OFFSET),
        ("BITFIELD a GET u8 #9223372036854775807", OFFSET),
        ("BITFIELD a SET u8 0 x", "-ERR value is not an integer or out of range\r\n"),
        ("BITFIELD a SET u8 0", SYNTAX),
        ("BITFIELD a OVERFLOW foo", "-ERR Invalid OVERFLOW type specified\r\n"),
        ("BITFIELD_RO a GET u8 #1", "*1\r\n:128\r\n"),
        ("BITFIELD_RO a SET u8 0 1", "-ERR BITFIELD_RO only supports the GET subcommand\r\n"),
        ("RPUSH l x", ":1\r\n"),
        ("BITFIELD l GET u8 0", WRONG_TYPE),
        ("BITFIELD l SET u8 0 1", WRONG_TYPE),
    ]);
}

/// What a replica holds after the effects is what the primary holds; what changes nothing has none.
#[test]
fn a_replica_follows() {
    let mut keyspace = TestKeyspace::replicated();
    for (request, effects) in [
        ("SETBIT a 3 0", vec!["SETBIT a 3 0"]),
        ("SETBIT a 3 0", vec![]),
        ("SETBIT a 9 1", vec!["SETBIT a 9 1"]),
        ("BITFIELD a GET u8 0", vec![]),
        ("BITFIELD a SET u8 0 0", vec![]),
        ("BITFIELD a INCRBY u8 4 3", vec!["BITFIELD a INCRBY u8 4 3"]),
        ("BITFIELD b OVERFLOW FAIL INCRBY u8 #9 -1", vec!["BITFIELD b OVERFLOW FAIL INCRBY u8 #9 -1"]),
        ("BITOP NOT none none", vec![]),
    ] {
        keyspace.run(request);
        assert_eq!(keyspace.effects(), effects, "{request}");
    }
    let mut keyspace = TestKeyspace::replicated();
    for request in
        ["SETBIT a 900 1", "BITFIELD b OVERFLOW FAIL INCRBY u8 #9 -1", "SETRANGE c 5 xyz", "BITOP NOT d c"]
    {
        keyspace.run(request);
    }
    let mut replica = keyspace.replica();
    for key in ["a", "b", "c", "d"] {
        let get: [&[u8]; 2] = [b"GET", key.as_bytes()];
        assert_eq!(replica.run_raw(&get), keyspace.run_raw(&get), "{key}");
    }
}

//! What our writer writes is what another implementation of the protocols reads: values of all kinds, nested, with any
//! bytes in them, in RESP2 and RESP3.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use bytes::BytesMut;
use keyward_proto::resp::number::format_double;
use keyward_proto::resp::{ReplyWriter, Version};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use redis_protocol::resp2::types::OwnedFrame as Resp2;
use redis_protocol::resp3::types::{OwnedFrame as Resp3, VerbatimStringFormat};
use redis_protocol::{resp2, resp3};

/// What a command may reply.
#[derive(Debug, Clone)]
enum Value {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    Null,
    Double(f64),
    Boolean(bool),
    Verbatim(Vec<u8>),
    Array(Vec<Value>),
    Push(Vec<Value>),
    /// Different strings.
    Set(Vec<Vec<u8>>),
    /// By different strings.
    Map(Vec<(Vec<u8>, Value)>),
}

const DEPTH_MAX: usize = 4;

fn text(rng: &mut StdRng) -> String {
    (0..rng.random_range(0..12)).map(|_| char::from(rng.random_range(b' '..=b'~'))).collect()
}

fn bytes(rng: &mut StdRng) -> Vec<u8> {
    let len = if rng.random_bool(0.02) { 70_000 } else { rng.random_range(0..40) };
    (0..len).map(|_| rng.random()).collect()
}

/// That begin with their number are different.
fn numbered(n: usize, rng: &mut StdRng) -> Vec<u8> {
    [format!("{n} ").into_bytes(), bytes(rng)].concat()
}

fn value(rng: &mut StdRng, depth: usize) -> Value {
    let kinds = if depth < DEPTH_MAX { 12 } else { 8 };
    let len = rng.random_range(0..5);
    match rng.random_range(0..kinds) {
        0 => Value::Simple(text(rng)),
        1 => Value::Error(format!("ERR {}", text(rng))),
        2 => Value::Integer(if rng.random_bool(0.5) { rng.random() } else { rng.random_range(-20..200) }),
        3 => Value::Bulk(bytes(rng)),
        4 => Value::Null,
        5 => Value::Double(f64::from(rng.random_range(-1_000_000..1_000_000)) / 64.0),
        6 => Value::Boolean(rng.random()),
        7 => Value::Verbatim(bytes(rng)),
        8 => Value::Array((0..len).map(|_| value(rng, depth + 1)).collect()),
        9 if depth == 0 => Value::Push((0..=len).map(|_| value(rng, depth + 1)).collect()),
        9 | 10 => Value::Set((0..len).map(|n| numbered(n, rng)).collect()),
        _ => Value::Map((0..len).map(|n| (numbered(n, rng), value(rng, depth + 1))).collect()),
    }
}

fn write(value: &Value, out: &mut ReplyWriter<'_>) {
    match value {
        Value::Simple(text) => out.simple(text),
        Value::Error(text) => out.error(text),
        Value::Integer(number) => out.integer(*number),
        Value::Bulk(bytes) => out.bulk(bytes),
        Value::Null => out.null(),
        Value::Double(number) => out.double(*number),
        Value::Boolean(yes) => out.boolean(*yes),
        Value::Verbatim(text) => out.verbatim("txt", text),
        Value::Array(items) => {
            let start = out.deferred();
            items.iter().for_each(|item| write(item, out));
            out.finish_array(start, items.len());
        }
        Value::Push(items) => {
            out.push(items.len());
            items.iter().for_each(|item| write(item, out));
        }
        Value::Set(items) => {
            out.set(items.len());
            items.iter().for_each(|item| out.bulk(item));
        }
        Value::Map(pairs) => {
            out.map(pairs.len());
            for (key, item) in pairs {
                out.bulk(key);
                write(item, out);
            }
        }
    }
}

fn as_resp2(value: &Value) -> Resp2 {
    let all = |items: &[Value]| Resp2::Array(items.iter().map(as_resp2).collect());
    match value {
        Value::Simple(text) => Resp2::SimpleString(text.clone().into()),
        Value::Error(text) => Resp2::Error(text.clone()),
        Value::Integer(number) => Resp2::Integer(*number),
        Value::Bulk(bytes) | Value::Verbatim(bytes) => Resp2::BulkString(bytes.clone()),
        Value::Null => Resp2::Null,
        Value::Double(number) => Resp2::BulkString(format_double(*number).into()),
        Value::Boolean(yes) => Resp2::Integer(i64::from(*yes)),
        Value::Array(items) | Value::Push(items) => all(items),
        Value::Set(items) => Resp2::Array(items.iter().cloned().map(Resp2::BulkString).collect()),
        Value::Map(pairs) => {
            let pair = |(key, item): &(Vec<u8>, Value)| [Resp2::BulkString(key.clone()), as_resp2(item)];
            Resp2::Array(pairs.iter().flat_map(pair).collect())
        }
    }
}

fn blob(data: &[u8]) -> Resp3 {
    Resp3::BlobString { data: data.to_vec(), attributes: None }
}

fn as_resp3(value: &Value) -> Resp3 {
    let attributes = None;
    match value {
        Value::Simple(text) => Resp3::SimpleString { data: text.clone().into(), attributes },
        Value::Error(text) => Resp3::SimpleError { data: text.clone(), attributes },
        Value::Integer(number) => Resp3::Number { data: *number, attributes },
        Value::Bulk(bytes) => blob(bytes),
        Value::Null => Resp3::Null,
        Value::Double(number) => Resp3::Double { data: *number, attributes },
        Value::Boolean(yes) => Resp3::Boolean { data: *yes, attributes },
        Value::Verbatim(text) => {
            let format = VerbatimStringFormat::Text;
            Resp3::VerbatimString { data: text.clone(), format, attributes }
        }
        Value::Array(items) => Resp3::Array { data: items.iter().map(as_resp3).collect(), attributes },
        Value::Push(items) => Resp3::Push { data: items.iter().map(as_resp3).collect(), attributes },
        Value::Set(items) => Resp3::Set { data: items.iter().map(|item| blob(item)).collect(), attributes },
        Value::Map(pairs) => {
            let data = pairs.iter().map(|(key, item)| (blob(key), as_resp3(item))).collect();
            Resp3::Map { data, attributes }
        }
    }
}

/// A pipeline of replies, read back one by one.
#[test]
fn another_implementation_reads_what_we_write() {
    let mut rng = StdRng::seed_from_u64(1);
    for _ in 0..300 {
        let values: Vec<Value> = (0..rng.random_range(1..8)).map(|_| value(&mut rng, 0)).collect();
        let [resp2_bytes, resp3_bytes] = [Version::Resp2, Version::Resp3].map(|version| {
            let mut out = BytesMut::new();
            values.iter().for_each(|value| write(value, &mut ReplyWriter::new(&mut out, version)));
            out
        });
        let (mut rest2, mut rest3) = (&resp2_bytes[..], &resp3_bytes[..]);
        for value in &values {
            let (read, len) = resp2::decode::decode(rest2).unwrap().expect("a whole frame");
            assert_eq!(read, as_resp2(value));
            rest2 = &rest2[len..];
            let (read, len) = resp3::decode::complete::decode(rest3).unwrap().expect("a whole frame");
            assert_eq!(read, as_resp3(value));
            rest3 = &rest3[len..];
        }
        assert!(rest2.is_empty() && rest3.is_empty());
    }
}

/// A command as we send it to others is an array of strings, whatever is in them.
#[test]
fn another_implementation_reads_our_commands() {
    let mut rng = StdRng::seed_from_u64(2);
    for _ in 0..300 {
        let args: Vec<Vec<u8>> = (0..rng.random_range(1..20)).map(|_| bytes(&mut rng)).collect();
        let mut out = BytesMut::new();
        let slices: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
        keyward_proto::resp::reply::write_command(&mut out, &slices);
        let read = resp2::decode::decode(&out).unwrap();
        let all = Resp2::Array(args.into_iter().map(Resp2::BulkString).collect());
        assert_eq!(read, Some((all, out.len())));
    }
}

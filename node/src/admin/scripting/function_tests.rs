//! Tests of functions, as a client sees them, and of their effects.

use keyward_store::rdb::{Compression, payload};

use crate::testing::{TestNode, check_on};

fn load(node: &mut TestNode, options: &[&[u8]], source: &str) -> String {
    let words = [&[b"FUNCTION", b"LOAD".as_slice()], options, &[source.as_bytes()]].concat();
    node.run_words(&words)
}

fn library(name: &str, function: &str) -> String {
    format!(
        "#!lua name={name}\nredis.register_function('{function}', function(keys, args) \
         redis.call('set', keys[1], args[1]) return '{name}' end)"
    )
}

fn names(node: &mut TestNode) -> Vec<String> {
    let known = node.executor.server().scripts.libraries.lock();
    known.iter().map(|library| library.name.clone()).collect()
}

#[test]
fn a_function_is_loaded_called_and_deleted() {
    let mut node = TestNode::new();
    assert_eq!(load(&mut node, &[], &library("one", "f")), "$3\r\none\r\n");
    check_on(&mut node, &[("FCALL f 1 k v", "$3\r\none\r\n"), ("GET k", "$1\r\nv\r\n")]);
    check_on(&mut node, &[("FCALL F 1 k w", "$3\r\none\r\n"), ("FLUSHALL", "+OK\r\n")]);
    let ro = "-ERR Can not execute a script with write flag using *_ro command.\r\n";
    check_on(&mut node, &[("FCALL_RO f 1 k v", ro)]);
    assert_eq!(load(&mut node, &[], &library("one", "g")), "-ERR Library 'one' already exists\r\n");
    assert_eq!(load(&mut node, &[], &library("two", "F")), "-ERR Function F already exists\r\n");
    assert_eq!(load(&mut node, &[b"REPLACE"], &library("one", "g")), "$3\r\none\r\n");
    check_on(
        &mut node,
        &[
            ("FCALL f 0", "-ERR Function not found\r\n"),
            ("FUNCTION DELETE two", "-ERR Library not found\r\n"),
            (
                "FUNCTION LIST",
                "*1\r\n*6\r\n$12\r\nlibrary_name\r\n$3\r\none\r\n$6\r\nengine\r\n$3\r\nLUA\r\n$9\r\nfunctions\r\n*1\r\n*6\r\n\
                 $4\r\nname\r\n$1\r\ng\r\n$11\r\ndescription\r\n$-1\r\n$5\r\nflags\r\n*0\r\n",
            ),
            ("FUNCTION DELETE one", "+OK\r\n"),
            ("FUNCTION LIST", "*0\r\n"),
            ("FCALL g 0", "-ERR Function not found\r\n"),
        ],
    );
}

#[test]
fn effects_make_a_replica_have_the_same_functions() {
    let mut node = TestNode::replicated();
    load(&mut node, &[], &library("one", "f"));
    load(&mut node, &[], &library("two", "g"));
    node.run("FCALL f 1 k v");
    let mut replica = node.replica();
    assert_eq!(names(&mut replica), ["one", "two"]);
    check_on(&mut replica, &[("GET k", "$1\r\nv\r\n"), ("FCALL f 1 k w", "$3\r\none\r\n")]);
    let dump = node.run_raw(&[b"FUNCTION", b"DUMP"]);
    let start = dump.iter().position(|b| *b == b'\n').unwrap() + 1;
    let dump = dump[start..dump.len() - 2].to_vec();
    node.run("FUNCTION DELETE one");
    node.apply_effects_to(&mut replica);
    assert_eq!(names(&mut replica), ["two"]);
    let clash = node.run_words(&[b"FUNCTION", b"RESTORE", &dump]);
    assert_eq!(clash, "-ERR Library two already exists\r\n");
    assert!(node.effects().is_empty());
    assert_eq!(node.run_words(&[b"FUNCTION", b"RESTORE", &dump, b"REPLACE"]), "+OK\r\n");
    node.apply_effects_to(&mut replica);
    assert_eq!(names(&mut replica), ["one", "two"]);
    load(&mut node, &[], &library("three", "h"));
    assert_eq!(node.run_words(&[b"FUNCTION", b"RESTORE", &dump, b"FLUSH"]), "+OK\r\n");
    node.apply_effects_to(&mut replica);
    assert_eq!(names(&mut replica), ["one", "two"]);
    node.run("FLUSHALL");
    assert_eq!(names(&mut node), ["one", "two"]);
    node.run("FUNCTION FLUSH");
    node.apply_effects_to(&mut replica);
    assert!(names(&mut replica).is_empty());
}

/// A rewritten file, or a full sync, may have what comes after an effect that is applied once more.
#[test]
fn an_effect_is_applied_whatever_is_there() {
    let mut node = TestNode::replicated();
    load(&mut node, &[], &library("one", "f"));
    node.run("FUNCTION DELETE one");
    load(&mut node, &[], &library("two", "f"));
    let mut replica = TestNode::new();
    load(&mut replica, &[], &library("two", "f"));
    node.apply_effects_to(&mut replica);
    assert_eq!(names(&mut replica), ["two"]);
    assert_eq!(replica.run("FCALL f 1 k v"), "$3\r\ntwo\r\n");
}

#[test]
fn what_a_transaction_loads_it_can_call() {
    let mut node = TestNode::replicated();
    node.run("MULTI");
    load(&mut node, &[], &library("one", "f"));
    node.run("FCALL f 1 k v");
    assert_eq!(node.run("EXEC"), "*2\r\n$3\r\none\r\n$3\r\none\r\n");
    let mut replica = node.replica();
    assert_eq!((names(&mut replica), replica.run("GET k")), (vec!["one".to_owned()], "$1\r\nv\r\n".into()));
}

#[test]
fn what_is_no_payload_of_functions_is_refused() {
    let mut node = TestNode::new();
    let sealed = |sources: &[&str]| {
        payload::save_functions(sources.iter().map(|source| source.as_bytes()), Compression::None)
    };
    node.run("SET k v");
    let dump = node.run_raw(&[b"DUMP", b"k"]);
    let start = dump.iter().position(|b| *b == b'\n').unwrap() + 1;
    let twice = [library("one", "f"), library("one", "g")];
    let clash = [library("one", "f"), library("two", "f")];
    let mut torn = sealed(&[&library("one", "f")]);
    torn.remove(5);
    for (bytes, reply) in [
        (sealed(&[]), "+OK\r\n"),
        (torn, "-ERR DUMP payload version or checksum are wrong\r\n"),
        (dump[start..dump.len() - 2].to_vec(), "-ERR given type is not a function\r\n"),
        (sealed(&["return 1"]), "-ERR Missing library metadata\r\n"),
        (sealed(&["#!lua name=one\nreturn 1"]), "-ERR No functions registered\r\n"),
        (sealed(&twice.each_ref().map(String::as_str)), "-ERR Library one already exists\r\n"),
        (sealed(&clash.each_ref().map(String::as_str)), "-ERR Function f already exists\r\n"),
    ] {
        assert_eq!(node.run_words(&[b"FUNCTION", b"RESTORE", &bytes]), reply);
        assert!(names(&mut node).is_empty());
    }
}

#[test]
fn flags_of_functions_decide_where_they_run() {
    let mut node = TestNode::new();
    let flagged = |flags: &str| {
        format!(
            "#!lua name=one\nredis.register_function{{function_name='f', callback=function() return 1 end, \
             flags={{{flags}}}}}"
        )
    };
    let oom = "-OOM command not allowed when used memory > 'maxmemory'.\r\n";
    for (flags, reply, read_only) in [
        ("", oom, oom),
        ("'allow-oom'", ":1\r\n", "-ERR Can not execute a script with write flag using *_ro command.\r\n"),
        ("'no-writes'", ":1\r\n", ":1\r\n"),
    ] {
        node.run("CONFIG SET maxmemory 0");
        load(&mut node, &[b"REPLACE"], &flagged(flags));
        node.run("CONFIG SET maxmemory 1000");
        let memory = &node.executor.server().memory;
        memory.correct(memory.figure(), 2000, 0);
        check_on(&mut node, &[("FCALL f 0", reply), ("FCALL_RO f 0", read_only)]);
    }
}

//! Scripts without a server: a host that answers a few commands.

use bytes::BytesMut;
use keyward_proto::resp::{ReplyWriter, Version};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;

/// Answers ECHO, a few replies of each kind, and ends the script at `end`.
struct Echo;

impl Host for Echo {
    fn call(&mut self, args: &[&[u8]], _version: Version, read: &mut dyn FnMut(&[u8])) -> Result<(), Abort> {
        let reply: Vec<u8> = match args {
            [b"echo", text] => [format!("${}\r\n", text.len()).as_bytes(), text, b"\r\n"].concat(),
            [b"raw", text] => text.to_vec(),
            [b"end"] => return Err(Abort("ended".into())),
            _ => b"-ERR Unknown command called from script\r\n".to_vec(),
        };
        read(&reply);
        Ok(())
    }

    fn log(&mut self, _level: LogLevel, _text: &[u8]) {}

    fn may_call(&mut self, _args: &[&[u8]]) -> Option<bool> {
        Some(true)
    }
}

pub(crate) fn interpreter() -> Interpreter {
    Interpreter::new(Kind::Eval, 0, || Ok(())).unwrap()
}

pub(crate) fn run_on(interpreter: &Interpreter, script: &str) -> String {
    let compiled = match interpreter.compile(script.as_bytes()) {
        Ok(compiled) => compiled,
        Err(error) => return String::from_utf8_lossy(&error).into_owned(),
    };
    let mut out = BytesMut::new();
    let mut writer = ReplyWriter::new(&mut out, Version::Resp2);
    let result = interpreter.eval(&compiled, &[b"k"], &[b"a"], &mut Echo, &mut writer);
    interpreter.forget(compiled);
    match result {
        Ok(()) => String::from_utf8_lossy(&out).into_owned(),
        Err(ScriptError::Failed(text)) => format!("-{}", String::from_utf8_lossy(&text)),
        Err(ScriptError::Aborted(text)) => format!("!{}", String::from_utf8_lossy(&text)),
    }
}

fn check(cases: &[(&str, &str)]) {
    let interpreter = interpreter();
    for (script, expect) in cases {
        assert_eq!(run_on(&interpreter, script), *expect, "{script}");
    }
}

#[test]
fn values_become_replies() {
    check(&[
        ("return {KEYS[1], ARGV[1], 3.99, true, false}", "*5\r\n$1\r\nk\r\n$1\r\na\r\n:3\r\n:1\r\n$-1\r\n"),
        ("return {1, 2, nil, 4}", "*2\r\n:1\r\n:2\r\n"),
        ("return 1e100", ":-9223372036854775808\r\n"),
        ("return {ok='x\\r\\ny'}", "+x  y\r\n"),
        ("return {map={a=1}}", "*2\r\n$1\r\na\r\n:1\r\n"),
        ("return redis.call('echo', 1.5)", "$3\r\n1.5\r\n"),
    ]);
}

#[test]
fn errors_say_where_they_were_raised() {
    check(&[
        ("return redis.call('x')", "-ERR Unknown command called from script script: on @user_script:1."),
        ("\nerror('boom')", "-ERR user_script:2: boom script: on @user_script:2."),
        (
            "return cjson.decode('x')",
            "-ERR user_script:1: Expected value but found invalid token at character 1 script: on @user_script:1.",
        ),
        (
            "local ok, e = pcall(redis.call, 'x') return e",
            "$38\r\nERR Unknown command called from script\r\n",
        ),
        (
            "local function f() return 1 + f() end f()",
            "-ERR user_script:1: stack overflow script: on @user_script:1.",
        ),
    ]);
}

#[test]
fn nobody_catches_what_ends_a_script() {
    for script in [
        "redis.call('end')",
        "pcall(redis.call, 'end') return 1",
        "xpcall(function() redis.call('end') end, function() return 1 end) return 1",
        "coroutine.resume(coroutine.create(function() redis.call('end') end)) return 1",
        "pcall(function() pcall(redis.pcall, 'end') end) return 1",
        "return loadstring('return pcall(redis.call, \"end\")')()",
    ] {
        let ended = run_on(&interpreter(), script);
        assert!(ended.starts_with("!ERR ended"), "{script}: {ended}");
    }
}

#[test]
fn replies_of_each_kind_become_values() {
    let many = format!("%{}\\r\\n{}", 1000, "+k\\r\\n:1\\r\\n".repeat(1000));
    check(&[
        ("return redis.call('raw', '_\\r\\n') == nil", ":1\r\n"),
        ("return redis.call('raw', '$-1\\r\\n') == false", ":1\r\n"),
        ("return redis.call('raw', '+ok\\r\\n').ok", "$2\r\nok\r\n"),
        ("return redis.call('raw', '#t\\r\\n') == true", ":1\r\n"),
        ("return tostring(redis.call('raw', ',1.5\\r\\n').double)", "$3\r\n1.5\r\n"),
        ("return redis.call('raw', '(123\\r\\n').big_number", "$3\r\n123\r\n"),
        (
            "local v = redis.call('raw', '=7\\r\\ntxt:abc\\r\\n').verbatim_string return v.format .. v.string",
            "$6\r\ntxtabc\r\n",
        ),
        ("return redis.call('raw', '%1\\r\\n$1\\r\\na\\r\\n*1\\r\\n:7\\r\\n').map.a[1]", ":7\r\n"),
        ("return redis.call('raw', '%2\\r\\n_\\r\\n:1\\r\\n:2\\r\\n:3\\r\\n').map[2]", ":3\r\n"),
        ("return redis.call('raw', '~2\\r\\n:5\\r\\n:5\\r\\n').set[5]", ":1\r\n"),
        (
            "local n = 0 for _ in pairs(redis.call('raw', ARGV[1] and '%0\\r\\n').map) do n = n + 1 end return n",
            ":0\r\n",
        ),
        ("return redis.pcall('raw', '-ERR x y\\r\\n').err", "$7\r\nERR x y\r\n"),
        ("return {redis.pcall('raw', '-ERR x y\\r\\n')}", "*1\r\n-ERR x y\r\n"),
        (
            "return redis.call('echo', 10, 'x') == nil",
            "-ERR Unknown command called from script script: on @user_script:1.",
        ),
        ("return redis.call('echo', -0)", "$1\r\n0\r\n"),
        ("return redis.call('echo', 2^53)", "$16\r\n9007199254740992\r\n"),
        (
            "return redis.call()",
            "-ERR Please specify at least one argument for this call script: on @user_script:1.",
        ),
        (
            "return redis.pcall('echo', {}).err",
            "$49\r\nERR Command arguments must be strings or integers\r\n",
        ),
        ("return select('#', redis.call('echo', 'a\\0b'))", ":1\r\n"),
        ("return #redis.call('echo', 'a\\0b')", ":3\r\n"),
    ]);
    let script =
        format!("local n = 0 for _ in pairs(redis.call('raw', '{many}').map) do n = n + 1 end return n");
    assert_eq!(run_on(&interpreter(), &script), ":1000\r\n");
}

#[test]
fn replies_may_be_nested_as_deep_as_the_stack_of_lua() {
    for depth in [10, 1000, 3000] {
        let script = format!(
            "local v = redis.call('raw', string.rep('*1\\r\\n', {depth}) .. ':5\\r\\n') \
             local n = 0 while type(v) == 'table' do v = v[1] n = n + 1 end return n"
        );
        let reply = run_on(&interpreter(), &script);
        let reached: usize = reply.trim_start_matches(':').trim_end().parse().unwrap();
        assert!(reached <= depth && depth.min(1000) <= reached, "{depth}: {reply}");
    }
}

#[test]
fn what_does_not_fit_into_memory_is_refused_and_the_next_script_runs() {
    let interpreter = interpreter();
    let script = "local text, replies = string.rep('+', 1024 * 1024), {} \
        for i = 1, 8 do text = text .. text end \
        for i = 1, 4 do replies[i] = redis.pcall('raw', text) end return #replies";
    let reply = run_on(&interpreter, script);
    assert_eq!(reply, "-ERR not enough memory script: on @user_script:1.");
    assert_eq!(run_on(&interpreter, "return #redis.call('echo', string.rep('x', 1000000))"), ":1000000\r\n");
    assert_eq!(
        run_on(&interpreter, "return coroutine.wrap(function() return redis.call('echo', 'c') end)()"),
        "$1\r\nc\r\n"
    );
}

#[test]
fn lengths_that_lie_do_no_harm() {
    for reply in [
        "*40000000000000000",
        "*9\\r\\n:1\\r\\n",
        "%99999999999\\r\\n+a",
        "~7\\r\\n",
        "$99\\r\\nab",
        "=5\\r\\na",
        "*-5\\r\\n",
        "%-1\\r\\n",
        "",
    ] {
        let script = format!("redis.pcall('raw', '{reply}') return 'alive'");
        assert_eq!(run_on(&interpreter(), &script), "$5\r\nalive\r\n", "{reply}");
    }
}

/// Bytes changed, inserted and cut off in inputs that are well formed.
#[test]
fn damaged_inputs_of_the_libraries_are_refused_or_harmless() {
    let interpreter = interpreter();
    let scripts = [
        "return #cjson.encode(cjson.decode(ARGV[1]))",
        "return #cmsgpack.pack(cmsgpack.unpack(ARGV[1]))",
        "return select('#', struct.unpack('>bBhHi4I2lsd', ARGV[1]))",
        "return #struct.pack(ARGV[1], 1, 'two', 3.5, 4, 5)",
        "return type(redis.pcall('raw', ARGV[1]))",
    ];
    let scripts = scripts.map(|script| interpreter.compile(script.as_bytes()).unwrap());
    let healthy: [&[u8]; 7] = [
        br#"{"a":[1,2.5e3,null,true,"\u00e9\ud83d\ude00"],"b":{"c":[]}}"#,
        b"\x83\xa1a\x93\x01\xcb\x3f\xf8\0\0\0\0\0\0\xc0\xa1b\xc4\x02xy\xa1c\xdf\0\0\0\x01\x01\x02",
        b"\xdc\0\x02\xd9\x03abc\xce\xff\xff\xff\xff",
        b"\x01\x02\x03\x04\0\0\0\x05\x06\x07\0\0\0\0\0\0\0\x08text\0\0\0\0\0\0\0\0\0",
        b">!8bBhHi4I2lsfdxc0",
        b"*2\r\n%1\r\n$1\r\na\r\n,1.5\r\n~1\r\n:5\r\n",
        b"=7\r\ntxt:abc\r\n",
    ];
    for seed in 0..20_000 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut argument = healthy[rng.random_range(0..healthy.len())].to_vec();
        for _ in 0..rng.random_range(0..4) {
            let at = rng.random_range(0..argument.len());
            match rng.random_range(0..3) {
                0 => argument[at] = rng.random(),
                1 => argument.insert(at, rng.random()),
                _ => argument.truncate(at.max(1)),
            }
        }
        let mut out = BytesMut::new();
        let script = &scripts[rng.random_range(0..scripts.len())];
        let mut writer = ReplyWriter::new(&mut out, Version::Resp2);
        drop(interpreter.eval(script, &[], &[&argument], &mut Echo, &mut writer));
    }
    assert_eq!(run_on(&interpreter, "return redis.call('echo', 'alive')"), "$5\r\nalive\r\n");
}

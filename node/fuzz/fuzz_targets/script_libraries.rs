//! What scripts convert: JSON, MessagePack, packed structures, and replies of commands. The first byte says which; the rest
//! is the argument.
#![no_main]

use std::cell::RefCell;

use bytes::BytesMut;
use keyward_lua::{Abort, Compiled, Host, Interpreter, Kind, LogLevel};
use keyward_proto::resp::{ReplyWriter, Version};
use libfuzzer_sys::fuzz_target;

const SCRIPTS: [&str; 6] = [
    "return cjson.encode(cjson.decode(ARGV[1]))",
    "return cmsgpack.pack(cmsgpack.unpack(ARGV[1]))",
    "return {struct.unpack(ARGV[1], string.rep('abcdefgh', 40))}",
    "return {struct.unpack('>I2hs', ARGV[1])}",
    "return struct.pack(ARGV[1], 1, 'two', 3.5, 4, 5)",
    "return redis.pcall('reply', ARGV[1])",
];

/// Answers with the last argument.
struct Echo;

impl Host for Echo {
    fn call(&mut self, args: &[&[u8]], _version: Version, read: &mut dyn FnMut(&[u8])) -> Result<(), Abort> {
        read(args.last().copied().unwrap_or_default());
        Ok(())
    }

    fn log(&mut self, _level: LogLevel, _text: &[u8]) {}

    fn may_call(&mut self, _args: &[&[u8]]) -> Option<bool> {
        Some(true)
    }
}

thread_local! {
    static LUA: RefCell<Option<(Interpreter, Vec<Compiled>)>> = const { RefCell::new(None) };
}

fuzz_target!(|data: &[u8]| {
    let Some((which, argument)) = data.split_first() else { return };
    LUA.with_borrow_mut(|lua| {
        let (interpreter, scripts) = lua.get_or_insert_with(|| {
            let interpreter = Interpreter::new(Kind::Eval, 1, || Ok(())).expect("there is memory");
            let compile = |script: &&str| interpreter.compile(script.as_bytes()).expect("it compiles");
            let scripts = SCRIPTS.iter().map(compile).collect();
            (interpreter, scripts)
        });
        let script = &scripts[usize::from(*which) % scripts.len()];
        let mut out = BytesMut::new();
        let mut writer = ReplyWriter::new(&mut out, Version::Resp3);
        drop(interpreter.eval(script, &[], &[argument], &mut Echo, &mut writer));
    });
});

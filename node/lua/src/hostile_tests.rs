//! Scripts of the kinds that have broken Redis and Valkey. Each ends with an error or does no harm, and what another script
//! does afterwards in the same interpreter is as if it had not been.

use crate::tests::{interpreter, run_on};

/// Runs each in one interpreter; afterwards others find it as it was.
fn harmless(scripts: &[&str]) {
    let interpreter = interpreter();
    for script in scripts {
        let reply = run_on(&interpreter, script);
        for (healthy, expected) in [
            ("return redis.call('echo', 'a')", "$1\r\na\r\n"),
            ("return string.upper(('x'):rep(3)) .. #{1, 2} .. math.floor(1.5)", "$5\r\nXXX21\r\n"),
            ("return tostring(pcall(error)) .. cjson.encode({1}) .. type(nil)", "$11\r\nfalse[1]nil\r\n"),
        ] {
            assert_eq!(run_on(&interpreter, healthy), expected, "after {script}, which replied {reply}");
        }
    }
}

/// Whether a script ends with an error that has these words.
fn fails(script: &str, words: &str) {
    let reply = run_on(&interpreter(), script);
    let is_error = reply.starts_with("ERR") || reply.starts_with("-ERR");
    assert!(is_error && reply.contains(words), "{script}: {reply}");
}

/// CVE-2022-24735: what a script leaves in the environment runs with the rights of whoever comes next. CVE-2025-46818: the
/// same by the metatables of basic types.
#[test]
fn nothing_is_left_for_other_scripts() {
    harmless(&[
        "redis.call = function() return 'mine' end",
        "redis = nil",
        "rawset(redis, 'call', print)",
        "rawset(_G, 'redis', nil)",
        "_G.redis = nil",
        "string.upper = function() return 'mine' end",
        "rawset(string, 'upper', nil)",
        "setmetatable(_G, {__index = function() return 'mine' end})",
        "setmetatable(string, nil)",
        "getmetatable(_G).__index = nil",
        "getmetatable(redis).__index = {}",
        "getmetatable('').__index = function() return 'mine' end",
        "getmetatable('').__index.rep = function() return 'mine' end",
        "getmetatable('').rep = function() return 'mine' end",
        "rawset(getmetatable(''), '__index', {})",
        "rawset(getmetatable('').__index, 'rep', nil)",
        "getmetatable('').__add = function() return 'mine' end return '1' + {}",
        "setmetatable('', {__index = {}})",
        "table.insert(string, 'x')",
        "table.sort(redis, function() return true end)",
        "table.remove(math)",
        "table.setn = nil",
        "local m = getmetatable(math) m.__index = nil m.__metatable = nil",
        "for k in pairs(math) do math[k] = nil end",
        "for k, v in next, math do rawset(math, k, nil) end",
        "KEYS = nil ARGV = nil x = 1",
        "coroutine.wrap(function() redis = nil end)()",
        "xpcall(function() redis = nil end, function() redis = nil end)",
        "loadstring('redis = nil')()",
        "load(function() return nil end)() rawset(_G, 'x', 1)",
    ]);
    for value in ["nil", "1", "true", "print", "function() end", "coroutine.create(function() end)"] {
        let value = value.replace("print", "type");
        let reply = run_on(&interpreter(), &format!("return tostring(getmetatable({value}))"));
        assert_eq!(reply, "$3\r\nnil\r\n", "{value} has no metatable to change");
    }
}

/// CVE-2022-0543: a library that opens the whole system.
#[test]
fn nothing_opens_the_system() {
    for name in [
        "package", "require", "io", "debug", "dofile", "loadfile", "module", "print", "newproxy", "getfenv",
        "setfenv", "ffi", "jit",
    ] {
        fails(&format!("return {name}"), "nonexistent global variable");
    }
    for name in ["execute", "exit", "getenv", "remove", "rename", "tmpname", "setlocale", "date"] {
        assert_eq!(run_on(&interpreter(), &format!("return type(os.{name})")), "$3\r\nnil\r\n", "{name}");
    }
}

/// Precompiled code is not checked by Lua.
#[test]
fn precompiled_code_is_not_loaded() {
    harmless(&[
        "return loadstring('\\27Lua')",
        "return loadstring('\\27LuaQ\\0\\1\\4\\8\\4\\8\\0' .. ('x'):rep(1000))",
        "local read return load(function() if not read then read = true return '\\27Lua' end end)",
        "local f = loadstring(string.dump(function() return 1 end)) return f and f()",
        "\u{1b}LuaQ",
    ]);
}

/// CVE-2024-46981, CVE-2025-49844: what is collected as garbage while it is in use.
#[test]
fn what_is_in_use_is_not_collected() {
    harmless(&[
        "for i = 1, 200 do load(function() collectgarbage() return nil end) end",
        "for i = 1, 200 do loadstring('return 1', ('x'):rep(100) .. i .. '\\0y') collectgarbage() end",
        "local n = 0 return load(function() n = n + 1 collectgarbage() if n < 500 then return ' local x' .. n % 99 .. ' = ' .. n end end)",
        "for i = 1, 50 do loadstring(('local a = {} '):rep(500 + i), 'c' .. i) collectgarbage('step') end",
        "local t = setmetatable({}, {__gc = function() redis = nil end}) t = nil collectgarbage()",
        "local t = setmetatable({}, {__mode = 'kv'}) for i = 1, 1000 do t[i] = {} t[{}] = i end collectgarbage() return #t",
        "collectgarbage('stop') collectgarbage('setpause', 0) collectgarbage('setstepmul', 0)",
        "local c = coroutine.wrap(function() collectgarbage() coroutine.yield() collectgarbage() end) c() c = nil collectgarbage()",
        "for i = 1, 100 do coroutine.wrap(function() local x = {} coroutine.yield(x) end)() end collectgarbage()",
    ]);
}

/// CVE-2025-46817: the number of results of `unpack` overflows.
#[test]
fn ranges_of_unpack_are_bounded() {
    for range in [
        "0, 2147483647",
        "-2147483648, 2147483647",
        "1, 1e9",
        "-2, 2147483647",
        "2147483646, 2147483647 + 10",
        "1, 8000",
        "-1e308, 1e308",
        "0/0, 1e18",
        "1, 1/0",
        "-1/0, 1",
    ] {
        harmless(&[
            &format!("return {{unpack({{1, 2, 3}}, {range})}}"),
            &format!("return {{pcall(unpack, {{}}, {range})}}"),
        ]);
    }
    fails("return {unpack({1, 2, 3}, -2, 2147483647)}", "too many results to unpack");
    assert_eq!(run_on(&interpreter(), "return {unpack({1, 2, 3}, 2)}"), "*2\r\n:2\r\n:3\r\n");
}

/// CVE-2025-46819: delimiters of long strings. And what else is deep, long or not finished.
#[test]
fn texts_that_are_no_scripts_are_refused() {
    let equals = "=".repeat(5_000_000);
    for script in [
        format!("return [{equals}[x]{equals}]"),
        format!("return [{equals}"),
        format!("--[{equals}["),
        "local s = '[' .. ('='):rep(5000000) .. '[' return loadstring('return ' .. s)".to_owned(),
        format!("return {}1{}", "(".repeat(100_000), ")".repeat(100_000)),
        format!("return {}{}", "{".repeat(100_000), "}".repeat(100_000)),
        format!("{} {}", "do ".repeat(100_000), "end ".repeat(100_000)),
        format!("return -{}1", " -".repeat(100_000)),
        format!("return {}1", "not ".repeat(100_000)),
        format!("return 1{}", " .. 1".repeat(100_000)),
        format!("local {} = 1", vec!["a"; 10_000].join(", ")),
        format!("return function({}) end", vec!["a"; 10_000].join(", ")),
        format!("return {{{}}}", "1,".repeat(300_000)),
        "\0".to_owned(),
        "return '\\999'".to_owned(),
        "return 'x".to_owned(),
        "return [[x".to_owned(),
    ] {
        harmless(&[&script]);
    }
}

/// CVE-2024-31449: the width of `bit.tohex`.
#[test]
fn numbers_at_the_edges_do_no_harm() {
    assert_eq!(run_on(&interpreter(), "return bit.tohex(65535, -2147483648)"), "$8\r\n0000FFFF\r\n");
    for number in
        ["-2147483648", "2147483647", "4294967296", "1e308", "-1e308", "0/0", "1/0", "-1/0", "'x'", "{}"]
    {
        for call in [
            "bit.tohex(1, N)",
            "bit.tohex(N, 8)",
            "bit.lshift(1, N)",
            "bit.rol(N, N)",
            "bit.bnot(N)",
            "('x'):sub(N, N)",
            "('x'):byte(N, N)",
            "string.char(N)",
            "('%c'):format(N)",
            "('%d'):format(N)",
            "('%x'):format(N)",
            "table.concat({1}, ',', N, N)",
            "math.random(N)",
            "math.ldexp(1, N)",
            "select(N, 1, 2)",
            "string.find('abc', 'b', N)",
            "tostring(N)",
            "struct.pack('i4', N)",
            "cmsgpack.pack(N)",
            "cjson.encode({N})",
            "table.insert({}, N, 1)",
            "({1, 2})[N]",
            "tonumber('z', N)",
        ] {
            harmless(&[&format!("return {{pcall(function() return {} end)}}", call.replace('N', number))]);
        }
    }
    for repeated in [
        "('x'):rep(1e10)",
        "('x'):rep(-1)",
        "('%99d'):format(1)",
        "('%100d'):format(1)",
        "('%.100f'):format(1)",
        "('%1000000s'):format('x')",
        "('%s'):rep(1000):format()",
    ] {
        harmless(&[&format!("return #tostring(pcall(function() return {repeated} end))")]);
    }
}

#[test]
fn lengths_and_depths_in_the_libraries_are_bounded() {
    harmless(&[
        "local t = {} for i = 1, 100000 do t = {t} end return pcall(cjson.encode, t)",
        "local t = {} t.t = t return pcall(cjson.encode, t)",
        "return pcall(cjson.decode, ('['):rep(1000000))",
        "return pcall(cjson.decode, ('{\"a\":'):rep(1000000))",
        "return pcall(cjson.encode, {[1e15] = 1})",
        "return pcall(cjson.encode, {[4294967296] = 1, [2] = 2})",
        "return pcall(cjson.encode, 1/0)",
        "return pcall(cjson.decode, '\"\\\\ud800\"')",
        "return pcall(cjson.decode, '1e999999')",
        "return pcall(cjson.decode, ('9'):rep(100000))",
        "return pcall(cjson.encode_keep_buffer, true)",
        "return pcall(cjson.encode_max_depth, 2147483647)",
        "return pcall(cjson.decode_max_depth, 2147483647) and pcall(cjson.decode, ('['):rep(1000000))",
        "return pcall(cjson.encode_sparse_array, true, 0, 2147483647)",
        "local t = {} for i = 1, 100000 do t = {t} end return pcall(cmsgpack.pack, t)",
        "local t = {} t[1] = t return pcall(cmsgpack.pack, t)",
        "return pcall(cmsgpack.unpack, ('\\145'):rep(1000000))",
        "return pcall(cmsgpack.unpack, '\\221\\255\\255\\255\\255')",
        "return pcall(cmsgpack.unpack, '\\223\\255\\255\\255\\255')",
        "return pcall(cmsgpack.unpack, '\\219\\255\\255\\255\\255')",
        "return pcall(cmsgpack.unpack, '\\198\\255\\255\\255\\255x')",
        "return pcall(cmsgpack.unpack_one, 'x', 2147483647)",
        "return pcall(cmsgpack.unpack_one, 'x', -2147483648)",
        "return pcall(cmsgpack.unpack_limit, ('\\1'):rep(100), 2147483647, 99)",
        "return pcall(cmsgpack.unpack_limit, ('\\1'):rep(100), -1, -1)",
        "return pcall(cmsgpack.unpack, ('\\1'):rep(100000))",
        "return pcall(struct.pack, '>I2147483647', 1)",
        "return pcall(struct.pack, 'i99999999999999999999', 1)",
        "return pcall(struct.pack, '!2147483647i4', 1)",
        "return pcall(struct.pack, 'c2147483647', 'x')",
        "return pcall(struct.pack, ('x'):rep(100000))",
        "return pcall(struct.pack, ('!4294967295'):rep(10) .. 'i4', 1)",
        "return pcall(struct.unpack, 'c0', 'x')",
        "return pcall(struct.unpack, 's', 'x')",
        "return pcall(struct.unpack, 'c4294967295', 'x')",
        "return pcall(struct.unpack, 'i4', 'xxxx', 2147483647)",
        "return pcall(struct.unpack, 'i4', 'xxxx', -2147483648)",
        "return pcall(struct.unpack, 'i4', 'xxxx', 0)",
        "return pcall(struct.unpack, ('i4'):rep(100000), ('x'):rep(400000))",
        "return pcall(struct.unpack, 'I4c0', '\\255\\255\\255\\255x')",
        "return pcall(struct.size, 'c2147483647c2147483647c2147483647')",
        "return pcall(struct.size, 's')",
        "local t = {} for i = 1, 100000 do t = {t} end return t",
        "local t = {} t[1] = t return t",
        "return {map = {map = {map = {}}}, set = {}, double = 'x', err = {}, ok = {}}",
        "local t = {} t.err = t return t",
        "error(setmetatable({}, {__tostring = function() error('x') end}))",
        "local function f() return f() + 1 end return f()",
        "local f f = function() return pcall(f) end return f()",
        "local t = {} for i = 1, 100 do t[i] = i end return {pcall(unpack, t)}",
        "local c c = function() return coroutine.wrap(c)() end return c()",
        "return ('(' ):rep(300):find(('%('):rep(300))",
        "return table.concat(setmetatable({}, {__index = function() return 'x' end}), '', 1, 1e6)",
        "return redis.sha1hex(('x'):rep(1e7))",
        "return table.sort({3, 1, 2, 5, 4, 7}, function() return true end)",
    ]);
}

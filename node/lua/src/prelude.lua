-- The sandbox, around what stock Lua 5.1 brings. `host`: what is written in Rust. Everything of the outside is taken into
-- locals here, before any script has run. An error with a level names the line of the script, as a function in C would.
local host = ...
local assert, error, getmetatable, ipairs, type = assert, error, getmetatable, ipairs, type
local raw_next, raw_pairs, raw_pcall, raw_xpcall = next, pairs, pcall, xpcall
local raw_rawget, raw_rawset, raw_setmetatable = rawget, rawset, setmetatable
local raw_unpack, raw_loadstring, raw_collect = unpack, loadstring, collectgarbage
local raw_insert, concat = table.insert, table.concat
local raw_resume = coroutine.resume
local byte, find, sub, select, tonumber = string.byte, string.find, string.sub, select, tonumber
local unwrap, soften = host.unwrap, host.soften

local READONLY = "Attempt to modify a readonly table"
-- More text than this is compiled by nobody: Lua counts some of what it reads in 32 bits.
local SOURCE_BYTES_MAX = 64 * 1024 * 1024
local UNPACKED_MAX = 7990
local INT_MAX = 2147483647

-- Stock Lua has no tables that cannot be changed. What scripts see of those is an empty one in front of them.
local behind = {}

local function refuse()
  error(READONLY, 2)
end

local function protect(real, meta)
  local front = {}
  behind[front] = real
  local metatable = { __index = real, __newindex = refuse, __metatable = meta or false }
  return raw_setmetatable(front, metatable), metatable
end

local function bad(number, name, wanted, got)
  error("bad argument #" .. number .. " to '" .. name .. "' (" .. wanted .. " expected, got " .. type(got) .. ")", 3)
end

-- What a script is told of an error that it catches. Errors of Rust's functions are userdata; what ends the script is
-- raised again.
local function told(e)
  if type(e) == "userdata" then e = unwrap(e) end
  if type(e) == "table" then
    local text = raw_rawget(e, "err")
    if type(text) == "string" then return text end
  end
  return e
end

local function caught(ok, ...)
  if ok then return true, ... end
  return false, told((...))
end

local function handled(ok, ...)
  if not ok and type((...)) == "userdata" then return false, unwrap((...)) end
  return ok, ...
end

local G = {}
for _, name in ipairs {
  "assert", "error", "gcinfo", "getmetatable", "ipairs", "rawequal", "select", "tonumber", "tostring", "type",
  "_VERSION",
} do
  G[name] = _G[name]
end

function G.pcall(...)
  return caught(raw_pcall(...))
end

function G.xpcall(f, handler)
  return handled(raw_xpcall(f, function(e)
    if type(e) == "userdata" then
      local ends
      e, ends = soften(e)
      if ends then return e end
    end
    return handler(e)
  end))
end

function G.next(t, key)
  return raw_next(behind[t] or t, key)
end

function G.pairs(t)
  if type(t) ~= "table" then bad(1, "pairs", "table", t) end
  if behind[t] then return G.next, t, nil end
  return raw_pairs(t)
end

function G.rawget(t, key)
  return raw_rawget(behind[t] or t, key)
end

function G.rawset(t, key, value)
  if type(t) ~= "table" then bad(1, "rawset", "table", t) end
  if behind[t] then error(READONLY, 0) end
  return raw_rawset(t, key, value)
end

function G.setmetatable(t, metatable)
  if type(t) ~= "table" then bad(1, "setmetatable", "table", t) end
  if behind[t] then error(READONLY, 0) end
  return raw_setmetatable(t, metatable)
end

function G.unpack(...)
  local t, i, j = ...
  if type(t) ~= "table" then
    if select("#", ...) == 0 then error("bad argument #1 to 'unpack' (table expected, got no value)", 2) end
    bad(1, "unpack", "table", t)
  end
  local first, last = tonumber(i or 1), tonumber(j or #t)
  if first and last then
    if last < first then return end
    local fits = -INT_MAX <= first and last <= INT_MAX and last - first < UNPACKED_MAX
    if not fits then error("too many results to unpack", 2) end
  end
  return raw_unpack(t, i, j)
end

-- The name of a chunk has to live while it is compiled: it is this function's argument, and has no NUL, behind which Lua
-- would make another string. Precompiled code is never loaded: a blank before it makes it text.
local function compile(text, name)
  if SOURCE_BYTES_MAX < #text then return nil, "chunk is too long" end
  if byte(text, 1) == 27 then text = " " .. text end
  local zero = find(name, "\0", 1, true)
  if zero then name = sub(name, 1, zero - 1) end
  return raw_loadstring(text, name)
end

function G.loadstring(text, name)
  if type(text) == "number" then text = text .. "" end
  if type(text) ~= "string" then bad(1, "loadstring", "string", text) end
  if type(name) ~= "string" then name = text end
  return compile(text, name)
end

function G.load(reader, name)
  if type(reader) ~= "function" then bad(1, "load", "function", reader) end
  local pieces, bytes = {}, 0
  while true do
    local ok, piece = caught(raw_pcall(reader))
    if not ok then return nil, piece end
    if piece == nil or piece == "" then break end
    if type(piece) ~= "string" then return nil, "reader function must return a string" end
    bytes = bytes + #piece
    if SOURCE_BYTES_MAX < bytes then return nil, "chunk is too long" end
    raw_insert(pieces, piece)
  end
  return compile(concat(pieces), type(name) == "string" and name or "=(load)")
end

-- Nobody may end the collection of garbage for all.
function G.collectgarbage(what, number)
  if what == "count" or what == "step" then return raw_collect(what, number) end
  if what == nil or what == "collect" then return raw_collect("collect") end
  if type(what) ~= "string" then bad(1, "collectgarbage", "string", what) end
  return 0
end

local function copy(library)
  local copied = {}
  for name, value in raw_pairs(library) do copied[name] = value end
  return copied
end

local coroutines = copy(coroutine)
function coroutines.resume(...)
  return handled(raw_resume(...))
end

local tables = copy(table)
function tables.insert(t, ...)
  if type(t) ~= "table" then bad(1, "insert", "table", t) end
  if behind[t] then error(READONLY, 0) end
  local count = select("#", ...)
  if count == 0 or 2 < count then error("wrong number of arguments to 'insert'", 2) end
  -- All that is above is moved, one by one and where nobody can end it.
  local position = count == 2 and tonumber((...))
  if position and not (0 <= position) then error("bad argument #2 to 'insert' (position out of bounds)", 2) end
  return raw_insert(t, ...)
end

local maths = copy(math)
maths.random, maths.randomseed = host.random, host.randomseed

local strings = copy(string)
local metatable_of_strings = { __index = strings }
metatable_of_strings.__metatable = protect({ __index = protect(strings) })

local api = host.api
G.redis = protect(api)
G.server = G.redis
G.coroutine, G.table, G.math = protect(coroutines), protect(tables), protect(maths)
G.string = metatable_of_strings.__metatable.__index
G.os = protect({ clock = os.clock })
for name, library in raw_pairs(host.libraries) do G[name] = protect(library) end

local function nonexistent(_, name)
  error("Script attempted to access nonexistent global variable '" .. G.tostring(name) .. "'", 2)
end

-- While a library is loaded it sees the functions by which it registers others, and nothing else.
local loading = host.loading
raw_setmetatable(loading, { __index = nonexistent })
local L = raw_setmetatable({}, { __index = nonexistent })
L.redis = protect(loading)
L.server = L.redis

raw_setmetatable(G, { __index = nonexistent })
local globals, switch = protect(G, (protect({ __index = nonexistent })))
G._G = globals

return {
  globals = globals, switch = switch, real = G, loading = L, strings = metatable_of_strings,
  loadstring = raw_loadstring,
}

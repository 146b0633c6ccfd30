"use strict";
// The page of the sentinels. It gets a report about once a second and brings what is shown up to it, element by element, so
// that neither the focus nor a screen reader loses its place. Names come from nodes: they are set as text, never as HTML.

const $ = (id) => document.getElementById(id);
const STALE_AFTER_MS = 3500;
const CHANGES_SHOWN = 12;
const LABELLED_RANGES_MAX = 12;

let report = null; // the last one
let heardAt = 0; // when it came, by performance.now()
let about = null; // of the sentinel that serves this page
let token = ""; // until the page is closed
let known = null; // the changes that have been seen, by shard and term
let older = null; // all changes, once somebody wants to see more than the latest

// ---------------------------------------------------------------- elements

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function setAttribute(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

// Makes the children of `parent` those of `items`, in order; what is there already is kept.
function sync(parent, items, keyOf, create, update) {
  const old = new Map();
  for (const child of [...parent.children]) old.set(child.dataset.key, child);
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    let child = old.get(key);
    old.delete(key);
    if (!child) {
      child = create(item);
      child.dataset.key = key;
    }
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
    update(child, item);
  }
  for (const child of old.values()) child.remove();
}

const part = (element, name) => element.querySelector(`[data-part="${name}"]`);

function makePart(tag, name, className) {
  const element = make(tag, className);
  element.dataset.part = name;
  return element;
}

// ---------------------------------------------------------------- words

const grouped = new Intl.NumberFormat("en");
const number = (value) => (value === null || value === undefined ? "–" : grouped.format(value));

function bytes(count) {
  if (count === null || count === undefined) return "–";
  const units = ["B", "KB", "MB", "GB", "TB"];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) {
    count /= 1024;
    unit += 1;
  }
  const digits = count >= 100 || unit === 0 ? Math.round(count) : Number(count.toFixed(1));
  return `${digits}\u00a0${units[unit]}`;
}

function duration(micros) {
  const ms = micros / 1000;
  if (ms >= 10000) return `${(ms / 1000).toFixed(1)} s`;
  if (ms >= 100) return `${Math.round(ms)} ms`;
  return `${ms.toFixed(ms >= 10 ? 1 : 2)} ms`;
}

const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const calendar = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

function moment(millis) {
  const date = new Date(millis);
  const isToday = date.toDateString() === new Date().toDateString();
  return (isToday ? clock : calendar).format(date);
}

const PHASES = {
  noticing: "noticing",
  catching_up: "catching up",
  asking: "asking",
  commit: "commit",
  leases: "waiting for leases",
};
const PHASE_HELP = {
  noticing: "from the last that was heard of the old primary until a sentinel was told",
  catching_up: "until the old primary had stopped and the new one held everything",
  asking: "until the shard's nodes had said how far they are",
  commit: "until a majority of the sentinels had it",
  leases: "until the new primary served",
};
const KINDS = { failover: "Failover", handoff: "Hand-off", formed: "Formed", change: "Another primary" };
const STATES = {
  up: ["good", "up"],
  loading: ["middling", "loading"],
  down: ["bad", "down"],
  silent: ["bad", "not answering"],
};
const VERDICTS = { well: "OK", degraded: "Degraded", failing: "Failing" };

function badge(element, [kind, text]) {
  setAttribute(element, "class", `badge ${kind}`);
  setText(element, text);
}

const titleOf = (shard) => shard.name || `shard ${shard.id.slice(0, 8)}`;

// ---------------------------------------------------------------- what is shown

function show(next) {
  report = next;
  heardAt = performance.now();
  showHead();
  showProblems();
  showFigures();
  showMap();
  showShards();
  showTimeline();
  showSentinels();
  showFreshness();
}

function showHead() {
  const verdict = report.verdict || "unknown";
  setAttribute($("verdict"), "data-verdict", verdict);
  setText($("verdict"), VERDICTS[verdict] || verdict);
  document.title = `${VERDICTS[verdict] || verdict} – Keyward`;
  const leader = report.sentinels.find((sentinel) => sentinel.leader);
  const told = moment(report.told_at_millis);
  const words = report.majority
    ? `Told by ${report.teller}, which leads the sentinels, at ${told}`
    : `Told by ${report.teller} alone, at ${told}: it reaches no leader, so this may be old`;
  setText($("words"), leader || !report.majority ? words : `Told by ${report.teller}, at ${told}`);
}

function showProblems() {
  const problems = report.problems || [];
  const items = problems.length ? problems : [{ verdict: "well", text: "Nothing: everything serves and is in sync." }];
  sync(
    $("problems"),
    items,
    (problem) => `${problem.text} ${problem.todo}`,
    (problem) => {
      const item = make("li");
      item.append(make("p", "text", problem.text));
      if (problem.todo) {
        const todo = make("p", "todo");
        todo.append(make("b", "", "What to do: "), ...withCode(problem.todo));
        item.append(todo);
      }
      return item;
    },
    (item, problem) => setAttribute(item, "data-verdict", problem.verdict),
  );
}

// What is in backquotes is something to type.
function withCode(text) {
  return text.split("`").map((piece, index) => (index % 2 ? make("code", "", piece) : piece));
}

function allNodes() {
  return [...report.shards.flatMap((shard) => shard.nodes), ...report.spares];
}

const sum = (values) => values.reduce((total, value) => total + (value || 0), 0);

function showFigures() {
  const nodes = allNodes();
  const up = nodes.filter((node) => node.state === "up").length;
  const sentinels = report.sentinels.filter((sentinel) => sentinel.up).length;
  const primaries = report.shards.flatMap((shard) => shard.nodes.filter((node) => node.id === shard.primary));
  const served = primaries.filter((node) => node.state === "up").length;
  const figures = [
    ["Shards served", `${served}`, `of ${report.shards.length}`],
    ["Nodes up", `${up}`, `of ${nodes.length}`],
    ["Sentinels up", `${sentinels}`, `of ${report.sentinels.length}`],
    ["Commands", number(sum(nodes.map((node) => node.commands_per_second))), "per second"],
    ["Keys", number(sum(primaries.map((node) => node.keys))), "at primaries"],
    ["Memory", bytes(sum(nodes.map((node) => node.memory_bytes))), "all nodes"],
  ];
  sync(
    $("figures"),
    figures,
    ([name]) => name,
    ([name]) => {
      const box = make("div");
      const value = make("dd");
      value.append(makePart("span", "value"), " ", makePart("small", "unit"));
      box.append(make("dt", "", name), value);
      return box;
    },
    (box, [, value, unit]) => {
      setText(part(box, "value"), value);
      setText(part(box, "unit"), unit);
    },
  );
}

function showMap() {
  const ranges = report.shards.flatMap((shard) =>
    shard.slots.map((text) => {
      const [first, last] = text.split("-").map(Number);
      return { first, last: last === undefined ? first : last, name: titleOf(shard) };
    }),
  );
  ranges.sort((a, b) => a.first - b.first);
  const whole = [];
  let next = 0;
  for (const range of [...ranges, { first: 16384, last: 16384 }]) {
    if (next < range.first) whole.push({ first: next, last: range.first - 1, name: null });
    if (range.first < 16384) whole.push(range);
    next = range.last + 1;
  }
  $("map-box").hidden = report.shards.length === 0;
  $("map").classList.toggle("dense", whole.length > LABELLED_RANGES_MAX);
  sync(
    $("map"),
    whole,
    (range) => `${range.first} ${range.last} ${range.name}`,
    (range) => {
      const box = make("div", range.name === null ? "vacant" : "");
      box.setAttribute("role", "listitem");
      const name = range.name === null ? "nobody’s" : range.name;
      box.append(make("span", "", name), make("br"), make("small", "", `${range.first}–${range.last}`));
      box.title = `${name}: slots ${range.first} to ${range.last}`;
      box.style.flex = `${range.last - range.first + 1} 1 0`;
      return box;
    },
    () => {},
  );
}

const COLUMNS = [
  ["role", "Role"],
  ["state", "State"],
  ["sync", "In sync"],
  ["lag", "Lag", "number"],
  ["keys", "Keys", "number"],
  ["memory", "Memory", "number"],
  ["ops", "Ops/s", "number"],
  ["zone", "Zone"],
];

// Roles are said, too: on a phone rows are shown as boxes, and browsers forget then that it is a table.
function makeTable(caption, firstColumn, columns) {
  const table = make("table");
  table.setAttribute("role", "table");
  table.append(make("caption", "hidden", caption));
  const head = make("thead");
  head.setAttribute("role", "rowgroup");
  const row = make("tr");
  row.setAttribute("role", "row");
  for (const [, title, className] of [["", firstColumn], ...columns]) {
    const cell = make("th", className || "", title);
    cell.scope = "col";
    cell.setAttribute("role", "columnheader");
    row.append(cell);
  }
  head.append(row);
  const body = makePart("tbody", "rows");
  body.setAttribute("role", "rowgroup");
  table.append(head, body);
  return table;
}

function makeRow(columns) {
  const row = make("tr");
  row.setAttribute("role", "row");
  const name = makePart("th", "name");
  name.scope = "row";
  name.setAttribute("role", "rowheader");
  row.append(name);
  for (const [key, title, className] of columns) {
    const cell = make("td", className || "");
    cell.setAttribute("role", "cell");
    cell.dataset.label = title;
    cell.append(makePart("span", key));
    row.append(cell);
  }
  return row;
}

function makeNodeRow(node) {
  const row = makeRow(COLUMNS);
  part(row, "name").append(makePart("span", "address"), makePart("small", "id"));
  const meter = makePart("meter", "meter");
  meter.hidden = true;
  part(row, "memory").after(meter);
  row.dataset.node = node.id;
  return row;
}

function updateNodeRow(row, node) {
  row.classList.toggle("primary", node.role === "primary");
  setText(part(row, "address"), node.address);
  setText(part(row, "id"), node.id.slice(0, 8));
  setText(part(row, "role"), node.role);
  badge(part(row, "state"), STATES[node.state] || ["middling", node.state]);
  const sync = node.role === "spare" ? ["", "–"] : inSync(node);
  badge(part(row, "sync"), sync);
  setText(part(row, "lag"), node.role === "primary" ? "–" : number(node.lag));
  setText(part(row, "keys"), node.state === "up" ? number(node.keys) : "–");
  setText(part(row, "ops"), number(node.commands_per_second));
  setText(part(row, "zone"), node.zone || "–");
  const bound = node.memory_max_bytes || 0;
  const memory = bytes(node.memory_bytes);
  setText(part(row, "memory"), bound && node.memory_bytes ? `${memory} of ${bytes(bound)}` : memory);
  const meter = part(row, "meter");
  meter.hidden = !(bound && node.memory_bytes);
  if (!meter.hidden) {
    meter.max = bound;
    meter.high = bound * 0.9;
    meter.value = node.memory_bytes;
    setAttribute(meter, "aria-label", `memory of ${node.address}`);
  }
}

function inSync(node) {
  if (!node.in_sync) return ["middling", "no"];
  return node.restarted ? ["middling", "restarted"] : ["good", "yes"];
}

function makeShard(shard) {
  const card = make("article", "card");
  card.dataset.shard = shard.id;
  const head = make("div", "head");
  const hand = makePart("button", "hand");
  hand.type = "button";
  hand.addEventListener("click", () => openDialog(shard.id));
  head.append(makePart("h3", "title"), makePart("p", "facts"), hand);
  card.append(head, makeTable(`Nodes of ${titleOf(shard)}`, "Node", COLUMNS));
  return card;
}

function updateShard(card, shard) {
  setText(part(card, "title"), titleOf(shard));
  const members = shard.nodes.filter((node) => node.in_sync && !node.restarted).length;
  const slots = shard.slots.length ? `slots ${shard.slots.join(" ")}` : "no slots";
  const primary = shard.primary ? "" : " · no primary";
  setText(
    part(card, "facts"),
    `${slots} · term ${shard.term} · ${members} of ${shard.nodes.length} in sync${primary}`,
  );
  const hand = part(card, "hand");
  hand.hidden = !canAct() || !shard.primary;
  setText(hand, "Hand over …");
  setAttribute(hand, "aria-label", `Hand the primary role of ${titleOf(shard)} over`);
  const order = (node) => `${node.role === "primary" ? 0 : 1} ${node.address}`;
  const nodes = [...shard.nodes].sort((a, b) => order(a).localeCompare(order(b), "en", { numeric: true }));
  sync(part(card, "rows"), nodes, (node) => node.id, makeNodeRow, updateNodeRow);
}

function showShards() {
  const cards = [...report.shards];
  if (report.spares.length) {
    cards.push({ id: "spares", name: "Spare nodes", spare: true, nodes: report.spares });
  }
  sync(
    $("shards"),
    cards,
    (shard) => shard.id,
    makeShard,
    (card, shard) => {
      if (!shard.spare) return updateShard(card, shard);
      setText(part(card, "title"), shard.name);
      setText(part(card, "facts"), "they belong to no shard, and take the place of a node that is lost");
      part(card, "hand").hidden = true;
      sync(part(card, "rows"), shard.nodes, (node) => node.id, makeNodeRow, updateNodeRow);
    },
  );
}

const changeKey = (change) => `${change.shard} ${change.term}`;

function told(change) {
  const name = change.shard_name;
  const from = change.from || "none";
  switch (change.kind) {
    case "formed":
      return `${name} formed, led by ${change.to}`;
    case "handoff":
      return `${name} handed over from ${from} to ${change.to}`;
    case "failover":
      return `${name} failed over from ${from} to ${change.to}`;
    default:
      return `${name} is led by ${change.to}, before by ${from}`;
  }
}

// The report has the latest ones only.
function allChanges() {
  const latest = report.timeline || [];
  const keys = new Set(latest.map(changeKey));
  return [...latest, ...(older || []).filter((change) => !keys.has(changeKey(change)))];
}

function showTimeline() {
  const changes = allChanges();
  const isFirst = known === null;
  known = known || new Set();
  const shown = older ? changes : changes.slice(0, CHANGES_SHOWN);
  const items = shown.length ? shown : [null];
  sync(
    $("timeline"),
    items,
    (change) => (change ? changeKey(change) : "none"),
    (change) => {
      const item = make("li");
      if (!change) {
        item.append(make("p", "what", "None yet"));
        return item;
      }
      const words = make("div");
      words.append(makePart("p", "what", "what"), makePart("p", "reason", "reason"));
      const phases = makePart("div", "phases", "phases");
      phases.append(makePart("div", "bar", "bar"), makePart("ul", "list"));
      item.append(makePart("time", "time"), words, phases);
      item.dataset.term = change.term;
      item.classList.toggle("fresh", !isFirst && !known.has(changeKey(change)));
      return item;
    },
    (item, change) => change && updateChange(item, change),
  );
  const news = changes.filter((change) => !known.has(changeKey(change)));
  news.forEach((change) => known.add(changeKey(change)));
  if (!isFirst && news.length) setText($("news"), news.map(told).join("; "));
  const more = $("more");
  more.hidden = changes.length <= CHANGES_SHOWN;
  setText(more, older ? "Show the latest only" : "Show older ones");
}

function updateChange(item, change) {
  const time = part(item, "time");
  setText(time, moment(change.at_millis));
  setAttribute(time, "datetime", new Date(change.at_millis).toISOString());
  setText(part(item, "what"), told(change));
  const kind = KINDS[change.kind] || change.kind;
  setText(part(item, "reason"), `${kind}, term ${change.term}${change.reason ? `: ${change.reason}` : ""}`);
  const phases = Object.entries(change.phases || {});
  phases.sort(([a], [b]) => order(a) - order(b));
  part(item, "phases").hidden = phases.length === 0;
  const bar = part(item, "bar");
  setAttribute(bar, "aria-hidden", "true");
  bar.hidden = phases.length < 2;
  sync(
    bar,
    phases,
    ([name]) => name,
    ([name]) => make("i", `p-${name}`),
    (segment, [, micros]) => {
      segment.style.flex = `${micros} 1 0`;
    },
  );
  const total = sum(phases.map(([, micros]) => micros));
  const listed = 1 < phases.length ? [...phases, ["total", total]] : phases;
  sync(
    part(item, "list"),
    listed,
    ([name]) => name,
    ([name]) => {
      const entry = make("li", name === "total" ? "total" : `p-${name}`);
      if (PHASE_HELP[name]) entry.title = PHASE_HELP[name];
      return entry;
    },
    (entry, [name, micros]) =>
      setText(entry, `${name === "total" ? "in all" : PHASES[name] || name} ${duration(micros)}`),
  );
}

const order = (phase) => {
  const place = Object.keys(PHASES).indexOf(phase);
  return place < 0 ? Object.keys(PHASES).length : place;
};

const SENTINEL_COLUMNS = [
  ["state", "State"],
  ["address", "Address"],
  ["bus", "Bus"],
];

function showSentinels() {
  let card = $("sentinels").firstElementChild;
  if (!card) {
    card = make("div", "card wide");
    card.append(makeTable("Sentinels", "Name", SENTINEL_COLUMNS));
    $("sentinels").append(card);
  }
  sync(
    part(card, "rows"),
    [...report.sentinels].sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true })),
    (sentinel) => `${sentinel.id} ${sentinel.name}`,
    () => makeRow(SENTINEL_COLUMNS),
    (row, sentinel) => {
      const here = about && about.sentinel === sentinel.name ? " (serves this page)" : "";
      setText(part(row, "name"), `${sentinel.name}${here}`);
      const state = sentinel.leader ? ["good", "up, leads"] : sentinel.up ? ["good", "up"] : ["bad", "down"];
      badge(part(row, "state"), state);
      setText(part(row, "address"), sentinel.address);
      setText(part(row, "bus"), sentinel.bus_address);
    },
  );
}

function showFreshness() {
  const age = performance.now() - heardAt;
  const isStale = STALE_AFTER_MS <= age;
  document.body.classList.toggle("stale", isStale);
  // Without a number that counts: a screen reader would say each.
  const seen = report ? ` What you see is from ${moment(report.told_at_millis)}.` : "";
  setText($("freshness"), isStale ? `This sentinel does not answer.${seen} Trying again …` : "");
  if (isStale) {
    setAttribute($("verdict"), "data-verdict", "unknown");
    setText($("verdict"), "no news");
    document.title = "No news – Keyward";
  }
}

// ---------------------------------------------------------------- handing over

const canAct = () => about !== null && !about.no_actions;
let subject = null; // the shard in the dialog

function openDialog(id) {
  const shard = report.shards.find((other) => other.id === id);
  if (!shard) return;
  subject = shard;
  setText($("dialog-title"), `Hand over ${titleOf(shard)}`);
  setText(
    $("dialog-words"),
    "The primary stops, the other node takes over when it holds everything. No acknowledged write is lost; clients are redirected.",
  );
  const fit = shard.nodes.filter((node) => node.id !== shard.primary && node.in_sync && node.state === "up");
  const options = [["", "The one that is furthest"], ...fit.map((node) => [node.id, node.address])];
  $("target").replaceChildren(
    ...options.map(([value, text]) => {
      const option = make("option", "", text);
      option.value = value;
      return option;
    }),
  );
  $("token").value = token;
  say("", true);
  $("go").disabled = false;
  $("dialog").showModal();
  (token ? $("target") : $("token")).focus();
}

function say(text, isGood) {
  $("outcome").classList.toggle("bad", !isGood);
  setText($("outcome"), text);
}

async function handOver(event) {
  event.preventDefault();
  $("go").disabled = true;
  say("Handing over …", true);
  try {
    const response = await fetch("handoff", {
      method: "POST",
      headers: { Authorization: `Bearer ${$("token").value}`, "Content-Type": "application/json" },
      body: JSON.stringify({ shard: subject.id, to: $("target").value }),
    });
    const words = (await response.text()).trim();
    if (response.ok) token = $("token").value;
    say(words, response.ok);
  } catch (error) {
    say(`No answer from this sentinel: ${error.message}`, false);
  }
  $("go").disabled = false;
}

// ---------------------------------------------------------------- getting reports

let fallback = 0;

function listen() {
  const source = new EventSource("events");
  source.addEventListener("status", (event) => {
    stopAsking();
    show(JSON.parse(event.data));
  });
  source.addEventListener("error", () => {
    // The browser tries again by itself, unless it was refused: too many look on already.
    if (source.readyState === EventSource.CLOSED) {
      startAsking();
      setTimeout(listen, 10000);
    }
  });
}

function startAsking() {
  if (!fallback) fallback = setInterval(ask, 2000);
  ask();
}

function stopAsking() {
  clearInterval(fallback);
  fallback = 0;
}

async function ask() {
  try {
    const response = await fetch("status");
    if (response.ok) show(await response.json());
  } catch {
    // The age of what is shown says it.
  }
}

async function meet() {
  try {
    about = await (await fetch("about")).json();
  } catch {
    setTimeout(meet, 2000);
    return;
  }
  setText($("about"), `Served by the sentinel ${about.sentinel}, Keyward ${about.version}.`);
  const isOpen = !about.no_actions;
  $("actions-note").hidden = isOpen;
  if (!isOpen) setText($("actions-note"), `Read-only: ${about.no_actions}.`);
  if (report) show(report);
}

$("more").addEventListener("click", async () => {
  if (older) {
    older = null;
  } else {
    try {
      older = await (await fetch("timeline")).json();
    } catch {
      return; // the page says already that nobody answers
    }
    // They are no news.
    older.forEach((change) => known.add(changeKey(change)));
  }
  showTimeline();
});
$("cancel").addEventListener("click", () => $("dialog").close());
$("form").addEventListener("submit", handOver);
setInterval(showFreshness, 1000);
meet();
listen();

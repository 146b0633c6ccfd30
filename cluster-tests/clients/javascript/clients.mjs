// One client of one library does what applications do, once; prints "ok", or ends with an error.
//
// usage: node clients.mjs LIBRARY MODE PORT [SENTINEL_PORT]
//   LIBRARY: ioredis or node-redis; MODE: node, cluster or sentinel; PORT: of the first node
// If the variable TLS_DIR names a folder, all is encrypted: ca.crt, client.crt and client.key are there.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import Redis from "ioredis";
import { createClient, createCluster, createSentinel } from "redis";

const [library, mode, port, sentinelPort] = process.argv.slice(2).map((word, n) => (n < 2 ? word : Number(word)));
const folder = process.env.TLS_DIR;
const host = folder ? "localhost" : "127.0.0.1";
const read = (name) => readFileSync(`${folder}/${name}`);
const tls = folder ? { ca: read("ca.crt"), cert: read("client.crt"), key: read("client.key") } : undefined;
const socket = tls ? { tls: true, ...tls } : {};
const password = mode === "node" ? undefined : "dev-valkey-password";
const three = (first) => [0, 1, 2].map((n) => ({ host, port: first + n }));

async function connectIoredis() {
  if (mode === "cluster") return new Redis.Cluster(three(port), { redisOptions: { password, tls } });
  if (mode === "sentinel") {
    const encrypted = tls ? { tls, sentinelTLS: tls, enableTLSForSentinelMode: true } : {};
    return new Redis({ sentinels: three(sentinelPort), name: "mymaster", password, ...encrypted });
  }
  return new Redis({ host, port, tls });
}

async function connectNodeRedis() {
  let client;
  if (mode === "cluster") {
    const rootNodes = three(port).map((node) => ({ socket: { ...node, ...socket } }));
    client = createCluster({ rootNodes, defaults: { password, RESP: 3, socket } });
  } else if (mode === "sentinel") {
    client = createSentinel({
      name: "mymaster",
      sentinelRootNodes: three(sentinelPort),
      nodeClientOptions: { password, socket },
      sentinelClientOptions: { socket },
    });
  } else {
    client = createClient({ socket: { host, port, ...socket }, RESP: 3 });
  }
  client.on("error", (error) => console.error(String(error)));
  await client.connect();
  return client;
}

async function withIoredis(r) {
  const subscriber = await connectIoredis();
  const got = new Promise((resolve) => subscriber.on("message", (channel, text) => resolve([channel, text])));
  await subscriber.subscribe("js:news");
  await r.publish("js:news", "hello");
  assert.deepEqual(await got, ["js:news", "hello"]);
  subscriber.disconnect();

  assert.equal(await r.set("js:s", "value", "EX", 60), "OK");
  assert.equal(await r.get("js:s"), "value");
  assert.equal(await r.ttl("js:s"), 60);
  await r.del("js:h", "js:h");
  assert.equal(await r.hset("js:h", { a: 1, b: 2 }), 2);
  assert.deepEqual(await r.hgetall("js:h"), { a: "1", b: "2" });
  const consumer = await connectIoredis();
  const job = consumer.blpop("js:queue", 10);
  await r.rpush("js:queue", "job");
  assert.deepEqual(await job, ["js:queue", "job"]);
  consumer.disconnect();
  await r.del("{js}n");
  assert.deepEqual(await r.multi().incr("{js}n").get("{js}n").exec(), [[null, 1], [null, "1"]]);
  const pipeline = r.pipeline();
  for (let n = 0; n < 500; n++) pipeline.incr("{js}n");
  const replies = await pipeline.exec();
  assert.deepEqual(replies.at(-1), [null, 501]);
  r.disconnect();
}

async function withNodeRedis(r) {
  // Sentinel and cluster clients subscribe by themselves; a plain client needs a second connection.
  const subscriber = ["node", "tls"].includes(mode) ? await r.duplicate().connect() : r;
  const got = new Promise((resolve) => subscriber.subscribe("js:news", (text, channel) => resolve([channel, text])).then(() => r.publish("js:news", "hello")));
  assert.deepEqual(await got, ["js:news", "hello"]);
  await subscriber.unsubscribe("js:news");
  if (subscriber !== r) subscriber.destroy();

  assert.equal(await r.set("js:s", "value", { EX: 60 }), "OK");
  assert.equal(await r.get("js:s"), "value");
  assert.equal(await r.ttl("js:s"), 60);
  await r.del("js:h");
  assert.equal(await r.hSet("js:h", { a: 1, b: 2 }), 2);
  assert.deepEqual({ ...(await r.hGetAll("js:h")) }, { a: "1", b: "2" });
  await r.rPush("js:queue", "job");
  assert.deepEqual({ ...(await r.blPop("js:queue", 10)) }, { key: "js:queue", element: "job" });
  await r.del("{js}n");
  assert.deepEqual(await r.multi().incr("{js}n").get("{js}n").exec(), [1, "1"]);
  const replies = await Promise.all(Array.from({ length: 500 }, () => r.incr("{js}n")));
  assert.equal(replies.at(-1), 501);
  await r.destroy();
}

if (library === "ioredis") await withIoredis(await connectIoredis());
else await withNodeRedis(await connectNodeRedis());
console.log("ok");
process.exit(0);

// BullMQ does its work, once: jobs, priorities, delays, retries, a flow; prints "ok", or ends with an error.
//
// usage: node bullmq.mjs node|cluster PORT

import assert from "node:assert/strict";
import Redis from "ioredis";
import { FlowProducer, Queue, QueueEvents, Worker } from "bullmq";

const [mode, port] = [process.argv[2], Number(process.argv[3])];
const host = "127.0.0.1";
const password = "dev-valkey-password";
const nodes = [0, 1, 2].map((n) => ({ host, port: port + n }));

function connect() {
  const options = { maxRetriesPerRequest: null };
  if (mode === "cluster") return new Redis.Cluster(nodes, { redisOptions: { ...options, password } });
  return new Redis({ host, port, ...options });
}

// All keys of a cluster's queue are in one slot.
const prefix = "{bull}";
const opened = [];
const open = (made) => {
  opened.push(made);
  return made;
};
const queue = open(new Queue("work", { connection: connect(), prefix }));
const events = open(new QueueEvents("work", { connection: connect(), prefix }));
await queue.obliterate({ force: true });
await events.waitUntilReady();

const order = [];
const jobs = await queue.addBulk([3, 1, 2].map((priority) => ({ name: "order", data: priority, opts: { priority } })));
const retried = await queue.add("retried", 0, { attempts: 3, backoff: { type: "fixed", delay: 50 }, priority: 4 });
const delayed = await queue.add("delayed", 7, { delay: 300 });
const failing = await queue.add("failing", 0, { priority: 5 });
const worker = open(
  new Worker(
    "work",
    async (job) => {
      if (job.name === "order") order.push(job.data);
      if (job.name === "failing" || (job.name === "retried" && job.attemptsMade < 2)) throw new Error("not now");
      if (job.name === "parent") return Object.values(await job.getChildrenValues()).reduce((a, b) => a + b, 0);
      await job.updateProgress(50);
      return job.data;
    },
    { connection: connect(), prefix },
  ),
);
for (const job of [...jobs, delayed]) assert.equal(await job.waitUntilFinished(events, 30000), job.data);
assert.equal(await retried.waitUntilFinished(events, 30000), 0);
await assert.rejects(failing.waitUntilFinished(events, 30000), /not now/);
assert.deepEqual(order, [1, 2, 3]);

const flow = open(new FlowProducer({ connection: connect(), prefix }));
const child = (data) => ({ name: "child", queueName: "work", data });
const { job: parent } = await flow.add({ name: "parent", queueName: "work", children: [child(2), child(5)] });
assert.equal(await parent.waitUntilFinished(events, 30000), 7);

const counts = await queue.getJobCounts();
assert.equal(counts.failed, 1);
assert.equal(counts.completed, 8);
assert.equal(counts.waiting + counts.delayed + counts.active, 0);
await queue.obliterate({ force: true });
for (const made of opened.reverse()) await made.close();
console.log("ok");
process.exit(0);

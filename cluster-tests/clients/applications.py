"""What applications do, as tests that run against every kind of server: a class with `connect` inherits them.

Keys of one command share a hash tag, so that the same test runs on a cluster.
"""

import threading
import time

from redis.exceptions import ResponseError, WatchError


class Applications:
    def connect(self, protocol):
        raise NotImplementedError

    def setUp(self):
        self.clients = []
        self.r = self.client(2)
        self.r.flushall()

    def tearDown(self):
        for client in self.clients:
            client.close()

    def client(self, protocol=2):
        client = self.connect(protocol)
        self.clients.append(client)
        return client

    def both(self):
        """A client for each protocol in turn, on an empty server."""
        for protocol in (2, 3):
            client = self.client(protocol)
            client.flushall()
            yield client

    def test_strings_with_expiry(self):
        for r in self.both():
            self.assertTrue(r.set("s", "value", px=90_000))
            self.assertEqual(r.get("s"), "value")
            self.assertTrue(89_000 < r.pttl("s") <= 90_000)
            self.assertTrue(r.persist("s"))
            self.assertEqual(r.ttl("s"), -1)
            self.assertEqual(r.getset("s", "other"), "value")
            self.assertEqual(r.getdel("s"), "other")
            self.assertIsNone(r.get("s"))
            self.assertEqual(r.ttl("s"), -2)
            self.assertEqual(r.append("s", "ab"), 2)
            self.assertEqual(r.setrange("s", 4, "z"), 5)
            self.assertEqual(r.get("s"), "ab\0\0z")
            self.assertEqual(r.strlen("s"), 5)

    def test_a_key_is_gone_when_its_time_is_up(self):
        self.r.set("short", "life", px=30)
        end = time.monotonic() + 5
        while self.r.exists("short") and time.monotonic() < end:
            pass
        self.assertIsNone(self.r.get("short"))
        self.assertEqual(self.r.dbsize(), 0)

    def test_values_of_any_bytes(self):
        r = self.connect_bytes()
        self.clients.append(r)
        for value in (b"", b"\0\r\n\xff", bytes(range(256)) * 4096):
            r.set(b"\xf0key \r\n", value)
            self.assertEqual(r.get(b"\xf0key \r\n"), value)

    def test_numbers(self):
        for r in self.both():
            self.assertEqual(r.incr("n"), 1)
            self.assertEqual(r.decrby("n", 11), -10)
            self.assertEqual(r.incrbyfloat("f", 0.1), 0.1)
            r.set("n", "many")
            with self.assertRaisesRegex(ResponseError, "value is not an integer or out of range"):
                r.incr("n")

    def test_hashes(self):
        for r in self.both():
            self.assertEqual(r.hset("h", mapping={"a": 1, "b": 2, "c": 3}), 3)
            self.assertEqual(r.hset("h", "a", 9), 0)
            self.assertEqual(r.hmget("h", "a", "b", "x"), ["9", "2", None])
            self.assertEqual(r.hdel("h", "a", "x"), 1)
            self.assertEqual(r.hgetall("h"), {"b": "2", "c": "3"})
            self.assertEqual(sorted(r.hkeys("h")), ["b", "c"])
            self.assertEqual(r.hincrbyfloat("h", "b", 0.5), 2.5)
            r.hset("big", mapping={f"field{n}": n for n in range(2000)})
            self.assertEqual({f: int(v) for f, v in r.hscan_iter("big")}, {f"field{n}": n for n in range(2000)})

    def test_lists(self):
        for r in self.both():
            self.assertEqual(r.rpush("{l}", *range(10)), 10)
            self.assertEqual(r.lrange("{l}", 2, 4), ["2", "3", "4"])
            self.assertEqual(r.lmove("{l}", "{l}:done", "LEFT", "RIGHT"), "0")
            self.assertEqual(r.lpos("{l}", "5"), 4)
            self.assertEqual(r.linsert("{l}", "BEFORE", "5", "4.5"), 10)
            self.assertTrue(r.ltrim("{l}", -2, -1))
            self.assertEqual(r.lrange("{l}", 0, -1), ["8", "9"])
            self.assertEqual(r.lmpop(2, "{l}:none", "{l}", direction="RIGHT", count=5), ["{l}", ["9", "8"]])

    def test_sets_and_sorted_sets(self):
        for r in self.both():
            r.sadd("{s}1", "a", "b", "c")
            r.sadd("{s}2", "b", "c", "d")
            self.assertEqual(r.sinter("{s}1", "{s}2"), {"b", "c"})
            self.assertEqual(r.sdiffstore("{s}3", "{s}1", "{s}2"), 1)
            self.assertEqual(r.smembers("{s}3"), {"a"})
            self.assertEqual(r.zadd("z", {"one": 1, "two": 2, "half": 0.5}), 3)
            self.assertEqual(r.zincrby("z", 2.5, "one"), 3.5)
            self.assertEqual(r.zrangebyscore("z", 0.5, "(3.5"), ["half", "two"])
            self.assertEqual(r.zrevrank("z", "one"), 0)
            self.assertEqual([tuple(pair) for pair in r.zpopmin("z", 2)], [("half", 0.5), ("two", 2.0)])
            self.assertEqual(r.zscore("z", "one"), 3.5)

    def test_wrong_type(self):
        for r in self.both():
            r.rpush("l", 1)
            with self.assertRaisesRegex(ResponseError, "WRONGTYPE Operation against a key holding the wrong kind"):
                r.get("l")

    def test_scan_finds_every_key(self):
        with self.r.pipeline(transaction=False) as pipe:
            for n in range(1500):
                pipe.set(f"key:{n}", n)
            pipe.execute()
        self.assertEqual(set(self.r.scan_iter(match="key:*", count=100)), {f"key:{n}" for n in range(1500)})
        self.assertEqual(self.r.dbsize(), 1500)

    def test_pipeline_keeps_the_order(self):
        for r in self.both():
            with r.pipeline(transaction=False) as pipe:
                for n in range(1000):
                    pipe.rpush("log", n)
                self.assertEqual(pipe.execute(), list(range(1, 1001)))
            self.assertEqual(r.lrange("log", 0, -1), [str(n) for n in range(1000)])

    def test_an_error_in_a_pipeline_is_its_own_commands_only(self):
        r = self.r
        r.set("{p}s", "text")
        with r.pipeline(transaction=False) as pipe:
            pipe.incr("{p}s").incr("{p}n").get("{p}s")
            first, second, third = pipe.execute(raise_on_error=False)
        self.assertIsInstance(first, ResponseError)
        self.assertEqual((second, third), (1, "text"))

    def test_transaction(self):
        for r in self.both():
            with r.pipeline(transaction=True) as pipe:
                pipe.set("{t}a", 1)
                pipe.hset("{t}h", "f", "v")
                pipe.get("{t}a")
                # The Cluster client hands on OK as it is.
                first, *others = pipe.execute()
                self.assertIn(first, (True, "OK"))
                self.assertEqual(others, [1, "1"])

    def test_watch_finds_the_change_of_another(self):
        other = self.client()
        self.r.set("{w}balance", 10)
        with self.r.pipeline(transaction=True) as pipe:
            pipe.watch("{w}balance")
            balance = int(pipe.get("{w}balance"))
            other.set("{w}balance", 500)
            pipe.multi()
            pipe.set("{w}balance", balance - 10)
            with self.assertRaises(WatchError):
                pipe.execute()
        self.assertEqual(self.r.get("{w}balance"), "500")
        with self.r.pipeline(transaction=True) as pipe:
            pipe.watch("{w}balance")
            balance = int(pipe.get("{w}balance"))
            pipe.multi()
            pipe.set("{w}balance", balance - 10)
            self.assertEqual(len(pipe.execute()), 1)
        self.assertEqual(self.r.get("{w}balance"), "490")

    def test_queue_with_consumers_that_wait(self):
        """Every job goes to exactly one consumer, in order for each, and consumers wait while there are none."""
        jobs, consumers = 300, 3
        taken = [[] for _ in range(consumers)]

        def consume(mine, client):
            while (job := client.blpop("queue", timeout=20)) is not None and job[1] != "end":
                mine.append(int(job[1]))

        threads = [threading.Thread(target=consume, args=(mine, self.client(2 + n % 2))) for n, mine in enumerate(taken)]
        for thread in threads:
            thread.start()
        for job in range(jobs):
            self.r.rpush("queue", job)
        self.r.rpush("queue", *["end"] * consumers)
        for thread in threads:
            thread.join(timeout=30)
        self.assertFalse(any(thread.is_alive() for thread in threads))
        self.assertEqual(sorted(job for mine in taken for job in mine), list(range(jobs)))
        for mine in taken:
            self.assertEqual(mine, sorted(mine))
        self.assertEqual(self.r.exists("queue"), 0)

    def test_queue_that_forgets_no_job_of_a_lost_consumer(self):
        self.r.rpush("{q}todo", "a", "b")
        self.assertEqual(self.r.blmove("{q}todo", "{q}doing", timeout=5), "a")
        self.assertEqual(self.r.lrem("{q}doing", 1, "a"), 1)
        self.assertEqual(self.r.blmove("{q}todo", "{q}doing", timeout=5), "b")
        self.assertIsNone(self.r.blmove("{q}todo", "{q}doing", timeout=0.05))
        self.assertEqual(self.r.lrange("{q}doing", 0, -1), ["b"])

    def messages(self, pubsub, count):
        found = []
        end = time.monotonic() + 10
        while len(found) < count and time.monotonic() < end:
            message = pubsub.get_message(timeout=0.5)
            if message is not None:
                found.append(message)
        return found

    def test_publish_and_subscribe(self):
        for r in self.both():
            p = r.pubsub()
            p.subscribe("news", "weather")
            p.psubscribe("n*s")
            kinds = [(m["type"], m["data"]) for m in self.messages(p, 3)]
            self.assertEqual(kinds, [("subscribe", 1), ("subscribe", 2), ("psubscribe", 3)])
            r.publish("news", "one")
            r.publish("weather", "two")
            got = [(m["type"], m["pattern"], m["channel"], m["data"]) for m in self.messages(p, 3)]
            expected = [
                ("message", None, "news", "one"),
                ("pmessage", "n*s", "news", "one"),
                ("message", None, "weather", "two"),
            ]
            self.assertEqual(got, expected)
            p.unsubscribe("news")
            p.punsubscribe()
            self.assertEqual([m["data"] for m in self.messages(p, 2)], [2, 1])
            p.close()

    def test_cache_is_filled_once_by_many(self):
        """A lock made of SET NX PX keeps many readers of a missing entry from computing it all."""
        computed = []

        def read(client):
            while (text := client.get("{c}entry")) is None:
                if client.set("{c}lock", "mine", nx=True, px=5000):
                    if (text := client.get("{c}entry")) is None:
                        computed.append(1)
                        client.set("{c}entry", "text", ex=60)
                    client.delete("{c}lock")
            self.assertIn(text, ("text",))

        threads = [threading.Thread(target=read, args=(self.client(),)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=20)
        self.assertEqual(len(computed), 1)
        self.assertEqual(self.r.get("{c}entry"), "text")

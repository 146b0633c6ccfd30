"""Programs that people run on Valkey do a real job: queues, limiters, locks, a cache. They live on scripts.

Skipped where their packages are not installed.
"""

import datetime
import importlib.util
import logging
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import time
import unittest

import redis

import servers
from test_sentinel import sentinel_client

FOLDER = pathlib.Path(__file__).parent


def needs(*modules):
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    return unittest.skipIf(missing, f"not installed: {', '.join(missing)}")


def lone():
    return redis.Redis(servers.HOST, servers.lone_node().port)


def primary():
    return sentinel_client(servers.replicated()).master_for("mymaster", password=servers.PASSWORD)


class Programs:
    """The tests of programs that get a connection. `connect` is of the subclass."""

    def setUp(self):
        self.r = self.connect()
        self.r.flushall()
        self.addCleanup(self.r.close)

    @needs("rq")
    def test_rq(self):
        import programs_jobs
        from rq import Queue, Retry, SimpleWorker
        from rq.scheduler import RQScheduler

        logging.getLogger("rq.worker").setLevel(logging.CRITICAL)
        queue = Queue("work", connection=self.r)
        jobs = [queue.enqueue(programs_jobs.add, n, 1) for n in range(20)]
        retried = queue.enqueue(programs_jobs.succeed_at_second_try, "tries", retry=Retry(max=2))
        after = queue.enqueue(programs_jobs.add, 100, 1, depends_on=jobs)
        late = queue.enqueue_in(datetime.timedelta(seconds=1), programs_jobs.add, 40, 2)
        worker = SimpleWorker([queue], connection=self.r)
        worker.work(burst=True)
        self.assertEqual([job.return_value() for job in jobs], list(range(1, 21)))
        self.assertEqual((retried.return_value(), after.return_value()), ("done", 101))
        self.assertIsNone(late.return_value())
        scheduler = RQScheduler([queue], connection=self.r)
        self.assertEqual(scheduler.acquire_locks(), {"work"})

        def has_come():
            scheduler.enqueue_scheduled_jobs()
            worker.work(burst=True)
            return late.return_value() == 42

        servers.wait_until(has_come, what="the scheduled job")
        scheduler.release_locks()
        self.assertEqual(queue.count, 0)

    @needs("redis_lock")
    def test_locks(self):
        import redis_lock

        logging.getLogger("redis_lock").setLevel(logging.CRITICAL)
        with redis_lock.Lock(self.r, "name", expire=5, auto_renewal=True):
            self.assertFalse(redis_lock.Lock(self.r, "name").acquire(blocking=False))
        with redis_lock.Lock(self.r, "name"):
            pass
        with self.r.lock("other", timeout=3, blocking_timeout=1) as lock:
            lock.extend(2)
            lock.reacquire()
            self.assertFalse(self.r.lock("other").acquire(blocking=False))

    def test_locked_counter(self):
        """Nobody is let in while another one is in."""
        counted = []

        def count():
            r = self.connect()
            for _ in range(10):
                with r.lock("counter", timeout=10, sleep=0.002):
                    before = int(r.get("count") or 0)
                    r.set("count", before + 1)
                    counted.append(before)
            r.close()

        threads = [threading.Thread(target=count) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(counted, list(range(40)))

    def test_token_bucket(self):
        script = self.r.register_script(
            """
            local rate, size, now = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
            local bucket = redis.call('HMGET', KEYS[1], 'tokens', 'at')
            local tokens, at = tonumber(bucket[1]) or size, tonumber(bucket[2]) or now
            tokens = math.min(size, tokens + (now - at) * rate)
            local allowed = tokens >= 1
            if allowed then tokens = tokens - 1 end
            redis.call('HSET', KEYS[1], 'tokens', tostring(tokens), 'at', now)
            redis.call('PEXPIRE', KEYS[1], math.ceil(size / rate * 1000))
            return {allowed and 1 or 0, tostring(tokens)}
            """
        )
        self.r.script_flush()
        taken = [script(keys=["bucket"], args=[2, 5, at]) for at in (0, 0, 0, 0, 0, 0, 0.25, 0.75)]
        self.assertEqual([allowed for allowed, _ in taken], [1, 1, 1, 1, 1, 0, 0, 1])
        self.assertEqual([float(tokens) for _, tokens in taken[-2:]], [0.5, 0.5])
        self.assertEqual(self.r.hgetall("bucket"), {b"tokens": b"0.5", b"at": b"0.75"})

    def work_with_celery(self, url, sentinel):
        environment = {**os.environ, "BROKER": url, "SENTINEL": sentinel, "PYTHONPATH": str(FOLDER)}
        worker = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "programs_celery", "worker", "--pool", "solo", "--loglevel", "ERROR"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        script = (
            "import programs_celery as p\n"
            "from celery import chord, group\n"
            "print(p.add.delay(1, 2).get(timeout=50))\n"
            "print(p.succeed_at_second_try.delay().get(timeout=50))\n"
            "print(group(p.add.s(n, n) for n in range(8))().get(timeout=50))\n"
            "print(chord(p.add.s(n, 1) for n in range(4))(p.total.s()).get(timeout=50))\n"
        )
        try:
            done = subprocess.run(
                [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120
            )
        finally:
            worker.terminate()
            worker.wait(timeout=30)
        self.assertEqual(done.stdout.split("\n"), ["3", "1", "[0, 2, 4, 6, 8, 10, 12, 14]", "10", ""], done.stderr)


class OnANode(Programs, unittest.TestCase):
    def connect(self):
        return lone()

    @needs("celery")
    def test_celery(self):
        self.work_with_celery(f"redis://{servers.HOST}:{servers.lone_node().port}/0", "0")

    @unittest.skipUnless(shutil.which("sidekiq"), "not installed: sidekiq")
    def test_sidekiq(self):
        """With jobs that are due later, and one that fails at first: both are found by a script."""
        environment = {**os.environ, "REDIS_URL": f"redis://{servers.HOST}:{servers.lone_node().port}/0"}
        application = str(FOLDER / "programs_sidekiq.rb")
        subprocess.run(["ruby", application], env=environment, check=True, capture_output=True, timeout=60)
        worker = subprocess.Popen(
            ["sidekiq", "-r", application, "-c", "2"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wanted = sorted([b"%d" % (n + 1) for n in range(10)] + [b"42", b"again"])
            done = lambda: sorted(self.r.lrange("sums", 0, -1)) == wanted
            servers.wait_until(done, seconds=60, what="all jobs of Sidekiq")
        finally:
            worker.terminate()
            worker.wait(timeout=30)
        self.assertEqual(self.r.get("stat:failed"), b"1")

    @needs("limits")
    def test_limits(self):
        from limits import parse, storage, strategies

        limited = storage.RedisStorage(f"redis://{servers.HOST}:{servers.lone_node().port}")
        three = parse("3/minute")
        for kind in ("MovingWindowRateLimiter", "FixedWindowRateLimiter", "SlidingWindowCounterRateLimiter"):
            with self.subTest(kind):
                limiter = getattr(strategies, kind)(limited)
                # Not over the end of a minute.
                if 55 < time.time() % 60:
                    time.sleep(6)
                hits = [limiter.hit(three, "somebody", kind) for _ in range(5)]
                self.assertEqual(hits, [True, True, True, False, False])
                self.assertEqual(limiter.get_window_stats(three, "somebody", kind).remaining, 0)

    @needs("django_redis")
    def test_django_cache(self):
        from django.conf import settings

        location = f"redis://{servers.HOST}:{servers.lone_node().port}/1"
        settings.configure(CACHES={"default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": location}})
        from django.core.cache import cache

        cache.set("k", {"a": [1, 2]}, timeout=60)
        self.assertEqual(cache.get("k"), {"a": [1, 2]})
        self.assertEqual(cache.get_or_set("n", 1), 1)
        self.assertEqual(cache.incr("n", 4), 5)
        cache.set_many({f"many {n}": n for n in range(300)})
        self.assertEqual(len(cache.get_many([f"many {n}" for n in range(300)])), 300)
        self.assertTrue(50 < cache.ttl("k") <= 60)
        self.assertEqual(len(list(cache.iter_keys("many *"))), 300)
        self.assertEqual(cache.delete_pattern("many *"), 300)
        with cache.lock("lock", timeout=5):
            pass
        self.assertFalse(cache.add("k", 0))


class WithSentinels(Programs, unittest.TestCase):
    def connect(self):
        return primary()

    @needs("celery")
    def test_celery(self):
        ports = (servers.replicated().sentinel_port + n for n in range(3))
        self.work_with_celery(";".join(f"sentinel://:{servers.PASSWORD}@{servers.HOST}:{p}" for p in ports), "1")


class BullMQ(unittest.TestCase):
    """Every step of a job is a script of a hundred lines, with cmsgpack and cjson."""

    @unittest.skipUnless(
        shutil.which("node") and (FOLDER / "javascript/node_modules/bullmq").is_dir(), "no Node.js with BullMQ"
    )
    def test_bullmq(self):
        for name, port in ("node", servers.lone_node().port), ("cluster", servers.cluster().port):
            with self.subTest(name):
                done = subprocess.run(
                    ["node", "bullmq.mjs", name, str(port)],
                    cwd=FOLDER / "javascript",
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    timeout=90,
                )
                self.assertEqual(done.stdout, "ok\n", done.stderr)

"""Backups of clusters, and what comes back from them."""

import functools
import json
import os
import pathlib
import tempfile
import threading
import unittest

import redis

import servers

LIBRARY = "#!lua name=lib\nredis.register_function('answer', function() return 42 end)"


@functools.cache
def source():
    """One shard in cluster mode, with keys of every kind."""
    cluster = servers.BareCluster("cluster", node_flags=["--enable-debug-command", "yes"])
    cluster.wait_until_whole()
    with connect(cluster) as r:
        fill(r)
    return cluster


def connect(cluster, **options):
    return redis.Redis("localhost", cluster.primary(), **{**cluster.for_clients(), **options})


def fill(r):
    pipe = r.pipeline(transaction=False)
    for n in range(3000):
        pipe.set(f"string:{n}", f"value {n}" * (n % 5 + 1))
    pipe.set("expires", "later", ex=10_000)
    pipe.hset("hash", mapping={f"field {n}": n for n in range(500)})
    pipe.hset("small", mapping={"a": 1, "b": 2})
    pipe.execute_command("HPEXPIRE", "small", 10_000_000, "FIELDS", 1, "a")
    pipe.rpush("list", *range(2000))
    pipe.sadd("set", *(f"member {n}" for n in range(700)))
    pipe.sadd("numbers", 1, 2, 3)
    pipe.zadd("scores", {f"member {n}": n / 3 for n in range(400)})
    for n in range(200):
        pipe.xadd("stream", {"n": n}, id=f"{n + 1}-0")
    pipe.xgroup_create("stream", "group", id="0")
    pipe.xreadgroup("group", "consumer", {"stream": ">"}, count=10)
    pipe.pfadd("visitors", *range(1000))
    pipe.setbit("bits", 100_000, 1)
    pipe.set("binary", bytes(range(256)))
    pipe.function_load(LIBRARY, replace=True)
    pipe.execute()


def contents(cluster):
    """Every key with its value and when it expires, of all shards."""
    found = {}
    for port in cluster.ports:
        with redis.Redis("localhost", port, **{**cluster.for_clients(), "decode_responses": False}) as r:
            if r.role()[0] != b"master":
                continue
            for key in r.scan_iter(count=1000):
                value = r.execute_command("DEBUG", "DIGEST-VALUE", key)[0]
                found[key] = (value, r.pexpiretime(key), r.object("ENCODING", key))
    return found


class Backup(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

    def save(self, cluster, *flags, expect=0):
        done = self.operate(cluster, "backup", "--to", str(self.folder), *flags)
        self.assertEqual(done.returncode, expect, done.stderr)
        return done.stderr if expect else pathlib.Path(done.stdout.split(": ")[0])

    def restore(self, cluster, backup, *flags, expect=0):
        done = self.operate(cluster, "restore", "--from", str(backup), *flags)
        self.assertEqual(done.returncode, expect, done.stderr)
        return done.stderr if expect else done.stdout

    def operate(self, cluster, *words):
        password = self.folder / "password"
        password.write_text(servers.PASSWORD + "\n")
        flags = ["--client-tls"] if cluster.certificates else []
        return cluster.operate(*words, "--password-file", str(password), *flags)

    def empty(self, mode, shards=1, certificates=None):
        cluster = servers.BareCluster(mode, shards, certificates, ["--enable-debug-command", "yes"])
        self.addCleanup(cluster.close)
        cluster.wait_until_whole()
        return cluster

    def test_a_file_that_another_program_has_written(self):
        node = servers.LoneNode("--enable-debug-command", "yes")
        self.addCleanup(node.close)
        with redis.Redis(servers.HOST, node.port) as r:
            fill(r)
            r.save()
            size = r.dbsize()
        file = pathlib.Path(node.dir, "dump.rdb")
        target = self.empty("cluster", 2)
        self.assertIn(f"{size} keys of {file} are restored", self.restore(target, file))
        self.assertEqual(len(contents(target)), size)
        self.assertIn("has keys already", self.restore(target, file, expect=1))
        self.restore(target, file, "--replace")
        file.write_bytes(file.read_bytes()[:-100])
        self.assertIn(str(file), self.restore(target, file, "--replace", expect=1))

    def test_into_more_shards(self):
        cluster = self.empty("cluster")
        with connect(cluster) as r:
            fill(r)
        expected = contents(cluster)
        backup = self.save(cluster)
        manifest = json.loads((backup / "manifest.json").read_text())
        self.assertEqual([shard["keys"] for shard in manifest["shards"]], [len(expected)])
        # It does not touch the primary while a replica is in sync.
        self.assertNotEqual(manifest["shards"][0]["node"], f"localhost:{cluster.primary()}")
        target = self.empty("cluster", 2)
        self.assertIn(f"{len(expected)} keys", self.restore(target, backup))
        self.assertEqual(contents(target), expected)
        for port in target.ports:
            with redis.Redis("localhost", port, **target.for_clients()) as r:
                if r.role()[0] == "master":
                    self.assertEqual(r.fcall("answer", 0), 42)
        # Again: refused, or replaced.
        self.assertIn("has keys already", self.restore(target, backup, expect=1))
        with redis.RedisCluster("localhost", target.ports[0], **target.for_clients()) as r:
            r.set("string:1", "another")
            r.set("not in the backup", "stays")
        self.restore(target, backup, "--replace")
        self.assertEqual({**expected, b"not in the backup": contents(target)[b"not in the backup"]}, contents(target))
        # And what several shards hold, into one. What an ended program has left behind goes, too.
        left = self.folder / ".2026-01-01T00-00-00Z.partial"
        left.mkdir()
        (left / "shard-1.rdb").write_bytes(b"begun")
        self.save(target, "--keep", "1")
        kept = [entry for entry in self.folder.iterdir() if entry.is_dir()]
        self.assertEqual(len(kept), 1, "the older one is gone, and what was not complete")
        one = self.empty("cluster")
        self.restore(one, kept[0])
        self.assertEqual(contents(one), contents(target))

    def test_databases_by_tls(self):
        cluster = self.empty("sentinel", certificates=servers.Certificates())
        for db in (0, 3, 9):
            with connect(cluster, db=db) as r:
                r.set(f"key:{db}", db)
        backup = self.save(cluster)
        with connect(cluster) as r:
            r.flushall()
        self.restore(cluster, backup)
        for db in (0, 3, 9):
            with connect(cluster, db=db) as r:
                self.assertEqual((r.get(f"key:{db}"), r.dbsize()), (str(db), 1))

    def test_what_was_acknowledged_before_is_there(self):
        cluster = source()
        acknowledged = []
        ending = threading.Event()

        def write():
            with connect(cluster) as r:
                while not ending.is_set():
                    r.set(f"written:{len(acknowledged)}", "x")
                    acknowledged.append(None)

        writer = threading.Thread(target=write)
        writer.start()
        self.addCleanup(writer.join)
        self.addCleanup(ending.set)
        servers.wait_until(lambda: 100 < len(acknowledged), what="writes")
        before = len(acknowledged)
        backup = self.save(cluster)
        ending.set()
        target = self.empty("cluster")
        self.restore(target, backup)
        keys = contents(target)
        self.assertEqual([n for n in range(before) if f"written:{n}".encode() not in keys], [])

    def test_what_is_no_backup(self):
        cluster = source()
        self.assertIn("no backup is there", self.restore(cluster, self.folder, expect=1))
        backup = self.save(cluster)
        file = backup / "shard-1.rdb"
        damaged = bytearray(file.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        file.write_bytes(damaged)
        self.assertIn("is not what was saved", self.restore(cluster, backup, "--replace", expect=1))
        file.unlink()
        self.assertIn("No such file", self.restore(cluster, backup, "--replace", expect=1))
        manifest = backup / "manifest.json"
        manifest.write_text(manifest.read_text().replace("shard-1.rdb", "../shard-1.rdb"))
        self.assertIn("no name of a file", self.restore(cluster, backup, "--replace", expect=1))

    def test_nothing_is_left_of_what_failed(self):
        cluster = source()
        (self.folder / "wrong").write_text("wrong\n")
        done = cluster.operate("backup", "--to", str(self.folder / "b"), "--password-file", str(self.folder / "wrong"))
        self.assertEqual(done.returncode, 1)
        self.assertIn("WRONGPASS", done.stderr)
        self.assertEqual(os.listdir(self.folder / "b"), [])
        done = cluster.operate("backup", "--to", "/proc/nowhere", "--password-file", str(self.folder / "wrong"))
        self.assertIn("/proc/nowhere", done.stderr)

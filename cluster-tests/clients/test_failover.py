"""local/cluster.sh through a cluster's life, with clients that go on while primaries die."""

import os
import signal
import socket
import subprocess
import threading
import time
import unittest

from redis.backoff import ConstantBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

import servers
import test_cluster
import test_sentinel


class Writer(threading.Thread):
    """Counts up in a list, and remembers which numbers were acknowledged."""

    def __init__(self, client):
        super().__init__()
        self.client = client
        self.key = "{log}"
        self.acknowledged = []
        self.errors = 0
        self.longest_gap = 0.0
        self.ending = threading.Event()

    def run(self):
        number, last = 0, time.monotonic()
        while not self.ending.is_set():
            number += 1
            try:
                self.client.rpush(self.key, number)
            except RedisError:
                self.errors += 1
                continue
            now = time.monotonic()
            self.acknowledged.append(number)
            self.longest_gap = max(self.longest_gap, now - last)
            last = now

    def wait_for(self, count):
        target = len(self.acknowledged) + count
        servers.wait_until(lambda: target <= len(self.acknowledged), what=f"{count} more acknowledged writes")


class Life(unittest.TestCase):
    def life(self, mode, connect):
        cluster = servers.LocalCluster("--mode", mode)
        self.addCleanup(cluster.close)
        writer = Writer(connect(cluster))
        writer.start()
        self.addCleanup(writer.join, 60)
        self.addCleanup(writer.ending.set)
        writer.wait_for(200)
        primary = self.primary(cluster)
        cluster.run("kill", primary)
        writer.wait_for(200)
        self.assertIn("not running", cluster.run("status", expect=1))
        self.assertNotEqual(self.primary(cluster), primary)
        cluster.run("restart", primary)
        writer.wait_for(200)
        # In order: the primary hands over.
        cluster.run("restart", self.primary(cluster))
        writer.wait_for(200)
        writer.ending.set()
        writer.join(60)
        there = {int(number) for number in connect(cluster).lrange("{log}", 0, -1)}
        lost = [number for number in writer.acknowledged if number not in there]
        self.assertEqual(lost, [])
        print(
            f"\n{mode} mode, redis-py: {len(writer.acknowledged)} writes acknowledged, none lost; "
            f"longest time without one: {writer.longest_gap * 1000:.0f} ms"
        )

    def primary(self, cluster):
        """The name of the node that says it is the primary."""

        def find():
            for name, pid in cluster.pids().items():
                if name.startswith("n") and cluster.run("cli", name, "ROLE").startswith("master"):
                    return name
            return None

        return servers.wait_until(find, what="a primary")

    def test_cluster_mode(self):
        retry = Retry(ConstantBackoff(0.02), 100)
        self.life("cluster", lambda cluster: test_cluster.connect(cluster, retry=retry))

    def test_sentinel_mode(self):
        self.life(
            "sentinel",
            lambda cluster: test_sentinel.sentinel_client(cluster).master_for(
                "mymaster", password=servers.PASSWORD, decode_responses=True
            ),
        )


class Script(unittest.TestCase):
    """What local/cluster.sh says and does beside starting."""

    def test_start_again_stop_start_destroy(self):
        cluster = servers.LocalCluster("--replicas", "1")
        self.addCleanup(cluster.close)
        pids = cluster.pids()
        self.assertEqual(sorted(pids), ["n1", "n2", "s1", "s2", "s3"])
        self.assertIn("already running", cluster.run("start"))
        self.assertEqual(cluster.pids(), pids)
        self.assertIn("has mode cluster, not sentinel", cluster.run("start", "--mode", "sentinel", expect=1))
        self.assertEqual(cluster.run("cli", "SET", "k", "v"), "OK\n")
        self.assertIn("PONG", cluster.run("cli", "s2", "PING"))
        self.assertIn("==> ", cluster.run("logs"))
        # Another program's PID in a file of ours is not ours to end.
        with subprocess.Popen(["sleep", "60"]) as sleep:
            try:
                os.kill(pids["n2"], signal.SIGKILL)
                with open(os.path.join(cluster.data, "n2.pid"), "w") as file:
                    print(sleep.pid, file=file)
                self.assertIn("n2 is not running", cluster.run("kill", "n2", expect=1))
                cluster.run("start")
                self.assertIsNone(sleep.poll())
            finally:
                sleep.kill()
        pids = cluster.pids()
        self.assertIn("stopped", cluster.run("stop"))
        self.assertIn("not running", cluster.run("stop"))
        self.assertFalse(any(is_running(pid) for pid in pids.values()))
        cluster.run("start")
        self.assertEqual(cluster.run("cli", "SET", "k", "v"), "OK\n")
        pids = cluster.pids()
        for arguments in (["--keep-data"], []):
            # Without a terminal nobody has agreed to anything.
            cluster.run("destroy", *arguments)
            self.assertTrue(os.path.isdir(os.path.join(cluster.data, "s1")))
        cluster.run("destroy", "--yes")
        self.assertFalse(os.path.exists(cluster.data))
        self.assertFalse(any(is_running(pid) for pid in pids.values()))

    def test_two_shards(self):
        cluster = servers.LocalCluster("--shards", "2", "--replicas", "1")
        self.addCleanup(cluster.close)
        client = test_cluster.connect(cluster)
        self.addCleanup(client.close)
        self.assertEqual(len(client.get_primaries()), 2)
        for number in range(200):
            self.assertTrue(client.set(f"key:{number}", number))
        sizes = [client.dbsize(target_nodes=node) for node in client.get_primaries()]
        self.assertEqual(sum(sizes), 200)
        self.assertTrue(all(0 < size < 200 for size in sizes), sizes)
        self.assertEqual({client.get(f"key:{number}") for number in range(200)}, {str(n) for n in range(200)})

    def test_nothing_is_started_when_a_port_is_taken(self):
        cluster = servers.LocalCluster(started=False)
        self.addCleanup(cluster.close)
        for taken, needed_by, variable in (
            (cluster.port + 1, "n2", "KEYWARD_LOCAL_PORT"),
            (cluster.sentinel_port + 2 + servers.BUS, "s3", "KEYWARD_LOCAL_SENTINEL_PORT"),
        ):
            with socket.create_server((servers.HOST, taken)):
                said = cluster.run("start", expect=1)
            self.assertEqual(said.count("\n"), 1, said)
            self.assertIn(f"port {taken}, needed by {needed_by}, is taken by another program; {variable}", said)
            self.assertEqual(cluster.pids(), {})
            self.assertFalse(os.path.exists(os.path.join(cluster.data, "cluster.conf")))

    def test_what_was_started_is_ended_when_the_rest_does_not_start(self):
        cluster = servers.LocalCluster(started=False)
        self.addCleanup(cluster.close)
        cluster.environment["KEYWARD_LOCAL_NODE_ARGS"] = "--maxmemory-policy nonsense"
        said = cluster.run("start", expect=1)
        self.assertIn("cluster.sh: n1", said)
        # The last line of what the program says.
        self.assertIn("allkeys-lru", said)
        self.assertIn("ended again: s1 s2 s3 n1", said)
        self.assertEqual(cluster.pids(), {})
        # Another number of shards is no contradiction: there is nothing yet.
        cluster.environment["KEYWARD_LOCAL_NODE_ARGS"] = ""
        cluster.run("start", "--replicas", "0")
        self.assertEqual(sorted(cluster.pids()), ["n1", "s1", "s2", "s3"])

    def test_wrong_words(self):
        for arguments, said in (
            (["start", "--nodes", "3"], "start has no option '--nodes'"),
            (["stop", "n1"], "stop does not know 'n1'"),
            (["status", "--yaml"], "status does not know '--yaml'"),
            (["kill", "n1", "n2"], "kill does not know 'n2'"),
            (["kill", "n9"], "kill needs one of s1 s2 s3 n1 n2 n3, or primary"),
            (["restart"], "restart needs one of s1 s2 s3 n1 n2 n3, or primary"),
            (["logs", "n9"], "logs does not know 'n9'"),
            (["destroy", "--all"], "destroy does not know '--all'"),
        ):
            done = run_nowhere(*arguments)
            lines = done.stderr.splitlines()
            self.assertEqual((done.returncode, done.stdout, len(lines)), (2, "", 2), done.stderr)
            self.assertIn(said, lines[0])
            self.assertTrue(lines[1].startswith(f"usage: local/cluster.sh {arguments[0]}"), done.stderr)
        for arguments, said in (
            (["start", "--mode", "single"], "--mode is cluster or sentinel"),
            (["start", "--shards", "x"], "'x' is not a number"),
            (["start", "--mode", "sentinel", "--shards", "2"], "one shard"),
        ):
            done = run_nowhere(*arguments)
            self.assertEqual((done.returncode, done.stdout, done.stderr.count("\n")), (1, "", 1), done.stderr)
            self.assertIn(said, done.stderr)
        for command in ("start", "stop", "status", "logs", "cli", "kill", "restart", "destroy"):
            done = run_nowhere(command, "--help")
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertTrue(done.stdout.startswith(f"usage: local/cluster.sh {command}"), done.stdout)


def run_nowhere(*arguments):
    environment = {**os.environ, "KEYWARD_LOCAL_DATA": "/nonexistent/keyward"}
    return subprocess.run(
        [servers.CLUSTER_SH, *arguments], env=environment, capture_output=True, text=True, timeout=60
    )


def is_running(pid):
    """Whether the process is there and not only waiting to be reaped."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False

"""Clients that know nothing of clusters, at the forwarding ports of nodes that do not have what they ask for."""

import functools
import json
import pathlib
import re
import signal
import socket
import time
import unittest

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

import servers
from applications import Applications
from test_failover import Writer


@functools.cache
def cluster_of(mode, shards=1):
    cluster = servers.BareCluster(mode, shards)
    cluster.wait_until_whole()
    return cluster


def connect(cluster, port, **options):
    return redis.Redis("localhost", port, **{**cluster.for_clients(), **options})


def at_a_replica(cluster):
    """The forwarding port of one."""
    primary = cluster.ports.index(cluster.primary())
    return next(port for n, port in enumerate(cluster.forwarding_ports) if n != primary)


class OfOneShard(Applications):
    """What applications do, at a replica."""

    mode = None

    def connect(self, protocol):
        cluster = cluster_of(self.mode)
        return connect(cluster, at_a_replica(cluster), protocol=protocol)

    def connect_bytes(self):
        cluster = cluster_of(self.mode)
        return connect(cluster, at_a_replica(cluster), decode_responses=False)


class ClusterMode(OfOneShard, unittest.TestCase):
    mode = "cluster"


class SentinelMode(OfOneShard, unittest.TestCase):
    mode = "sentinel"

    def test_the_database_stays_chosen(self):
        cluster = cluster_of(self.mode)
        with connect(cluster, at_a_replica(cluster), db=3) as r, connect(cluster, cluster.primary(), db=3) as direct:
            r.set("chosen", "3")
            self.assertEqual(direct.get("chosen"), "3")
            before = cluster.primary()
            self.assertEqual(cluster.operate("failover", "mymaster").returncode, 0)
            self.assertEqual(r.get("chosen"), "3")
            self.assertNotEqual(cluster.primary(), before)
        cluster.wait_until_whole()

    def test_a_stranger_is_a_stranger(self):
        cluster = cluster_of(self.mode)
        with connect(cluster, at_a_replica(cluster), password=None) as r:
            with self.assertRaises(redis.exceptions.AuthenticationError):
                r.get("k")
        with connect(cluster, at_a_replica(cluster), password="wrong") as r:
            with self.assertRaises(redis.exceptions.AuthenticationError):
                r.get("k")


    def test_a_user_stays_who_it_is_after_a_failover(self):
        cluster = cluster_of(self.mode)
        for port in cluster.ports:
            with connect(cluster, port) as node:
                node.acl_setuser("app", enabled=True, passwords=["+p"], categories=["+@all"], keys=["app:*"], reset=True)
        with connect(cluster, at_a_replica(cluster), username="app", password="p") as r:
            self.assertTrue(r.set("app:k", "v"))
            self.assertEqual(cluster.operate("failover", "mymaster").returncode, 0)
            self.assertEqual((r.get("app:k"), r.acl_whoami()), ("v", "app"))
            with self.assertRaises(redis.exceptions.NoPermissionError):
                r.get("other")
        cluster.wait_until_whole()

    def test_what_is_no_request_ends_one_connection(self):
        cluster = cluster_of(self.mode)
        port = at_a_replica(cluster)

        def tell(text):
            with socket.create_connection(("localhost", port), timeout=20) as s:
                s.sendall(text)
                s.shutdown(socket.SHUT_WR)
                return b"".join(iter(lambda: s.recv(1 << 16), b""))

        self.assertEqual(tell(b"*1\r\n$-5\r\n"), b"-ERR Protocol error: invalid bulk length\r\n")
        self.assertIn(b"unauthenticated bulk length", tell(b"*2\r\n$3\r\nGET\r\n$20000\r\n"))
        self.assertEqual(tell(b"GET / HTTP/1.1\r\nHost: somewhere\r\n\r\n"), b"-NOAUTH Authentication required.\r\n")
        self.assertEqual(tell(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100\r\nabc"), b"")
        with connect(cluster, port) as r:
            self.assertTrue(r.ping())

    def test_large_values_and_who_does_not_read(self):
        cluster = cluster_of(self.mode)
        port = at_a_replica(cluster)
        node = cluster.processes[cluster.ports[cluster.forwarding_ports.index(port)]]

        def memory():
            status = pathlib.Path(f"/proc/{node.pid}/status").read_text()
            return int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) << 10

        with connect(cluster, port) as r:
            value = "x" * (50 << 20)
            self.assertTrue(r.set("large", value))
            self.assertEqual(len(r.get("large")), len(value))
            r.delete("large")
            r.set("piece", "y" * (1 << 20))
            before = memory()
            with socket.create_connection(("localhost", port)) as s:
                s.sendall(f"AUTH {servers.PASSWORD}\r\n".encode() + b"GET piece\r\n" * 2000)
                for _ in range(20):
                    self.assertTrue(r.ping())
                    time.sleep(0.05)
                self.assertLess(memory(), before + (64 << 20))


class Shards(unittest.TestCase):
    """Two shards, which such a client sees as one server, as far as keys go."""

    def setUp(self):
        self.cluster = cluster_of("cluster", 2)

    def test_every_node_serves_every_key(self):
        for port in self.cluster.forwarding_ports:
            with connect(self.cluster, port) as r:
                pipe = r.pipeline(transaction=False)
                for n in range(300):
                    pipe.set(f"key:{n}", f"{port}:{n}")
                    pipe.get(f"key:{n}")
                answers = pipe.execute()
                self.assertEqual(answers[1::2], [f"{port}:{n}" for n in range(300)])
        sizes = []
        for port in self.cluster.ports:
            with connect(self.cluster, port) as r:
                sizes.append(r.dbsize())
        self.assertTrue(all(100 < size for size in sizes), sizes)

    def test_transactions_and_scripts_of_one_slot(self):
        for port in self.cluster.forwarding_ports:
            with connect(self.cluster, port) as r:
                for tag in ("a", "b"):
                    with r.pipeline() as pipe:
                        pipe.watch(f"{{{tag}}}:1")
                        pipe.multi()
                        pipe.set(f"{{{tag}}}:1", "x")
                        pipe.rpush(f"{{{tag}}}:2", "y")
                        self.assertTrue(pipe.execute()[0])
                    self.assertEqual(r.eval("return redis.call('GET', KEYS[1])", 1, f"{{{tag}}}:1"), "x")
                with self.assertRaisesRegex(redis.exceptions.ResponseError, "hash to the same slot"):
                    r.mget("a", "b")

    def test_waiting_and_messages(self):
        first, last = self.cluster.forwarding_ports[0], self.cluster.forwarding_ports[-1]
        with connect(self.cluster, first) as r, connect(self.cluster, last) as other:
            for key in ("a", "b"):
                waiter = r.connection_pool.get_connection()
                waiter.send_command("BLPOP", key, 10)
                other.rpush(key, "job")
                self.assertEqual(waiter.read_response(), [key, "job"])
                r.connection_pool.release(waiter)
            messages = r.pubsub(ignore_subscribe_messages=True)
            messages.subscribe("news")
            messages.get_message(timeout=5)

            def hears():
                other.publish("news", "hello")
                message = messages.get_message(timeout=0.2)
                return message and message["data"] == "hello"

            servers.wait_until(hears, what="a message")
            messages.close()


class Life(unittest.TestCase):
    """Primaries hand over and die under a client that never looks for another address, and has no retries for hand-overs."""

    def life(self, mode, certificates=None):
        cluster = servers.BareCluster(mode, certificates=certificates)
        self.addCleanup(cluster.close)
        cluster.wait_until_whole()
        # Where neither of the two nodes is that lead and die.
        clients = []
        for port in cluster.forwarding_ports:
            client = connect(cluster, port, retry=Retry(NoBackoff(), 0))
            clients.append(Writer(client))
        for n, writer in enumerate(clients):
            writer.key = f"{{log}}:{n}"
            writer.start()
            self.addCleanup(writer.join, 60)
            self.addCleanup(writer.ending.set)
        everybody = lambda count: [writer.wait_for(count) for writer in clients]
        everybody(100)
        term = self.term(cluster)
        for _ in range(3):
            before = cluster.primary()
            handed_over = cluster.operate("failover", "mymaster")
            self.assertEqual(handed_over.returncode, 0, handed_over.stderr)
            everybody(100)
            self.assertNotEqual(cluster.primary(), before)
            cluster.wait_until_whole()
        # On a machine that stalls there may have been failovers, too.
        if self.term(cluster) == term + 3:
            self.assertEqual([writer.errors for writer in clients], [0, 0, 0], "hand-overs are not seen")
        old = cluster.primary()
        alive_port = next(port for n, port in enumerate(cluster.forwarding_ports) if cluster.ports[n] != old)
        patient = connect(cluster, alive_port, retry=Retry(NoBackoff(), 0), socket_timeout=20)
        patient.ping()
        cluster.kill(old)
        # The end of the connection is heard before the next request.
        time.sleep(0.03)
        # It is tried again and again until there is a primary; what was not sent is not counted as waiting for ever.
        large = "x" * (900 << 10)
        self.assertTrue(patient.set("large", large))
        self.assertEqual((patient.get("large"), patient.strlen("large")), (large, len(large)))
        patient.close()
        alive = [writer for n, writer in enumerate(clients) if cluster.ports[n] != old]
        for writer in alive:
            writer.wait_for(200)
        cluster.start_node(old)
        everybody(100)
        for writer in clients:
            writer.ending.set()
            writer.join(60)
        with connect(cluster, cluster.primary()) as r:
            for writer in clients:
                there = {int(number) for number in r.lrange(writer.key, 0, -1)}
                self.assertEqual([number for number in writer.acknowledged if number not in there], [])
        print(
            f"\n{mode} mode, forwarded, without retries: longest time without an acknowledged write "
            f"{[round(writer.longest_gap * 1000) for writer in alive]} ms, errors {[writer.errors for writer in alive]}"
        )

    def term(self, cluster):
        return json.loads(cluster.operate("status", "--json").stdout)["shards"][0]["term"]

    def test_cluster_mode(self):
        self.life("cluster")

    def test_sentinel_mode(self):
        self.life("sentinel")

    def test_a_primary_that_stands_still_keeps_nobody_for_ever(self):
        """What was under way to it ends with the connection; whoever comes then is served by who leads."""
        cluster = servers.BareCluster("sentinel")
        self.addCleanup(cluster.close)
        cluster.wait_until_whole()
        old = cluster.primary()
        port = next(port for n, port in enumerate(cluster.forwarding_ports) if cluster.ports[n] != old)
        with connect(cluster, port, retry=Retry(NoBackoff(), 0), socket_timeout=30) as r:
            r.ping()
            process = cluster.processes[old]
            process.send_signal(signal.SIGSTOP)
            try:
                with self.assertRaises(redis.exceptions.ConnectionError) as ended:
                    r.incr("counter")
                self.assertNotIsInstance(ended.exception, redis.exceptions.TimeoutError)
                self.assertGreater(r.incr("counter"), 0)
            finally:
                process.send_signal(signal.SIGCONT)

    def test_tls(self):
        self.life("sentinel", servers.Certificates())

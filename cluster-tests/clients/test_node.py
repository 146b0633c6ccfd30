"""A node alone with the plain client."""

import threading
import unittest

import redis

import servers
from applications import Applications


class Node(Applications, unittest.TestCase):
    def connect(self, protocol):
        return redis.Redis(servers.HOST, servers.lone_node().port, protocol=protocol, decode_responses=True)

    def connect_bytes(self):
        return redis.Redis(servers.HOST, servers.lone_node().port)

    def test_hello_and_the_types_of_resp3(self):
        r = self.client(3)
        hello = r.execute_command("HELLO", "3")
        self.assertEqual((hello["proto"], hello["role"]), (3, "master"))
        self.assertIn("version", hello)
        r.zadd("z", {"a": 1.5})
        self.assertEqual(r.execute_command("ZSCORE", "z", "a"), 1.5)
        self.assertEqual(r.execute_command("CONFIG", "GET", "maxclients"), {"maxclients": "10000"})

    def test_databases(self):
        other = redis.Redis(servers.HOST, servers.lone_node().port, db=3, decode_responses=True)
        self.clients.append(other)
        other.set("k", "in 3")
        self.assertIsNone(self.r.get("k"))
        self.assertTrue(self.r.copy("other", "k") is False)
        self.assertEqual(other.move("k", 0), 1)
        self.assertEqual(self.r.get("k"), "in 3")

    def test_many_keys_in_one_command(self):
        self.r.mset({f"key {n}": n for n in range(100)})
        self.assertEqual(self.r.mget([f"key {n}" for n in range(100)]), [str(n) for n in range(100)])
        self.assertEqual(self.r.delete(*[f"key {n}" for n in range(100)]), 100)

    def test_client_names_and_kill(self):
        other = redis.Redis(servers.HOST, servers.lone_node().port, client_name="victim", decode_responses=True)
        self.clients.append(other)
        self.assertEqual(other.client_getname(), "victim")
        victims = [client["id"] for client in self.r.client_list() if client["name"] == "victim"]
        self.assertEqual(victims, [str(other.client_id())])
        self.assertEqual(self.r.client_kill_filter(_id=victims[0]), 1)
        # The library connects again by itself.
        self.assertGreater(other.client_id(), int(victims[0]))

    def test_a_blocked_client_can_be_unblocked(self):
        waiting = self.client()
        ids, results = [], []

        def wait():
            with waiting.client() as c:
                ids.append(c.client_id())
                results.append(c.blpop("never", timeout=20))

        thread = threading.Thread(target=wait)
        thread.start()
        servers.wait_until(lambda: ids and self.r.info("clients")["blocked_clients"] == 1, what="a blocked client")
        self.assertTrue(self.r.client_unblock(ids[0]))
        thread.join(timeout=10)
        self.assertEqual(results, [None])

    def test_info(self):
        info = self.r.info()
        self.assertEqual(info["role"], "master")
        self.assertEqual(info["connected_slaves"], 0)
        self.assertEqual(info["redis_version"], "7.2.4")
        self.r.set("a", 1, ex=100)
        self.assertEqual(self.r.info("keyspace")["db0"]["keys"], 1)
        self.assertEqual(self.r.info("keyspace")["db0"]["expires"], 1)

    def test_an_unknown_command(self):
        with self.assertRaisesRegex(redis.exceptions.ResponseError, "unknown command 'NONSENSE', with args beginning"):
            self.r.execute_command("NONSENSE", "a")

    def test_sharded_publish_without_a_cluster(self):
        p = self.r.pubsub()
        p.ssubscribe("channel")
        self.assertEqual(self.messages(p, 1)[0]["type"], "ssubscribe")
        self.assertEqual(self.r.spublish("channel", "text"), 1)
        self.assertEqual(self.messages(p, 1)[0]["data"], "text")
        p.close()

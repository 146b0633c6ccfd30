"""A node alone with the plain client."""

import threading
import unittest
from unittest import mock

import redis
from redis.cache import CacheConfig
from redis.connection import CacheProxyConnection

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

    def test_a_client_that_keeps_values_hears_of_changes(self):
        # The library wants a Redis.
        with mock.patch.object(CacheProxyConnection, "DEFAULT_SERVER_NAME", "valkey"):
            self.keep_and_hear()

    def keep_and_hear(self):
        keeping = redis.Redis(
            servers.HOST, servers.lone_node().port, protocol=3, cache_config=CacheConfig(), decode_responses=True
        )
        self.clients.append(keeping)
        self.r.set("k", "1")
        self.assertEqual([keeping.get("k"), keeping.get("k")], ["1", "1"])
        self.assertEqual(keeping.get_cache().size, 1)
        self.assertEqual(self.r.info("stats")["tracking_total_keys"], 1)
        for change in (lambda: self.r.set("k", "2"), lambda: self.r.append("k", "3"), self.r.flushall):
            change()
            expect = self.r.get("k")
            servers.wait_until(lambda: keeping.get("k") == expect, what=f"k is {expect}")

    def test_a_monitor_is_shown_commands(self):
        with self.client().monitor() as monitor:
            self.r.set("a key", 'a "value"')
            commands = (monitor.next_command() for _ in range(100))
            shown = next(command for command in commands if "value" in command["command"])
        self.assertEqual((shown["db"], shown["command"]), (0, 'SET a key a "value"'))

    def test_slow_commands_are_kept(self):
        self.r.config_set("slowlog-log-slower-than", 0)
        self.r.slowlog_reset()
        self.r.set("k", "v")
        self.r.config_set("slowlog-log-slower-than", 10000)
        self.assertIn(b"SET k v", [entry["command"] for entry in self.r.slowlog_get(100)])

    def test_users_have_their_rights(self):
        self.r.acl_setuser(
            "app", enabled=True, passwords=["+old", "+new"], categories=["+@read", "+@write", "+@transaction"], keys=["app:*"],
            channels=["app.*"], reset=True,
        )
        self.addCleanup(self.r.acl_deluser, "app")
        port = servers.lone_node().port
        for protocol, password in ((2, "old"), (3, "new")):
            app = redis.Redis(
                servers.HOST, port, username="app", password=password, protocol=protocol, decode_responses=True
            )
            self.clients.append(app)
            self.assertTrue(app.set("app:k", "v"))
            self.assertEqual(app.pipeline().get("app:k").incr("app:n").execute()[0], "v")
            for refused in (lambda: app.get("other"), app.config_get, app.acl_whoami):
                with self.assertRaises(redis.exceptions.NoPermissionError):
                    refused()
        user = self.r.acl_getuser("app")
        self.assertEqual((user["flags"], len(user["passwords"])), (["on"], 2))
        self.assertEqual([user["keys"], user["channels"]], [["~app:*"], ["&app.*"]])
        refused = {entry["object"] for entry in self.r.acl_log()}
        self.assertLessEqual({"other", "config|get", "acl|whoami"}, refused)
        self.r.acl_setuser("app", enabled=True, passwords=["-old"])
        late = redis.Redis(servers.HOST, port, username="app", password="old")
        self.clients.append(late)
        with self.assertRaises(redis.AuthenticationError):
            late.ping()

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

"""A replicated shard with the Sentinel client."""

import unittest

import redis
from redis.sentinel import Sentinel

import servers
from applications import Applications


def sentinel_client(cluster):
    return Sentinel([(servers.HOST, cluster.sentinel_port + n) for n in range(3)])


class Replicated(Applications, unittest.TestCase):
    def connect(self, protocol):
        return sentinel_client(servers.replicated()).master_for(
            "mymaster", password=servers.PASSWORD, protocol=protocol, decode_responses=True
        )

    def connect_bytes(self):
        return sentinel_client(servers.replicated()).master_for("mymaster", password=servers.PASSWORD)

    def sentinel(self, number=0):
        r = redis.Redis(servers.HOST, servers.replicated().sentinel_port + number, decode_responses=True)
        self.clients.append(r)
        return r

    def test_all_sentinels_name_the_same_primary(self):
        addresses = {self.sentinel(n).sentinel_get_master_addr_by_name("mymaster") for n in range(3)}
        self.assertEqual(len(addresses), 1)
        host, port = addresses.pop()
        self.assertEqual(host, servers.HOST)
        self.assertIn(port - servers.replicated().port, range(3))

    def test_discovery(self):
        client = sentinel_client(servers.replicated())
        primary = client.discover_master("mymaster")
        replicas = client.discover_slaves("mymaster")
        self.assertEqual(len(replicas), 2)
        self.assertNotIn(primary, replicas)
        state = self.sentinel().sentinel_master("mymaster")
        self.assertEqual((state["num-slaves"], state["num-other-sentinels"], state["is_odown"]), (2, 2, False))
        quorum = self.sentinel().execute_command("SENTINEL", "CKQUORUM", "mymaster")
        self.assertRegex(quorum, "^OK 3 usable Sentinels")
        self.assertEqual(len(self.sentinel().sentinel_sentinels("mymaster")), 2)

    def test_replicas_read_but_do_not_write(self):
        self.r.set("k", "v")
        replica = sentinel_client(servers.replicated()).slave_for(
            "mymaster", password=servers.PASSWORD, decode_responses=True
        )
        self.clients.append(replica)
        servers.wait_until(lambda: replica.get("k") == "v", what="the value on the replica")
        with self.assertRaises(redis.exceptions.ReadOnlyError):
            replica.set("k", "other")

    def test_databases_and_many_keys(self):
        self.r.mset({f"key {n}": n for n in range(20)})
        self.assertEqual(self.r.mget([f"key {n}" for n in range(20)]), [str(n) for n in range(20)])
        other = sentinel_client(servers.replicated()).master_for(
            "mymaster", password=servers.PASSWORD, db=5, decode_responses=True
        )
        self.clients.append(other)
        other.set("key 1", "in 5")
        self.assertEqual(self.r.get("key 1"), "1")

    def test_roles(self):
        self.assertEqual(self.r.execute_command("ROLE")[0], "master")
        self.assertEqual(self.r.info("replication")["connected_slaves"], 2)
        self.assertEqual(self.sentinel().execute_command("ROLE"), ["sentinel", ["mymaster"]])

    def test_wait_counts_the_replicas(self):
        with self.r.client() as c:
            c.set("k", "v")
            self.assertEqual(c.wait(2, 5000), 2)

"""A cluster with the Cluster client."""

import unittest

import redis
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import RedisError, ResponseError

import servers
from applications import Applications


def connect(cluster, protocol=2, **options):
    nodes = [ClusterNode(servers.HOST, cluster.port + n) for n in range(3)]
    return RedisCluster(
        startup_nodes=nodes,
        password=servers.PASSWORD,
        protocol=protocol,
        **{"decode_responses": True, **options},
    )


class Cluster(Applications, unittest.TestCase):
    def connect(self, protocol):
        return connect(servers.cluster(), protocol)

    def connect_bytes(self):
        return connect(servers.cluster(), decode_responses=False)

    def node(self, number):
        r = redis.Redis(
            servers.HOST, servers.cluster().port + number, password=servers.PASSWORD, decode_responses=True
        )
        self.clients.append(r)
        return r

    def test_a_replica_redirects_and_reads_after_readonly(self):
        primary_port = self.r.get_primaries()[0].port
        number = next(n for n in range(3) if servers.cluster().port + n != primary_port)
        self.r.set("here", "value")
        # One connection, since READONLY is a state of it.
        with self.node(number).client() as replica:
            with self.assertRaisesRegex(RedisError, rf"\d+ {servers.HOST}:{primary_port}"):
                replica.get("here")
            replica.readonly()
            servers.wait_until(lambda: replica.get("here") == "value", what="the value on the replica")
            with self.assertRaises(RedisError):
                replica.set("here", "other")

    def test_keys_of_several_slots_in_one_command_are_refused(self):
        with self.assertRaisesRegex(ResponseError, "Keys in request don't hash to the same slot"):
            self.node(0).execute_command("MSET", "a", 1, "b", 2)

    def test_keys_of_several_slots_by_the_client(self):
        self.assertTrue(self.r.mset_nonatomic({f"k{n}": n for n in range(50)}))
        self.assertEqual(self.r.mget_nonatomic([f"k{n}" for n in range(50)]), [str(n) for n in range(50)])

    def test_sharded_publish_and_subscribe(self):
        p = self.r.pubsub()
        p.ssubscribe("{orders}:new")
        self.assertEqual(self.sharded(p)["type"], "ssubscribe")
        self.r.spublish("{orders}:new", "order 17")
        message = self.sharded(p)
        self.assertEqual((message["channel"], message["data"]), ("{orders}:new", "order 17"))
        p.close()

    def sharded(self, pubsub):
        return servers.wait_until(lambda: pubsub.get_sharded_message(timeout=0.5), what="a message")

    def test_the_cluster_as_clients_see_it(self):
        node = self.node(0)
        info = node.execute_command("CLUSTER INFO")
        self.assertEqual((info["cluster_state"], info["cluster_known_nodes"]), ("ok", "3"))
        self.assertEqual(info["cluster_slots_assigned"], "16384")
        self.assertEqual(len(self.r.get_primaries()), 1)
        self.assertEqual(len(self.r.get_replicas()), 2)
        self.assertEqual(node.execute_command("CLUSTER KEYSLOT", "user:1000"), 1649)

    def test_wrong_and_missing_password(self):
        with self.assertRaises(RedisError):
            redis.Redis(servers.HOST, servers.cluster().port, password="wrong").ping()
        with self.assertRaisesRegex(RedisError, "Authentication required"):
            redis.Redis(servers.HOST, servers.cluster().port, protocol=2).ping()

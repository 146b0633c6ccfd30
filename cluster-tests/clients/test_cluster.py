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


def as_fields(flat):
    return dict(zip(flat[::2], flat[1::2]))


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

    def test_links_and_pongs_tell_who_talks_to_whom(self):
        nodes = {f"{servers.HOST}:{servers.cluster().port + n}": self.node(n) for n in range(3)}
        primary = self.r.get_primaries()[0].name
        ids = {name: node.execute_command("CLUSTER MYID") for name, node in nodes.items()}
        for name, node in nodes.items():
            peers = [ids[other] for other in nodes if other != name] if name == primary else [ids[primary]]
            links = node.execute_command("CLUSTER LINKS")
            found = {(link["node"], link["direction"]) for link in map(as_fields, links)}
            self.assertEqual(found, {(peer, direction) for peer in peers for direction in ("to", "from")})
            now = node.time()[0] * 1000
            for link in map(as_fields, links):
                self.assertTrue(0 < link["create-time"] <= now + 1000, link)
            for address, shown in node.cluster("NODES").items():
                if "myself" in shown["flags"]:
                    self.assertEqual((shown["last_ping_sent"], shown["last_pong_rcvd"]), ("0", "0"))
                else:
                    self.assertLess(now - 60_000, int(shown["last_pong_rcvd"]), address)

    def test_offsets_and_the_backlog_are_counted_in_entries(self):
        primary = self.r.get_primaries()[0].name
        number = next(n for n in range(3) if primary.endswith(str(servers.cluster().port + n)))
        node = self.node(number)

        def settled():
            info = node.info("replication")
            held = [info[f"slave{n}"]["offset"] for n in range(info["connected_slaves"])]
            return info if set(held) == {info["master_repl_offset"]} else None

        info = servers.wait_until(settled, what="the replicas' offsets")
        length = info["master_repl_offset"] + 1 - info["repl_backlog_first_byte_offset"]
        self.assertEqual(info["repl_backlog_histlen"], length)
        self.assertEqual(node.execute_command("ROLE")[1], info["master_repl_offset"])

    def test_a_walk_over_all_slots_finds_all_keys(self):
        names = {f"walk:{n}" for n in range(200)}
        self.r.mset_nonatomic(dict.fromkeys(names, "v"))
        node = self.node(self.r.get_primaries()[0].port - servers.cluster().port)
        found, cursor, fingerprints = set(), "0", set()
        while True:
            cursor, keys = node.execute_command("CLUSTERSCAN", cursor, "MATCH", "walk:*", "COUNT", 20)
            found.update(keys)
            if cursor == "0":
                break
            self.assertRegex(cursor, r"^\w+-\{\w+\}-\d+$")
            fingerprints.add(cursor.split("-")[0])
        self.assertEqual(found, names)
        self.assertLessEqual(len(fingerprints), 2, fingerprints)

    def test_databases_are_not_exchanged(self):
        primary = self.r.get_primaries()[0].port - servers.cluster().port
        for words in (("SWAPDB", 0, 1), ("SWAPDB", "x", "y")):
            with self.assertRaisesRegex(ResponseError, "^SWAPDB is not allowed in cluster mode$"):
                self.node(primary).execute_command(*words)

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

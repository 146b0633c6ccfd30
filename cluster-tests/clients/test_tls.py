"""Clients that speak through TLS, with and without certificates of their own."""

import subprocess
import unittest

import redis
from redis.backoff import ConstantBackoff
from redis.cluster import ClusterNode
from redis.retry import Retry
from redis.sentinel import Sentinel

import servers
from applications import Applications
from test_failover import Writer


def encrypted(certificate=True, **options):
    node = servers.tls_node()
    options = {**node.certificates.of_client(), **options}
    if not certificate:
        del options["ssl_certfile"], options["ssl_keyfile"]
    return redis.Redis("localhost", node.tls_port, decode_responses=True, **options)


class Tls(Applications, unittest.TestCase):
    """What applications do, all of it through TLS."""

    def connect(self, protocol):
        return encrypted(protocol=protocol)

    def connect_bytes(self):
        node = servers.tls_node()
        return redis.Redis("localhost", node.tls_port, **node.certificates.of_client())

    def test_a_client_without_a_certificate_is_let_in_if_it_need_not_have_one(self):
        node = servers.tls_node()
        with redis.Redis(servers.HOST, node.port) as plain:
            with self.assertRaises(redis.exceptions.ConnectionError), encrypted(certificate=False) as r:
                r.ping()
            for setting in ("optional", "no"):
                self.assertTrue(plain.config_set("tls-auth-clients", setting))
                with encrypted(certificate=False) as r:
                    self.assertTrue(r.ping())
            self.assertTrue(plain.config_set("tls-auth-clients", "yes"))

    def test_both_versions(self):
        import ssl

        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = ssl.create_default_context(cafile=servers.tls_node().certificates.path("ca.crt"))
            context.minimum_version = context.maximum_version = version
            node = servers.tls_node()
            context.load_cert_chain(node.certificates.path("client.crt"), node.certificates.path("client.key"))
            import socket

            with socket.create_connection((servers.HOST, node.tls_port)) as s:
                with context.wrap_socket(s, server_hostname="localhost") as encrypted_socket:
                    encrypted_socket.sendall(b"PING\r\n")
                    self.assertEqual(encrypted_socket.recv(100), b"+PONG\r\n")

    def test_redis_cli(self):
        node = servers.tls_node()
        command = ["redis-cli", "-p", str(node.tls_port), "--tls", "--cacert", node.certificates.path("ca.crt")]
        certificate = ["--cert", node.certificates.path("client.crt"), "--key", node.certificates.path("client.key")]
        if "--tls" not in subprocess.run(["redis-cli", "--help"], capture_output=True, text=True).stdout:
            self.skipTest("this redis-cli has no TLS")
        answer = subprocess.run([*command, *certificate, "SET", "k", "v"], capture_output=True, text=True, timeout=30)
        self.assertEqual(answer.stdout, "OK\n", answer.stderr)
        refused = subprocess.run([*command, "PING"], capture_output=True, text=True, timeout=30)
        self.assertNotIn("PONG", refused.stdout)


class TlsCluster(unittest.TestCase):
    """Clusters that speak nothing but TLS, whose primaries hand over and die."""

    def life(self, mode, connect):
        cluster = servers.BareCluster(mode, certificates=servers.Certificates())
        self.addCleanup(cluster.close)
        cluster.wait_until_whole()
        writer = Writer(connect(cluster))
        writer.start()
        self.addCleanup(writer.join, 60)
        self.addCleanup(writer.ending.set)
        writer.wait_for(200)
        before = cluster.primary()
        handed_over = cluster.operate("failover", "mymaster")
        self.assertEqual(handed_over.returncode, 0, handed_over.stderr)
        writer.wait_for(200)
        old = cluster.primary()
        self.assertNotEqual(old, before)
        cluster.kill(old)
        writer.wait_for(200)
        cluster.start_node(old)
        cluster.wait_until_whole()
        writer.ending.set()
        writer.join(60)
        there = {int(number) for number in connect(cluster).lrange("{log}", 0, -1)}
        self.assertEqual([number for number in writer.acknowledged if number not in there], [])
        return cluster

    def test_cluster_mode(self):
        def connect(cluster):
            nodes = [ClusterNode("localhost", port) for port in cluster.ports]
            retry = Retry(ConstantBackoff(0.02), 100)
            return redis.RedisCluster(startup_nodes=nodes, retry=retry, **cluster.for_clients())

        cluster = self.life("cluster", connect)
        primary = cluster.primary()
        replica = next(port for port in cluster.ports if port != primary)
        with redis.Redis("localhost", replica, **cluster.for_clients()) as r:
            with self.assertRaises(redis.exceptions.MovedError) as moved:
                r.get("k")
        self.assertEqual(moved.exception.port, primary)

    def test_sentinel_mode(self):
        def connect(cluster):
            certificates = cluster.certificates.of_client()
            sentinel = Sentinel([("localhost", port) for port in cluster.sentinel_ports], sentinel_kwargs=certificates)
            return sentinel.master_for("mymaster", **cluster.for_clients())

        self.life("sentinel", connect)

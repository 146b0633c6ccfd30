"""Clients that speak through TLS, with and without certificates of their own."""

import subprocess
import unittest

import redis

import servers
from applications import Applications


def encrypted(certificate="client", **options):
    node = servers.tls_node()
    if certificate:
        options["ssl_certfile"] = str(node.path(f"{certificate}.crt"))
        options["ssl_keyfile"] = str(node.path(f"{certificate}.key"))
    return redis.Redis(
        "localhost", node.tls_port, ssl=True, ssl_ca_certs=str(node.path("ca.crt")), decode_responses=True, **options
    )


class Tls(Applications, unittest.TestCase):
    """What applications do, all of it through TLS."""

    def connect(self, protocol):
        return encrypted(protocol=protocol)

    def connect_bytes(self):
        node = servers.tls_node()
        return redis.Redis(
            "localhost",
            node.tls_port,
            ssl=True,
            ssl_ca_certs=str(node.path("ca.crt")),
            ssl_certfile=str(node.path("client.crt")),
            ssl_keyfile=str(node.path("client.key")),
        )

    def test_a_client_without_a_certificate_is_let_in_if_it_need_not_have_one(self):
        node = servers.tls_node()
        with redis.Redis(servers.HOST, node.port) as plain:
            with self.assertRaises(redis.exceptions.ConnectionError), encrypted(None) as r:
                r.ping()
            for setting in ("optional", "no"):
                self.assertTrue(plain.config_set("tls-auth-clients", setting))
                with encrypted(None) as r:
                    self.assertTrue(r.ping())
            self.assertTrue(plain.config_set("tls-auth-clients", "yes"))

    def test_both_versions(self):
        import ssl

        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = ssl.create_default_context(cafile=servers.tls_node().path("ca.crt"))
            context.minimum_version = context.maximum_version = version
            node = servers.tls_node()
            context.load_cert_chain(node.path("client.crt"), node.path("client.key"))
            import socket

            with socket.create_connection((servers.HOST, node.tls_port)) as s:
                with context.wrap_socket(s, server_hostname="localhost") as encrypted_socket:
                    encrypted_socket.sendall(b"PING\r\n")
                    self.assertEqual(encrypted_socket.recv(100), b"+PONG\r\n")

    def test_redis_cli(self):
        node = servers.tls_node()
        command = ["redis-cli", "-p", str(node.tls_port), "--tls", "--cacert", node.path("ca.crt")]
        certificate = ["--cert", node.path("client.crt"), "--key", node.path("client.key")]
        if "--tls" not in subprocess.run(["redis-cli", "--help"], capture_output=True, text=True).stdout:
            self.skipTest("this redis-cli has no TLS")
        answer = subprocess.run([*command, *certificate, "SET", "k", "v"], capture_output=True, text=True, timeout=30)
        self.assertEqual(answer.stdout, "OK\n", answer.stderr)
        refused = subprocess.run([*command, "PING"], capture_output=True, text=True, timeout=30)
        self.assertNotIn("PONG", refused.stdout)

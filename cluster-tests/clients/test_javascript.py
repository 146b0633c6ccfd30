"""The two usual JavaScript clients; skipped where there is no Node.js, or their packages are not installed."""

import os
import pathlib
import shutil
import subprocess
import unittest

import servers

FOLDER = pathlib.Path(__file__).parent / "javascript"


@unittest.skipUnless(shutil.which("node") and (FOLDER / "node_modules").is_dir(), "no Node.js with ioredis and redis")
class JavaScript(unittest.TestCase):
    def run_client(self, library, mode, *ports, tls_dir=""):
        done = subprocess.run(
            ["node", "clients.mjs", library, mode, *map(str, ports)],
            cwd=FOLDER,
            env={**os.environ, "TLS_DIR": tls_dir},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.assertEqual(done.stdout, "ok\n", done.stderr)

    def test_ioredis_node(self):
        self.run_client("ioredis", "node", servers.lone_node().port)

    def test_ioredis_cluster(self):
        self.run_client("ioredis", "cluster", servers.cluster().port)

    def test_ioredis_sentinel(self):
        cluster = servers.replicated()
        self.run_client("ioredis", "sentinel", cluster.port, cluster.sentinel_port)

    def test_node_redis_node(self):
        self.run_client("node-redis", "node", servers.lone_node().port)

    def test_node_redis_cluster(self):
        self.run_client("node-redis", "cluster", servers.cluster().port)

    def test_node_redis_sentinel(self):
        cluster = servers.replicated()
        self.run_client("node-redis", "sentinel", cluster.port, cluster.sentinel_port)

    def test_with_tls(self):
        node, certificates = servers.tls_node(), servers.tls_node().certificates
        for library in ("ioredis", "node-redis"):
            with self.subTest(library):
                self.run_client(library, "node", node.tls_port, tls_dir=certificates.dir)
        for mode in ("cluster", "sentinel"):
            cluster = servers.BareCluster(mode, certificates=servers.Certificates())
            self.addCleanup(cluster.close)
            cluster.wait_until_whole()
            for library in ("ioredis", "node-redis"):
                with self.subTest(library=library, mode=mode):
                    ports = (cluster.ports[0], cluster.sentinel_ports[0])
                    self.run_client(library, mode, *ports, tls_dir=cluster.certificates.dir)

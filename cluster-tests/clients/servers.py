"""The servers that the tests in this folder talk to: a node alone, and clusters made by local/cluster.sh.

Each kind is started once, on free ports, when a test first asks for it, and ended with the test program.
KEYWARD_BIN_DIR names the folder of the programs (target/debug if unset). KEYWARD_LONE_SERVER may name another
program in place of the lone node, such as a real valkey-server, to see that a test is right.
"""

import atexit
import functools
import os
import pathlib
import random
import shutil
import socket
import subprocess
import tempfile
import time

import redis

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
BIN_DIR = pathlib.Path(os.environ.get("KEYWARD_BIN_DIR", REPOSITORY / "target" / "debug"))
CLUSTER_SH = REPOSITORY / "local" / "cluster.sh"
HOST = "127.0.0.1"
PASSWORD = "dev-valkey-password"
# As in local/cluster.sh: each process also listens on its port + BUS.
BUS = 10_000


def wait_until(condition, seconds=30.0, what="the condition"):
    """Waits for what `condition` returns to be true, and returns it."""
    end = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if end <= time.monotonic():
            raise TimeoutError(f"{what} did not come true in {seconds} seconds")
        time.sleep(0.02)


def free_ports(count):
    """The first of `count` free ports in a row, whose bus ports are free as well."""
    # Below the range from which the kernel takes ports for outgoing connections.
    for _ in range(1000):
        first = random.randrange(20_000, 22_600)
        if all(is_free(port) and is_free(port + BUS) for port in range(first, first + count)):
            return first
    raise RuntimeError("no free ports on the loopback address")


def is_free(port):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((HOST, port))
        except OSError:
            return False
        return True


class LoneNode:
    """A node without sentinels and without a password."""

    def __init__(self, *extra):
        self.port = free_ports(1)
        self.dir = tempfile.mkdtemp(prefix="keyward-node-")
        program = os.environ.get("KEYWARD_LONE_SERVER", BIN_DIR / "keyward-node")
        flags = ["--port", str(self.port), "--dir", self.dir, "--save", "", "--appendonly", "no", *extra]
        with open(os.path.join(self.dir, "log"), "wb") as log:
            self.process = subprocess.Popen(
                [program, *flags], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        atexit.register(self.close)
        wait_until(self.answers, what="PONG from the node")

    def answers(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"the node has ended: {pathlib.Path(self.dir, 'log').read_text()}")
        try:
            with socket.create_connection((HOST, self.port), timeout=1) as s:
                s.sendall(b"PING\r\n")
                return s.recv(7) == b"+PONG\r\n"
        except OSError:
            return False

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


class Certificates:
    """A CA, and what it has issued for servers on this machine and for clients; made by openssl."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="keyward-tls-")
        atexit.register(shutil.rmtree, self.dir, ignore_errors=True)
        self.openssl("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=ca")
        self.path("names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        for name in ("server", "client"):
            self.openssl(f"req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}")
            self.openssl(
                f"x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out {name}.crt"
            )

    def flags(self):
        """For a server that asks its clients for a certificate."""
        names = {"--tls-cert-file": "server.crt", "--tls-key-file": "server.key", "--tls-ca-cert-file": "ca.crt"}
        return [word for name, file in names.items() for word in (name, str(self.path(file)))]

    def of_client(self):
        """As redis-py takes them."""
        names = {"ssl_ca_certs": "ca.crt", "ssl_certfile": "client.crt", "ssl_keyfile": "client.key"}
        return {"ssl": True, **{name: str(self.path(file)) for name, file in names.items()}}

    def path(self, name):
        return pathlib.Path(self.dir, name)

    def openssl(self, arguments):
        subprocess.run(["openssl", *arguments.split()], cwd=self.dir, check=True, capture_output=True)


class TlsNode(LoneNode):
    """One that has a port with TLS, too; clients have to show a certificate."""

    def __init__(self):
        self.certificates = Certificates()
        self.tls_port = free_ports(1)
        super().__init__("--tls-port", str(self.tls_port), *self.certificates.flags())


class BareCluster:
    """Three sentinels and one shard of three nodes or more, without local/cluster.sh; each node forwards, too."""

    def __init__(self, mode, shards=1, certificates=None, node_flags=()):
        """`mode`: "cluster" or "sentinel". With `certificates` nothing but TLS is spoken, also among the processes."""
        self.certificates = certificates
        replicas = 2 if shards == 1 else 1
        count = shards * (1 + replicas)
        first = free_ports(2 * count + 3)
        self.ports = range(first, first + count)
        self.forwarding_ports = range(first + count, first + 2 * count)
        self.sentinel_ports = range(first + 2 * count, first + 2 * count + 3)
        self.dir = tempfile.mkdtemp(prefix="keyward-cluster-")
        self.processes = {}
        atexit.register(self.close)
        addresses = [f"localhost:{port + BUS}" for port in self.sentinel_ports]
        initial = ",".join(f"s{n}={address}" for n, address in enumerate(addresses))
        shape = ["--shards", str(shards), "--replicas", str(replicas)]
        for n, port in enumerate(self.sentinel_ports):
            flags = ["--name", f"s{n}", "--initial", initial, *shape, "--announce-host", "localhost"]
            self.start("keyward-sentinel", port, *flags)
        self.node_flags = ["--cluster-enabled", "yes" if mode == "cluster" else "no", "--requirepass", PASSWORD]
        self.node_flags += ["--save", "", "--sentinels", ",".join(addresses), "--cluster-announce-ip", "localhost"]
        self.node_flags += node_flags
        for port in self.ports:
            self.start_node(port)

    def start_node(self, port):
        forwarding = self.forwarding_ports[self.ports.index(port)]
        flag = "--forwarding-tls-port" if self.certificates else "--forwarding-port"
        self.start("keyward-node", port, *self.node_flags, flag, str(forwarding))

    def start(self, program, port, *flags):
        folder = os.path.join(self.dir, str(port))
        os.makedirs(folder, exist_ok=True)
        ports = ["--port", str(port)]
        if self.certificates:
            ports = ["--port", "0", "--tls-port", str(port)]
        with open(f"{folder}.log", "ab") as log:
            self.processes[port] = subprocess.Popen(
                [BIN_DIR / program, "--dir", folder, *ports, *flags, *self.encryption()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def encryption(self):
        return ["--tls-cluster", "yes", *self.certificates.flags()] if self.certificates else []

    def operate(self, *arguments):
        """What `keyward-sentinel` says as the program of an operator."""
        command = [BIN_DIR / "keyward-sentinel", *arguments, "--sentinel", f"localhost:{self.sentinel_ports[0] + BUS}"]
        return subprocess.run([*command, *self.encryption()], capture_output=True, text=True, timeout=60)

    def wait_until_whole(self):
        wait_until(lambda: self.operate("status").returncode == 0, 60, "a whole cluster")

    def for_clients(self):
        """What redis-py needs beside an address."""
        certificates = self.certificates.of_client() if self.certificates else {}
        return {"password": PASSWORD, "decode_responses": True, **certificates}

    def primary(self):
        """The port of a node that says it is a primary."""

        def find():
            for port in self.ports:
                try:
                    with redis.Redis("localhost", port, **self.for_clients()) as r:
                        if r.role()[0] == "master":
                            return port
                except redis.RedisError:
                    continue
            return None

        return wait_until(find, what="a primary")

    def kill(self, port):
        self.processes[port].kill()
        self.processes[port].wait()

    def close(self):
        for process in self.processes.values():
            process.kill()
            process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


class LocalCluster:
    """A cluster made by local/cluster.sh, on ports and in a folder of its own."""

    def __init__(self, *options, started=True):
        """`started`: false for nothing but the ports and an empty folder."""
        self.port = free_ports(12)
        self.sentinel_port = self.port + 9
        self.data = tempfile.mkdtemp(prefix="keyward-cluster-")
        self.environment = {
            **os.environ,
            "KEYWARD_BIN_DIR": str(BIN_DIR),
            "KEYWARD_LOCAL_DATA": self.data,
            "KEYWARD_LOCAL_PORT": str(self.port),
            "KEYWARD_LOCAL_SENTINEL_PORT": str(self.sentinel_port),
        }
        self.environment.pop("VALKEY_PASSWORD", None)
        atexit.register(self.close)
        if started:
            self.run("start", *options)

    def run(self, *arguments, expect=0):
        """Runs cluster.sh; its output, after a look at its exit code."""
        done = subprocess.run(
            [CLUSTER_SH, *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=180,
        )
        if done.returncode != expect:
            logs = "\n".join(
                f"--- {log.name}\n{log.read_text()[-3000:]}" for log in sorted(pathlib.Path(self.data).glob("*.log"))
            )
            raise AssertionError(f"cluster.sh {arguments} ended with {done.returncode}:\n{done.stdout}\n{logs}")
        return done.stdout

    def pids(self):
        """PIDs by name, from the script's own files."""
        files = pathlib.Path(self.data).glob("*.pid")
        return {file.stem: int(file.read_text()) for file in files}

    def close(self):
        if os.path.isdir(self.data):
            subprocess.run(
                [CLUSTER_SH, "destroy", "--yes"], env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=90
            )
            shutil.rmtree(self.data, ignore_errors=True)


@functools.cache
def lone_node():
    return LoneNode()


@functools.cache
def tls_node():
    return TlsNode()


@functools.cache
def cluster():
    """One shard of three nodes in cluster mode."""
    return LocalCluster()


@functools.cache
def replicated():
    """One shard of three nodes in sentinel mode."""
    return LocalCluster("--mode", "sentinel")

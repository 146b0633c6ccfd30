"""The servers under test, on the ports that the suites expect. They live as long as the process namespace."""

import pathlib
import socket
import subprocess
import tempfile
import time

HOST = "127.0.0.1"
READY_SECONDS = 120
# Failovers are others' business: the suites keep the machine busy, and wait for no new primary.
PATIENT = ["--lease-ms", "2000", "--grace-ms", "2500"]


class Systems:
    """Starts servers; `folder` gets their data and logs."""

    def __init__(self, bin_dir, folder):
        self.bin_dir = pathlib.Path(bin_dir)
        self.folder = pathlib.Path(folder)

    def start(self, program, name, *flags):
        folder = self.folder / name
        folder.mkdir(parents=True)
        with open(folder / "log", "wb") as log:
            return subprocess.Popen(
                [self.bin_dir / program, "--dir", folder, "--bind", HOST, *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def node(self, port):
        """A node alone."""
        self.start("keyward-node", f"node-{port}", *node_flags(port))
        wait_for(lambda: ask(port, "PING") == "+PONG", f"PONG from port {port}")

    def sharded(self, ports, sentinel_port, shards, *flags):
        """Nodes on these ports, under three sentinels, in as many shards."""
        buses = [sentinel_port + 10_000 + number for number in range(3)]
        initial = ",".join(f"s{number}={HOST}:{bus}" for number, bus in enumerate(buses))
        for number in range(3):
            port, replicas = str(sentinel_port + number), str(len(ports) // shards - 1)
            own = ["--port", port, "--name", f"s{number}", "--initial", initial, *flags]
            self.start("keyward-sentinel", f"sentinel-{number}", "--shards", str(shards), "--replicas", replicas, *own)
        sentinels = ",".join(f"{HOST}:{bus}" for bus in buses)
        mode = "yes" if 1 < shards else "no"
        for port in ports:
            more = ["--sentinels", sentinels, "--cluster-announce-ip", HOST, "--cluster-enabled", mode]
            self.start("keyward-node", f"node-{port}", *node_flags(port), *PATIENT, *more)
        wait_for(lambda: in_sync(ports) == (shards, len(ports) - shards), f"{shards} shards")


def node_flags(port):
    return ["--port", str(port), "--save", "", "--enable-debug-command", "yes", "--cluster-databases", "16"]


def in_sync(ports):
    """How many of the nodes are primaries, and how many replicas these have in sync."""
    primaries = replicas = 0
    for port in ports:
        info = ask(port, "INFO replication")
        if "role:master" in info:
            primaries += 1
            replicas += info.count("state=online")
    return primaries, replicas


def ask(port, command):
    """The reply to a command as text; empty without one."""
    try:
        with socket.create_connection((HOST, port), timeout=2) as s:
            s.sendall(f"{command}\r\nQUIT\r\n".encode())
            reply = b""
            while chunk := s.recv(65_536):
                reply += chunk
            return reply.decode(errors="replace").removesuffix("+OK\r\n").strip()
    except OSError:
        return ""


def wait_for(condition, what):
    end = time.monotonic() + READY_SECONDS
    while not condition():
        if end < time.monotonic():
            raise TimeoutError(f"{what} did not come within {READY_SECONDS} seconds")
        time.sleep(0.05)


def temporary_folder():
    return tempfile.mkdtemp(prefix="keyward-suites-")

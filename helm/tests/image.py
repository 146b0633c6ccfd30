"""The image: as small and as powerless as OpenShift runs it, and a cluster of containers that survives a kill.

Not part of what run.py runs by itself: `run.py image`, or local/test.sh image. It starts a container engine of its own, in
a network of its own; needs root and dockerd. KEYWARD_IMAGE_PROGRAMS may name a folder with ready static programs.
"""

import datetime
import json
import os
import pathlib
import re
import subprocess
import tempfile
import time
import unittest

import chart
import pods

IMAGE = "keyward:test"
PASSWORD = "a password"
# As restricted-v2 does.
POWERLESS = "--read-only --cap-drop ALL --security-opt no-new-privileges -u 1000650000:0 --tmpfs /data:mode=0770,uid=0,gid=0".split()


def run(*words, **more):
    done = subprocess.run(words, capture_output=True, text=True, **more)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, words))}\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def docker(*words):
    return run("docker", *words)


def moment(text):
    """Seconds of an RFC 3339 time, with more digits than Python takes."""
    return datetime.datetime.fromisoformat(re.sub(r"(\.\d{6})\d*Z?$", r"\1", text).rstrip("Z")).timestamp()


class Image(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.addClassCleanup(pods.enter_own_network())
        folder = tempfile.TemporaryDirectory(prefix="keyward-image-")
        cls.addClassCleanup(folder.cleanup)
        at = pathlib.Path(folder.name)
        options = "--iptables=false --ip6tables=false --ip-forward=false --ip-masq=false --bridge=none"
        with open(at / "log", "wb") as log:
            engine = subprocess.Popen(
                ["dockerd", "--data-root", at / "root", "--exec-root", at / "exec", "-H", f"unix://{at}/socket",
                 "--pidfile", at / "pid", *options.split()], stdout=log, stderr=log)
        cls.addClassCleanup(lambda: (engine.terminate(), engine.wait(30)))
        os.environ["DOCKER_HOST"] = f"unix://{at}/socket"
        cls.addClassCleanup(os.environ.pop, "DOCKER_HOST")

        def answers():
            if engine.poll() is not None:
                raise RuntimeError((at / "log").read_text()[-2000:])
            return subprocess.run(["docker", "version"], capture_output=True).returncode == 0

        pods.wait_until(answers, 30, "dockerd answers")
        ready = os.environ.get("KEYWARD_IMAGE_PROGRAMS")
        more = ["--programs", ready] if ready else ["--debug"]
        print(run(chart.REPOSITORY / "helm" / "image.sh", "--tag", IMAGE, *more), flush=True)
        docker("network", "create", "--subnet", "10.78.0.0/24", "cluster")
        cls.addClassCleanup(lambda: docker("rm", "-f", *docker("ps", "-aq").split()))

    def started(self, name, address, *words, program="node", options=()):
        """A container, and its environment and names as a pod would have them."""
        names = [f"--add-host={n}:{a}" for n, a in self.addresses.items()]
        docker("run", "-d", "--name", name, "--network", "cluster", "--ip", address, "--entrypoint", f"/keyward-{program}",
               *POWERLESS, *names, *options, IMAGE, *words)

    addresses = {f"{kind}{n}": f"10.78.0.{first + n}" for kind, first in (("s", 10), ("n", 20)) for n in (1, 2, 3)}

    def test_it_says_what_it_is_and_holds_nothing_else(self):
        config = json.loads(docker("inspect", IMAGE))[0]["Config"]
        self.assertEqual(config["User"], "65532:0")
        labels = {name.removeprefix("org.opencontainers.image.") for name in config["Labels"]}
        self.assertLessEqual({"title", "description", "version", "revision", "licenses"}, labels)
        docker("create", "--name", "contents", IMAGE)
        with tempfile.TemporaryDirectory() as folder:
            docker("export", "-o", f"{folder}/tar", "contents")
            files = run("tar", "-tf", f"{folder}/tar").splitlines()
            run("tar", "-xf", f"{folder}/tar", "-C", folder, "usr/share/sbom")
            for program in ("keyward-node", "keyward-sentinel"):
                bill = json.loads(pathlib.Path(folder, f"usr/share/sbom/{program}.cdx.json").read_text())
                self.assertEqual(bill["bomFormat"], "CycloneDX")
                self.assertGreater(len(bill["components"]), 50)
        # What the engine itself puts into every container.
        made = {"dev", "etc", "proc", "sys", ".dockerenv"}
        self.assertEqual({name.split("/")[0] for name in files} - made,
                         {"keyward-node", "keyward-sentinel", "data", "licenses", "usr"})

    def test_a_node_alone_without_any_right(self):
        begin = time.monotonic()
        self.started("alone", "10.78.0.5", "--protected-mode", "no", "--appendonly", "yes")

        def answer():
            try:
                return pods.ask("10.78.0.5", 6379, "PING")
            except (OSError, pods.Reply):
                return None

        self.assertEqual(pods.wait_until(answer, 10, lambda: f"PONG: {docker('logs', 'alone')}"), "PONG")
        took = time.monotonic() - begin
        state = json.loads(docker("inspect", "alone"))[0]["State"]
        lines = subprocess.run(["docker", "logs", "-t", "alone"], capture_output=True, text=True).stderr.splitlines()
        ready = next(line for line in lines if "ready to accept connections" in line)
        process = moment(ready.split(" ")[0]) - moment(state["StartedAt"])
        begin = time.monotonic()
        docker("stop", "alone")
        print(f"... PONG {took * 1000:.0f} ms after `docker run`, {process * 1000:.0f} ms after the container's start; "
              f"ended within {time.monotonic() - begin:.2f} s ", end="", flush=True)
        self.assertEqual(json.loads(docker("inspect", "alone"))[0]["State"]["ExitCode"], 0)

    def test_a_cluster_of_containers_survives_a_kill(self):
        secret = ["-e", "KEYWARD_CLUSTER_SECRET=a secret of sixteen bytes or more"]
        initial = ",".join(f"s{n}=s{n}:36379" for n in (1, 2, 3))
        for n in (1, 2, 3):
            self.started(f"s{n}", self.addresses[f"s{n}"], "--dir", "/data", "--name", f"s{n}", "--initial", initial,
                         program="sentinel", options=secret)
        sentinels = "s1:36379,s2:36379,s3:36379"
        for n in (1, 2, 3):
            self.started(f"n{n}", self.addresses[f"n{n}"], "--sentinels", sentinels,
                         options=[*secret, "-e", f"VALKEY_PASSWORD={PASSWORD}"])

        def on_primary(*words):
            try:
                address, _ = pods.ask(self.addresses["s1"], 26379, "SENTINEL", "GET-PRIMARY-ADDR-BY-NAME", "mymaster")
                return address, pods.ask(address, 6379, *words, password=PASSWORD)
            except (OSError, TypeError, ValueError, pods.Reply):
                return None

        logs = lambda: subprocess.run(["docker", "logs", "n1"], capture_output=True, text=True).stderr[-1500:]
        old, reply = pods.wait_until(lambda: on_primary("SET", "k", "v"), 30, lambda: f"a primary takes a write: {logs()}")
        self.assertEqual(reply, "OK")
        killed = next(name for name, address in self.addresses.items() if address == old)
        docker("kill", killed)
        begin = time.monotonic()

        def elsewhere():
            found = on_primary("GET", "k")
            return found if found and found[0] != old else None

        _, value = pods.wait_until(elsewhere, 20, "another node serves")
        self.assertEqual(value, "v")
        print(f"... another node served {time.monotonic() - begin:.2f} s after `docker kill` ", end="", flush=True)
        status = subprocess.run(["docker", "exec", *secret, "s2", "/keyward-sentinel", "status"], capture_output=True, text=True)
        self.assertEqual(status.returncode, 3, status.stdout + status.stderr)

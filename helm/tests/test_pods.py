"""The pods that the chart describes, run as processes: they become ready, survive, and lose nothing."""

import os
import threading
import time
import unittest

import chart
import pods

FIXED = {
    "auth": {"password": "a password"},
    "clusterSecret": {"value": "a secret of sixteen bytes or more"},
    "minReadySeconds": 2,
    # What is tested has two cores.
    "config": {"io-threads": 1},
}
PASSWORD = FIXED["auth"]["password"]
leave = None


def setUpModule():
    global leave
    leave = pods.enter_own_network()


def tearDownModule():
    leave()


def start(**values):
    return pods.Cluster({**FIXED, **values})


def primary(cluster):
    """Address of the primary, as clients with Sentinel support find it."""
    for sentinel in cluster.of("sentinel"):
        try:
            found = pods.ask(sentinel.address, 26379, "SENTINEL", "GET-PRIMARY-ADDR-BY-NAME", "mymaster")
        except (OSError, pods.Reply):
            continue
        if found:
            return found[0]
    return None


def insist(cluster, *words, seconds=15.0):
    """Asks the primary, as a client that looks whom it has reached, and retries: the primary may have just changed, or
    have no replica in sync yet."""
    errors = []

    def answer():
        try:
            client = pods.Client(primary(cluster), 6379, PASSWORD)
            try:
                role = client.ask("ROLE")[0]
                if role == "master":
                    return [client.ask(*words)]
                errors.append(role)
            finally:
                client.close()
        except (OSError, pods.Reply, TypeError) as error:
            errors.append(str(error))
        return None

    return pods.wait_until(answer, seconds, lambda: f"{words[0]} is answered, but {errors[-1]}")[0]


class Writer(threading.Thread):
    """Writes numbers one after the other, and remembers those that were acknowledged."""

    def __init__(self, cluster):
        super().__init__(daemon=True)
        self.cluster, self.stopped = cluster, threading.Event()
        self.acknowledged, self.errors, self.longest = [], {}, 0.0

    def run(self):
        client, number, last = None, 0, time.monotonic()
        while not self.stopped.is_set():
            number += 1
            try:
                client = client or pods.Client(primary(self.cluster), 6379, PASSWORD)
                client.ask("RPUSH", "written", number)
                self.acknowledged.append(number)
                now = time.monotonic()
                self.longest, last = max(self.longest, now - last), now
                time.sleep(0.002)
            except (OSError, pods.Reply, TypeError) as error:
                word = str(error).split(" ")[0] if isinstance(error, pods.Reply) else type(error).__name__
                self.errors[word] = self.errors.get(word, 0) + 1
                if client:
                    client.close()
                client = None
                time.sleep(0.02)

    def lost(self):
        self.stopped.set()
        self.join()
        held = set(insist(self.cluster, "LRANGE", "written", 0, -1))
        return [number for number in self.acknowledged if str(number) not in held]


class Replicated(unittest.TestCase):
    """What `helm install kw helm/keyward` alone gives."""

    @classmethod
    def setUpClass(cls):
        cls.cluster = start()
        cls.first_ready = cls.cluster.wait_until_ready()

    @classmethod
    def tearDownClass(cls):
        cls.cluster.close()

    def tearDown(self):
        self.assertEqual(self.cluster.told, [])

    def report(self, words):
        print(f"... {words} ", end="", flush=True)

    def test_0_it_becomes_ready(self):
        self.report(f"all ready {self.first_ready:.1f} s after the start")
        for pod in self.cluster.pods.values():
            self.assertEqual(pod.probe("startupProbe"), (True, "ok"))
            self.assertEqual(pod.probe("livenessProbe"), (True, "ok"))

    def test_the_status_test_passes(self):
        done = pods.wait_until(lambda: self.passed(), 20, "the test of the status passes")
        self.assertIn("mymaster", done.stdout)

    def passed(self):
        done = self.cluster.run_test("kw-keyward-test-status")
        return done if done.returncode == 0 else None

    def test_status_in_a_shell_of_a_sentinel(self):
        # As NOTES.txt says.
        self.cluster.wait_until_ready()
        done = self.cluster.of("sentinel")[0].exec("/keyward-sentinel", "status")
        self.assertIn(done.returncode, (0, 3), done.stderr)
        self.assertIn("mymaster", done.stdout)

    def test_clients_need_the_password(self):
        for node in self.cluster.of("node"):
            with self.assertRaisesRegex(pods.Reply, "NOAUTH"):
                pods.ask(node.address, 6379, "GET", "x")

    def test_a_node_is_killed_and_nothing_is_lost(self):
        writer = Writer(self.cluster)
        writer.start()
        time.sleep(0.5)
        old = primary(self.cluster)
        name = next(pod.name for pod in self.cluster.pods.values() if pod.address == old)
        self.cluster.replace([name])
        ready = self.cluster.wait_until_ready()
        self.assertEqual(writer.lost(), [])
        self.assertNotEqual(primary(self.cluster), old)
        self.report(f"{len(writer.acknowledged)} writes, {writer.longest:.2f} s without, errors {writer.errors}, ready after {ready:.1f} s")

    def test_a_rolling_restart_loses_nothing(self):
        writer = Writer(self.cluster)
        writer.start()
        longest = self.cluster.rolling_restart("kw-keyward-node")
        self.cluster.rolling_restart("kw-keyward-sentinel")
        self.cluster.wait_until_ready()
        self.assertEqual(writer.lost(), [])
        self.report(f"{len(writer.acknowledged)} writes, {writer.longest:.2f} s without, errors {writer.errors}, longest end {longest:.1f} s")
        # Within the grace period, by far: nobody was killed (tearDown).
        self.assertLess(longest, 15)

    def test_all_pods_at_once_come_back_with_new_addresses(self):
        times = []
        for round in range(int(os.environ.get("KEYWARD_ROUNDS", "2"))):
            insist(self.cluster, "SET", "round", round)
            self.cluster.replace(list(self.cluster.pods))
            begin = time.monotonic()
            self.assertEqual(insist(self.cluster, "GET", "round"), str(round))
            times.append(time.monotonic() - begin)
            self.cluster.wait_until_ready()
        self.report("served again after " + ", ".join(f"{t:.1f} s" for t in times))

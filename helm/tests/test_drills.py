"""What an operator does, and what happens to one: nothing that was acknowledged is lost, and clients see little of it."""

import concurrent.futures
import pathlib
import shutil
import tempfile
import time
import unittest

import chart
import figures
import load
import pods
from load import FIXED, PASSWORD, primary

leave = None


def setUpModule():
    global leave
    leave = pods.enter_own_network()


def tearDownModule():
    leave()


class Before(unittest.TestCase):
    def test_the_chart_of_before_is_upgraded(self):
        """From what the first chart has made: its pods, with its conf files and volumes."""
        cluster = pods.Cluster(None)
        self.addCleanup(cluster.close)
        cluster.take(chart.load((chart.TESTS / "before" / "default.yaml").read_text()))
        cluster.wait_until_ready()
        # Its Service has led to any node; it follows the primary when the pods have that port.
        writers = [load.Writer(cluster)]
        cluster.upgrade(FIXED)
        writers.append(load.Writer(cluster, load.by_service))
        cluster.wait_until_ready()
        self.assertEqual(cluster.told, [])
        figures.record(self, "the chart, from the first one", writers)


class Drills(unittest.TestCase):
    """Of what `helm install kw helm/keyward` alone gives, one after the other, under load."""

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="keyward-chart-image-")
        cls.addClassCleanup(folder.cleanup)
        cls.images = {"keyward:next": pathlib.Path(folder.name)}
        for program in ("keyward-node", "keyward-sentinel"):
            shutil.copy(pods.BIN_DIR / program, folder.name)
        cls.values = FIXED
        cls.cluster = load.start({}, images=cls.images)
        cls.addClassCleanup(cls.cluster.close)
        cls.cluster.wait_until_ready()

    def setUp(self):
        self.writers = load.both(self.cluster)

    def tearDown(self):
        for writer in self.writers:
            writer.stopped.set()
        self.assertEqual(self.cluster.told, [])
        self.cluster.wait_until_ready()

    def record(self, event, note=""):
        figures.record(self, event, self.writers, note)

    def upgrade(self, **values):
        """`helm upgrade` with these values, too, and what the controllers do about it."""
        type(self).values = {**self.values, **values}
        return self.cluster.upgrade(self.values)

    def at(self, name):
        return self.cluster.pods[f"kw-keyward-{name}"]

    def test_the_image_is_upgraded(self):
        begin = time.monotonic()
        names = self.upgrade(image={"tag": "next"})
        self.assertEqual([len(each) for each in names.values()], [3, 3])
        for pod in self.cluster.pods.values():
            program = pathlib.Path(f"/proc/{pod.inner()}/exe")
            self.assertTrue(program.samefile(self.images["keyward:next"] / program.readlink().name), pod.name)
        self.record("another image, by `helm upgrade`", f"all six pods after {time.monotonic() - begin:.0f} s")

    def test_the_password_is_changed(self):
        for writer in self.writers:
            writer.passwords = (PASSWORD, "the next one")
        names = self.upgrade(auth={"password": "the next one"})
        self.assertEqual([len(each) for each in names.values()], [3, 0])
        for writer in self.writers:
            writer.passwords = ("the next one",)
        with self.assertRaisesRegex(pods.Reply, "WRONGPASS"):
            pods.ask(self.at("node-0").address, 6379, "PING", password=PASSWORD)
        self.record("another password, by `helm upgrade`; clients know both")
        # For the others.
        self.upgrade(auth={"password": PASSWORD})

    def test_the_cluster_secret_is_changed(self):
        old, new = FIXED["clusterSecret"]["value"], "another secret of sixteen bytes or more"
        addresses = {pod.address for pod in self.cluster.pods.values()}
        for value in (f"{old}\n{new}\n", f"{new}\n{old}\n", f"{new}\n"):
            names = self.upgrade(clusterSecret={"value": value})
            self.assertEqual([len(each) for each in names.values()], [0, 0])
            time.sleep(1)
        # What connects anew from now on needs the new one.
        self.assertEqual(addresses, {pod.address for pod in self.cluster.pods.values()})
        self.record("another cluster secret, in three steps")
        self.cluster.replace(["kw-keyward-node-1", "kw-keyward-sentinel-1"])
        self.cluster.wait_until_ready()
        pods.wait_until(self.all_is_well, 20, "all is well")

    def test_a_zone_is_lost(self):
        leader = next(pod for pod in self.cluster.of("node") if pod.address == primary(self.cluster))
        lost = [pod for pod in self.cluster.pods.values() if pod.zone == leader.zone]
        self.assertEqual(len(lost), 2)
        for pod in lost:
            pod.connect("down")
        for writer in self.writers:
            # The writers notice, whatever it is that they see.
            pods.wait_until(lambda: writer.errors or 0.3 < writer.longest, 20, writer.seen)
            writer.wait_until_it_writes()
        for pod in lost:
            pod.connect("up")
        begin = time.monotonic()
        self.cluster.wait_until_ready()
        pods.wait_until(self.all_is_well, 60, "all is well")
        self.record("a zone is cut off, with the primary and a sentinel in it", f"in sync {time.monotonic() - begin:.1f} s after it is back")

    def test_two_machines_are_drained_at_once(self):
        refused = []

        def drain(number):
            for component in ("node", "sentinel"):
                name = f"kw-keyward-{component}-{number}"
                while not self.cluster.evict(name):
                    refused.append(name)
                    time.sleep(0.2)

        with concurrent.futures.ThreadPoolExecutor() as pool:
            for done in [pool.submit(drain, number) for number in (0, 1)]:
                done.result()
        self.assertTrue(refused)
        self.cluster.wait_until_ready()
        self.record("two machines are drained at once, under the budget", f"evictions wait {len(refused)} times for each other")

    def test_the_sentinels_lose_all_their_volumes(self):
        """As the manual says: what is served goes on; then the nodes are restarted at once, and `adopt` is asked for. First
        two of them, of which nobody may vote for the other."""
        # A replica may join just after the start.
        pods.wait_until(lambda: all(20 < len(writer.acknowledged) for writer in self.writers), 20, "the clients write")
        errors = [dict(writer.errors) for writer in self.writers]
        self.cluster.replace(["kw-keyward-sentinel-0", "kw-keyward-sentinel-1"], lose_volume=True)
        pods.wait_until(lambda: "no leader of the sentinels is reached" in self.status().stdout, 20, lambda: self.status().stdout)
        self.assertNotIn("adopt", self.status().stdout)
        # All of them: the third may have given its log to one of the others before it knew that nobody votes for it.
        self.cluster.replace([f"kw-keyward-sentinel-{number}" for number in range(3)], lose_volume=True)
        pods.wait_until(lambda: "no shards yet" in self.status().stdout, 20, lambda: self.status().stdout)
        self.assertEqual(self.status().returncode, 4)
        before = [len(writer.acknowledged) for writer in self.writers]
        time.sleep(1)
        for writer, count, known in zip(self.writers, before, errors):
            self.assertEqual(writer.errors, known)
            self.assertLess(count + 20, len(writer.acknowledged))
        self.assertEqual(self.cluster.not_ready(), {})
        self.cluster.replace([pod.name for pod in self.cluster.of("node")], 60)
        addresses = [f"{pod.address}:6379" for pod in self.cluster.of("node")]
        # Also those that were loading for a moment.
        furthest = lambda said: "`keyward-sentinel adopt` goes on with what is furthest" in said and all(a in said for a in addresses)
        pods.wait_until(lambda: furthest(self.status().stdout), 20, lambda: self.status().stdout)
        done = self.at("sentinel-0").exec("/keyward-sentinel", "adopt")
        self.assertEqual(done.returncode, 0, done.stderr)
        pods.wait_until(self.all_is_well, 20, "all is well")
        self.record("all volumes of the sentinels are lost; the nodes are restarted, `adopt`")

    def status(self):
        return self.at("sentinel-0").exec("/keyward-sentinel", "status")

    def all_is_well(self):
        return self.status().returncode == 0

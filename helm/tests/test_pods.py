"""The pods that the chart describes, run as processes: they become ready, survive, and lose nothing."""

import shutil
import ssl
import tempfile
import time
import unittest

import certificates
import chart
import figures
import pods
from load import FIXED, FORWARDING_PORT, LONG, PASSWORD, Writer, authenticated, both, by_service, insist, primary, report, start

# Where Kubernetes copies no zone to the pods, and names of pods need no domain.
OTHERWISE = {**FIXED, "clusterDomain": "", "zone": "label"}
leave = None


def setUpModule():
    global leave
    leave = pods.enter_own_network()


def tearDownModule():
    leave()


class Replicated(unittest.TestCase):
    """What `helm install kw helm/keyward` alone gives."""

    @classmethod
    def setUpClass(cls):
        cls.cluster = start({"backup": {"enabled": True, "keep": 1}})
        cls.first_ready = cls.cluster.wait_until_ready()

    @classmethod
    def tearDownClass(cls):
        cls.cluster.close()

    def tearDown(self):
        self.assertEqual(self.cluster.told, [])

    def test_0_it_becomes_ready(self):
        report(f"all ready {self.first_ready:.1f} s after the start")
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
        writers = both(self.cluster)
        old = primary(self.cluster)
        name = next(pod.name for pod in self.cluster.pods.values() if pod.address == old)
        self.cluster.replace([name])
        ready = self.cluster.wait_until_ready()
        figures.record(self, "the pod of the primary is killed", writers, f"ready after {ready:.1f} s")
        self.assertNotEqual(primary(self.cluster), old)

    def test_a_machine_with_the_primary_and_the_leading_sentinel_is_lost(self):
        writers = both(self.cluster)
        old = primary(self.cluster)
        leads = lambda pod: "it leads" in pod.probe("readinessProbe")[1]
        lost = [pod.name for pod in self.cluster.pods.values() if pod.address == old or (pod in self.cluster.of("sentinel") and leads(pod))]
        self.assertEqual(len(lost), 2)
        self.cluster.replace(lost)
        ready = self.cluster.wait_until_ready()
        figures.record(self, "the pods of the primary and of the leading sentinel are killed", writers, f"ready after {ready:.1f} s")

    def test_backups_are_made_and_the_older_ones_go(self):
        insist(self.cluster, "SET", "saved", "yes")
        for _ in range(2):
            done = self.cluster.run_backup()
            self.assertEqual(done.returncode, 0, done.stderr)
            time.sleep(1)
        folder = self.cluster.data(self.cluster.of("sentinel")[0].name) / "backups"
        (kept,) = folder.iterdir()
        self.assertIn(kept.name, done.stdout)
        self.assertGreater((kept / "shard-1.rdb").stat().st_size, 0)

    def test_one_address_follows_the_primary(self):
        """A client that knows nothing of sentinels, at the Service's port of a node that is not primary."""
        service = chart.named(self.cluster.objects, "Service", "kw-keyward")["spec"]["ports"][0]
        self.assertEqual(service["targetPort"], "forwarding")
        old = primary(self.cluster)
        through = next(pod for pod in self.cluster.of("node") if pod.address != old)
        client = pods.Client(through.address, 6390, PASSWORD, seconds=10.0)
        try:
            self.assertEqual(client.ask("SET", "plain", "1"), "OK")
            # Not while something is under way: nothing is seen of the change but a pause.
            leader = next(pod for pod in self.cluster.of("node") if pod.address == old)
            self.cluster.replace([leader.name])
            self.assertEqual(client.ask("INCR", "plain"), 2)
            self.assertEqual(client.ask("GET", "plain"), "2")
        finally:
            client.close()
        self.cluster.wait_until_ready()

    def test_a_rolling_restart_loses_nothing(self):
        writers = both(self.cluster)
        longest = self.cluster.rolling_restart("kw-keyward-node")
        self.cluster.rolling_restart("kw-keyward-sentinel")
        self.cluster.wait_until_ready()
        figures.record(self, "rolling restart of all nodes and sentinels", writers, f"a pod ends within {longest:.1f} s")
        # Within the grace period, by far: nobody was killed (tearDown).
        self.assertLess(longest, 15)

    def test_all_pods_at_once_come_back_with_new_addresses(self):
        writers, times = both(self.cluster), []
        for round in range(20 if LONG else 2):
            insist(self.cluster, "SET", "round", round)
            self.cluster.replace(list(self.cluster.pods))
            begin = time.monotonic()
            self.assertEqual(insist(self.cluster, "GET", "round"), str(round))
            times.append(time.monotonic() - begin)
            self.cluster.wait_until_ready()
            for writer in writers:
                writer.wait_until_it_writes()
        note = f"served again {min(times):.1f} to {max(times):.1f} s after the start of the processes"
        figures.record(self, "all pods at once, with new addresses, twenty times", writers, note)

    def test_the_client_test_passes(self):
        check_client_test(self, self.cluster)

    def test_a_sentinel_loses_its_volume(self):
        writers = both(self.cluster)
        self.cluster.replace(["kw-keyward-sentinel-0"], lose_volume=True)
        ready = self.cluster.wait_until_ready()
        pods.wait_until(self.passed, 20, "the test of the status passes")
        figures.record(self, "a sentinel loses its volume", writers, f"ready after {ready:.1f} s")

    def test_a_volume_is_lost(self):
        writers = both(self.cluster)
        insist(self.cluster, "SET", "kept", "yes")
        lost = self.cluster.pods["kw-keyward-node-2"].address
        begin = time.monotonic()
        self.cluster.replace(["kw-keyward-node-2"], lose_volume=True)
        # It is a new node, which takes the place of the one that is lost when that has been away for half a minute.
        self.cluster.wait_until_ready()
        pods.wait_until(lambda: self.holds("kw-keyward-node-2", "kept"), 60, "the new node has the data")
        figures.record(self, "a node loses its volume", writers, f"in sync after {time.monotonic() - begin:.0f} s")
        done = self.cluster.of("sentinel")[0].exec("/keyward-sentinel", "remove-node", f"{lost}:6379")
        self.assertEqual(done.returncode, 0, done.stderr)

    def holds(self, name, key):
        try:
            return pods.ask(self.cluster.pods[name].address, 6379, "GET", key, password=PASSWORD)
        except (OSError, pods.Reply):
            return None


def check_client_test(test, cluster):
    """`helm test` with an image of a client: as a user would start it, once all is well."""
    if not shutil.which("redis-cli"):
        test.skipTest("redis-cli is missing")
    cluster.wait_until_ready()
    time.sleep(1)
    done = cluster.run_client_test()
    test.assertEqual(done.returncode, 0, done.stdout + done.stderr)
    lines = done.stdout.splitlines()
    written, read = lines[0].removeprefix("written at "), next(line for line in lines if line.startswith("read at "))
    test.assertEqual(read == f"read at {written}", len(cluster.of("node")) == 1, done.stdout)


def cluster_ask(cluster, *words):
    """Asks one node after the other, as far as redirects lead."""
    address = cluster.of("node")[0].address
    for _ in range(5):
        try:
            return pods.ask(address, 6379, *words, password=PASSWORD)
        except pods.Reply as error:
            if not str(error).startswith("MOVED "):
                raise
            address = str(error).split(" ")[2].rpartition(":")[0]
    raise RuntimeError("redirects have no end")


class Clustered(unittest.TestCase):
    """Three shards of two nodes, without zones and with short names."""

    @classmethod
    def setUpClass(cls):
        auth = {**FIXED["auth"], "sentinel": True}
        cls.values = {**OTHERWISE, "mode": "cluster", "shards": 3, "replicas": 1, "auth": auth}
        cls.cluster = start(cls.values, zones=())
        cls.addClassCleanup(cls.cluster.close)

    def insist(self, *words):
        errors = []

        def answer():
            try:
                return [cluster_ask(self.cluster, *words)]
            except (OSError, pods.Reply, RuntimeError) as error:
                errors.append(str(error))
                return None

        return pods.wait_until(answer, 20, lambda: f"{words} is answered, but {errors[-1]}")[0]

    def test_all_shards_serve_and_outlive_the_end_of_all_pods(self):
        self.cluster.wait_until_ready()
        for n in range(50):
            self.insist("SET", f"key{n}", n)
        for _ in range(2):
            self.cluster.replace(list(self.cluster.pods))
            self.cluster.wait_until_ready()
            self.assertEqual([self.insist("GET", f"key{n}") for n in range(50)], [str(n) for n in range(50)])
        check_client_test(self, self.cluster)
        shards = self.insist("CLUSTER", "SLOTS")
        now = {pod.address for pod in self.cluster.of("node")}
        told = {node[0] for shard in shards for node in shard[2:]}
        self.assertLessEqual(told, now)
        self.assertEqual(len(shards), 3)

    @unittest.skipUnless(LONG, "takes half a minute")
    def test_a_rolling_restart_loses_nothing(self):
        self.cluster.wait_until_ready()
        writer = Writer(self.cluster, by_service)
        self.cluster.rolling_restart("kw-keyward-node")
        figures.record(self, "rolling restart of three shards of two nodes", [writer])

    def test_sentinels_ask_for_the_password(self):
        address = self.cluster.of("sentinel")[0].address
        with self.assertRaisesRegex(pods.Reply, "NOAUTH"):
            pods.ask(address, 26379, "SENTINEL", "MASTERS")
        self.assertEqual(len(pods.ask(address, 26379, "SENTINEL", "MASTERS", password=PASSWORD)), 3)


class Encrypted(unittest.TestCase):
    """With TLS everywhere: clients verify the names that they are told."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="keyward-chart-tls-")
        cls.addClassCleanup(cls.folder.cleanup)
        quickly = {"tls-auto-reload-interval": 1}
        cls.values = {
            "mode": "cluster", "replicas": 1, "tls": {"enabled": True, "certManager": {"enabled": True}},
            "backup": {"enabled": True},
            "config": {**FIXED["config"], **quickly}, "sentinel": {"config": quickly},
        }
        cls.cluster = start(cls.values, certificates={"kw-keyward-tls": cls.issued()})
        cls.addClassCleanup(cls.cluster.close)

    @classmethod
    def issued(cls):
        """What cert-manager would make of the rendered Certificate."""
        certificate = chart.named(chart.render({**FIXED, **cls.values}), "Certificate", "kw-keyward-tls")["spec"]
        return certificates.made(cls.folder.name, certificate["dnsNames"], certificate["ipAddresses"])

    def context(self):
        return ssl.create_default_context(cafile=f"{self.folder.name}/ca.crt")

    def encrypted(self, cluster, passwords):
        address = cluster.of("node")[0].address
        return authenticated(address, FORWARDING_PORT, passwords, context=self.context(), name="kw-keyward.shop")

    def shown(self, pod):
        port = 6379 if pod.container["name"] == "node" else 26379
        return ssl.get_server_certificate((pod.address, port), timeout=5)

    def test_renewed_certificates_are_taken_while_all_runs(self):
        self.cluster.wait_until_ready()
        before = {pod.name: self.shown(pod) for pod in self.cluster.pods.values()}
        writer = Writer(self.cluster, self.encrypted)
        self.cluster.certificates["kw-keyward-tls"] = self.issued()
        self.cluster.apply({**FIXED, **self.values})
        for pod in self.cluster.pods.values():
            pods.wait_until(lambda: self.shown(pod) != before[pod.name], 20, f"{pod.name} shows the new certificate")
        figures.record(self, "renewed certificates", [writer])
        # The old ones and the new ones are of one CA: nodes and sentinels go on, and take in who comes.
        self.cluster.replace(["kw-keyward-node-1", "kw-keyward-sentinel-1"])
        self.cluster.wait_until_ready()

    def test_nodes_and_sentinels_show_certificates_for_their_names(self):
        self.cluster.wait_until_ready()
        for pod in self.cluster.pods.values():
            port = 6379 if pod.container["name"] == "node" else 26379
            client = pods.Client(pod.address, port, context=self.context(), name=f"{pod.name}.{pod.workload}s.shop.svc.cluster.local")
            self.addCleanup(client.close)
            try:
                self.assertEqual(client.ask("PING"), "PONG")
            except pods.Reply as error:
                self.assertIn("NOAUTH", str(error))

    def test_clients_are_told_names(self):
        self.cluster.wait_until_ready()
        node = self.cluster.of("node")[0]
        client = pods.Client(node.address, 6379, PASSWORD, context=self.context(), name="kw-keyward.shop")
        self.addCleanup(client.close)
        names = [f"{pod.name}.kw-keyward-nodes.shop.svc.cluster.local" for pod in self.cluster.of("node")]

        def told():
            (shard,) = client.ask("CLUSTER", "SLOTS")
            return sorted(node[0] for node in shard[2:]) == names

        pods.wait_until(told, 20, f"clients are told {names}")

    def test_the_client_test_passes(self):
        check_client_test(self, self.cluster)

    def test_backups_with_certificates(self):
        self.cluster.wait_until_ready()
        done = self.cluster.run_backup()
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_status_with_certificates(self):
        self.cluster.wait_until_ready()
        done = pods.wait_until(
            lambda: (done := self.cluster.run_test("kw-keyward-test-status")).returncode == 0 and done, 20, "all is well"
        )
        self.assertIn("mymaster", done.stdout)


@unittest.skipUnless(LONG, "takes two minutes")
class WithoutVolumes(unittest.TestCase):
    def test_a_rolling_restart_of_nodes_loses_nothing(self):
        cluster = start({"persistence": {"enabled": False}})
        self.addCleanup(cluster.close)
        cluster.wait_until_ready()
        writers, begin = both(cluster), time.monotonic()
        cluster.rolling_restart("kw-keyward-node")
        figures.record(self, "rolling restart of nodes without volumes", writers, f"all three after {time.monotonic() - begin:.0f} s")


class Standalone(unittest.TestCase):
    def test_a_node_alone_becomes_one_of_three_with_its_data(self):
        alone = {**FIXED, "mode": "standalone"}
        cluster = pods.Cluster(alone)
        self.addCleanup(cluster.close)
        cluster.wait_until_ready()
        check_client_test(self, cluster)
        pods.ask(cluster.of("node")[0].address, 6379, "SET", "brought", "along", password=PASSWORD)
        cluster.apply(FIXED)
        # The controller restarts the pod that was there, since its conf file is another one.
        cluster.replace(["kw-keyward-node-0"], 60)
        cluster.wait_until_ready()
        self.assertEqual(insist(cluster, "GET", "brought"), "along")
        for pod in cluster.of("node"):
            pods.wait_until(lambda: pods.ask(pod.address, 6379, "GET", "brought", password=PASSWORD) == "along", 20, pod.name)


    def test_a_node_that_loads_is_alive_and_not_ready(self):
        cluster = pods.Cluster({**FIXED, "mode": "standalone", "config": {"maxmemory": 0, "io-threads": 1}})
        self.addCleanup(cluster.close)
        cluster.wait_until_ready()
        node = cluster.of("node")[0]
        client = pods.Client(node.address, 6379, PASSWORD, seconds=60)
        fill = "for i = 1, 200000 do redis.call('SET', ARGV[1] .. ':' .. i, 'some value or other') end"
        for part in range(4):
            client.ask("EVAL", fill, 0, part)
        cluster.replace([node.name])
        node, seen = cluster.of("node")[0], []
        while not seen or not seen[-1][0]:
            alive, words = node.probe("livenessProbe")
            # Until its address answers it is neither.
            if alive or seen:
                self.assertEqual((alive, words), (True, "ok"))
                seen.append(node.probe("readinessProbe"))
            time.sleep(0.02)
        loading = [words for ready, words in seen if words.startswith("loading: ")]
        self.assertTrue(loading, seen)
        report(f"{len(loading)} times alive and not ready, such as {loading[0]!r}")
        self.assertEqual(pods.ask(node.address, 6379, "DBSIZE", password=PASSWORD), 800_000)


class Confs(unittest.TestCase):
    """The programs take the conf files of all value sets, and start by them."""

    def test_every_conf_file_is_taken(self):
        with tempfile.TemporaryDirectory() as folder:
            files = certificates.made(folder, ["localhost"], ["127.0.0.1"])
            named = {"kw-keyward-tls": files, "certificates": {"cert.pem": files["tls.crt"], "key.pem": files["tls.key"], "ca.pem": files["ca.crt"]},
                     "passwords": {"valkey-password": b"a password", "cluster-secret": b"a secret of sixteen bytes or more"}}
            for name in chart.sets():
                with self.subTest(values=name):
                    cluster = pods.Cluster(chart.values_of(name), certificates=named, only=lambda pod: pod.endswith("-0"))
                    try:
                        for pod in cluster.pods.values():
                            pods.wait_until(lambda: pod.probe("startupProbe")[0] or pod.is_ready(), 10, lambda: pod.tail())
                            self.assertNotIn("without effect", pod.log.read_text())
                    finally:
                        cluster.close()

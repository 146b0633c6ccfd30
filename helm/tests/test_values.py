"""Values: none is dead, each is described, and wrong ones are refused in words."""

import concurrent.futures
import copy
import functools
import json
import re
import unittest

import yaml

import chart

VALUES = yaml.safe_load((chart.CHART / "values.yaml").read_text())
SCHEMA = json.loads((chart.CHART / "values.schema.json").read_text())

# What has to be switched on before these values count, and other values than the ones that are made up below.
SURROUNDINGS = {
    "shards": {"mode": "cluster"},
    "tls": {"tls": {"enabled": True, "existingSecret": "certificates"}, "tests": {"clientImage": "x/y"}},
    "tls.enabled": {"tls": {"existingSecret": "certificates"}},
    "tls.existingSecret": {"tls": {"enabled": True, "certManager": {"enabled": True}}},
    "tls.certManager": {"tls": {"enabled": True, "certManager": {"enabled": True}}},
    "backup": {"backup": {"enabled": True}},
    "page.ingress": {"page": {"ingress": {"enabled": True, "host": "a.example"}}},
    "page.route": {"page": {"route": {"enabled": True}}},
    "metrics.serviceMonitor": {"metrics": {"serviceMonitor": {"enabled": True}}},
    "metrics.prometheusRule": {"metrics": {"prometheusRule": {"enabled": True}}},
    "metrics.dashboard": {"metrics": {"dashboard": {"enabled": True}}},
    "auth.existingSecretPasswordKey": {"auth": {"existingSecret": "a"}},
    "clusterSecret.existingSecretKey": {"clusterSecret": {"existingSecret": "a"}},
}
OTHER = {
    "mode": "cluster",
    "openshift": True,
    "zone": "none",
    "useHostnames": True,
    "clusterSecret.value": "another secret of some length",
    "image.digest": "sha256:" + "0" * 64,
    "image.pullPolicy": "Always",
    "image.pullSecrets": ["other"],
    "maxmemoryFraction": 0.5,
    "backup.schedule": "0 0 1 * *",
    "backup.persistence.size": "9Gi",
    "backup.resources": {"limits": {"memory": "2Gi"}},
    "service.type": "NodePort",
    "sentinel.service.type": "NodePort",
    "persistence.size": "9Gi",
    "sentinel.persistence.size": "9Gi",
    "persistence.accessModes": ["ReadWriteMany"],
    "sentinel.persistence.accessModes": ["ReadWriteMany"],
    "tls.authClients": "yes",
    "tls.certManager.issuerRef": {"name": "other"},
    "tls.certManager.duration": "48h",
    "tls.certManager.renewBefore": "8h",
    "tls.certManager.extraDnsNames": ["other.example"],
    "tls.certManager.extraIpAddresses": ["192.0.2.1"],
    "metrics.serviceMonitor.interval": "60s",
    "podAntiAffinityPreset": "hard",
    "terminationGracePeriodSeconds": 90,
    "resources": {"limits": {"memory": "2Gi"}},
    "sentinel.resources": {"limits": {"memory": "2Gi"}},
}
# Values that come with others switched on, as a whole.
WHOLE = {"resources", "sentinel.resources", "backup.resources", "podSecurityContext", "containerSecurityContext", "metrics.dashboard.labels"}


def leaves(values, path=""):
    """(Path, value) of each value that a user sets: free-form maps count as one."""
    for name, value in values.items():
        here = f"{path}.{name}" if path else name
        if isinstance(value, dict) and value and here not in WHOLE and not here.endswith("Probe"):
            yield from leaves(value, here)
        else:
            yield here, value


def other_than(path, value):
    if path in OTHER:
        return OTHER[path]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, str):
        return "other"
    if isinstance(value, list):
        return [{"name": "other"}]
    return {"periodSeconds": 77} if path.endswith("Probe") else {"other": "x"}


def with_value(values, path, value):
    values = copy.deepcopy(values)
    *folders, last = path.split(".")
    place = values
    for folder in folders:
        place = place.setdefault(folder, {})
    place[last] = value
    return values


def value_at(values, path, default):
    for name in path.split("."):
        if name not in values:
            return default
        values = values[name]
    return values


def surroundings(path):
    """What stands for the longest beginning of the path, and what makes each rendering the same."""
    fixed = {"auth": {"password": "a"}, "clusterSecret": {"value": "b" * 16}}
    begins = [begin for begin in SURROUNDINGS if path == begin or path.startswith(begin + ".")]
    return {**fixed, **copy.deepcopy(SURROUNDINGS[max(begins, key=len)])} if begins else fixed


class Values(unittest.TestCase):
    def test_each_value_changes_what_is_rendered(self):
        @functools.cache
        def rendered(text):
            try:
                return chart.template(json.loads(text))
            except chart.Refused as refused:
                return str(refused)

        def changes(leaf):
            path, value = leaf
            around = surroundings(path)
            after = with_value(around, path, other_than(path, value_at(around, path, value)))
            return path, rendered(json.dumps(after)) != rendered(json.dumps(around))

        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            outcomes = dict(pool.map(changes, leaves(VALUES)))
        self.assertGreater(len(outcomes), 100)
        self.assertEqual([path for path, changed in outcomes.items() if not changed], [])

    def test_each_value_has_a_description_and_no_other_is_allowed(self):
        def check(schema, values, path):
            self.assertGreater(len(schema.get("description", "")), 8, path)
            if "properties" not in schema:
                return
            self.assertIs(schema["additionalProperties"], False, path)
            for name, value in (values or {}).items():
                self.assertIn(name, schema["properties"], path)
                check(schema["properties"][name], value if isinstance(value, dict) else {}, f"{path}.{name}")

        check(SCHEMA, VALUES, "values")
        # `global` belongs to charts around this one.
        self.assertEqual(set(SCHEMA["properties"]) - set(VALUES), {"global"})

    def test_each_value_is_explained_where_it_is_set(self):
        # Names that explain themselves to whoever knows Kubernetes stand below a line that explains the group.
        text = (chart.CHART / "values.yaml").read_text()
        for name in VALUES:
            place = re.search(rf"^{name}:", text, re.MULTILINE)
            self.assertIsNotNone(place, name)

    def test_a_cluster_has_the_size_that_it_has_on_ones_own_machine(self):
        script = (chart.REPOSITORY / "local" / "cluster.sh").read_text()
        local = {name: int(number) for name, number in re.findall(r"settle (shards|replicas) .* (\d+)\)", script)}
        local["sentinels"] = len(re.search(r"names=\(([s\d ]+)\)", script)[1].split())
        self.assertEqual(local, {name: VALUES[name] for name in ("shards", "replicas", "sentinels")})

    def test_wrong_values_are_refused_in_words(self):
        cases = [
            ({"mode": "sentinel"}, r"mode.*(standalone|replicated|cluster)"),
            ({"shards": 2}, r"mode replicated has one shard"),
            ({"replicas": "two"}, r"replicas.*integer"),
            ({"replicas": -1}, r"replicas"),
            ({"persistance": {}}, r"persistance.*not allowed"),
            ({"auth": {"pasword": "x"}}, r"pasword.*not allowed"),
            ({"clusterSecret": {"value": "short"}}, r"clusterSecret.*value.*pattern"),
            ({"maxmemoryFraction": 1.5}, r"maxmemoryFraction"),
            ({"persistence": {"size": "8 GB"}}, r"size.*pattern"),
            ({"resources": {"limits": {"memory": "1GB"}}}, r"resources.limits.memory: \"1GB\" is no amount of memory"),
            ({"resources": {"limits": {"memory": 512}}}, r"resources.limits.memory: 512 is less than 64Mi"),
            ({"config": {"maxmemory": "2gb"}}, r"config: maxmemory 2gb is more than resources.limits.memory \(1Gi\)"),
            ({"config": "maxmemory 1073741825"}, r"config: maxmemory 1073741825 is more"),
            ({"auth": None}, r"auth"),
            ({"sentinel": {"persistence": None}}, r"persistence"),
            ({"persistence": {"size": 8}}, r"size.*string"),
            ({"tls": {"enabled": True}}, r"tls.enabled needs a certificate: tls.existingSecret, or tls.certManager.enabled"),
            ({"config": {"port": 7000}}, r"config: port is set by the chart: use service.port"),
            ({"config": "requirepass x"}, r"config: requirepass is set by the chart: use auth.password"),
            ({"config": "maxclients 7\n  Cluster-Enabled yes"}, r"config: cluster-enabled is set by the chart: use mode"),
            ({"sentinel": {"config": {"replicas": 7}}}, r"sentinel.config: replicas is set by the chart: use replicas"),
            ({"page": {"ingress": {"enabled": True}}}, r"page.ingress.host"),
            ({"zone": "rack"}, r"zone"),
            ({"image": {"tag": 9}}, r"tag.*string"),
        ]
        for values, words in cases:
            for helm in chart.HELMS:
                with self.subTest(values=values, helm=helm):
                    with self.assertRaisesRegex(chart.Refused, f"(?s){words}"):
                        chart.template(values, helm=helm)


class Conf(unittest.TestCase):
    """The conf files that values lead to."""

    def conf(self, component="node", **values):
        objects = chart.render(values)
        return chart.named(objects, "ConfigMap", f"kw-keyward-{component}")["data"]["keyward.conf"].splitlines()

    def test_maxmemory_is_a_part_of_the_limit(self):
        cases = {
            "1Gi": (429496729, 134217728),
            "512Mi": (214748364, 67108864),
            "1.5G": (600000000, 187500000),
            "8Gi": (3435973836, 268435456),
            2000000000: (800000000, 250000000),
        }
        for limit, (maxmemory, backlog) in cases.items():
            conf = self.conf(resources={"limits": {"memory": limit}})
            self.assertIn(f"maxmemory {maxmemory}", conf)
            self.assertIn(f"repl-backlog-size {backlog}", conf)
        for none in ({"limits": None}, None):
            self.assertFalse([line for line in self.conf(resources=none) if line.startswith("maxmemory")])

    def test_config_as_a_map(self):
        config = {"maxclients": 20000, "lazyfree-lazy-expire": False, "save": "", "maxmemory": 268435456, "lfu-log-factor": 0,
                  "rename-command": ['FLUSHALL ""', "KEYS LIST"]}
        last = ["lazyfree-lazy-expire no", "lfu-log-factor 0", "maxclients 20000", "maxmemory 268435456",
                'rename-command FLUSHALL ""', "rename-command KEYS LIST", 'save ""']
        self.assertEqual(self.conf(config=config)[-len(last):], last)

    def test_config_as_text_is_taken_as_it_is(self):
        text = "# why\nmaxclients 7\n\nsave 60 1\n"
        self.assertEqual(self.conf(config=text)[-4:], ["# why", "maxclients 7", "", "save 60 1"])
        self.assertEqual(self.conf("sentinel", sentinel={"config": "loglevel debug"})[-1], "loglevel debug")

    def test_a_change_of_the_conf_file_restarts_and_nothing_else_does(self):
        fixed = {"auth": {"password": "a"}, "clusterSecret": {"value": "b" * 16}}

        def template(**values):
            objects = chart.render({**fixed, **values})
            return [each["spec"]["template"] for each in chart.of_kind(objects, "StatefulSet")]

        nodes, sentinels = template()
        self.assertNotEqual(template(config={"maxclients": 7}), [nodes, sentinels])
        self.assertEqual(template(config={"maxclients": 7})[1], sentinels)
        # Taken by the programs while they run, or no matter of theirs.
        for values in ({"clusterSecret": {"value": "c" * 16}}, {"service": {"port": 7000}}, {"pdb": {"create": False}}):
            self.assertEqual(template(**values), [nodes, sentinels], values)

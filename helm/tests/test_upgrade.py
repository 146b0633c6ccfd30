"""What an upgrade keeps of what is there, by an API: secrets, volumes, the shape of the shards."""

import re
import unittest
from base64 import b64decode

import chart

QUIET = {"minReadySeconds": 11}


def notes_of(before, values, helm):
    return chart.asked(before, values, helm)["info"]["notes"]


class Upgrade(unittest.TestCase):
    def each_helm(self):
        for helm in chart.HELMS:
            with self.subTest(helm=helm):
                yield helm

    def secret(self, objects):
        (secret,) = chart.of_kind(objects, "Secret")
        return {name: b64decode(value) for name, value in secret["data"].items()}, secret["metadata"]["annotations"]

    def templates(self, objects):
        return [each["spec"]["template"] for each in chart.of_kind(objects, "StatefulSet")]

    def test_secrets_are_made_once(self):
        for helm in self.each_helm():
            first = chart.upgraded([], {}, helm)
            self.assertNotIn("immutable", chart.of_kind(first, "Secret")[0])
            self.assertEqual(len(self.secret(first)[0]["password"]), 32)
            again = chart.upgraded(first, QUIET, helm)
            self.assertEqual(self.secret(again), self.secret(first))
            self.assertEqual(self.templates(again), self.templates(first))

    def test_another_password_restarts_the_nodes_and_shows_nothing(self):
        for helm in self.each_helm():
            first = chart.upgraded([], {}, helm)
            changed = chart.upgraded(first, {"auth": {"password": "new"}}, helm)
            self.assertEqual(self.secret(changed)[0]["password"], b"new")
            self.assertEqual(self.secret(changed)[0]["cluster-secret"], self.secret(first)[0]["cluster-secret"])
            nodes, sentinels = self.templates(changed)
            self.assertEqual(sentinels, self.templates(first)[1])
            self.assertEqual(nodes["metadata"]["annotations"]["keyward/password-revision"], "2")
            # The next one without the value keeps it.
            kept = chart.upgraded(changed, {}, helm)
            self.assertEqual(self.secret(kept), self.secret(changed))
            self.assertEqual(self.templates(kept), self.templates(changed))

    def test_from_a_node_alone_to_a_shard(self):
        for helm in self.each_helm():
            alone = chart.upgraded([], {"mode": "standalone"}, helm)
            replicated = chart.upgraded(alone, {}, helm)
            self.assertEqual(self.secret(replicated)[0]["password"], self.secret(alone)[0]["password"])
            self.assertIn("cluster-secret", self.secret(replicated)[0])

    def test_volumes_stay_as_they_are_and_notes_say_how_they_grow(self):
        for helm in self.each_helm():
            first = chart.upgraded([], {"persistence": {"size": "8Gi", "storageClass": "slow"}}, helm)
            for each in chart.of_kind(first, "StatefulSet"):
                # As the API adds.
                each["spec"]["volumeClaimTemplates"][0]["spec"]["volumeMode"] = "Filesystem"
                each["spec"]["volumeClaimTemplates"][0]["status"] = {"phase": "Pending"}
            values = {"persistence": {"size": "20Gi", "storageClass": "fast", "annotations": {"a": "b"}}}
            second = chart.upgraded(first, values, helm)
            (claim,) = chart.named(second, "StatefulSet", "kw-keyward-node")["spec"]["volumeClaimTemplates"]
            self.assertEqual(claim["spec"]["resources"]["requests"]["storage"], "8Gi")
            self.assertEqual(claim["spec"]["storageClassName"], "slow")
            self.assertNotIn("annotations", claim["metadata"])
            notes = notes_of(first, values, helm)
            self.assertIn("The volumes of kw-keyward-node were made with 8Gi", notes)
            self.assertNotIn("The volumes of kw-keyward-sentinel", notes)

    def test_what_no_upgrade_can_do_is_refused_in_words(self):
        cluster = {"mode": "cluster", "shards": 3, "sentinels": 5}
        cases = [
            (cluster, {**cluster, "shards": 4}, "shards: it is 3, chosen when the shards formed, and cannot become 4"),
            (cluster, {**cluster, "replicas": 1}, "replicas: it is 2, .* cannot become 1"),
            (cluster, {**cluster, "mode": "replicated", "shards": 1}, "mode: it is cluster, .* cannot become replicated"),
            (cluster, {**cluster, "sentinels": 3}, "sentinels: there are 5, and they cannot become fewer"),
            ({}, {"fullnameOverride": "store"}, "this release has the pods of kw-keyward-\\w+, .* by the name store-"),
            ({}, {"nameOverride": "store"}, "this release has the pods of kw-keyward-"),
            ({}, {"sentinel": {"primarySet": "x"}}, "sentinel.primarySet: it is mymaster"),
            ({}, {"persistence": {"enabled": False}}, "persistence.enabled of kw-keyward-node cannot be changed"),
            ({"sentinel": {"persistence": {"enabled": False}}}, {}, "persistence.enabled of kw-keyward-sentinel cannot be changed"),
        ]
        for helm in self.each_helm():
            for before, after, words in cases:
                with self.subTest(after=after):
                    with self.assertRaisesRegex(chart.Refused, words):
                        chart.upgraded(chart.upgraded([], before, helm), after, helm)
            # More sentinels are taken in by the others.
            chart.upgraded(chart.upgraded([], {}, helm), {"sentinels": 5}, helm)

    def test_openshift_is_asked_for(self):
        for helm in self.each_helm():
            for openshift in (False, True):
                for _, _, spec in chart.pods(chart.upgraded([], {}, helm, openshift)):
                    self.assertEqual("fsGroup" in spec["securityContext"], not openshift)


class FromTheChartBefore(unittest.TestCase):
    """From what an older chart has made, the first one: before/ has it as it was rendered then. A new one is put there when a
    version is released."""

    # What the API lets an upgrade change of a StatefulSet.
    CHANGES = {"replicas", "ordinals", "template", "updateStrategy", "persistentVolumeClaimRetentionPolicy", "minReadySeconds"}

    def pairs(self):
        for path in sorted((chart.TESTS / "before").glob("*.yaml")):
            before = [each for each in chart.load(path.read_text()) if "helm.sh/hook" not in each["metadata"].get("annotations", {})]
            for helm in chart.HELMS:
                with self.subTest(values=path.stem, helm=helm):
                    yield before, chart.upgraded(before, chart.values_of(path.stem), helm)

    def test_nothing_is_changed_that_cannot_be(self):
        for before, after in self.pairs():
            for old in chart.of_kind(before, "StatefulSet"):
                new = chart.named(after, "StatefulSet", old["metadata"]["name"])
                for field in (set(old["spec"]) | set(new["spec"])) - self.CHANGES:
                    self.assertEqual(new["spec"].get(field), old["spec"].get(field), field)
            for old in chart.of_kind(before, "Service"):
                new = chart.named(after, "Service", old["metadata"]["name"])
                self.assertEqual(new["spec"].get("clusterIP"), old["spec"].get("clusterIP"))

    def test_what_was_there_is_there_with_the_same_secrets(self):
        for before, after in self.pairs():
            names = lambda objects: {(each["kind"], each["metadata"]["name"]) for each in objects}
            self.assertLessEqual(names(before), names(after))
            for old in chart.of_kind(before, "Secret"):
                self.assertEqual(chart.named(after, "Secret", old["metadata"]["name"])["data"], old["data"])


class Notes(unittest.TestCase):
    """What is printed after an installation."""

    def test_what_will_not_work_is_said(self):
        mine = {"auth": {"existingSecret": "mine"}}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mine", "namespace": chart.NAMESPACE}}
        cases = [
            ([], mine, "NOT THERE: the Secret mine with password."),
            ([{**secret, "data": {"other": ""}}], mine, "NOT THERE: the Secret mine with password."),
            ([], {"sentinels": 4}, "4 sentinels survive the loss of no more than 3 do"),
            ([], {"replicas": 0}, "if that fails nobody takes its place"),
            ([], {"mode": "cluster", "service": {"type": "LoadBalancer"}}, "told addresses of pods, which they do not reach"),
        ]
        for helm in chart.HELMS:
            for before, values, words in cases:
                with self.subTest(helm=helm, values=values):
                    self.assertIn(words, notes_of(before, values, helm))
            for words in ("NOT THERE", "survive the loss", "nobody takes", "do not reach"):
                self.assertNotIn(words, notes_of([{**secret, "data": {"password": "eA=="}}], mine, helm))

    def test_commands_name_what_is_there(self):
        for name, objects in chart.every_set():
            for helm in chart.HELMS:
                with self.subTest(values=name, helm=helm):
                    notes = notes_of([], chart.values_of(name), helm)
                    there = {each["metadata"]["name"] for each in objects}
                    there |= {f"{each}-0" for each in there} | {"passwords", "certificates", "kw-keyward-tls"}
                    words = re.findall(r"(?:secret|exec|port-forward) -n shop (?:service/)?(\S+)", notes)
                    self.assertLessEqual(set(words), there)
                    hosts = re.findall(r"([\w-]+)\.shop\.svc", notes)
                    self.assertTrue(hosts)
                    self.assertLessEqual(set(hosts), there)
                    self.assertNotIn("<no value>", notes)

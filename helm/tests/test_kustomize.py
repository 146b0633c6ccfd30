"""helm/kustomize is what the chart makes, and kubectl takes it."""

import subprocess
import unittest

import kubernetes_validate
import yaml

import chart
import test_manifests

FOLDER = chart.REPOSITORY / "helm" / "kustomize"
VALUES = {
    # Named as the release would be, and found in whatever namespace it is applied to.
    "fullnameOverride": "keyward",
    "clusterDomain": "",
    "auth": {"existingSecret": "keyward"},
    "clusterSecret": {"existingSecret": "keyward"},
    # Of the version of Kubernetes nothing is known.
    "zone": "node",
}
HEAD = "# Rendered from the chart: helm/tests/run.py --update test_kustomize\n"


def expected(**values):
    """The objects of the chart without what belongs to helm."""
    objects = []
    for each in chart.render(VALUES | values):
        metadata = each["metadata"]
        if "helm.sh/hook" in metadata.get("annotations", {}):
            continue
        del metadata["namespace"]
        for label in ("helm.sh/chart", "app.kubernetes.io/managed-by"):
            del metadata["labels"][label]
        objects.append(each)
    return objects


def in_order(objects):
    return sorted(objects, key=lambda each: (each["kind"], each["metadata"]["name"]))


class Kustomize(unittest.TestCase):
    def built(self, name):
        command = [chart.TOOLS / "kubectl", "kustomize", chart.REPOSITORY / "helm" / name]
        done = subprocess.run(command, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        return chart.load(done.stdout)

    def test_0_the_manifests_are_those_of_the_chart(self):
        chart.kept(self, FOLDER / "keyward.yaml", HEAD + yaml.safe_dump_all(in_order(expected()), sort_keys=False, width=1000))

    def test_kubectl_builds_it(self):
        built = self.built("kustomize")
        self.assertEqual(in_order(built), in_order(expected()))
        for each in built:
            for version in test_manifests.KUBERNETES:
                kubernetes_validate.validate(each, version, strict=True)

    def test_for_openshift_nothing_is_fixed(self):
        self.assertEqual(in_order(self.built("kustomize-openshift")), in_order(expected(openshift=True)))

    def test_it_works_in_any_namespace(self):
        self.assertNotIn(chart.NAMESPACE, (FOLDER / "keyward.yaml").read_text())

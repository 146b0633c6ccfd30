"""What is true of every rendering: it fits Kubernetes' schemas, OpenShift lets it in, and its parts fit each other."""

import json
import pathlib
import re
import subprocess
import tempfile
import unittest

import kubernetes_validate
from kubernetes_validate.utils import all_versions

import chart

# Kinds that Kubernetes does not have by itself, and no schema here.
FOREIGN = {"Certificate", "Issuer", "ServiceMonitor", "PrometheusRule", "Route"}
# From the chart's kubeVersion on.
KUBERNETES = sorted({v for v in all_versions() if (1, 28) <= tuple(map(int, v.split(".")[:2]))})
OPENSHIFT = ("--api-versions", "security.openshift.io/v1", "--api-versions", "route.openshift.io/v1")


def matches(selector, labels):
    return all(labels.get(name) == value for name, value in selector.items())


class Rendering(unittest.TestCase):
    def test_helm_3_and_4_lint_it_strictly(self):
        for helm, program in chart.HELMS.items():
            for name in chart.sets():
                with self.subTest(helm=helm, values=name):
                    command = [program, "lint", "--strict", chart.CHART, "--values", chart.TESTS / "values" / f"{name}.yaml"]
                    done = subprocess.run(command, capture_output=True, text=True)
                    self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_helm_3_and_4_render_the_same(self):
        for name in chart.sets():
            with self.subTest(values=name):
                by_kind = lambda each: (each["kind"], each["metadata"]["name"])
                three = chart.render(chart.values_of(name), helm="helm 3")
                self.assertEqual(sorted(three, key=by_kind), sorted(chart.rendered(name), key=by_kind))

    def test_every_object_fits_the_schemas(self):
        for version in KUBERNETES:
            for name in chart.sets():
                objects = chart.render(chart.values_of(name), "--kube-version", version)
                self.assertGreater(len(objects), 4)
                for each in objects:
                    with self.subTest(version=version, values=name, kind=each["kind"], name=each["metadata"]["name"]):
                        if each["kind"] not in FOREIGN:
                            kubernetes_validate.validate(each, version, strict=True)

    def test_snapshots(self):
        for name in chart.sets():
            with self.subTest(values=name):
                text = chart.template(chart.values_of(name))
                chart.kept(self, chart.TESTS / "snapshots" / f"{name}.yaml", text)

    def test_a_package_renders_the_same(self):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([chart.HELMS["helm 4"], "package", chart.CHART, "-d", folder], check=True, capture_output=True)
            (package,) = pathlib.Path(folder).iterdir()
            values = chart.TESTS / "values" / "everything.yaml"
            command = [chart.HELMS["helm 4"], "template", chart.RELEASE, package, "-n", chart.NAMESPACE, "-f", values]
            text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            self.assertEqual(chart.load(text), chart.rendered("everything"))


class Monitoring(unittest.TestCase):
    """Alerts and dashboard have one source each, in local/monitoring; a chart can only hold copies."""

    def test_the_copies_are_true(self):
        for name in ("alerts.yml", "dashboard.json"):
            source = chart.REPOSITORY / "local" / "monitoring" / name
            chart.kept(self, chart.CHART / "files" / name, source.read_text())

    def test_they_arrive_unchanged(self):
        objects = chart.rendered("everything")
        (rule,) = chart.of_kind(objects, "PrometheusRule")
        (source,) = chart.load((chart.REPOSITORY / "local" / "monitoring" / "alerts.yml").read_text())
        self.assertEqual(rule["spec"], source)
        dashboard = chart.named(objects, "ConfigMap", "store-dashboard")["data"]["keyward.json"]
        source = (chart.REPOSITORY / "local" / "monitoring" / "dashboard.json").read_text()
        self.assertEqual(json.loads(dashboard), json.loads(source))


class OpenShift(unittest.TestCase):
    """The rules of restricted-v2, which lets everybody in who asks for nothing."""

    def check_pod(self, spec, on_openshift):
        pod = spec["securityContext"]
        self.assertTrue(pod["runAsNonRoot"])
        self.assertEqual(pod["seccompProfile"], {"type": "RuntimeDefault"})
        self.assertFalse(spec["automountServiceAccountToken"])
        for host in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"):
            self.assertNotIn(host, spec)
        ours = [c for c in spec["containers"] if c["name"] in ("node", "sentinel", "backup", "status", "client")]
        self.assertTrue(ours)
        for container in ours:
            context = container["securityContext"]
            self.assertFalse(context["allowPrivilegeEscalation"])
            self.assertTrue(context["readOnlyRootFilesystem"])
            self.assertTrue(context["runAsNonRoot"])
            self.assertEqual(context["capabilities"], {"drop": ["ALL"]})
            self.assertNotIn("privileged", context)
            for port in container.get("ports", []):
                self.assertNotIn("hostPort", port)
                self.assertGreater(port["containerPort"], 1023)
            if on_openshift:
                for fixed in ("runAsUser", "runAsGroup"):
                    self.assertNotIn(fixed, context)
        if on_openshift:
            for fixed in ("runAsUser", "runAsGroup", "fsGroup", "supplementalGroups"):
                self.assertNotIn(fixed, pod)
        allowed = {"configMap", "emptyDir", "projected", "secret", "persistentVolumeClaim", "downwardAPI"}
        for volume in spec.get("volumes", []):
            self.assertLessEqual(set(volume) - {"name"}, allowed)

    def test_every_pod_is_let_in(self):
        for name in chart.sets():
            for flags in ((), OPENSHIFT):
                for pod, _, spec in chart.pods(chart.render(chart.values_of(name), *flags)):
                    with self.subTest(values=name, flags=flags, pod=pod):
                        self.check_pod(spec, bool(flags) or name == "openshift")

    def test_openshift_true_is_what_the_api_would_say(self):
        values = chart.values_of("default")
        asked = chart.render(values, *OPENSHIFT)
        self.assertEqual(asked, chart.render(values | {"openshift": True}))
        self.assertNotEqual(asked, chart.render(values | {"openshift": False}, *OPENSHIFT))

    def test_outside_a_group_owns_the_volumes(self):
        for _, _, spec in chart.pods(chart.rendered("default")):
            self.assertEqual(spec["securityContext"]["fsGroup"], 65532)


class Parts(unittest.TestCase):
    """The parts of a rendering fit each other."""

    def each(self):
        for name, objects in chart.every_set():
            with self.subTest(values=name):
                yield name, objects

    def test_names_are_unique_and_in_the_namespace(self):
        for _, objects in self.each():
            names = [(each["kind"], each["metadata"]["name"]) for each in objects]
            self.assertEqual(len(names), len(set(names)))
            for each in objects:
                self.assertEqual(each["metadata"]["namespace"], chart.NAMESPACE)
                self.assertLessEqual(len(each["metadata"]["name"]), 52)

    def test_stateful_sets_select_their_pods_and_name_a_headless_service(self):
        for _, objects in self.each():
            for each in chart.of_kind(objects, "StatefulSet"):
                spec = each["spec"]
                self.assertTrue(matches(spec["selector"]["matchLabels"], spec["template"]["metadata"]["labels"]))
                service = chart.named(objects, "Service", spec["serviceName"])["spec"]
                self.assertEqual(service["clusterIP"], "None")
                self.assertTrue(service["publishNotReadyAddresses"])
                self.assertTrue(matches(service["selector"], spec["template"]["metadata"]["labels"]))

    def test_nothing_that_an_upgrade_may_change_is_where_it_must_not(self):
        changing = re.compile(r"helm\.sh/chart|app\.kubernetes\.io/version|managed-by|team|keyward-0\.")
        for _, objects in self.each():
            for each in objects:
                spec = each.get("spec", {})
                fixed = [spec.get("selector"), spec.get("volumeClaimTemplates"), spec.get("podSelector")]
                self.assertIsNone(changing.search(str(fixed)), fixed)
                if each["kind"] == "StatefulSet":
                    # A new version of the chart alone restarts nobody.
                    metadata = spec["template"]["metadata"]
                    self.assertNotIn("app.kubernetes.io/version", metadata["labels"])
                    self.assertNotIn("helm.sh/chart", metadata["labels"])

    def test_every_service_leads_to_pods_with_its_ports(self):
        for _, objects in self.each():
            pods = [(labels, spec) for _, labels, spec in chart.pods(objects)]
            for service in chart.of_kind(objects, "Service"):
                found = [spec for labels, spec in pods if matches(service["spec"]["selector"], labels)]
                self.assertEqual(len(found), 1, service["metadata"]["name"])
                names = {port["name"] for port in found[0]["containers"][0]["ports"]}
                for port in service["spec"]["ports"]:
                    self.assertIn(port["targetPort"], names)

    def test_headless_services_have_the_ports_that_pods_listen_on(self):
        # A name is all that DNS gives: what is asked at it is the pod's own port.
        for _, objects in self.each():
            for each in chart.of_kind(objects, "StatefulSet"):
                own = {p["name"]: p["containerPort"] for p in each["spec"]["template"]["spec"]["containers"][0]["ports"]}
                for port in chart.named(objects, "Service", each["spec"]["serviceName"])["spec"]["ports"]:
                    self.assertEqual(port["port"], own[port["targetPort"]])

    def test_probes_ask_a_port_of_their_container(self):
        for _, objects in self.each():
            for each in chart.of_kind(objects, "StatefulSet"):
                container = each["spec"]["template"]["spec"]["containers"][0]
                names = {port["name"] for port in container["ports"]}
                paths = {}
                for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                    self.assertIn(container[probe]["httpGet"]["port"], names)
                    paths[probe] = container[probe]["httpGet"]["path"]
                # /readyz fails while a node loads or its shard has no primary: nobody is killed for that.
                self.assertEqual(paths, {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"})

    def test_mounts_and_volumes_match(self):
        for _, objects in self.each():
            for name, _, spec in chart.pods(objects):
                claims = [
                    claim["metadata"]["name"]
                    for each in chart.of_kind(objects, "StatefulSet")
                    if each["metadata"]["name"] == name
                    for claim in each["spec"].get("volumeClaimTemplates", [])
                ]
                volumes = [volume["name"] for volume in spec.get("volumes", [])] + claims
                self.assertEqual(len(volumes), len(set(volumes)), name)
                mounted = [m["name"] for c in spec["containers"] for m in c.get("volumeMounts", [])]
                self.assertEqual(set(mounted), set(volumes), name)

    def test_what_is_referred_to_is_there_or_is_a_value(self):
        given = {"passwords", "certificates", "registry", "page-certificate"}
        for _, objects in self.each():
            made = {(each["kind"], each["metadata"]["name"]): each for each in objects}
            certificates = {each["spec"]["secretName"] for each in chart.of_kind(objects, "Certificate")}
            for name, _, spec in chart.pods(objects):
                account = spec["serviceAccountName"]
                self.assertIn(("ServiceAccount", account), made)
                for volume in spec.get("volumes", []):
                    if "configMap" in volume:
                        self.assertIn(("ConfigMap", volume["configMap"]["name"]), made)
                    for secret in [volume.get("secret")] + [s.get("secret") for s in volume.get("projected", {}).get("sources", [])]:
                        if not secret:
                            continue
                        secret_name = secret.get("secretName") or secret["name"]
                        if secret_name in given | certificates:
                            continue
                        data = made["Secret", secret_name]["data"]
                        for item in secret["items"]:
                            self.assertIn(item["key"], data, name)
            for issuer in (each["spec"]["issuerRef"]["name"] for each in chart.of_kind(objects, "Certificate")):
                self.assertIn(("Issuer", issuer), made)

    def test_budgets_cover_nodes_and_sentinels(self):
        for name, objects in self.each():
            budgets = [each["spec"] for each in chart.of_kind(objects, "PodDisruptionBudget")]
            for each in chart.of_kind(objects, "StatefulSet"):
                labels = each["spec"]["template"]["metadata"]["labels"]
                found = [b for b in budgets if matches(b["selector"]["matchLabels"], labels)]
                # A lone node that must not be taken away would keep its machine from being drained.
                self.assertEqual([b["maxUnavailable"] for b in found], [] if name == "standalone" else [1])

    def test_only_the_own_pods_reach_the_bus(self):
        for name, objects in self.each():
            policies = [each["spec"] for each in chart.of_kind(objects, "NetworkPolicy")]
            if name == "standalone":
                self.assertEqual(policies, [])
                continue
            for pod, labels, _ in chart.pods(objects):
                found = [p for p in policies if matches(p["podSelector"]["matchLabels"], labels)]
                if "test" in pod:
                    continue
                (policy,) = found
                if pod.endswith("-backup"):
                    self.assertEqual(policy["ingress"], [], "it listens nowhere")
                    continue
                own, *others = policy["ingress"]
                self.assertEqual(list(own), ["from"])
                (peer,) = own["from"]
                self.assertTrue(matches(peer["podSelector"]["matchLabels"], labels))
                for rule in others:
                    self.assertTrue(rule["ports"])
                    self.assertNotIn("bus", [port["port"] for port in rule["ports"]])

    def test_the_numbers_of_pods(self):
        for name, nodes, sentinels in (("standalone", 1, 0), ("default", 3, 3), ("cluster", 9, 5)):
            sizes = {each["metadata"]["name"]: each["spec"]["replicas"] for each in chart.of_kind(chart.rendered(name), "StatefulSet")}
            expected = {"kw-keyward-node": nodes} | ({"kw-keyward-sentinel": sentinels} if sentinels else {})
            self.assertEqual(sizes, expected)

    def test_no_password_in_arguments_variables_or_config_maps(self):
        for name, objects in self.each():
            secret = chart.values_of(name).get("auth", {}).get("password", "a password")
            for each in objects:
                if each["kind"] != "Secret":
                    self.assertNotIn(secret, str(each))

    def test_certificates_have_all_names(self):
        certificate = chart.named(chart.rendered("tls"), "Certificate", "kw-keyward-tls")["spec"]
        names = set(certificate["dnsNames"])
        for service in chart.of_kind(chart.rendered("tls"), "Service"):
            name = service["metadata"]["name"]
            if name.endswith("-page"):
                continue
            prefix = "*." if service["spec"].get("clusterIP") == "None" else ""
            for domain in ("", ".shop", ".shop.svc", ".shop.svc.cluster.local"):
                self.assertIn(prefix + name + domain, names)
        self.assertLessEqual({"localhost", "store.example.org"}, names)
        self.assertLessEqual({"server auth", "client auth"}, set(certificate["usages"]))

    def test_with_tls_there_is_no_port_without(self):
        for name in ("tls", "everything"):
            for each in chart.of_kind(chart.rendered(name), "ConfigMap"):
                conf = each["data"].get("keyward.conf")
                if conf:
                    self.assertIn("\nport 0\n", conf)
                    self.assertEqual("\ntls-cluster yes\n" in conf, name == "tls")


class Secrets(unittest.TestCase):
    def secret(self, **values):
        return chart.of_kind(chart.render(values), "Secret")

    def test_without_an_api_a_generated_secret_cannot_be_overwritten(self):
        (secret,) = self.secret()
        self.assertTrue(secret["immutable"])
        self.assertEqual(set(secret["data"]), {"password", "cluster-secret"})
        (second,) = self.secret()
        self.assertNotEqual(secret["data"], second["data"])

    def test_what_is_given_may_be_changed(self):
        (secret,) = self.secret(auth={"password": "x"}, clusterSecret={"value": "y" * 16})
        self.assertNotIn("immutable", secret)

    def test_only_what_is_needed_is_made(self):
        self.assertEqual(self.secret(auth={"existingSecret": "a"}, clusterSecret={"existingSecret": "b"}), [])
        self.assertEqual(self.secret(mode="standalone", auth={"enabled": False}), [])
        (secret,) = self.secret(mode="standalone")
        self.assertEqual(set(secret["data"]), {"password"})
        (secret,) = self.secret(auth={"existingSecret": "a"})
        self.assertEqual(set(secret["data"]), {"cluster-secret"})

"""A stand-in for a cluster: an API that real `helm` and `kubectl` install into, upgrade, and ask, and behind it the pods of
`pods.py` and what controllers do to them.

What is stored is answered as it was given, and a patch is a merge. StatefulSets become pods, rolled one by one when
their template changes; a pod that is deleted comes back; Jobs and pods of tests run once; Services have an address; a
claim that is deleted is gone with its pod; evictions go by the budgets. `exec` and `port-forward`, which are streams, are
done by the program `kubectl` in bin/, which asks for /state.
"""

import base64
import concurrent.futures
import contextlib
import copy
import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import traceback
import urllib.parse

import kubernetes_validate
import yaml

import api
import chart
import pods
from streams import relay

BIN = chart.TESTS / "bin"
RESOURCES = api.RESOURCES | {
    "v1": [*api.RESOURCES["v1"], ("nodes", "Node")],
    "apps/v1": [*api.RESOURCES["apps/v1"], ("deployments", "Deployment")],
    "batch/v1": [*api.RESOURCES["batch/v1"], ("jobs", "Job")],
}
SHORT = {"pods": ["po"], "services": ["svc"], "persistentvolumeclaims": ["pvc"], "statefulsets": ["sts"]}
SUBRESOURCES = {"v1": [("pods/eviction", "Eviction")]}
GLOBAL = {"Node", "Namespace"}
# What may be changed of a StatefulSet.
CHANGES = {"replicas", "ordinals", "template", "updateStrategy", "persistentVolumeClaimRetentionPolicy", "minReadySeconds"}
# Of which there are no schemas.
FOREIGN = {"Certificate", "Issuer", "ServiceMonitor", "PrometheusRule", "Route"}


# By what elements of lists are told apart in a strategic merge patch; other lists are replaced.
MERGE_KEYS = {
    "containers": ["name"], "initContainers": ["name"], "env": ["name"], "volumes": ["name"], "imagePullSecrets": ["name"],
    "volumeMounts": ["mountPath"], "ports": ["containerPort", "port"], "topologySpreadConstraints": ["topologyKey"],
}


def merged(old, patch):
    """As a JSON merge patch, in which what is null goes, or a strategic one, of which lists are merged as well."""
    if not isinstance(patch, dict) or not isinstance(old, dict):
        return patch
    found = dict(old)
    for name, value in patch.items():
        if name.startswith("$"):
            continue
        if isinstance(value, list) and f"$setElementOrder/{name}" in patch:
            found[name] = merged_list(old.get(name) or [], value, MERGE_KEYS[name])
        else:
            found[name] = merged(old.get(name), value)
    return {name: value for name, value in found.items() if value is not None}


def merged_list(old, patch, keys):
    (key,) = [key for key in keys if any(key in each for each in patch)]
    found = {each[key]: each for each in old}
    for each in patch:
        if each.get("$patch") == "delete":
            found.pop(each[key], None)
        else:
            found[each[key]] = merged(found.get(each[key], {}), each)
    return list(found.values())


def labels_of(each):
    return each["metadata"].get("labels") or {}


def selects(selector, labels):
    """Whether a selector as in an address does."""
    for term in filter(None, selector.split(",")):
        name, _, value = term.replace("==", "=").partition("=")
        if labels.get(name) != value:
            return False
    return True


class Service:
    """A Service's address: connections go to one of its pods, and stay there."""

    def __init__(self, cluster, name, number):
        self.cluster, self.name = cluster, name
        self.address = f"10.77.255.{number}"
        self.listeners = {}
        subprocess.run(["ip", "addr", "add", f"{self.address}/16", "dev", "pods"], check=True)

    def spec(self):
        return chart.named(self.cluster.objects, "Service", self.name)["spec"]

    def listen(self):
        for port in self.spec()["ports"]:
            if port["port"] not in self.listeners:
                listener = socket.create_server((self.address, port["port"]))
                self.listeners[port["port"]] = listener
                threading.Thread(target=self.serve, args=[listener, port["name"]], daemon=True).start()

    def serve(self, listener, port_name):
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            found = self.endpoint(port_name)
            if found is None:
                client.close()
                continue
            threading.Thread(target=relay, args=[client, found], daemon=True).start()

    def endpoint(self, port_name):
        spec = self.spec()
        port = next(p for p in spec["ports"] if p["name"] == port_name)
        component = spec["selector"]["app.kubernetes.io/component"]
        ready = self.cluster.endpoints(component)
        if not ready:
            return None
        pod = ready[time.monotonic_ns() % len(ready)]
        return pod.address, next(p["containerPort"] for p in pod.container["ports"] if p["name"] == port["targetPort"])

    def close(self):
        for listener in self.listeners.values():
            # What waits in accept would keep it open.
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        subprocess.run(["ip", "addr", "del", f"{self.address}/16", "dev", "pods"], check=False)


class Kubernetes:
    """The cluster; `environment()` is what a shell needs to work with it."""

    def __init__(self, images=None):
        self.cluster = pods.Cluster(None, images=images)
        self.objects, self.versions, self.seen = {}, 0, {}
        self.once, self.lost, self.claimed, self.services = {}, set(), {}, {}
        # When each pod was asked whether it is ready, and what it said.
        self.probed = {}
        self.lock = threading.RLock()
        self.work = concurrent.futures.ThreadPoolExecutor(8)
        self.rolling = threading.Lock()
        self.errors = []
        self.store({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": chart.NAMESPACE}})
        self.server = Server(("127.0.0.1", 0), type("Bound", (Handler,), {"kubernetes": self}))
        threading.Thread(target=self.server.serve_forever, args=[0.02], daemon=True).start()
        address = f"http://127.0.0.1:{self.server.server_port}"
        self.kubeconfig = self.cluster.folder / "kubeconfig"
        self.kubeconfig.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{"name": "here", "cluster": {"server": address}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me", "namespace": chart.NAMESPACE}}],
            "users": [{"name": "me", "user": {}}],
        }))

    def environment(self):
        return os.environ | {
            "KUBECONFIG": str(self.kubeconfig), "HOME": str(self.cluster.folder), "HELM_NAMESPACE": chart.NAMESPACE,
            "PATH": f"{BIN}:{pods.BIN_DIR}:{os.environ['PATH']}", "CHART_TOOLS": str(chart.TOOLS),
            "CLUSTER_STATE": f"http://127.0.0.1:{self.server.server_port}/state",
        }

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        for service in self.services.values():
            service.close()
        self.work.shutdown(wait=True, cancel_futures=True)
        self.cluster.close()

    # --- What is stored

    def key(self, each):
        return each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"]

    def store(self, each):
        """As it is given, with what an API adds."""
        with self.lock:
            self.versions += 1
            metadata = each["metadata"]
            if each["kind"] not in GLOBAL:
                metadata.setdefault("namespace", chart.NAMESPACE)
            old = self.objects.get(self.key(each))
            metadata["uid"] = old["metadata"]["uid"] if old else f"uid-{self.versions}"
            metadata["resourceVersion"] = str(self.versions)
            metadata.setdefault("generation", 1)
            metadata.setdefault("creationTimestamp", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
            if each["kind"] == "Service":
                each["spec"].setdefault("clusterIP", f"10.77.254.{self.versions % 250}")
            if each["kind"] == "Secret" and "stringData" in each:
                plain = each.pop("stringData").items()
                each["data"] = each.get("data", {}) | {name: base64.b64encode(text.encode()).decode() for name, text in plain}
            self.objects[self.key(each)] = each
            return each

    def all(self):
        """What is there: what is stored, and what follows from the pods."""
        with self.lock:
            found = dict(self.objects)
            for each in [*map(self.pod_object, list(self.cluster.pods.values())), *self.claims(), *self.machines()]:
                found[self.key(each)] = each
            for key, each in found.items():
                if each["kind"] == "StatefulSet":
                    found[key] = {**each, "status": self.status(each)}
            for key, each in found.items():
                # A new version for each change, also of what nobody has stored.
                text = json.dumps({**each, "metadata": {**each["metadata"], "resourceVersion": None}}, sort_keys=True)
                if self.seen.get(key, ("",))[0] != text:
                    self.versions += 1
                    self.seen[key] = (text, str(self.versions))
                each["metadata"]["resourceVersion"] = self.seen[key][1]
            return list(found.values())

    def pod_object(self, pod):
        ready = self.is_ready(pod)
        word = "True" if ready else "False"
        owner = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": pod.workload, "uid": "uid", "controller": True}
        return {
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": pod.name, "namespace": chart.NAMESPACE, "uid": f"{pod.name}-{pod.address}", "ownerReferences": [owner],
                         "labels": pod.template["metadata"]["labels"], "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {**pod.template["spec"], "nodeName": machine(pod)},
            "status": {"phase": "Running", "podIP": pod.address, "conditions": [{"type": kind, "status": word} for kind in ("Ready", "ContainersReady")],
                       "containerStatuses": [{"name": pod.container["name"], "ready": ready, "restartCount": 0, "image": pod.container["image"],
                                              "imageID": "", "state": {"running": {}}}]},
        }

    def is_ready(self, pod):
        """As the kubelet has found lately."""
        if pod.name in self.cluster.leaving or not pod.runs():
            return False
        when, ready = self.probed.get(pod.address, (0, False))
        if when + 0.1 < time.monotonic():
            ready = pod.probe("readinessProbe")[0]
            self.probed[pod.address] = (time.monotonic(), ready)
        return ready

    def claims(self):
        """They stay when what has made them is gone."""
        for each in chart.of_kind(self.cluster.objects, "StatefulSet"):
            for claim in each["spec"].get("volumeClaimTemplates", []):
                for number in range(each["spec"]["replicas"]):
                    name = f"{claim['metadata']['name']}-{each['metadata']['name']}-{number}"
                    labels = each["spec"]["selector"]["matchLabels"]
                    metadata = {"name": name, "namespace": chart.NAMESPACE, "uid": name, "labels": labels}
                    self.claimed.setdefault(name, {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata,
                                                   "spec": claim["spec"], "status": {"phase": "Bound"}})
        stored = {name: each for (kind, _, name), each in self.objects.items() if kind == "PersistentVolumeClaim"}
        return (self.claimed | stored).values()

    def machines(self):
        for number in range(3):
            name = f"machine-{number}"
            old = self.objects.get(("Node", "", name))
            yield old or {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "uid": name}, "spec": {}, "status": {}}

    def status(self, each):
        found = [pod for pod in self.cluster.pods.values() if pod.workload == each["metadata"]["name"]]
        updated = [pod for pod in found if pod.template == each["spec"]["template"]]
        ready = [pod for pod in found if self.is_ready(pod)]
        return {
            "replicas": len(found), "updatedReplicas": len(updated), "readyReplicas": len(ready), "availableReplicas": len(ready),
            "observedGeneration": each["metadata"].get("generation", 1), "updateRevision": "new",
            "currentRevision": "new" if len(updated) == len(found) == len(ready) else "old", "currentReplicas": len(updated),
        }

    # --- What follows from it

    def do(self, function, *arguments):
        """In the background, as controllers do; what fails is told by the test."""
        def run():
            try:
                function(*arguments)
            except Exception:
                self.errors.append(traceback.format_exc())

        return self.work.submit(run)

    def settle(self):
        """What controllers do about a change of what is stored."""
        with self.rolling:
            with self.lock:
                objects = [copy.deepcopy(each) for each in self.objects.values()]
            self.forget_claims()
            self.cluster.take([each for each in objects if each["kind"] not in GLOBAL and self.can_start(each)])
            self.forget_claims()
            self.serve()
            self.cluster.roll_out()

    def can_start(self, each):
        """Whether what its pods mount is there; they wait for it, and so do we."""
        if each["kind"] != "StatefulSet" or f"{each['metadata']['name']}-0" in self.cluster.pods:
            return True
        for volume in each["spec"]["template"]["spec"]["volumes"]:
            wanted = [("ConfigMap", volume["configMap"]["name"])] if "configMap" in volume else []
            wanted += [("Secret", source["secret"]["name"]) for source in volume.get("projected", {}).get("sources", [])]
            if any((kind, chart.NAMESPACE, name) not in self.objects for kind, name in wanted):
                return False
        return True

    def serve(self):
        names = {each["metadata"]["name"]: each for each in chart.of_kind(self.cluster.objects, "Service") if each["spec"].get("clusterIP") != "None"}
        for name in set(self.services) - set(names):
            self.services.pop(name).close()
        for name in names:
            if name not in self.services:
                self.services[name] = Service(self.cluster, name, len(self.services) + 2)
                self.cluster.services[name] = self.services[name].address
            self.services[name].listen()
        self.cluster.tell_names()

    def state(self):
        """What bin/kubectl goes by."""
        return {
            "namespace": chart.NAMESPACE,
            "pods": {
                name: {"inner": pod.inner(), "address": pod.address, "environment": pod.environment(), "container": pod.container["name"],
                       "ports": [port["containerPort"] for port in pod.container["ports"]]}
                for name, pod in list(self.cluster.pods.items()) if pod.runs()
            },
            "services": {name: {"address": each.address, "ports": list(each.listeners)} for name, each in self.services.items()},
        }

    def forget_claims(self):
        """Those that were deleted, and that no pod uses any more."""
        for claim in [claim for claim in self.lost if claim.removeprefix("data-") not in self.cluster.pods]:
            self.lost.discard(claim)
            shutil.rmtree(self.cluster.data(claim.removeprefix("data-")), ignore_errors=True)

    def delete_pod(self, name, grace):
        with self.rolling:
            if name not in self.cluster.pods:
                return
            lose = f"data-{name}" in self.lost
            self.lost.discard(f"data-{name}")
            self.cluster.replace([name], grace, lose_volume=lose)

    def run_once(self, each, spec):
        """A pod of a test, or of a Job, to its end; what it prints are its logs."""
        container = spec["containers"][0]
        if each["metadata"]["name"].endswith("-test-client"):
            done = self.cluster.run_client_test()
        else:
            done = self.run_container([*container["command"], *container.get("args", [])])
        good = done.returncode == 0
        with self.lock:
            if each["kind"] == "Job":
                self.finish_job(each, spec, done.stdout + done.stderr, good)
            else:
                self.once[each["metadata"]["name"]] = done.stdout + done.stderr
                status = {"phase": "Succeeded" if good else "Failed", "containerStatuses": []}
                if self.key(each) in self.objects:
                    self.store({**each, "status": status})

    def run_container(self, words):
        """Our own programs in the namespaces of a sentinel, others here; the volume for backups is the sentinel's."""
        pod = self.cluster.of("sentinel")[0]
        if words[0].startswith("/keyward-"):
            return pod.exec(*("/data" + word if word.startswith("/backups") else word for word in words))
        folder = self.cluster.data(pod.name) / "backups"
        folder.mkdir(exist_ok=True)
        folder.chmod(0o770)
        words = [word.replace("/backups", str(folder)) for word in words]
        words[0] = words[0].replace("valkey-cli", "redis-cli")
        named = ["unshare", "--mount", "sh", "-c", 'mount --bind "$1" /etc/hosts; shift; exec "$@"', "sh", str(self.cluster.hosts)]
        return subprocess.run([*named, *words], capture_output=True, text=True, timeout=60)

    def finish_job(self, each, spec, printed, good):
        name = each["metadata"]["name"]
        self.once[f"{name}-x"] = printed.replace("/data/backups", "/backups")
        labels = {"batch.kubernetes.io/controller-uid": each["metadata"]["uid"]}
        metadata = {"name": f"{name}-x", "labels": labels}
        self.store({"apiVersion": "v1", "kind": "Pod", "spec": spec, "metadata": metadata, "status": {"phase": "Succeeded" if good else "Failed"}})
        conditions = [{"type": "Complete" if good else "Failed", "status": "True"}]
        job = {**each, "spec": {**each["spec"], "selector": {"matchLabels": labels}}}
        self.store({**job, "status": {"succeeded": int(good), "failed": int(not good), "conditions": conditions}})

    # --- Requests

    def changed(self, each):
        """Something was stored: whoever has to do something about it does."""
        if each["kind"] == "Job" and "status" not in each:
            self.do(self.run_once, each, each["spec"]["template"]["spec"])
        elif each["kind"] == "Pod" and "status" not in each:
            self.do(self.run_once, each, each["spec"])
        elif each["kind"] in ("StatefulSet", "ConfigMap", "Secret", "Service", "CronJob", "PodDisruptionBudget") and not each.get("type", "").startswith("helm.sh/"):
            self.do(self.settle)

    def delete(self, each, grace):
        kind, _, name = self.key(each)
        if kind == "Pod" and name in self.cluster.pods:
            self.do(self.delete_pod, name, grace if grace is not None else each["spec"]["terminationGracePeriodSeconds"])
            return
        if kind == "PersistentVolumeClaim":
            self.lost.add(name)
            # Pods that end just now have it until they have.
            if name.removeprefix("data-") not in self.cluster.pods:
                self.do(self.settle)
            self.claimed.pop(name, None)
            self.objects.pop(self.key(each), None)
            return
        self.objects.pop(self.key(each), None)
        self.seen.pop(self.key(each), None)
        if kind in ("StatefulSet", "Service"):
            self.do(self.settle)


def machine(pod):
    return f"machine-{pod.name.rpartition('-')[2]}"


def fields(text):
    """The fields of a protobuf message: (number, value), a value being a number or bytes."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = text[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(text):
        tag = varint()
        number, kind = tag >> 3, tag & 7
        value = varint()
        if kind == 2:
            value, at = text[at : at + value], at + value
        yield number, value


def metadata_of(text):
    """Of the metadata in protobuf: the name, labels, and the name of who owns it."""
    metadata = {"labels": {}}
    for number, value in fields(text):
        if number == 1:
            metadata["name"] = value.decode()
        elif number == 11:
            pair = dict(fields(value))
            metadata["labels"][pair[1].decode()] = pair.get(2, b"").decode()
        elif number == 13:
            metadata["owner"] = dict(fields(value))[3].decode()
    return metadata


def typed(text):
    """What clients send as protobuf: helm 4 the Secrets in which it keeps releases, kubectl the Job that it makes of a
    CronJob, of which the spec is the owner's. Of anything else nothing is read."""
    unknown = dict(fields(text.removeprefix(b"k8s\0")))
    kind = dict(fields(unknown[1])).get(2, b"").decode()
    if kind not in ("Secret", "Job"):
        return {}
    message = list(fields(unknown[2]))
    found = {"kind": kind, "metadata": metadata_of(next(value for number, value in message if number == 1))}
    if kind == "Secret":
        pairs = [dict(fields(value)) for number, value in message if number == 2]
        found["data"] = {pair[1].decode(): base64.b64encode(pair[2]).decode() for pair in pairs}
        found["type"] = next(value for number, value in message if number == 3).decode()
    return found


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        # Clients leave in the middle of what they watch; all else is told.
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(*_)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # An answer in one piece: what is sent in several waits for acknowledgements.
    wbufsize = -1
    kubernetes = None

    def log_message(self, *_):
        pass

    def answer(self, body, code=200):
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain" if isinstance(body, bytes) else "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def refuse(self, code, reason, message=""):
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code, "message": message or reason}
        self.answer(status, code)

    def body(self):
        text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "protobuf" in self.headers.get("Content-Type", ""):
            return typed(text)
        return yaml.load(text, chart.LOADER) if text else {}

    def place(self):
        """(Group and version, kind, name, subresource) that the address names, and its query; or None."""
        parsed = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(parsed.query))
        parts = parsed.path.strip("/").split("/")
        version, rest = ("".join(parts[1:2]), parts[2:]) if parts[0] == "api" else ("/".join(parts[1:3]), parts[3:])
        if rest[:1] == ["namespaces"] and 2 < len(rest):
            rest = rest[2:]
        kinds = dict(RESOURCES.get(version, []))
        if not rest or rest[0] not in kinds:
            return None, query
        rest += ["", ""]
        return (version, kinds[rest[0]], rest[1], rest[2]), query

    def found(self, kind, name="", query=None):
        query = query or {}
        fields = dict(term.split("=") for term in query.get("fieldSelector", "").replace("==", "=").split(",") if term)
        for each in self.kubernetes.all():
            if each["kind"] == kind and (not name or each["metadata"]["name"] == name):
                if fields.get("metadata.name", each["metadata"]["name"]) != each["metadata"]["name"]:
                    continue
                if "spec.nodeName" in fields and each["spec"].get("nodeName") != fields["spec.nodeName"]:
                    continue
                if selects(query.get("labelSelector", ""), labels_of(each)):
                    yield each

    def do_GET(self):
        if self.path == "/state":
            return self.answer(self.kubernetes.state())
        place, query = self.place()
        if place is None:
            found = self.discovery(urllib.parse.urlsplit(self.path).path)
            return self.answer(found) if found else self.refuse(404, "NotFound")
        version, kind, name, sub = place
        if sub == "log":
            return self.answer(self.logs(name))
        if query.get("watch") in ("true", "1"):
            return self.watch(version, kind, name, query)
        found = list(self.found(kind, name, query))
        if name:
            return self.answer(found[0]) if found else self.refuse(404, "NotFound", f'{kind.lower()} "{name}" not found')
        metadata = {"resourceVersion": str(self.kubernetes.versions)}
        self.answer({"kind": f"{kind}List", "apiVersion": version, "metadata": metadata, "items": found})

    def discovery(self, path):
        if path.startswith("/openapi/v3"):
            return self.openapi(path)
        found = api.reply(path, [], RESOURCES)
        if found and found.get("kind") == "APIResourceList":
            verbs = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"]
            for each in found["resources"]:
                each |= {"verbs": verbs, "singularName": each["kind"].lower(), "shortNames": SHORT.get(each["name"], []), "namespaced": each["kind"] not in GLOBAL}
            for name, kind in SUBRESOURCES.get(found["groupVersion"], []):
                found["resources"].append({"name": name, "singularName": "", "namespaced": True, "kind": kind, "group": "policy", "version": "v1", "verbs": ["create"]})
        return found

    def openapi(self, path):
        """That fields are looked at here, for every kind: clients leave it to the server then."""
        versions = {("api/" if "/" not in version else "apis/") + version: version for version in RESOURCES}
        if path == "/openapi/v3":
            return {"paths": {name: {"serverRelativeURL": f"/openapi/v3/{name}?hash=1"} for name in versions}}
        group, _, version = versions[path.removeprefix("/openapi/v3/")].rpartition("/")
        parameters = [{"name": "fieldValidation", "in": "query"}]
        paths = {f"/{name}/{{name}}": {"patch": {"x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind}, "parameters": parameters}}
                 for name, kind in RESOURCES[group + "/" + version if group else version]}
        return {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.37.0"}, "paths": paths, "components": {"schemas": {}}}

    def logs(self, name):
        pod = self.kubernetes.cluster.pods.get(name)
        text = pod.log.read_text(errors="replace") if pod else self.kubernetes.once.get(name, "")
        return text.encode()

    def watch(self, version, kind, name, query):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        initial = query.get("sendInitialEvents") == "true"
        before, since = {}, 0 if initial else int(query.get("resourceVersion") or 0)
        end = time.monotonic() + min(float(query.get("timeoutSeconds", 60)), 60)
        try:
            while time.monotonic() < end:
                now = {each["metadata"]["uid"]: copy.deepcopy(each) for each in self.found(kind, name, query)}
                for uid, each in now.items():
                    revision = each["metadata"]["resourceVersion"]
                    if uid not in before and since < int(revision):
                        self.tell("ADDED", each)
                    elif uid in before and before[uid]["metadata"]["resourceVersion"] != revision:
                        self.tell("MODIFIED", each)
                for uid in set(before) - set(now):
                    self.tell("DELETED", before[uid])
                before = now
                if initial:
                    metadata = {"resourceVersion": str(self.kubernetes.versions), "annotations": {"k8s.io/initial-events-end": "true"}}
                    self.tell("BOOKMARK", {"kind": kind, "apiVersion": version, "metadata": metadata})
                    initial = False
                self.wfile.flush()
                time.sleep(0.1)
        except OSError:
            pass

    def tell(self, kind, each):
        self.wfile.write(json.dumps({"type": kind, "object": each}).encode() + b"\n")

    def do_POST(self):
        place, _ = self.place()
        body = self.body()
        if place is None:
            return self.refuse(404, "NotFound")
        _, kind, name, sub = place
        if sub == "eviction":
            cluster = self.kubernetes.cluster
            if cluster.evict(name):
                return self.answer({"kind": "Status", "apiVersion": "v1", "status": "Success"}, 201)
            return self.refuse(429, "TooManyRequests", "Cannot evict pod as it would violate the pod's disruption budget.")
        if owner := body["metadata"].pop("owner", None):
            (cron,) = self.found("CronJob", owner)
            body["spec"] = cron["spec"]["jobTemplate"]["spec"]
        # What is made has no status yet.
        body.pop("status", None)
        body.setdefault("kind", kind)
        body.setdefault("apiVersion", place[0])
        if list(self.found(kind, body["metadata"]["name"])):
            return self.refuse(409, "AlreadyExists", f'{kind.lower()}s "{body["metadata"]["name"]}" already exists')
        self.keep(body, 201)

    def keep(self, body, code=200):
        if body["kind"] not in FOREIGN:
            try:
                kubernetes_validate.validate({name: value for name, value in body.items() if name != "status"}, "1.37", strict=True)
            except kubernetes_validate.ValidationError as error:
                return self.refuse(422, "Invalid", str(error.message))
        old = self.kubernetes.objects.get(self.kubernetes.key(body))
        if body["kind"] == "StatefulSet" and old:
            fixed = (set(old["spec"]) | set(body["spec"])) - CHANGES
            if any(old["spec"].get(field) != body["spec"].get(field) for field in fixed):
                return self.refuse(422, "Invalid", "spec: Forbidden: updates to statefulset spec for fields other than " + ", ".join(sorted(CHANGES)) + " are forbidden")
        kept = self.kubernetes.store(body)
        self.kubernetes.changed(kept)
        self.answer(kept, code)

    def do_PUT(self):
        place, _ = self.place()
        body = self.body()
        old = next(self.found(place[1], place[2]), None)
        self.keep({**body, "kind": place[1], "apiVersion": place[0]}) if old else self.refuse(404, "NotFound")

    def do_PATCH(self):
        (version, kind, name, sub), query = self.place()
        patch = self.body()
        old = next(self.found(kind, name), None)
        if old is None and self.headers["Content-Type"] != "application/apply-patch+yaml":
            return self.refuse(404, "NotFound", f'{kind.lower()} "{name}" not found')
        if kind == "Secret" and old and old.get("immutable") and patch.get("data", old["data"]) != old["data"]:
            return self.refuse(422, "Invalid", "data: Forbidden: field is immutable when `immutable` is set")
        if isinstance(patch, list):
            return self.refuse(415, "UnsupportedMediaType")
        base = {name: value for name, value in copy.deepcopy(old or {}).items() if name != "status"}
        self.keep({**merged(base, patch), "kind": kind, "apiVersion": version}, 200 if old else 201)

    def do_DELETE(self):
        place, query = self.place()
        if place is None:
            return self.refuse(404, "NotFound")
        _, kind, name, _ = place
        body = self.body()
        grace = body.get("gracePeriodSeconds", query.get("gracePeriodSeconds"))
        found = list(self.found(kind, name, query))
        if not found:
            return self.refuse(404, "NotFound", f'{kind.lower()} "{name}" not found')
        for each in found:
            self.kubernetes.delete(each, int(grace) if grace is not None else None)
        self.answer({"kind": "Status", "apiVersion": "v1", "status": "Success", "details": {"name": name, "kind": kind.lower() + "s", "uid": found[0]["metadata"]["uid"]}})

"""Runs the pods that rendered manifests describe, without Kubernetes: each in namespaces of its own, with its command,
arguments, variables, files, user, address and name, a read-only root, and its probes asked as a kubelet would.

A pod that is deleted comes back under its name with another address and its old volume. What is not played: scheduling,
limits of memory and CPU, network policies. All of it is on this machine, in a network namespace of its own; needs root.
"""

import atexit
import concurrent.futures
import ctypes
import itertools
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.request
from base64 import b64decode

import chart

BIN_DIR = pathlib.Path(os.environ.get("KEYWARD_BIN_DIR", chart.REPOSITORY / "target" / "debug"))
# As OpenShift chooses: any user, of the group 0.
USER = "1000650000:0"
CLONE_NEWNET = 0x40000000

# $1: root, $2: address, $3: hosts file, $4: data; then pairs of a folder and where it is mounted, --, and the command.
START = r"""
set -eu
root=$1 address=$2 hosts=$3 data=$4
shift 4
read -r _
ip link set lo up
ip addr add "$address/16" dev eth0
ip link set eth0 up
mount --make-rprivate /
mount -t tmpfs -o mode=755 root "$root"
mkdir -p "$root/etc" "$root/data" "$root/proc" "$root/dev"
for folder in /lib /lib64 /usr/lib /dev; do
  if [ -d "$folder" ]; then
    mkdir -p "$root$folder"
    mount --rbind "$folder" "$root$folder"
  fi
done
mount -t proc proc "$root/proc"
touch "$root/etc/hosts" "$root/keyward-node" "$root/keyward-sentinel"
mount --bind "$hosts" "$root/etc/hosts"
mount --bind "$KEYWARD_BIN_DIR/keyward-node" "$root/keyward-node"
mount --bind "$KEYWARD_BIN_DIR/keyward-sentinel" "$root/keyward-sentinel"
mount --bind "$data" "$root/data"
while [ "$1" != -- ]; do
  mkdir -p "$root$2"
  mount --bind "$1" "$root$2"
  mount -o remount,ro,bind "$root$2"
  shift 2
done
shift
mount -o remount,ro "$root"
exec setpriv --no-new-privs env -i ENVIRONMENT "$(command -v chroot)" --userspec=USER --groups= "$root" "$@"
"""


def enter_own_network():
    """This thread, and what it starts, in a network of its own with a bridge for pods, until what is returned is called."""
    if os.geteuid() != 0:
        raise unittest.SkipTest("pods need root")
    libc = ctypes.CDLL(None, use_errno=True)
    old = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    if libc.unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "no network namespace")
    for words in ("link set lo up", "link add pods type bridge", "addr add 10.77.0.1/16 dev pods", "link set pods up"):
        subprocess.run(["ip", *words.split()], check=True)
    return lambda: (libc.setns(old, CLONE_NEWNET), os.close(old))


def wait_until(condition, seconds, what):
    end = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if end <= time.monotonic():
            raise TimeoutError(f"not within {seconds} s: {what() if callable(what) else what}")
        time.sleep(0.02)


class Reply(Exception):
    """An error that the server has answered."""


class Client:
    """A connection that speaks RESP."""

    def __init__(self, address, port, password=None, seconds=1.0, context=None, name=None):
        self.socket = socket.create_connection((address, port), timeout=seconds)
        if context:
            self.socket = context.wrap_socket(self.socket, server_hostname=name)
        self.file = self.socket.makefile("rb")
        if password is not None:
            self.ask("AUTH", password)

    def ask(self, *words):
        out = b"*%d\r\n" % len(words)
        for word in words:
            word = str(word).encode()
            out += b"$%d\r\n%s\r\n" % (len(word), word)
        self.socket.sendall(out)
        return self.read()

    def read(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the connection was closed")
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise Reply(rest.decode())
        if kind == b"$":
            return None if rest == b"-1" else self.file.read(int(rest) + 2)[:-2].decode()
        if kind == b"*":
            return [self.read() for _ in range(int(rest))]
        return int(rest) if kind == b":" else rest.decode()

    def close(self):
        self.file.close()
        self.socket.close()


def ask(address, port, *words, password=None):
    client = Client(address, port, password)
    try:
        return client.ask(*words)
    finally:
        client.close()


def write_atomically(folder, files):
    """As a kubelet does: links through ..data to a folder that is replaced as a whole."""
    folder.mkdir(parents=True, exist_ok=True)
    fresh = pathlib.Path(tempfile.mkdtemp(prefix="..", dir=folder))
    fresh.chmod(0o755)
    for name, content in files.items():
        (fresh / name).write_bytes(content)
        (fresh / name).chmod(0o440)
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    (folder / "..data_tmp").symlink_to(fresh.name)
    (folder / "..data_tmp").rename(folder / "..data")


# Numbers of pods, for addresses: none is used twice, as what a deleted pod leaves behind takes its time to go.
numbers = itertools.count(2)


class Pod:
    """One pod; it is replaced, not changed."""

    def __init__(self, cluster, name, workload, template, address, zone=""):
        self.cluster, self.name, self.workload, self.template = cluster, name, workload, template
        self.address, self.zone, self.cut = address, zone, False
        self.container = template["spec"]["containers"][0]
        self.link = "p" + address.replace("10.77.", "").replace(".", "x")
        self.folder = cluster.folder / "pods" / f"{name}-{address}"
        self.log = cluster.folder / f"{name}.log"
        self.started_at = time.monotonic()
        self.process = self.start()

    def field(self, path):
        fields = {"metadata.name": self.name, "status.podIP": self.address, "spec.nodeName": f"machine-{self.name}"}
        return fields.get(path, self.zone)

    def environment(self):
        found = {}
        for each in self.container.get("env", []):
            source = each.get("valueFrom")
            found[each["name"]] = self.field(source["fieldRef"]["fieldPath"]) if source else each["value"]
        return found

    def start(self):
        self.folder.mkdir(parents=True)
        (self.folder / "root").mkdir()
        data = self.cluster.data(self.name)
        environment = self.environment()
        # Kubernetes puts in what it knows, and leaves the others as they are.
        put_in = lambda text: re.sub(r"\$\((\w+)\)", lambda m: environment.get(m[1], m[0]), text)
        command = [put_in(word) for word in self.container["command"] + self.container.get("args", [])]
        mounts = []
        for mount in self.container["volumeMounts"]:
            if mount["name"] != "data":
                mounts += [str(self.cluster.volume(self.workload, mount["name"])), mount["mountPath"]]
        quoted = " ".join("'%s=%s'" % (name, value.replace("'", "")) for name, value in environment.items())
        script = START.replace("ENVIRONMENT", quoted).replace("USER", USER)
        words = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, self.name]
        words += [str(self.folder / "root"), self.address, str(self.cluster.hosts), str(data), *mounts, "--", *command]
        with open(self.log, "ab") as log:
            process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT,
                env=os.environ | {"KEYWARD_BIN_DIR": str(self.programs())}, start_new_session=True,
            )
        self.process = process
        inner = wait_until(lambda: self.inner(), 5, f"{self.name} is started")
        link = self.link
        make = f"link add {link} master pods type veth peer name eth0 netns {inner}"
        subprocess.run(["ip", *make.split()], check=True)
        subprocess.run(["ip", "link", "set", link, "up"], check=True)
        process.stdin.write(b"go\n")
        process.stdin.close()
        # Whoever asks an address that is not there yet waits for a second until it asks again.
        show = ["ip", "-o", "link", "show", link]
        wait_until(lambda: "state UP" in subprocess.run(show, capture_output=True, text=True).stdout, 5, f"{self.name} is connected")
        return process

    def programs(self):
        """The folder whose programs are in the pod's image."""
        return self.cluster.images.get(self.container["image"], BIN_DIR)

    def connect(self, state):
        """`up` or `down`: what is sent from and to a pod that is down vanishes; nobody answers in its place."""
        self.cut = state == "down"
        subprocess.run(["ip", "link", "set", self.link, state], check=True)

    def inner(self):
        """The process that is the first one in the pod."""
        try:
            children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        except FileNotFoundError:
            return None
        return int(children[0]) if children else None

    def runs(self):
        return self.process.poll() is None

    def probe(self, name):
        """What a probe is answered, as (whether it succeeds, words)."""
        get = self.container[name]["httpGet"]
        port = next(p["containerPort"] for p in self.container["ports"] if p["name"] == get["port"])
        try:
            with urllib.request.urlopen(f"http://{self.address}:{port}{get['path']}", timeout=2) as reply:
                return True, reply.read().decode().strip()
        except urllib.error.HTTPError as error:
            return False, error.read().decode().strip()
        except OSError as error:
            return False, str(error)

    def is_ready(self):
        if not self.runs():
            raise RuntimeError(f"{self.name} has ended:\n{self.tail()}")
        return self.probe("readinessProbe")[0]

    def tail(self, lines=15):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def end(self, grace=None):
        """As a deletion does; returns how long it took. Without a grace period it is killed."""
        begin = time.monotonic()
        inner = self.inner() if self.runs() else None
        if inner and grace:
            os.kill(inner, signal.SIGTERM)
            try:
                self.process.wait(grace)
            except subprocess.TimeoutExpired:
                self.cluster.told.append(f"{self.name} was killed after {grace} s: {self.tail(3)}")
        if self.runs() and (inner := self.inner()):
            os.kill(inner, signal.SIGKILL)
        self.process.wait(5)
        return time.monotonic() - begin

    def exec(self, *command, seconds=30):
        """As `kubectl exec`: in the container's namespaces, with its variables, as its user."""
        words = ["nsenter", "--target", str(self.inner()), "--net", "--mount", "--pid", "--root", "--wd=/"]
        user, group = USER.split(":")
        words += ["--setuid", user, "--setgid", group, "--", *command]
        return subprocess.run(words, env=self.environment(), capture_output=True, text=True, timeout=seconds)


class Cluster:
    """The pods of a release."""

    def __init__(self, values, certificates=None, zones=("a", "b", "c"), only=lambda pod: True, images=None):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="keyward-chart-"))
        self.folder.chmod(0o755)
        self.hosts = self.folder / "hosts"
        self.hosts.write_text("")
        self.zones, self.certificates, self.only, self.images = zones, certificates or {}, only, images or {}
        self.pods, self.told, self.objects = {}, [], []
        # What names mean, beside those of pods: Services that have an address, and hosts elsewhere.
        self.addresses, self.services, self.elsewhere = {}, {}, {}
        self.leaving, self.changing = set(), threading.RLock()
        atexit.register(self.close)
        if values is not None:
            self.apply(values)

    # --- Objects

    def apply(self, values):
        """As `helm upgrade`: what is a pod already is not touched."""
        self.take(chart.render(values))

    def upgrade(self, values):
        """The same with an API that knows what is there, and what the controllers do about it; names of the pods that are
        restarted, in order, for each StatefulSet."""
        tests = chart.of_kind(self.objects, "Pod")
        self.take(chart.upgraded(self.objects, values) + tests)
        return self.roll_out()

    def take(self, objects):
        self.objects = objects
        for workload, (_, template) in self.workloads().items():
            for volume in template["spec"]["volumes"]:
                self.write_volume(workload, volume)
        counts = {workload: count for workload, (count, _) in self.workloads().items()}
        for pod in list(self.pods.values()):
            if counts.get(pod.workload, 0) <= int(pod.name.rpartition("-")[2]):
                self.pods.pop(pod.name).end(pod.template["spec"]["terminationGracePeriodSeconds"])
        for workload, (count, template) in self.workloads().items():
            for number in range(count):
                name = f"{workload}-{number}"
                if name not in self.pods and self.only(name):
                    self.create(name, workload, template)

    def workloads(self):
        found = {}
        for each in chart.of_kind(self.objects, "StatefulSet"):
            found[each["metadata"]["name"]] = (each["spec"]["replicas"], each["spec"]["template"])
        return found

    def volume(self, workload, name):
        folder = self.folder / "volumes" / workload / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def write_volume(self, workload, volume):
        """The files of a ConfigMap or of Secrets; what is missing in the middle of an upgrade leaves them as they are."""
        files = {}
        if "configMap" in volume:
            files = {name: text.encode() for name, text in self.given("ConfigMap", volume["configMap"]["name"]).items()}
        sources = [s["secret"] for s in volume.get("projected", {}).get("sources", [])]
        if "secret" in volume:
            sources.append(volume["secret"] | {"name": volume["secret"]["secretName"]})
        for source in sources:
            data = self.certificates.get(source["name"])
            if data is None:
                data = {name: b64decode(value) for name, value in self.given("Secret", source["name"]).items()}
            if any(item["key"] not in data for item in source["items"]):
                return
            files |= {item["path"]: data[item["key"]] for item in source["items"]}
        if files:
            folder = self.volume(workload, volume["name"])
            before = {path.name: path.read_bytes() for path in folder.glob("[!.]*")}
            if before != files:
                write_atomically(folder, files)

    def given(self, kind, name):
        """The data of an object, or none if it is not there."""
        return next((each["data"] for each in chart.of_kind(self.objects, kind) if each["metadata"]["name"] == name), {})

    def data(self, pod):
        folder = self.folder / "data" / pod
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o770)
        return folder

    # --- Pods

    def create(self, name, workload, template):
        number = next(numbers)
        address = f"10.77.{number // 250}.{number % 250 + 2}"
        zone = self.zones[int(name.rpartition("-")[2]) % len(self.zones)] if self.zones else ""
        with self.changing:
            self.addresses[name] = address
            self.tell_names()
        self.pods[name] = Pod(self, name, workload, template, address, zone)

    def tell_names(self):
        """What the cluster's DNS says from now on. The file stays the same one, as pods have it mounted."""
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in self.elsewhere.items())]
        for name, address in self.addresses.items():
            service = name.rpartition("-")[0] + "s"
            lines.append(f"{address} {name}.{service}.{chart.NAMESPACE}.svc.cluster.local {name}.{service} {name}")
        for service in chart.of_kind(self.objects, "Service"):
            # Of a Service that balances, any pod will do, if it has no address of its own.
            component = service["spec"]["selector"]["app.kubernetes.io/component"]
            found = [a for name, a in self.addresses.items() if name.endswith("-0") and f"-{component}-" in name]
            if service["spec"].get("clusterIP") != "None" and found:
                name = service["metadata"]["name"]
                lines.append(f"{self.services.get(name, found[0])} {name}.{chart.NAMESPACE}.svc.cluster.local {name}")
        self.hosts.write_text("\n".join(lines) + "\n")

    def of(self, component):
        return [pod for pod in self.pods.values() if pod.container["name"] == component]

    def replace(self, names, grace=None, lose_volume=False):
        """Deletes these pods at once; they come back with other addresses, and with their volumes if they have any."""
        old = [self.pods[name] for name in names]
        if grace:
            took = [pod.end(grace) for pod in old]
        else:
            for pod in old:
                if inner := pod.inner():
                    os.kill(inner, signal.SIGKILL)
            took = [pod.end() for pod in old]
        for pod in old:
            claims = chart.named(self.objects, "StatefulSet", pod.workload)["spec"].get("volumeClaimTemplates")
            if lose_volume or not claims:
                shutil.rmtree(self.data(pod.name))
            self.create(pod.name, pod.workload, self.workloads()[pod.workload][1])
        return max(took)

    def evict(self, name):
        """As the API does when a machine is drained: false while the budget has no room; the pod comes back elsewhere."""
        pod = self.pods[name]
        with self.changing:
            for budget in chart.of_kind(self.objects, "PodDisruptionBudget"):
                labels = budget["spec"]["selector"]["matchLabels"].items()
                if labels <= pod.template["metadata"]["labels"].items():
                    healthy = [p for p in self.siblings(pod) if p.name not in self.leaving and p.probe("readinessProbe")[0]]
                    wanted = len(self.siblings(pod)) - budget["spec"]["maxUnavailable"]
                    if pod in healthy and len(healthy) <= wanted:
                        return False
            self.leaving.add(name)
        self.replace([name], pod.template["spec"]["terminationGracePeriodSeconds"])
        self.leaving.discard(name)
        return True

    def siblings(self, pod):
        return [each for each in self.pods.values() if each.workload == pod.workload]

    def endpoints(self, component):
        """The pods that a Service leads to. A machine that is silent is noticed after a minute or so: until then it does."""
        told = lambda pod: pod.cut or (pod.name not in self.leaving and pod.runs() and pod.probe("readinessProbe")[0])
        return [pod for pod in self.of(component) if told(pod)]

    def not_ready(self):
        return {pod.name: pod.probe("readinessProbe")[1] for pod in self.pods.values() if not pod.is_ready()}

    def wait_until_ready(self, seconds=60):
        begin = time.monotonic()
        try:
            wait_until(lambda: not self.not_ready(), seconds, lambda: f"all pods are ready, but {self.not_ready()}")
        except Exception:
            for pod in self.pods.values():
                print(f"--- {pod.name}\n{pod.tail(8)}")
            raise
        return time.monotonic() - begin

    def roll_out(self):
        """As the controllers of all StatefulSets at the same time, after an upgrade: pods whose template is another one
        now are restarted. Returns their names, in order for each StatefulSet."""
        names = {
            workload: [pod.name for pod in self.pods.values() if pod.workload == workload and pod.template != template]
            for workload, (_, template) in self.workloads().items()
        }
        with concurrent.futures.ThreadPoolExecutor() as pool:
            for done in [pool.submit(self.rolling_restart, workload, only) for workload, only in names.items()]:
                done.result()
        return names

    def rolling_restart(self, workload, names=None):
        """As the controller of StatefulSets: the last first, each ready for minReadySeconds before the next; returns how
        long the longest end took."""
        spec = chart.named(self.objects, "StatefulSet", workload)["spec"]
        grace = spec["template"]["spec"]["terminationGracePeriodSeconds"]
        longest = 0
        for number in reversed(range(spec["replicas"])):
            name = f"{workload}-{number}"
            if names is not None and name not in names:
                continue
            longest = max(longest, self.replace([name], grace))
            wait_until(self.pods[name].is_ready, 60, lambda: f"{name}: {self.pods[name].probe('readinessProbe')[1]}")
            time.sleep(spec["minReadySeconds"])
        return longest

    def run_test(self, name):
        """A pod of `helm test` that runs our own program, in the place of another pod's namespaces."""
        container = chart.named(self.objects, "Pod", name)["spec"]["containers"][0]
        return self.of("sentinel")[0].exec(*container["command"], *container["args"])

    def run_backup(self):
        """What the CronJob runs, in the place of a sentinel's namespaces and into its volume."""
        (job,) = chart.of_kind(self.objects, "CronJob")
        container = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
        words = ["/data/backups" if word == "/backups" else word for word in container["args"]]
        return self.of("sentinel")[0].exec(*container["command"], *words)

    def run_client_test(self):
        """The pod of `helm test` that runs a script, with this machine's shell and redis-cli and the cluster's names."""
        spec = next(each["spec"] for each in chart.of_kind(self.objects, "Pod") if each["metadata"]["name"].endswith("-test-client"))
        (container,) = spec["containers"]
        environment = {"PATH": os.environ["PATH"]}
        for each in container["env"]:
            reference = each.get("valueFrom", {}).get("secretKeyRef")
            if reference:
                data = chart.named(self.objects, "Secret", reference["name"])["data"]
                each = {"value": b64decode(data[reference["key"]]).decode(), **each}
            environment[each["name"]] = each["value"].replace("/etc/keyward/tls", str(self.volume(self.of("node")[0].workload, "tls")))
        words = ["unshare", "--mount", "sh", "-c", 'mount --bind "$1" /etc/hosts; shift; exec "$@"', "sh", str(self.hosts)]
        words += [*container["command"], *container["args"]]
        return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60)

    def close(self):
        for pod in self.pods.values():
            if pod.runs():
                if inner := pod.inner():
                    os.kill(inner, signal.SIGKILL)
                pod.process.kill()
                pod.process.wait()
        self.pods = {}
        if not os.environ.get("KEYWARD_KEEP"):
            shutil.rmtree(self.folder, ignore_errors=True)

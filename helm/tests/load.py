"""Clients that write all the time while something happens to the pods, and what they saw of it."""

import os
import random
import threading
import time

import pods

FIXED = {
    "tests": {"clientImage": "example.org/valkey"},
    "auth": {"password": "a password"},
    "clusterSecret": {"value": "a secret of sixteen bytes or more"},
    "minReadySeconds": 2,
    # What is tested has two cores.
    "config": {"io-threads": 1},
}
PASSWORD = FIXED["auth"]["password"]
FORWARDING_PORT = 6390
# Also what takes long, and often enough for a manual.
LONG = bool(os.environ.get("KEYWARD_LONG_DRILLS"))


def start(values, **more):
    return pods.Cluster({**FIXED, **values}, **more)


def report(words):
    print(f"... {words} ", end="", flush=True)


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


class NoPrimary(OSError):
    """No sentinel names one."""


def by_sentinels(cluster, passwords):
    """A connection to whom the sentinels name."""
    address = primary(cluster)
    if address is None:
        raise NoPrimary
    return authenticated(address, 6379, passwords)


def by_service(cluster, passwords):
    """A connection to the Service's port at a pod of its, as the cluster's network chooses one."""
    ready = cluster.endpoints("node")
    if not ready:
        raise NoPrimary
    return authenticated(random.choice(ready).address, FORWARDING_PORT, passwords)


def authenticated(address, port, passwords, **more):
    """By the first of the passwords that is taken: while one is exchanged an application knows two."""
    for password in passwords:
        try:
            return pods.Client(address, port, password, **more)
        except pods.Reply as error:
            refused = error
    raise refused


def in_words(error):
    """What an application's log would call it."""
    if isinstance(error, pods.Reply):
        return f"`{str(error).split(' ')[0]}`"
    kinds = {NoPrimary: "no primary", TimeoutError: "timeout", ConnectionRefusedError: "refused connection"}
    return kinds.get(type(error), "lost connection")


class Writer(threading.Thread):
    """Writes numbers one after the other, without retries, and remembers those that were acknowledged."""

    def __init__(self, cluster, connect=by_sentinels, passwords=(PASSWORD,)):
        super().__init__(daemon=True)
        self.cluster, self.connect, self.passwords = cluster, connect, passwords
        self.key = f"written:{os.urandom(4).hex()}"
        self.stopped = threading.Event()
        self.acknowledged, self.errors, self.longest = [], {}, 0.0
        self.start()
        self.wait_until_it_writes()

    def run(self):
        client, number, last = None, 0, time.monotonic()
        while not self.stopped.is_set():
            number += 1
            try:
                client = client or self.connect(self.cluster, self.passwords)
                client.ask("RPUSH", self.key, number)
                self.acknowledged.append(number)
                now = time.monotonic()
                self.longest, last = max(self.longest, now - last), now
                time.sleep(0.002)
            except (OSError, pods.Reply) as error:
                word = in_words(error)
                self.errors[word] = self.errors.get(word, 0) + 1
                if client:
                    client.close()
                client = None
                time.sleep(0.02)

    def wait_until_it_writes(self):
        before = len(self.acknowledged)
        pods.wait_until(lambda: before + 20 < len(self.acknowledged), 30, lambda: f"it writes: {self.errors}")

    def lost(self):
        """What was acknowledged and is gone; asked for when it writes again, so that the time without is whole."""
        self.wait_until_it_writes()
        self.stopped.set()
        self.join()
        held = set(pods.wait_until(self.read, 15, "what was written can be read"))
        return [number for number in self.acknowledged if str(number) not in held]

    def read(self):
        """What the primary holds; nothing if it cannot be asked just now."""
        try:
            client = self.connect(self.cluster, self.passwords)
            try:
                return client.ask("LRANGE", self.key, 0, -1) if client.ask("ROLE")[0] == "master" else None
            finally:
                client.close()
        except (OSError, pods.Reply):
            return None

    def seen(self):
        errors = ", ".join(f"{count} {word}" if 1 < count else f"one {word}" for word, count in self.errors.items())
        return f"{self.longest:.2f} s, {errors or 'no error'}"


def both(cluster):
    """A client with Sentinel support, and one of the address for all."""
    return [Writer(cluster), Writer(cluster, by_service)]

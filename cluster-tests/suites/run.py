"""Runs the tests of client libraries, redis-py and redis-rs, against Keyward, as their authors wrote them.

usage: run.py [--keep FOLDER] [NAME ...]      all, or those such as redis-py-node (see SUITES)

Each suite runs in network and process namespaces of its own, as the tests keep fixed ports: that takes root. What is
left out, and why, is in `lists/`; a test of a list that passes is a failure like one that fails without being listed.
KEYWARD_BIN_DIR names the folder of the programs (target/debug if unset), KEYWARD_REDIS_PY the version of redis-py.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
import unittest

import listing
import redis_py
import redis_rs
import systems

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
BIN_DIR = pathlib.Path(os.environ.get("KEYWARD_BIN_DIR", REPOSITORY / "target" / "debug")).absolute()
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target")).absolute() / "suites"
REDIS_PY = os.environ.get("KEYWARD_REDIS_PY", "8.1.0")
NAMESPACES = ["unshare", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]
SUITE_SECONDS = 600
CLUSTER_PORTS = range(16379, 16385)
NOT_FOR_CLUSTERS = ["-m", "not onlycluster"]


def node(servers, prepared, folder, list_file):
    servers.node(6379)
    files = redis_py.node_files()
    return redis_py.outcomes(*prepared["redis-py"], files, 6379, list_file, folder, NOT_FOR_CLUSTERS)


def node_async(servers, prepared, folder, list_file):
    servers.node(6379)
    files = redis_py.async_files()
    return redis_py.outcomes(*prepared["redis-py"], files, 6379, list_file, folder, NOT_FOR_CLUSTERS)


def cluster(servers, prepared, folder, list_file):
    servers.sharded(CLUSTER_PORTS, 6400, shards=3)
    files = redis_py.cluster_files()
    options = ["-m", "not onlynoncluster"]
    return redis_py.outcomes(*prepared["redis-py"], files, CLUSTER_PORTS[0], list_file, folder, options)


def sentinel(servers, prepared, folder, list_file):
    servers.sharded([6379, 6380, 6381], 26379, 1, "--primary-name", "redis-py-test")
    options = ["--master-service", "redis-py-test"]
    files = redis_py.sentinel_files()
    return redis_py.outcomes(*prepared["redis-py"], files, 6379, list_file, folder, options)


def rust_node(_servers, prepared, folder, list_file):
    return redis_rs.outcomes(prepared["redis-rs"], redis_rs.NODE, BIN_DIR, list_file, folder, at_once=2)


def rust_cluster(_servers, prepared, folder, list_file):
    return redis_rs.outcomes(prepared["redis-rs"], redis_rs.CLUSTER, BIN_DIR, list_file, folder, at_once=1)


# The longest first.
SUITES = {
    "redis-py-cluster": cluster,
    "redis-rs-cluster": rust_cluster,
    "redis-py-node-async": node_async,
    "redis-py-node": node,
    "redis-rs-node": rust_node,
    "redis-py-sentinel": sentinel,
}


def list_of(name):
    return HERE / "lists" / f"{name}.txt"


def run_inside(name, folder):
    """In the namespaces: runs a suite and leaves the outcomes in the folder."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    prepared = json.loads((folder.parent / "prepared.json").read_text())
    servers = systems.Systems(BIN_DIR, folder / "servers")
    results = SUITES[name](servers, prepared, folder, list_of(name))
    (folder / "results.json").write_text(json.dumps(results, indent=1))


def run_outside(name, folder):
    """Runs a suite in namespaces of its own; the verdict and the seconds that it took."""
    (folder / name).mkdir()
    start = time.monotonic()
    command = [*NAMESPACES, sys.executable, HERE / "run.py", "--inside", "--keep", folder / name, name]
    with open(folder / name / "log", "wb") as log:
        limited = ["timeout", "--kill-after", "10", str(SUITE_SECONDS), *command]
        done = subprocess.run(limited, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    results = folder / name / "results.json"
    if done.returncode != 0 or not results.exists():
        verdict = listing.Verdict()
        said = (folder / name / "log").read_text(errors="replace")[-3000:]
        verdict.problems.append(f"{name} ended with {done.returncode}: {said}")
    else:
        entries = listing.parse(list_of(name).read_text())
        verdict = listing.judge(entries, json.loads(results.read_text()))
    return verdict, time.monotonic() - start


def prepare(names):
    TARGET.mkdir(parents=True, exist_ok=True)
    prepared = {}
    if any(name.startswith("redis-py") for name in names):
        prepared["redis-py"] = [str(path) for path in redis_py.prepare(TARGET, REDIS_PY)]
    if any(name.startswith("redis-rs") for name in names):
        prepared["redis-rs"] = redis_rs.prepare(TARGET)
    return prepared


def can_isolate():
    return os.geteuid() == 0 and subprocess.run([*NAMESPACES, "true"], capture_output=True).returncode == 0


def test_the_lists():
    tests = unittest.defaultTestLoader.discover(str(HERE))
    return unittest.TextTestRunner(verbosity=1).run(tests).wasSuccessful()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--keep", type=pathlib.Path, help="leave logs and outcomes in this folder")
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *SUITES])
    options = parser.parse_args()
    names = options.names or list(SUITES)
    if options.inside:
        return run_inside(names[0], options.keep.absolute())
    if not can_isolate():
        print("THE SUITES OF CLIENT LIBRARIES ARE NOT RUN: they keep fixed ports, and this user has no namespaces")
        print(f"0 passed, 0 failed, {len(names)} skipped")
        return 0
    passed, left_out, problems = 0, 0, []
    if not test_the_lists():
        problems.append("the tests of the lists fail")
    folder = options.keep or pathlib.Path(systems.temporary_folder())
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prepared.json").write_text(json.dumps(prepare(names)))
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        running = {pool.submit(run_outside, name, folder): name for name in names}
        for done in concurrent.futures.as_completed(running):
            verdict, seconds = done.result()
            passed, left_out = passed + verdict.passed, left_out + verdict.left_out
            problems += [f"{running[done]}: {problem}" for problem in verdict.problems]
            print(
                f"{running[done]}: {verdict.passed} passed, {len(verdict.problems)} failed, "
                f"{verdict.left_out} left out, in {seconds:.0f} s",
                flush=True,
            )
    for problem in problems:
        print(f"FAILED: {problem}")
    if not options.keep:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{passed} passed, {len(problems)} failed, {left_out} skipped", flush=True)
    return 0 if not problems and passed else 1


if __name__ == "__main__":
    sys.exit(main())

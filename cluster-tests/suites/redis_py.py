"""redis-py's own tests, from the source distribution of the version that `local/test.sh` installs."""

import json
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
# Fixed, as is redis-py itself, so that a new one does not break a run.
PACKAGES = ["pytest==9.2.0", "pytest-asyncio==1.5.0", "pytest-timeout==2.4.0", "packaging", "PyJWT>=2.13.0", "numpy"]
# A test that takes longer has failed.
TEST_SECONDS = 30

# Tests that talk to a server. The others look at the library alone, or need modules, TLS or other servers.
SYNC = """client commands connection connection_pool pipeline pubsub lock encoding cache hash keyspace_notifications monitor
    multiprocessing retry scripting function command_parser command_policies legacy_responses_arg
    max_connections_error""".split()
ASYNC = """client commands connection connection_pool pipeline pubsub lock encoding hash keyspace_notifications monitor
    retry scripting command_parser command_policies cwe_404 usage_counter""".split()
CLUSTER = "cluster cluster_transaction pipeline pubsub keyspace_notifications command_policies cache".split()


def in_folder(names, folder):
    return [f"tests/{folder}test_{name}.py" for name in names]


def node_files():
    return in_folder(SYNC, "")


def async_files():
    return in_folder(ASYNC, "test_asyncio/")


def cluster_files():
    return in_folder(CLUSTER, "")


def sentinel_files():
    return ["tests/test_sentinel.py", "tests/test_asyncio/test_sentinel.py"]


def prepare(target, version):
    """Fetches what is needed; the folder with the source, and the Python to run it with."""
    environment = target / "venv"
    python = environment / "bin" / "python"
    wanted = "\n".join([version, *PACKAGES])
    stamp = environment / "installed"
    if not stamp.exists() or stamp.read_text() != wanted:
        run([sys.executable, "-m", "venv", "--clear", environment])
        pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        run([*pip, "install", *PACKAGES])
        run([*pip, "download", "--no-deps", "--no-binary", ":all:", "--dest", target, f"redis=={version}"])
        run(["tar", "-xzf", target / f"redis-{version}.tar.gz", "-C", target])
        stamp.write_text(wanted)
    return target / f"redis-{version}", python


def run(command):
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def outcomes(source, python, files, port, list_file, folder, options=()):
    """Runs these files against the servers on `port`; what became of each test, by its name."""
    results = folder / "outcomes.json"
    environment = {
        **os.environ,
        "PYTHONPATH": str(HERE),
        "KEYWARD_LIST": str(list_file),
        "KEYWARD_OUTCOMES": str(results),
    }
    # Long tracebacks of these long files take most of the time; the last line says enough.
    flags = ["-q", "-p", "pytest_outcomes", "-p", "no:cacheprovider", "-o", "addopts=", "-o", "capture=fd", "--tb=line"]
    flags += ["--disable-warnings", "--timeout", str(TEST_SECONDS), "--redis-url", f"redis://localhost:{port}/0"]
    with open(folder / "pytest.log", "wb") as log:
        done = subprocess.run(
            [python, "-m", "pytest", *flags, *options, *files],
            cwd=source,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    # All passed, or some failed.
    if done.returncode not in (0, 1) or not results.exists():
        raise RuntimeError(f"pytest ended with {done.returncode}: {(folder / 'pytest.log').read_text()[-2000:]}")
    return json.loads(results.read_text())

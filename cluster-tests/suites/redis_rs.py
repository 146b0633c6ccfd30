"""redis-rs' own tests, from the source of the crate `redis` on crates.io.

They start a server for each test: the program in REDISRS_SERVER_BIN, and for a cluster several, which `redis-cli`
joins. What stands for the two is in `bin/`.
"""

import concurrent.futures
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess

import listing

HERE = pathlib.Path(__file__).resolve().parent
NODE = ["test_basic", "test_async"]
CLUSTER = ["test_cluster", "test_cluster_async", "test_cache"]
TEST_SECONDS = 40

# Where the tests are for a later version of `redis-test` than the one that is published, or for one server only.
PATCHES = [
    # Every node has 16 databases here.
    (r"\n *cluster_databases: Some\(16\),", ""),
]


def prepare(target):
    """Builds the tests; paths of the programs by their names."""
    package = target / "redis-rs"
    shutil.rmtree(package / "tests", ignore_errors=True)
    shutil.copytree(HERE / "redis-rs", package, dirs_exist_ok=True)
    (package / "lib.rs").write_text("")
    tests = package / "tests"
    tests.mkdir()
    # Without the files Cargo would refuse the manifest.
    for name in NODE + CLUSTER:
        (tests / f"{name}.rs").write_text("")
    cargo = ["cargo", "metadata", "--locked", "--format-version", "1", "--manifest-path", package / "Cargo.toml"]
    metadata = json.loads(subprocess.run(cargo, check=True, stdout=subprocess.PIPE).stdout)
    manifest = next(p["manifest_path"] for p in metadata["packages"] if p["name"] == "redis")
    shutil.copytree(pathlib.Path(manifest).parent / "tests", tests, dirs_exist_ok=True)
    for file in tests.glob("*.rs"):
        text = file.read_text()
        for pattern, replacement in PATCHES:
            text = re.sub(pattern, replacement, text)
        file.write_text(text)
    build = ["cargo", "test", "--locked", "--no-run", "--message-format", "json", "--quiet"]
    environment = {**os.environ, "CARGO_TARGET_DIR": str(target / "build"), "RUSTFLAGS": "--cap-lints allow"}
    done = subprocess.run(
        [*build, "--manifest-path", package / "Cargo.toml"], check=True, stdout=subprocess.PIPE, env=environment
    )
    artifacts = [json.loads(line) for line in done.stdout.splitlines() if line.startswith(b"{")]
    return {a["target"]["name"]: a["executable"] for a in artifacts if a.get("executable")}


def outcomes(programs, names, bin_dir, list_file, folder, at_once):
    """Runs these programs; what became of each test, by its name."""
    not_run = [e for e in listing.parse(list_file.read_text()) if e.kind == "not run"]
    results, left = {}, []
    for name in names:
        tests = subprocess.run([programs[name], "--list", "--format", "terse"], check=True, stdout=subprocess.PIPE)
        for line in tests.stdout.decode().splitlines():
            if line.endswith(": test"):
                test = line.removesuffix(": test")
                if any(e.matches(f"{name}::{test}") for e in not_run):
                    results[f"{name}::{test}"] = "not run"
                else:
                    left.append((name, test))
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        running = {
            f"{name}::{test}": pool.submit(outcome, programs[name], test, bin_dir, folder / f"{number}")
            for number, (name, test) in enumerate(left)
        }
        return results | {name: run.result() for name, run in running.items()}


def outcome(program, test, bin_dir, folder):
    """Runs one test, in a process of its own: what a test leaves behind when it fails makes the next one fail."""
    folder.mkdir()
    environment = {
        **os.environ,
        "PATH": f"{HERE / 'bin'}:{os.environ['PATH']}",
        "REDISRS_SERVER_BIN": str(HERE / "bin" / "redis-server"),
        "REDISRS_SERVER_TYPE": "tcp",
        "PROTOCOL": "RESP3",
        "KEYWARD_BIN_DIR": str(bin_dir),
        "KEYWARD_SUITE_DIR": str(folder),
        "RUST_BACKTRACE": "0",
    }
    with open(folder / "log", "wb") as log:
        running = subprocess.Popen(
            [program, "--exact", test],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            running.wait(TEST_SECONDS)
        except subprocess.TimeoutExpired:
            return f"it did not end within {TEST_SECONDS} seconds"
        finally:
            # Its servers, too, if there are any left.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
            running.wait()
    said = (folder / "log").read_text(errors="replace")
    ending = re.search(r"^test result: .* (\d+) passed; (\d+) failed; (\d+) ignored", said, re.MULTILINE)
    if ending and ending[1] == "1":
        shutil.rmtree(folder)
        return "passed"
    if ending and ending[3] == "1":
        return "skipped"
    telling = [line for line in said.splitlines() if re.search(r"panicked|[Ee]rror|left:|right:", line)]
    return " / ".join(telling)[:400] or f"it ended with {running.returncode}"

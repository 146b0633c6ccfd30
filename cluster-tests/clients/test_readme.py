"""Runs the README's examples and compares what they print with what the README says."""

import contextlib
import io
import os
import subprocess
import unittest

import redis

import readme
import servers


def empty(client):
    client.flushall()


class PythonExamples(unittest.TestCase):
    """The block that connects, then each block under "Use it"."""

    def run_all(self, mode, port, sentinel_port=None):
        names = {}
        examples = readme.examples("python", mode) + readme.examples("python", "any")
        self.assertGreater(len(examples), 5)
        for index, example in enumerate(examples):
            with self.subTest(f"README.md line {example.line}"):
                printed = io.StringIO()
                with contextlib.redirect_stdout(printed):
                    exec(readme.on_ports(example.text, port, sentinel_port), names)
                self.assertEqual(printed.getvalue().splitlines(), example.expected_output())
            if index == 0:
                empty(names["r"])
        names["r"].close()

    def test_node(self):
        self.run_all("node", servers.lone_node().port)

    def test_cluster(self):
        self.run_all("cluster", servers.cluster().port)

    def test_sentinel(self):
        self.run_all("sentinel", servers.replicated().port, servers.replicated().sentinel_port)


class ConsoleExamples(unittest.TestCase):
    """redis-cli as a person sees it: with types, as on a terminal."""

    def run_all(self, mode, port, sentinel_port=None):
        examples = readme.examples("console", mode)
        self.assertTrue(examples)
        for example in examples:
            script = ["redis-cli() { command redis-cli --no-raw \"$@\"; }"]
            expected = []
            for command, output in example.steps():
                script.append(readme.on_ports(command, port, sentinel_port))
                expected += output
            with self.subTest(f"README.md line {example.line}"):
                done = subprocess.run(
                    ["bash", "-eu"],
                    input="\n".join(script),
                    env={k: v for k, v in os.environ.items() if not k.startswith("REDISCLI_")},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    timeout=60,
                )
                # redis-cli says where it was redirected, which depends on who is primary.
                lines = [line for line in done.stdout.splitlines() if not line.startswith("-> Redirected")]
                self.assertEqual(lines, expected)
                self.assertEqual(done.returncode, 0)

    def test_node(self):
        self.run_all("node", servers.lone_node().port)

    def test_cluster(self):
        self.run_all("cluster", servers.cluster().port)

    def test_sentinel(self):
        self.run_all("sentinel", servers.replicated().port, servers.replicated().sentinel_port)


class ConfigurationTable(unittest.TestCase):
    def test_names_defaults_and_what_is_live(self):
        port = servers.lone_node().port
        r = redis.Redis(servers.HOST, port, decode_responses=True)
        self.addCleanup(r.close)
        rows = readme.directives()
        self.assertGreater(len(rows), 30)
        for name, default, live in rows:
            with self.subTest(name):
                value = r.config_get(name)[name]
                if name in ("port", "dir"):
                    continue
                if name == "save":
                    # The node under test saves nothing.
                    value = default
                if default.endswith("..."):
                    self.assertEqual(value[: len(default) - 3] + "...", default)
                else:
                    self.assertEqual(value, default)
                if live:
                    self.assertTrue(r.config_set(name, value))
                else:
                    with self.assertRaisesRegex(redis.exceptions.ResponseError, "can't set (immutable|protected) config"):
                        r.config_set(name, value)


class MissingCommands(unittest.TestCase):
    """What Valkey has and Keyward has not is listed, command by command: no more and no less."""

    def test_the_list_is_complete_and_true(self):
        with contextlib.closing(redis.Redis(servers.HOST, servers.lone_node().port, decode_responses=True)) as r:
            ours = set(r.execute_command("COMMAND LIST"))
        theirs = readme.valkey_commands()
        self.assertGreater(len(theirs), 350)
        lacking = {name for name in theirs if name not in ours}
        # A container that is lacking stands for its subcommands.
        lacking -= {name for name in lacking if name.split("|")[0] in lacking and "|" in name}
        listed = readme.missing_commands()
        self.assertEqual(sorted(listed), sorted(lacking))
        self.assertEqual(sorted(ours - set(theirs)), sorted(readme.added_commands()))

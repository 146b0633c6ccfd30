"""The manual: every command in it is run, by real helm and kubectl on a stand-in for a cluster, and its reference is true."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import unittest

import yaml

import chart
import figures
import kubernetes
import manual
import pods
import reference

# What is tested has two cores, and is to be quick.
QUICK = {"minReadySeconds": 0, "config": {"io-threads": 1}}
LIMIT = 180
BY_HELM_3 = {"upgrading", "durability"}
leave = None


def setUpModule():
    global leave
    leave = pods.enter_own_network()


def tearDownModule():
    leave()


class Pages(unittest.TestCase):
    """Each page with commands, from top to bottom."""

    def run_page(self, name):
        cluster = kubernetes.Kubernetes()
        self.addCleanup(cluster.close)
        if name == "migration":
            self.start_old_server(cluster.cluster)
        with tempfile.TemporaryDirectory(prefix="keyward-manual-") as work:
            folder = pathlib.Path(work)
            for each in ("helm", "local", "README.md"):
                (folder / each).symlink_to(chart.REPOSITORY / each)
            quick = cluster.cluster.folder / "quick.json"
            quick.write_text(json.dumps(QUICK))
            script, expected = manual.script(manual.FOLDER / f"{name}.md", folder)
            # Files of Secrets are there at once, of which a page may have to wait for minutes.
            environment = cluster.environment() | {"CHART_VALUES": str(quick), "HOSTS": str(cluster.cluster.hosts), "PAUSE": "2"}
            environment["HELM"] = "helm3" if name in BY_HELM_3 else "helm4"
            environment["PATH"] = f"{chart.REPOSITORY}/.venv/bin:{environment['PATH']}"
            printed = self.session(script, environment, folder)
        outputs = [part.splitlines() for part in printed.split(f"{manual.MARK}\n")[1:]]
        for (line, command, lines), output in zip(expected, outputs):
            if lines is not None:
                with self.subTest(f"{name}.md line {line}"):
                    self.assertTrue(manual.fits(output, lines), f"$ {command}\n" + "\n".join(output))
        self.assertEqual(len(outputs), len(expected), printed[-3000:])
        self.assertFalse(cluster.errors, "".join(cluster.errors))
        self.assertEqual(cluster.cluster.told, [])

    def start_old_server(self, cluster):
        """A Redis, if there is one, with keys that somebody wants to have elsewhere."""
        host, port = "10.77.0.1", 6379
        program = shutil.which("redis-server") or pods.BIN_DIR / "keyward-node"
        folder = cluster.folder / "old"
        folder.mkdir()
        old = subprocess.Popen([program, "--port", str(port), "--bind", host, "--protected-mode", "no", "--dir", folder], stdout=subprocess.DEVNULL)
        self.addCleanup(lambda: (old.kill(), old.wait()))
        fill = [("SET", "greeting", "hello"), ("HSET", "user:1", "name", "Ada"), ("ZADD", "scores", 7, "ada")]

        def filled():
            try:
                return [pods.ask(host, port, *words) for words in fill]
            except OSError:
                return None

        pods.wait_until(filled, 20, "the old server answers")
        cluster.elsewhere["old.example.org"] = host

    def session(self, script, environment, folder):
        """What a shell prints, with names as the cluster knows them; it ends with the first command that fails."""
        inside = 'mount --bind "$HOSTS" /etc/hosts; set -eu; exec 2>&1; . "$1"'
        (folder / "session").write_text(script)
        words = ["unshare", "--mount", "bash", "-c", inside, "sh", folder / "session"]
        # Into a file, as what the page leaves in the background would keep a pipe open.
        with open(folder / "printed", "w+b") as printed:
            shell = subprocess.Popen(words, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=printed, start_new_session=True)
            try:
                code = shell.wait(LIMIT)
            except subprocess.TimeoutExpired:
                code = f"not within {LIMIT} s"
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(shell.pid, signal.SIGKILL)
            printed.seek(0)
            text = printed.read().decode()
        self.assertEqual(code, 0, text[-3000:])
        return text


def page_test(name):
    return lambda self: self.run_page(name)


for path in manual.pages():
    if any(block.language in ("sh", "console") for block in manual.blocks(path)):
        setattr(Pages, f"test_{path.stem}", page_test(path.stem))


class Reference(unittest.TestCase):
    def test_all_settings_are_there_as_they_are(self):
        chart.kept(self, manual.FOLDER / "configuration.md", reference.text())


class Links(unittest.TestCase):
    def anchors(self, text):
        """As forges make them of headlines."""
        heads = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}

    def test_they_lead_somewhere(self):
        for path in [*manual.pages(), chart.REPOSITORY / "helm" / "README.md"]:
            for target in re.findall(r"\]\(([^)]+)\)", path.read_text()):
                if target.startswith("http"):
                    continue
                with self.subTest(page=path.name, target=target):
                    file, _, anchor = target.partition("#")
                    found = (path.parent / file).resolve() if file else path
                    self.assertTrue(found.exists())
                    if anchor:
                        self.assertIn(anchor, self.anchors(found.read_text()))

    def test_every_page_is_in_the_list(self):
        listed = re.findall(r"\]\((\w+\.md)\)", (manual.FOLDER / "README.md").read_text())
        self.assertEqual(sorted(listed), [path.name for path in manual.pages() if path.name != "README.md"])


class Migration(unittest.TestCase):
    def test_values_that_the_table_names_are_there(self):
        text = (manual.FOLDER / "migration.md").read_text()
        values = yaml.safe_load((chart.CHART / "values.yaml").read_text())
        rows = re.findall(r"^\| .* \| .* \| (.*) \|$", text.split("## Values of other charts")[1], re.MULTILINE)
        self.assertGreater(len(rows), 20)
        named = [name for row in rows[1:] for name in re.findall(r"`([a-zA-Z.]+)[^`]*`", row) if name not in ("yes", "no", "optional", "shards", "default")]
        self.assertGreater(len(named), 20)
        for name in named:
            with self.subTest(name):
                place = values
                for word in name.removesuffix(".").split("."):
                    self.assertIn(word, place)
                    place = place[word]


class Figures(unittest.TestCase):
    def test_nothing_was_lost_of_any_event_and_each_is_one_of_a_test(self):
        tests = "".join((chart.TESTS / name).read_text() for name in ("test_drills.py", "test_pods.py"))
        rows = figures.rows()
        self.assertGreater(len(rows), 10)
        for event, line in rows.items():
            self.assertEqual(line.split("|")[3].strip(), "0")
            self.assertIn(f'"{event}"', tests)

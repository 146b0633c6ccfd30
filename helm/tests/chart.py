"""The chart as helm renders it: the sets of values that the tests share, and the objects that come out."""

import functools
import json
import pathlib
import subprocess

import yaml

import api

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
CHART = REPOSITORY / "helm" / "keyward"
TESTS = REPOSITORY / "helm" / "tests"
TOOLS = REPOSITORY / ".chart-tools"
HELMS = {"helm 3": TOOLS / "helm3", "helm 4": TOOLS / "helm4"}
RELEASE = "kw"
NAMESPACE = "shop"
# The flag of run.py.
UPDATE = False

# libyaml reads ten times as fast, where PyYAML has it.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Refused(Exception):
    """What helm said instead of rendering."""


def sets():
    """Names of the value sets in values/."""
    return sorted(path.stem for path in (TESTS / "values").glob("*.yaml"))


def values_of(name):
    return load((TESTS / "values" / f"{name}.yaml").read_text())[0]


def load(text):
    return [document for document in yaml.load_all(text, LOADER) if document]


def template(values, *flags, helm="helm 4", environment=None):
    """The text that `helm template` prints for these values."""
    command = [HELMS[helm], "template", RELEASE, CHART, "--namespace", NAMESPACE, "--values", "-"]
    # Each helm takes another version for that of an API that it does not ask; of flags the last one counts.
    command += ["--kube-version", "1.37.0", *flags]
    done = subprocess.run(
        command, input=json.dumps(values), capture_output=True, text=True, timeout=60, env=environment
    )
    if done.returncode != 0:
        raise Refused(done.stderr.strip())
    return done.stdout


def render(values, *flags, **more):
    return load(template(values, *flags, **more))


def asked(before, values, helm, openshift=False):
    """What helm would install over these objects, with all that it says."""
    with api.serving(before, openshift) as (flags, environment):
        command = [HELMS[helm], "install", RELEASE, CHART, "-n", NAMESPACE, "-f", "-", "-o", "json", *flags]
        done = subprocess.run(command, input=json.dumps(values), capture_output=True, text=True, env=environment, timeout=60)
    if done.returncode != 0:
        raise Refused(done.stderr)
    return json.loads(done.stdout)


def upgraded(before, values, helm="helm 4", openshift=False):
    """The objects of a release that follows the one with these objects, without those of tests."""
    return load(asked(before, values, helm, openshift)["manifest"])


@functools.cache
def rendered(name):
    """The objects of a value set; nobody changes them."""
    return render(values_of(name))


def every_set():
    for name in sets():
        yield name, rendered(name)


def of_kind(objects, *kinds):
    return [each for each in objects if each["kind"] in kinds]


def named(objects, kind, name):
    return next(each for each in objects if each["kind"] == kind and each["metadata"]["name"] == name)


def pods(objects):
    """(Name, labels, spec) of what becomes pods."""
    for each in of_kind(objects, "StatefulSet"):
        template = each["spec"]["template"]
        yield each["metadata"]["name"], template["metadata"]["labels"], template["spec"]
    for each in of_kind(objects, "CronJob"):
        template = each["spec"]["jobTemplate"]["spec"]["template"]
        yield each["metadata"]["name"], template["metadata"]["labels"], template["spec"]
    for each in of_kind(objects, "Pod"):
        yield each["metadata"]["name"], each["metadata"]["labels"], each["spec"]


def kept(test, path, text):
    """A file that is rendered from the chart is as it was, or is written anew with --update."""
    if UPDATE:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    before = path.read_text() if path.exists() else ""
    test.maxDiff = 20_000
    test.assertEqual(text.splitlines(), before.splitlines(), f"{path.name}: look at it with run.py --update and git diff")

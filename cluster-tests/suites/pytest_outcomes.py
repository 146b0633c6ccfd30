"""A plugin for pytest: leaves out what the list does not want to be run, and writes down what became of each test.

KEYWARD_LIST names the list, KEYWARD_OUTCOMES the file for the outcomes, as JSON.
"""

import json
import os
import pathlib

import listing

outcomes = {}


def short(nodeid):
    return nodeid.removeprefix("tests/")


def pytest_collection_modifyitems(config, items):
    entries = listing.parse(pathlib.Path(os.environ["KEYWARD_LIST"]).read_text())
    not_run = [entry for entry in entries if entry.kind == "not run"]
    left = []
    for item in items:
        name = short(item.nodeid)
        if any(entry.matches(name) for entry in not_run):
            outcomes[name] = "not run"
        else:
            left.append(item)
    config.hook.pytest_deselected(items=[item for item in items if short(item.nodeid) in outcomes])
    items[:] = left


def pytest_runtest_logreport(report):
    name = short(report.nodeid)
    if report.failed:
        outcomes.setdefault(name, "failed")
        lines = [line for line in report.longreprtext.splitlines() if line.strip()]
        if outcomes[name] in ("passed", "failed", "skipped"):
            outcomes[name] = f"{report.when}: {lines[-1] if lines else 'no reason given'}"
    elif report.skipped:
        # What is expected to fail, says the suite itself, counts as skipped.
        outcomes.setdefault(name, "skipped")
    elif report.when == "call":
        outcomes.setdefault(name, "passed")


def pytest_sessionfinish():
    pathlib.Path(os.environ["KEYWARD_OUTCOMES"]).write_text(json.dumps(outcomes))

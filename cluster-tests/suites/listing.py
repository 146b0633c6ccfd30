"""The lists of tests that are left out, and what they say about the outcome of a run.

A list has headings and, under each, patterns with `*` and `?`, one a line:

    [fails] streams are not there yet
    test_commands.py::TestRedisCommands::test_x*

    [not run] waits for ever without MONITOR
    test_monitor.py::*

A test under `fails` is run and must fail; one that passes has to leave the list. A test under `not run` is not run.
Every pattern must match a test, so that no line outlives what it was for.
"""

import dataclasses
import fnmatch

KINDS = ("fails", "not run")


@dataclasses.dataclass(frozen=True)
class Entry:
    kind: str
    reason: str
    pattern: str

    def matches(self, name):
        # Names have brackets, which are no sets of characters here.
        return fnmatch.fnmatchcase(name, self.pattern.replace("[", "[[]"))


def parse(text):
    entries, kind, reason = [], None, ""
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            kind, _, reason = line[1:].partition("]")
            reason = reason.strip()
            if kind not in KINDS or not reason:
                raise ValueError(f"line {number}: a heading is [fails] or [not run] and a reason")
        elif kind is None:
            raise ValueError(f"line {number}: no heading says why")
        else:
            entries.append(Entry(kind, reason, line))
    return entries


@dataclasses.dataclass
class Verdict:
    passed: int = 0
    left_out: int = 0
    problems: list = dataclasses.field(default_factory=list)


def judge(entries, outcomes):
    """What a run says. `outcomes` maps names to `passed`, `skipped` (by the suite itself), `not run`, or why it failed."""
    verdict = Verdict()
    used = set()
    for name, outcome in sorted(outcomes.items()):
        found = [entry for entry in entries if entry.matches(name)]
        used.update(found)
        if outcome == "passed":
            verdict.passed += 1
            verdict.problems += [f"{name} passes, but the list says: {e.reason} ({e.pattern})" for e in found]
        elif outcome in ("skipped", "not run") or found:
            verdict.left_out += 1
        else:
            verdict.problems.append(f"{name} fails: {outcome}")
    unused = [entry for entry in entries if entry not in used]
    verdict.problems += [f"the list's {e.pattern} matches no test that was looked at ({e.reason})" for e in unused]
    return verdict

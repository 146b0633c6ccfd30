"""Runs the tests of this folder and prints the counts; local/test.sh chart does.

usage: run.py [--update] [NAME ...]      all, or those such as test_manifests or test_values.Values

--update writes the files that are rendered from the chart anew (snapshots, helm/kustomize, copies), and the figures of the
manual, for a look at the difference.
"""

import pathlib
import signal
import sys
import unittest

import chart
import figures


def main():
    # A time limit's SIGTERM must still end the pods, which happens at exit.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    names = sys.argv[1:]
    chart.UPDATE = "--update" in names
    names = [name for name in names if name != "--update"]
    loader = unittest.defaultTestLoader
    tests = loader.loadTestsFromNames(names) if names else loader.discover(str(pathlib.Path(__file__).parent))
    result = unittest.TextTestRunner(verbosity=2).run(tests)
    if chart.UPDATE:
        figures.write()
    broken = {str(getattr(test, "test_case", test)) for test, _ in result.failures + result.errors}
    failed = len(broken) + len(result.unexpectedSuccesses)
    skipped = len(result.skipped)
    print(f"{max(0, result.testsRun - failed - skipped)} passed, {failed} failed, {skipped} skipped", flush=True)
    sys.exit(0 if failed == 0 and 0 < result.testsRun else 1)


if __name__ == "__main__":
    main()

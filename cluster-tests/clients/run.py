"""Runs the tests of this folder with real clients and prints the counts.

usage: run.py [NAME ...]      all, or those such as test_node or test_node.Node.test_hashes
"""

import pathlib
import signal
import sys
import unittest


def main():
    # A time limit's SIGTERM must still end the servers, which happens at exit.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    folder = str(pathlib.Path(__file__).parent)
    sys.path.insert(0, folder)
    loader = unittest.defaultTestLoader
    names = sys.argv[1:]
    tests = loader.loadTestsFromNames(names) if names else loader.discover(folder)
    result = unittest.TextTestRunner(verbosity=2).run(tests)
    broken = {str(getattr(test, "test_case", test)) for test, _ in result.failures + result.errors}
    failed = len(broken) + len(result.unexpectedSuccesses)
    skipped = len(result.skipped)
    print(f"{result.testsRun - failed - skipped} passed, {failed} failed, {skipped} skipped", flush=True)
    sys.exit(0 if failed == 0 and 0 < result.testsRun else 1)


if __name__ == "__main__":
    main()

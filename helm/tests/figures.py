"""What the tests measure, as a table in the manual: a row for each event that is rehearsed.

With run.py --update the rows of what has run are written anew; without, each event has to have its row.
"""

import chart
import load

PAGE = chart.REPOSITORY / "helm" / "manual" / "drills.md"
HEAD = ["| Event | Acknowledged writes | Lost | A client with Sentinel support | A client of the one address | |", "|---|---|---|---|---|---|"]
measured = {}


def rows():
    """The table in the manual, as {event: line}."""
    lines = PAGE.read_text().splitlines()
    start = lines.index(HEAD[0]) + len(HEAD)
    table = {}
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        table[line.split("|")[1].strip()] = line
    return table


def record(test, event, writers, note=""):
    """Nothing that was acknowledged is lost; and what clients saw is reported: of one with Sentinel support, if there is
    one, and of one of the address for all."""
    for writer in writers:
        test.assertEqual(writer.lost(), [])
    count = sum(len(writer.acknowledged) for writer in writers)
    seen = [""] * (2 - len(writers)) + [writer.seen() for writer in writers]
    measured[event] = f"| {' | '.join([event, str(count), '0', *seen, note])} |"
    load.report(measured[event])
    if not chart.UPDATE:
        test.assertIn(event, rows(), "KEYWARD_LONG_DRILLS=1 run.py --update test_drills test_pods writes the manual's table")


def write():
    """The manual's table with what was measured."""
    if not measured:
        return
    old = rows()
    text = PAGE.read_text()
    table = "\n".join([*HEAD, *(old | measured).values()])
    PAGE.write_text(text.replace("\n".join([*HEAD, *old.values()]), table))

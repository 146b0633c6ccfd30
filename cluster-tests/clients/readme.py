"""The README's examples: code blocks whose first line names a language and a server, as in "```python cluster".

The server is node, cluster, sentinel, or any. In Python, `print(...)  # text` shows what is printed; in a console
block the lines after "$ command" do.
"""

import pathlib
import re
from dataclasses import dataclass

README = pathlib.Path(__file__).resolve().parents[2] / "README.md"


@dataclass
class Example:
    language: str
    server: str
    text: str
    line: int

    def expected_output(self):
        """What a Python example says that it prints."""
        return re.findall(r"^\s*print\(.*\)  # (.*)$", self.text, re.MULTILINE)

    def steps(self):
        """Commands of a console example, each with its output."""
        steps = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                steps.append((line[2:], []))
            else:
                steps[-1][1].append(line)
        return steps


def examples(language, *servers):
    text = README.read_text()
    found = []
    for match in re.finditer(r"^```(python|console) (\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        line = text.count("\n", 0, match.start()) + 1
        example = Example(match[1], match[2], match[3], line)
        if example.language == language and example.server in servers:
            found.append(example)
    return found


def on_ports(text, port, sentinel_port=None):
    """The text with the ports of the README's servers replaced by a test's."""
    for index in range(3):
        if sentinel_port is not None:
            text = re.sub(rf"\b{26379 + index}\b", str(sentinel_port + index), text)
        text = re.sub(rf"\b{6379 + index}\b", str(port + index), text)
    return text


def valkey_commands():
    """The names of Valkey 9.1's commands and subcommands, as COMMAND LIST has them."""
    return (README.parent / "cluster-tests" / "valkey-9.1-commands.txt").read_text().split()


def missing_commands():
    """The commands that the README says are not there: `NAME` and `CONTAINER NAME`."""
    section = README.read_text().split("\n## What is not there yet\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| [^|]+ \| (`.*) \|$", section, re.MULTILINE)
    return [name.lower().replace(" ", "|") for row in rows for name in re.findall(r"`([^`]+)`", row)]


def added_commands():
    """The commands that the README says are not Valkey's; SET is named there for its options."""
    line = next(line for line in README.read_text().splitlines() if line.startswith("Here, and not in Valkey"))
    names = set(re.findall(r"`([A-Z]+)`", line)) - {"SET", "IFNE", "IFDEQ", "IFDNE", "EXEC"}
    return {name.lower() for name in names}


def directives():
    """Rows of the configuration table: name, default, whether it is live."""
    rows = re.findall(r"^\| `([a-z-]+)` \| (\S.*?) \| (live)? ?\|", README.read_text(), re.MULTILINE)
    return [(name, "" if default == "none" else default.strip("`"), bool(live)) for name, default, live in rows]

"""The manual's reference of all settings: the chart's values by their schema, the nodes' directives by what the program
says of them, the options of the sentinels by their help. test_manual.py keeps it true; run.py --update writes it anew."""

import json
import re
import socket
import subprocess
import tempfile

import yaml

import chart
import pods

README = chart.REPOSITORY / "README.md"
HEAD = """# Configuration reference

Written by `helm/tests/run.py --update test_manual`, from the chart's `values.yaml` and `values.schema.json`, from what `keyward-node` says of its directives, and from the README's table.

- [Values of the chart](#values-of-the-chart)
- [Directives of the nodes](#directives-of-the-nodes)
- [Options of the sentinels](#options-of-the-sentinels)
"""


def cell(text):
    return " ".join(str(text).replace("|", "\\|").split())


def code(text):
    return f"`{text}`" if text != "" else ""


# --- The chart


def shown(value):
    """A default as it is in values.yaml, on one line."""
    return json.dumps(value) if isinstance(value, (dict, list)) else yaml.safe_dump(value, default_flow_style=True).split("\n")[0]


def allowed(schema):
    """What a value may be, in words."""
    if "enum" in schema:
        # Once as a word, if also as a boolean.
        return ", ".join(code(value) for value in dict.fromkeys(str(value).lower() if isinstance(value, bool) else value for value in schema["enum"]))
    kinds = schema.get("type", "")
    words = " or ".join(kinds if isinstance(kinds, list) else [kinds])
    low, high = schema.get("minimum", schema.get("exclusiveMinimum")), schema.get("maximum")
    if low is not None and high is not None:
        return f"{words}, {low} to {high}"
    if low is not None:
        return f"{words}, {low} at least"
    return words or "any"


def values_rows(schema, values, path=""):
    for name, value in values.items():
        here, own = f"{path}{name}", schema["properties"][name]
        if isinstance(value, dict) and value and "properties" in own:
            yield from values_rows(own, value, f"{here}.")
        else:
            yield f"| `{here}` | {code(cell(shown(value)))} | {cell(allowed(own))} | {cell(own['description'])} |"


def of_chart():
    values = yaml.safe_load((chart.CHART / "values.yaml").read_text())
    schema = json.loads((chart.CHART / "values.schema.json").read_text())
    return ["| Value | Default | | Meaning |", "|---|---|---|---|", *values_rows(schema, values)]


# --- The nodes


def directives():
    """All directives that a node knows, with their defaults, by CONFIG GET."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        command = [pods.BIN_DIR / "keyward-node", "--port", str(port), "--bind", "127.0.0.1", "--dir", folder]
        node = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            def asked():
                try:
                    return pods.ask("127.0.0.1", port, "CONFIG", "GET", "*")
                except (OSError, pods.Reply):
                    return None

            words = pods.wait_until(asked, 20, "a node answers")
        finally:
            node.kill()
            node.wait()
    return dict(zip(words[::2], words[1::2]))


def limits(names):
    """What each directive takes: what the program answers to what it cannot be, all at once."""
    found = {}
    names = sorted(names)
    for nonsense in ("no such value", "9223372036854775807", "-9223372036854775808"):
        # Some at a time: of very many faults a node does not tell all.
        for at in range(0, len(names), 20):
            conf = "".join(f'{name} "{nonsense}"\n' for name in names[at : at + 20])
            done = subprocess.run([pods.BIN_DIR / "keyward-node", "-"], input=conf, capture_output=True, text=True, timeout=30)
            for name, said in re.findall(r">>> '([a-z0-9-]+) .*'\n(.*)", done.stdout + done.stderr):
                found.setdefault(name, []).append(said)
    return {name: in_words(said) for name, said in found.items()}


def in_words(said):
    for line in said:
        if match := re.match(r"argument(?:\(s\))? must be one of the following: (.*)", line):
            return ", ".join(code(word) for word in match[1].split(", "))
        if line == "argument must be 'yes' or 'no'":
            return "`yes`, `no`"
        if match := re.match(r"argument must be between (.*) and (.*) inclusive", line):
            return f"{match[1]} at least" if 2**62 < int(match[2]) else f"{match[1]} to {match[2]}"
        if "memory value" in line:
            return "bytes, such as `64mb`"
    return ""


def readme_rows():
    """The README's rows of directives: (tokens of the first cell, default, live, meaning)."""
    for line in README.read_text().splitlines():
        match = re.match(r"^\| ((?:`[a-z0-9.-]+`(?: \(`[a-z-]+`\))?(?:, )?)+) \| (.*?) \| (live)? ?\| (.*) \|$", line)
        if match:
            yield re.findall(r"`([a-z0-9.-]+)`", match[1]), match[2], bool(match[3]), match[4]


def names_of(tokens, names):
    """The directives that a row's first cell means: `-value` goes on with the beginning of the one before."""
    first = tokens[0]
    for token in tokens:
        if token.endswith("..."):
            yield from (name for name in names if name.startswith(token.removesuffix("...")))
        elif token.startswith("-"):
            cuts = [first[:at] for at, letter in enumerate(first) if letter == "-"] + [first]
            yield next(cut + token for cut in reversed(cuts) if cut + token in names)
        elif token in names:
            yield token


def of_nodes():
    names = directives()
    takes = limits(names)
    meaning = {}
    for tokens, default, live, text in readme_rows():
        for name in names_of(tokens, names):
            # Links lead within the README.
            text = text.replace("](#", "](../../README.md#").replace(", see below", "")
            meaning.setdefault(name, (default, live, text))
    lines = ["| Directive | Default | | | Meaning |", "|---|---|---|---|---|"]
    for name in sorted(meaning):
        default, live, text = meaning[name]
        # What depends on where it was started.
        value = names[name] if name not in ("port", "bind", "dir") else default.strip("`")
        lines.append(f"| `{name}` | {code(cell(value))} | {takes.get(name, '')} | {'live' if live else ''} | {text} |")
    others = re.search(r"^\*\*Without effect\.\*\*.*?(?=^### )", README.read_text(), re.MULTILINE | re.DOTALL)[0].strip()
    return [*lines, "", "*live*: `CONFIG SET` changes it while the node runs. In the chart directives are given as `config`, but for those that the chart sets itself, which it says.", "", others]


# --- The sentinels


def of_sentinels():
    done = subprocess.run([pods.BIN_DIR / "keyward-sentinel", "--help"], capture_output=True, text=True, timeout=30)
    options = done.stdout.split("\nOptions:\n")[1]
    lines = ["| Option | Default | Meaning |", "|---|---|---|"]
    for block in re.split(r"\n(?=      --| +-[a-zA-Z], --)", "\n" + options):
        match = re.match(r"\s*(?:-\w, )?--([a-z-]+)[^\n]*\n(.*)", block, re.DOTALL)
        if match and match[1] not in ("help", "version"):
            default = re.search(r"\[default: (.*?)\]", match[2], re.DOTALL)
            text = re.sub(r"\[default: .*?\]", "", match[2], flags=re.DOTALL)
            lines.append(f"| `{match[1]}` | {code(cell(default[1])) if default else ''} | {cell(text)} |")
    return [*lines, "", "As flags, or one `name value` per line in a file; in the chart as `sentinel.config`."]


def text():
    parts = [HEAD]
    for title, lines in (("Values of the chart", of_chart()), ("Directives of the nodes", of_nodes()), ("Options of the sentinels", of_sentinels())):
        parts.append(f"## {title}\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)

"""The manual's pages as scripts: each is one shell session, from its first block to its last, in a folder of its own.

    ```sh         commands; each has to end with 0
    ```console    "$ command", and below it the lines that it prints; in these `...` stands for whatever there is
    ```python     a file, named by its first line, `# NAME`; it is put into the folder
    ```yaml       the same
"""

import re
from dataclasses import dataclass

import chart

FOLDER = chart.REPOSITORY / "helm" / "manual"
MARK = "@@ manual"


@dataclass
class Block:
    language: str
    text: str
    line: int

    def file_name(self):
        return re.match(r"# (\S+)\n", self.text)[1]

    def steps(self):
        """Commands, each with the lines that it prints; no lines: whatever they are."""
        if self.language == "sh":
            return [(self.text, None)]
        steps = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                steps.append((line[2:], []))
            elif line.startswith("> "):
                steps[-1] = (f"{steps[-1][0]}\n{line[2:]}", [])
            else:
                steps[-1][1].append(line)
        return steps


def pages():
    return sorted(path for path in FOLDER.glob("*.md"))


def blocks(path):
    text = path.read_text()
    for match in re.finditer(r"^```(\w+)?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield Block(match[1] or "", match[2], text.count("\n", 0, match.start()) + 1)


def script(path, folder):
    """Writes the page's files into the folder; the session, and what is expected of each step: (line, command, output)."""
    lines, expected = [], []
    for block in blocks(path):
        if block.language in ("python", "yaml"):
            (folder / block.file_name()).write_text(block.text)
        elif block.language in ("sh", "console"):
            for command, output in block.steps():
                expected.append((block.line, command, output))
                lines += [f"echo '{MARK}'", command]
    return "\n".join(lines), expected


def fits(printed, expected):
    """Whether the lines are those, with `...` for whatever there is."""
    pattern = "\n".join(".*" if line.strip() == "..." else re.escape(line).replace(r"\.\.\.", ".*") for line in expected)
    return re.fullmatch(pattern, "\n".join(printed).rstrip(), re.DOTALL) is not None

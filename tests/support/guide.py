"""The users' guide, taken apart: its snippets, its tables of parameters, and the rest.

The guide is no part of the repository. What there is of it is the plain text of its page, in which
code is not set apart from prose, and has lost its indentation: both are found again here. A line
is code if it parses as Python, by itself or with those that follow. Within brackets indentation
says nothing, so that only whole statements need it back.
"""

from __future__ import annotations

import ast
import builtins
import os
import re
import textwrap
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT = Path(__file__).resolve().parents[2]
#: Where the guide is: as the environment says, or beside the clone.
PATH = Path(
    os.environ.get("POLARS_REDIS_GUIDE") or _ROOT.parent / "shared" / "spec" / "streams-guide.txt"
)
_HEADING_MARK = "¶"
_INDENT = "    "
#: What makes a module of a statement, or of what is only the head or a later part of one.
_FRAMES = ("{}", "{}\n pass", "{}\n pass\nfinally: pass", "try: pass\n{}\n pass")
_FIRST_WORD = re.compile(r"\w*")
#: The rule of a table, between its head and its cells.
_RULE = re.compile(r"\|(?:---\|)+")


@dataclass(frozen=True)
class Snippet:
    """The Python of one section."""

    heading: str
    source: str

    @property
    def tree(self) -> ast.Module:
        """What it says, as Python understands it."""
        return ast.parse(self.source)

    def left_out(self) -> set[str]:
        """Names that it uses, and neither defines nor finds among the builtins."""
        used: set[str] = set()
        known = set(dir(builtins))
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Name):
                (used if isinstance(node.ctx, ast.Load) else known).add(node.id)
            elif isinstance(node, ast.alias):
                known.add(node.asname or node.name)
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ExceptHandler)):
                known.add(node.name or "")
        return used - known


@dataclass
class Section:
    """A heading, and what is below it up to the next one."""

    heading: str
    prose: list[str] = field(default_factory=list)
    snippets: list[Snippet] = field(default_factory=list)

    def table(self) -> list[dict[str, str]]:
        """The rows of its table, by the names in the head; none without a table."""
        head, rule, body = _parted("\n".join(self.prose))
        if not rule:
            return []
        names = _cells(head.splitlines()[-1])
        cells = _cells(body)
        # A last row that has not all its cells is a remark.
        whole = len(cells) - len(cells) % len(names)
        rows = (cells[n : n + len(names)] for n in range(0, whole, len(names)))
        return [dict(zip(names, row, strict=True)) for row in rows]


@cache
def read() -> list[Section]:
    """The guide, section by section."""
    sections = [Section("")]
    for line in PATH.read_text(encoding="utf-8").splitlines():
        if line.endswith(_HEADING_MARK):
            sections.append(Section(line.removesuffix(_HEADING_MARK)))
        else:
            sections[-1].prose.append(line)
    for section in sections:
        _find_code(section)
    return sections


def _find_code(section: Section) -> None:
    """Take the code out of what was taken for prose."""
    lines, section.prose = section.prose, []
    run: list[str] = []
    while lines:
        statement = _statement(lines)
        if statement is None:
            section.snippets += _snippet(section.heading, run)
            section.prose.append(lines[0])
            run, lines = [], lines[1:]
        else:
            run.append(statement)
            lines = lines[statement.count("\n") + 1 :]
    section.snippets += _snippet(section.heading, run)


def _statement(lines: list[str]) -> str | None:
    """The statement, comment or head of a block that begins with the first line, if one does."""
    for end in range(1, len(lines) + 1):
        source = "\n".join(lines[:end])
        if any(_parses(frame.format(source)) for frame in _FRAMES):
            return source
    return None


def _parses(source: str) -> bool:
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True


def _snippet(heading: str, statements: list[str]) -> Iterator[Snippet]:
    """The snippet that some statements are, if there are any."""
    if statements:
        yield Snippet(heading, "\n".join(_indented(statements)))


def _indented(statements: list[str]) -> Iterator[str]:
    """Give statements their indentation back, each as deep as it can be and make sense."""
    blocks: list[str] = []
    for statement in statements:
        word = _FIRST_WORD.match(statement)[0]  # type: ignore[index]  # it matches anything
        if word == "except":
            del blocks[len(blocks) - 1 - blocks[::-1].index("try") :]
        elif word == "asyncio":
            # What runs an event loop cannot be in a coroutine.
            blocks.clear()
        yield textwrap.indent(statement, _INDENT * len(blocks))
        if word == "break":
            # Nothing could come after it in the same block.
            blocks.pop()
        elif not _parses(statement):
            blocks.append(word)


def _parted(text: str) -> tuple[str, str, str]:
    """What comes before the rule of a table, the rule, and what comes after."""
    found = _RULE.search(text)
    if found is None:
        return text, "", ""
    return text[: found.start()], found[0], text[found.end() :]


def _cells(text: str) -> list[str]:
    return [cell.strip() for cell in text.strip().strip("|").split("|")]

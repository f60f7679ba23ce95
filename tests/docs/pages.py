"""The documents as tests read them: tables, code blocks and state diagrams of Markdown."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def documents() -> list[Path]:
    """Every page that says what is: the records of decisions say what was decided, and stay."""
    pages = (*ROOT.glob("*.md"), *DOCS.rglob("*.md"))
    return sorted(path for path in pages if DOCS / "decisions" not in path.parents)


def page(name: str) -> str:
    """The text of a document, by its path below docs/."""
    return (DOCS / name).read_text(encoding="utf-8")


def section(text: str, heading: str) -> str:
    """What stands below *heading*, whatever its level, up to the next heading of that level or a higher one."""
    found = re.search(rf"^(#+) {re.escape(heading)}$", text, re.MULTILINE)
    assert found, f"there is no heading {heading!r}"
    rest = text[found.end() :]
    following = re.search(rf"^#{{1,{len(found[1])}}} ", rest, re.MULTILINE)
    return rest[: following.start()] if following else rest


def rows(text: str) -> list[list[str]]:
    """The cells of every table row of *text*, headers and their rulers left out."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    tables = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    rulers = [number for number, cells in enumerate(tables) if all(re.fullmatch(":?-+:?", cell) for cell in cells)]
    heads = {number - 1 for number in rulers} | set(rulers)
    return [cells for number, cells in enumerate(tables) if number not in heads]


def named(text: str) -> list[str]:
    """The names that begin the rows of the tables of *text*: the first `code` of the first cell."""
    firsts = (re.match(r"`([^`]+)`", cells[0]) for cells in rows(text))
    return [first[1] for first in firsts if first]


def blocks(text: str, language: str) -> list[str]:
    """The fenced code blocks of *text* in *language*."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)

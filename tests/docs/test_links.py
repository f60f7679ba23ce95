"""Links lead somewhere, and what is quoted from the code is in the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.browser.pictures import PICTURES
from tests.docs.pages import DOCS, ROOT, blocks, documents

FOLDERS = ("deploy", "docs", "identity", "pipeline", "tasks", "tests", "webhooks")


def _anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", [*documents(), *(DOCS / "decisions").glob("*.md")], ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", document.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        to = (document.parent / path).resolve() if path else document
        assert to.exists(), f"{document.name}: {target}"
        assert not anchor or anchor in _anchors(to), f"{document.name}: {target}"


def test_every_page_is_linked_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    linked = {(ROOT / target.partition("#")[0]).resolve() for target in re.findall(r"\]\(([^):]+)\)", readme)}
    assert [path for path in documents() if path not in linked and path != ROOT / "README.md"] == []


def test_every_picture_is_shown_and_is_one_that_a_test_takes() -> None:
    shown = {
        (document.parent / target).resolve()
        for document in documents()
        for target in re.findall(r"!\[[^]]+\]\(([^)]+)\)", document.read_text(encoding="utf-8"))
    }
    assert shown == {DOCS / "images" / f"{name}.png" for name in PICTURES}
    assert shown == set((DOCS / "images").iterdir())


def test_what_the_readme_quotes_is_the_workflow_that_a_test_runs() -> None:
    code = (DOCS / "howto" / "write-a-workflow.md").read_text(encoding="utf-8")
    quoted = blocks((ROOT / "README.md").read_text(encoding="utf-8"), "python")
    assert quoted
    assert [block for block in quoted if block not in code] == []


def test_files_that_are_named_exist() -> None:
    folders = "|".join(FOLDERS)
    for document in documents():
        named = re.findall(rf"`((?:{folders})/[\w./-]+)`", document.read_text(encoding="utf-8"))
        assert [name for name in named if not (ROOT / name).exists()] == [], document.name


def test_modules_that_the_map_names_exist_somewhere() -> None:
    named = re.findall(r"`([\w./<>-]+\.py)`", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert named
    files = [path.relative_to(ROOT) for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    patterns = {name: re.sub(r"<\w+>", "*", name) for name in named}
    assert [name for name in named if not any(path.match(patterns[name]) for path in files)] == []


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for document in documents():
        text = document.read_text(encoding="utf-8")
        named = re.findall(r"`make ([a-z-]+)", text) + re.findall(r"^make ([a-z-]+)", text, re.MULTILINE)
        assert set(named) <= targets, document.name

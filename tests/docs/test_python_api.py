"""docs/reference/python-api.md lists all that authors of workflows import, and each of it is there."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

from tests.docs.pages import DOCS, ROOT, blocks, page, rows

OURS = ("deploy", "identity", "pipeline", "tasks", "webhooks")


def _listed() -> dict[str, set[str]]:
    """The names of each module that is listed by its own name."""
    cells = [(re.findall(r"`([\w.]+)`", module), re.findall(r"`(\w+)`", names)) for module, _, names in rows(API)]
    return {module[0]: set(names) for module, names in cells if module}


API = page("reference/python-api.md")
LISTED = _listed()
WHOLE = ("tasks.actions", "tasks.events")  # with all that is in them


def test_every_listed_name_is_exported() -> None:
    for name, names in LISTED.items():
        module = importlib.import_module(name)
        exported = getattr(module, "__all__", vars(module))
        assert names <= set(exported), f"{name} does not export {sorted(names - set(exported))}"


def test_the_module_that_declares_workflows_exports_nothing_else() -> None:
    assert set(importlib.import_module("pipeline.workflow").__all__) == LISTED["pipeline.workflow"]


def test_the_guides_and_the_scaffold_import_nothing_else() -> None:
    shown = [text for path in (ROOT / "README.md", *(DOCS / "howto").glob("write-*.md")) for text in _code(path)]
    shown += [
        path.read_text(encoding="utf-8").replace("$", "")
        for path in (ROOT / "deploy" / "scaffold").glob("*workflow.py.in")
    ]
    imported = {one for text in shown for one in _imports(text)}
    assert ("pipeline.run", "Run") in imported
    unlisted = {(module, name) for module, name in imported if name not in LISTED.get(module, ())}
    assert not {(module, name) for module, name in unlisted if not module.startswith(WHOLE)}


def test_no_other_class_has_the_name_of_a_listed_one() -> None:
    listed = {name for names in LISTED.values() for name in names}
    found: dict[str, list[str]] = {}
    for package in ("identity", "pipeline", "webhooks", "deploy"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ClassDef) and node.name in listed and "sandbox" not in path.parts:
                    found.setdefault(node.name, []).append(path.relative_to(ROOT).as_posix())
    assert {name: paths for name, paths in found.items() if len(paths) > 1} == {}


#: What only the shipped modules need: approvals in Slack, and the ids and markers of providers.
_OF_OUR_OWN = {
    ("tasks/actions/slack.py", "identity.digests"),
    ("tasks/actions/slack.py", "pipeline.approvals.shown"),
    ("tasks/actions/slack.py", "pipeline.signed_answer"),
    ("tasks/ask_in_slack.py", "pipeline.approvals.news"),
    ("tasks/ask_in_slack.py", "pipeline.states"),
    ("tasks/events/github.py", "pipeline.marker"),
    ("tasks/events/standard.py", "identity.providers.salesforce"),
}


def test_the_shipped_actions_and_workflows_can_be_copied() -> None:
    unlisted = {
        (path.relative_to(ROOT).as_posix(), module)
        for path in (ROOT / "tasks").rglob("*.py")
        for module, name in _imports(path.read_text(encoding="utf-8"))
        if not module.startswith("tasks") and name not in LISTED.get(module, ())
    }
    assert unlisted == _OF_OUR_OWN


def _code(path: Path) -> list[str]:
    return blocks(path.read_text(encoding="utf-8"), "python")


def _imports(text: str) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in OURS:
            yield from ((node.module, one.name) for one in node.names)

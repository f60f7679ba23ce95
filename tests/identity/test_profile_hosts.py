"""Every host that a provider's code calls is one that its row names: what ASWHOM_EGRESS_HOSTS leaves out is seen."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from identity import providers
from identity.providers import PROFILES

_FOLDER = Path(providers.__file__).parent
#: What is read by people, and names of scopes.
_NOT_CALLED = {"sources", "implies"}
_DOCUMENTS = {"read", "heard", "assumed"}
_FILES = [path for path in sorted(_FOLDER.glob("*.py")) if path.name != "words.py"]


def _urls(tree: ast.AST) -> Iterator[str]:
    """The addresses that are written in it, but for documents and authorization endpoints."""
    if isinstance(tree, ast.keyword) and tree.arg in _NOT_CALLED:
        return
    if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.func.id in _DOCUMENTS:
        return
    if isinstance(tree, ast.Constant) and isinstance(tree.value, str) and tree.value.startswith("https://"):
        yield tree.value
    for child in ast.iter_child_nodes(tree):
        yield from _urls(child)


def _called(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    cited = {
        name.id
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in _DOCUMENTS
        for name in ast.walk(call)
        if isinstance(name, ast.Name)
    }
    parts = [
        part
        for part in tree.body
        if not (isinstance(part, ast.Assign) and isinstance(part.targets[0], ast.Name) and part.targets[0].id in cited)
    ]
    return {urlsplit(url).netloc for part in parts for url in _urls(part)}


@pytest.mark.parametrize("file", _FILES, ids=lambda file: file.stem)
def test_every_host_in_the_code_of_a_provider_is_named_by_its_row(file: Path) -> None:
    rows = [row for row in PROFILES.values() if row.name == file.stem]
    named = {
        urlsplit(url).netloc
        for row in rows
        for url in (row.api_url, row.authorize_url, row.token_url, row.revocation_url, *row.called_too, row.replies_at)
    }
    assert _called(file) <= named


def test_what_is_called_is_found() -> None:
    assert "openidconnect.googleapis.com" in _called(_FOLDER / "google.py")

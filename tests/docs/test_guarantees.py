"""Every promise of docs/guarantees.md names tests that there are."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import ROOT, page

TEXT = page("guarantees.md")
PROMISES, LIMITS = TEXT.split("\n## The limits\n")
TESTS = {
    name
    for path in (ROOT / "tests").rglob("test_*.py")
    if "node_modules" not in path.parts
    for name in re.findall(r"^ *(?:async )?def (test_\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE)
}


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(test_\w+)`", TEXT))))
def test_a_named_test_exists(name: str) -> None:
    assert name in TESTS


def test_every_promise_names_one() -> None:
    promises = re.split(r"^- ", PROMISES, flags=re.MULTILINE)[1:]
    assert promises
    assert [promise for promise in promises if "`test_" not in promise] == []

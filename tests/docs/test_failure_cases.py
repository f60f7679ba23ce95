"""docs/failure-cases.md is what the cases and their tests make of it, and every case has its test."""

from __future__ import annotations

import re

from deploy.sandbox.provider.cases import CASES
from tests.docs import failure_cases


def test_the_page_is_current() -> None:
    written = failure_cases.PAGE.read_text(encoding="utf-8")
    assert written == failure_cases.page(), "python -m tests.docs.failure_cases"


def test_there_are_thirty_cases_and_a_test_named_after_each() -> None:
    assert sorted(CASES) == list(range(1, 31))
    found = failure_cases.tests()
    assert {number: len(tests) for number, tests in found.items()} == dict.fromkeys(CASES, 1)
    for number, (test,) in found.items():
        words = re.sub(r"[^a-z0-9]+", "_", CASES[number].name.lower().replace("'", ""))
        assert test.name == f"test_case_{number:02d}_{words}"
        assert test.says, test.name


def test_every_case_says_something_of_its_own() -> None:
    for what in ("name", "says", "seen"):
        assert all(getattr(case, what) for case in CASES.values())
    assert len({case.name for case in CASES.values()}) == 30

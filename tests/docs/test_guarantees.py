"""The promises of docs/guarantees.md and the tests that show them, docs/reference/guarantee-tests.md, agree."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import ROOT, page

PAGE = page("guarantees.md")
LIMITS, PROMISES = PAGE.split("\n## The promises\n")
NUMBERS = re.findall(r"^(?:\*\*|- )([GL]\d+(?:\.\d+)?)\b", PAGE, re.MULTILINE)
SHOWN = {
    number: re.findall(r"^- `(test_\w+)`$", rows, re.MULTILINE)
    for number, rows in re.findall(
        r"^\*\*([GL][\d.]+)\*\*\n((?:- .+\n)*)", page("reference/guarantee-tests.md"), re.MULTILINE
    )
}
TESTS = {
    name
    for path in (ROOT / "tests").rglob("test_*.py")
    if "node_modules" not in path.parts
    for name in re.findall(r"^ *(?:async )?def (test_\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE)
}


def _promises() -> list[str]:
    """The numbers that promise something of their own: G7.1, but not G7 where G7 has parts."""
    divided = {number.partition(".")[0] for number in NUMBERS if "." in number}
    return [number for number in NUMBERS if number.startswith("G") and number not in divided]


@pytest.mark.parametrize("name", sorted({name for names in SHOWN.values() for name in names}))
def test_a_named_test_exists(name: str) -> None:
    assert name in TESTS


def test_every_promise_has_tests() -> None:
    assert _promises()
    assert [number for number in _promises() if not SHOWN.get(number)] == []


def test_every_number_with_tests_is_a_promise_or_a_limit() -> None:
    limits = [number for number in NUMBERS if number.startswith("L")]
    assert [number for number in SHOWN if number not in {*_promises(), *limits}] == []
    assert [number for number, names in SHOWN.items() if not names] == []


def test_the_limits_come_first_and_every_paragraph_of_the_promises_has_a_number() -> None:
    assert re.findall(r"^(?:\*\*|- )G\d", LIMITS, re.MULTILINE) == []
    assert re.findall(r"^(?:\*\*|- )L\d", PROMISES, re.MULTILINE) == []
    begun = re.findall(r"^(?:\*\*|- ).{0,20}", PROMISES, re.MULTILINE)
    assert [begin for begin in begun if not re.match(r"\*\*G\d+\. |- G\d+\.\d+ ", begin)] == []


def test_no_number_is_left_out_and_those_that_the_text_refers_to_exist() -> None:
    for letter in "GL":
        whole = [int(number[1:]) for number in NUMBERS if number[0] == letter and "." not in number]
        assert sorted(whole) == list(range(1, len(whole) + 1))
    assert len(set(NUMBERS)) == len(NUMBERS)
    assert set(re.findall(r"\b[GL]\d+(?:\.\d+)?\b", PAGE)) <= set(NUMBERS)


def test_the_promises_name_no_test() -> None:
    assert re.findall(r"`test_\w+`", PAGE) == []

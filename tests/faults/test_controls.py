"""What each important guard is for: without it, the test that watches it fails."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
from _pytest.mark import KeywordMatcher

from tests.faults.control import COLLECTED, Control
from tests.faults.controls import CONTROLS

FENCE, ON_POSTGRESQL = (
    next(control for control in CONTROLS if control.name == name)
    for name in ("the fence", "a rotation waits for seals")
)


def test_without_the_fence_its_test_fails(tmp_path: Path) -> None:
    """The one that runs each time: all others are whole runs of pytest as well."""
    FENCE.is_noticed(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.name)
def test_without_its_guard_the_test_fails(control: Control, tmp_path: Path) -> None:
    control.is_noticed(tmp_path)


@pytest.mark.parametrize(
    "control", [pytest.param(FENCE, marks=pytest.mark.slow), ON_POSTGRESQL], ids=lambda control: control.name
)
def test_a_copy_with_all_its_guards_passes(control: Control, tmp_path: Path) -> None:
    """Else the failures above might be the copy's."""
    whole = replace(control, without=control.guard)
    whole.copy(tmp_path)
    code, said = whole.run(tmp_path)
    assert code == 0, said


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.name)
def test_a_guard_is_where_its_control_looks(control: Control) -> None:
    """For those that are run seldom: a guard that moves is told of at once."""
    control.place()


def test_a_control_names_a_test_that_there_is(request: pytest.FixtureRequest) -> None:
    """A test that was renamed, or has other parameters now. In `make test` all are collected: else only some are."""
    assert [control.name for control in CONTROLS if not control.tests.is_file()] == []
    watching, collected = {control.tests for control in CONTROLS}, dict[Path, list[KeywordMatcher]]()
    for item in request.config.stash[COLLECTED]:
        if item.path in watching:
            collected.setdefault(item.path, []).append(KeywordMatcher.from_item(item))
    known = [control for control in CONTROLS if control.tests in collected]
    assert [control.name for control in known if not control.selects(*collected[control.tests])] == []


def test_what_a_control_imports_is_there() -> None:
    """Else its mutant fails of that, whatever its test would notice."""
    imported = [(control.name, *one) for control in CONTROLS for one in control.imports()]
    assert imported, "no control imports anything, so nothing is looked for"
    assert [one for one in imported if not hasattr(import_module(one[1]), one[2])] == []


def test_no_two_controls_have_one_name() -> None:
    assert [name for name, times in Counter(control.name for control in CONTROLS).items() if times > 1] == []


def test_a_mutant_that_does_not_run_is_a_failure() -> None:
    """Its test fails of that, whatever it would notice."""
    FENCE.judge(1, "E   AssertionError: Opened(...)\n1 failed, 3 deselected in 0.3s\n")
    with pytest.raises(AssertionError, match="does not run: ImportError: cannot import name 'sequence'"):
        FENCE.judge(
            1, "E   ImportError: cannot import name 'sequence' from 'identity'\n1 failed, 3 deselected in 0.3s\n"
        )


def test_a_guard_that_moved_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="0 times"):
        replace(FENCE, guard="no such line").copy(tmp_path)

"""The calls that one word may be about are found by their index, and told by their steps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial

from pipeline.views.unanswered import Window, in_steps, unanswered_in
from tests.ledger.house import House
from tests.ledger.plans import plans

EARLY = datetime(2026, 1, 2, 8, tzinfo=UTC)


def test_they_are_found_by_the_index_of_unknown_calls(house: House) -> None:
    asked = Window(action="github.Say", since=EARLY, until=EARLY + timedelta(days=1), tenant="acme")
    (plan,) = plans(house.database, partial(unanswered_in, window=asked), large=True)
    assert "ix_attempts_unknown" in plan


def test_calls_of_one_step_are_named_together() -> None:
    calls = [{"job_id": "j", "step_id": step, "id": id} for step, id in (("1", "a"), ("2", "b"), ("1", "c"))]
    assert [(one.job, one.calls) for one in in_steps(calls)] == [("j", ("a", "c")), ("j", ("b",))]

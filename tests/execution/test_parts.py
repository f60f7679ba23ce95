"""Parts of a function: what a replay does of them, beside steps that come after and are done."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast

import pytest

from identity.errors import BadInput
from pipeline.run import LONGEST_PART, ActionFailed, Run, StepSpec
from pipeline.states import JobState, StepState
from pipeline.steps.replay import replay_job
from tasks.refusals import Postponed
from tests.identity.providers import Reply, reply
from tests.ledger.acts import steps_of
from tests.ledger.house import House, Say
from tests.ledger.workers import Workers, declare


def says_each(*parts: tuple[str, ...]) -> Callable[[Run[Any], Any], None]:
    """Each part says all of it, or as far as nothing is refused; then the function says what comes last."""

    def function(run: Run[Any], event: Any) -> None:
        refusals = Postponed()
        for texts in parts:
            with refusals, run.part():
                for text in texts:
                    run.do(Say(text=text), as_=run.user)
        run.do(Say(text="last"), as_=run.user)
        refusals.raise_first()

    return function


def refuses(workers: Workers, *calls: int) -> None:
    """The calls with these numbers, counted from 1, are refused; the others are answered."""
    made = iter(range(1, 100))
    workers.provider.call = lambda token: reply({"message": "no"}, 422) if next(made) in calls else reply({"id": "7"})


def replay_it(house: House, job: str) -> None:
    house.database.write(partial(replay_job, job=job, by="ops", at=datetime.now(UTC)))


def said(house: House) -> list[tuple[int, str, str]]:
    return [(step.position, step.parameters["text"], step.state) for step in steps_of(house)]


def test_a_replay_does_what_a_part_was_refused_and_what_follows_it_there_and_nothing_twice(workers: Workers) -> None:
    house = workers.house
    declare(workers, says_each(("a", "aa"), ("b", "bb")))
    refuses(workers, 1)
    job = house.job()
    workers.work(job)
    done = StepState.DONE
    rest = [(3001, "b", done), (3002, "bb", done), (4001, "last", done)]
    assert (house.row(job).state, said(house)) == (JobState.DEAD, [(1001, "a", StepState.FAILED), *rest])
    before = {step.id: step for step in steps_of(house)[1:]}
    replay_it(house, job)
    refuses(workers)
    workers.work(job)
    assert house.row(job).state == JobState.DONE
    assert said(house) == [(1001, "a", done), (1002, "aa", done), *rest]
    assert {step.id: step for step in steps_of(house) if step.id in before} == before


def test_a_done_step_that_a_part_leaves_out_is_noticed_before_the_next_step(workers: Workers) -> None:
    house = workers.house
    declare(workers, says_each(("a", "aa"), ("b",)))
    refuses(workers, 3)
    job = house.job()
    workers.work(job)
    assert (house.row(job).state, said(house)[2]) == (JobState.DEAD, (3001, "b", StepState.FAILED))
    replay_it(house, job)
    declare(workers, says_each(("a",), ("b",)))
    workers.work(job)
    assert house.row(job).reason.startswith(
        "Diverged: step 1002 was github.Say as user, and now the workflow goes on without it: "
    )
    assert said(house)[2] == (3001, "b", StepState.OPEN)


def test_a_replay_does_nothing_twice_if_what_was_done_instead_has_the_same_once_key(workers: Workers) -> None:
    """It diverges all the same: the step that was done instead is left out."""
    house = workers.house

    def function(run: Run[Any], event: Any) -> None:
        refusals = Postponed()
        with run.part():
            try:
                run.do(Say(text="a"), as_=run.user, once="a")
            except ActionFailed:
                run.do(Say(text="a"), as_=run.service, once="a")
        with refusals, run.part():
            run.do(Say(text="b"), as_=run.user)
        refusals.raise_first()

    declare(workers, function)
    refuses(workers, 1, 3)
    job = house.job()
    workers.work(job)
    done, failed = StepState.DONE, StepState.FAILED
    assert said(house) == [(1001, "a", failed), (1002, "a", done), (3001, "b", failed)]
    calls: list[str] = []

    def call(token: str) -> Reply:
        calls.append(token)
        return reply({"id": "8"})

    workers.provider.call = call
    replay_it(house, job)
    workers.work(job)
    assert calls == []
    assert said(house)[:2] == [(1001, "a", done), (1002, "a", done)]
    assert house.row(job).reason.startswith("Diverged: step 1002 was github.Say as service, ")


class Positions:
    """Steps that only note where they are."""

    def __init__(self) -> None:
        self.noted: list[tuple[int, int]] = []

    def perform(self, spec: StepSpec[Any]) -> None:
        self.noted.append((spec.position, spec.occurrence))


def numbered(*sections: int, nested: bool = False) -> list[tuple[int, int]]:
    """The positions and occurrences of so many steps by turns outside and inside of parts."""
    steps = Positions()
    run: Run[Any] = Run(cast("Any", steps), job="j", tenant="acme", config=None, has_user=True)

    def says(times: int) -> None:
        for _ in range(times):
            run.do(Say(text="hello"))

    for number, times in enumerate(sections):
        if number % 2:
            with run.part():
                says(times)
                if nested:
                    with run.part():
                        says(1)
        else:
            says(times)
    return steps.noted


def test_the_steps_of_a_part_and_those_after_it_count_from_a_thousand_of_their_own() -> None:
    assert numbered(2, 2, 0, 1, 1) == [(1, 1), (2, 2), (1001, 1), (1002, 2), (3001, 1), (4001, 1)]
    assert numbered(1, 0, 0, 0, 1) == [(1, 1), (4001, 1)], "a part without a step has its thousand all the same"
    assert numbered(2000)[-1] == (2000, 2000), "without parts nothing is limited"
    assert numbered(LONGEST_PART, LONGEST_PART, LONGEST_PART)[-1] == (2999, LONGEST_PART)


@pytest.mark.parametrize(
    ("sections", "nested", "says"),
    [
        ((1, 1), True, r"run\.part is within another run\.part"),
        ((LONGEST_PART + 1, 1), False, r"run\.part comes after 1000 steps: 999 may come before it"),
        ((1, LONGEST_PART + 1), False, r"github\.Say is step 1000 in or after a run\.part, where 999 may be"),
        ((1, 1, LONGEST_PART + 1), False, r"github\.Say is step 1000 in or after a run\.part, where 999 may be"),
    ],
    ids=["nested", "too long before", "too long", "too long after"],
)
def test_no_part_grows_into_the_next(sections: tuple[int, ...], nested: bool, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        numbered(*sections, nested=nested)


def test_a_part_that_cannot_begin_ends_the_run_whatever_is_caught() -> None:
    steps = Positions()
    run: Run[Any] = Run(cast("Any", steps), job="j", tenant="acme", config=None, has_user=True)
    with run.part(), suppress(BadInput), run.part():
        pass
    with pytest.raises(BadInput, match="within another"):
        run.do(Say(text="hello"))
    assert steps.noted == []

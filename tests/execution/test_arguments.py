"""What `run.do` and `run.sleep` cannot be asked for is said before anything is done, in a sentence."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from pipeline.run import Run
from pipeline.states import JobState
from pipeline.workflow import SERVICE, USER
from tests.ledger.acts import steps_of
from tests.ledger.house import Say
from tests.ledger.workers import Workers, declare


def says(asked: dict[str, Any], run: Run[Any], event: Any) -> None:
    run.do(Say(text="hello"), **asked)


def takes(step: Any, run: Run[Any], event: Any) -> None:
    run.do(step)


def sleeps(duration: Any, run: Run[Any], event: Any) -> None:
    run.sleep(duration)


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (partial(says, {"as_": USER | SERVICE}), "github.Say: as_ is run.user or run.service, or left out"),
        (partial(says, {"as_": "user"}), "github.Say: as_ is run.user or run.service, or left out"),
        (partial(says, {"patience": 12}), "github.Say: patience is a timedelta, and was given int"),
        (
            partial(says, {"once": 5}),
            "github.Say: a once key is a text, and not an empty one",
        ),
        (
            partial(says, {"once": ""}),
            "github.Say: a once key is a text, and not an empty one",
        ),
        (partial(takes, Say), "run.do takes an action with its parameters"),
        (partial(takes, "say"), "run.do takes an action with its parameters"),
        (partial(sleeps, 30), "run.sleep sleeps for a timedelta, and was given int"),
    ],
)
def test_what_cannot_be_asked_for_ends_the_job_at_once_and_says_what_to_pass(
    workers: Workers, function: Any, sentence: str
) -> None:
    declare(workers, function)
    job = workers.house.job()
    workers.work(job)
    row = workers.house.row(job)
    assert (row.state, row.runs_spent) == (JobState.DEAD, 0)
    assert row.reason.startswith(f"BadInput: {sentence}")
    assert (workers.tokens, steps_of(workers.house)) == ([], [])

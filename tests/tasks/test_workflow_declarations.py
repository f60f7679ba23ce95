"""A workflow that could not run, or would take deliveries from others, is refused where it is declared."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.uses import SERVICE, SKIP, Who
from pipeline.workflow import Daily, Event, Tick, Trigger, Workflow, workflow
from tasks.actions.slack import PostMessage


class Opened(Event):
    number: int


OPENED = Trigger(source="github", event="issues", read=Opened.model_validate)


def _act(run: Any, event: Any) -> None:
    """What it would do does not matter here."""


def declare(function: Any = _act, **said: Any) -> Workflow:
    """A sound workflow, but for what is said otherwise."""
    sound = {"agent": "tester", "name": "mine", "event": Opened, "on": OPENED, "uses": {PostMessage: SERVICE}}
    declared: Workflow = workflow(**{**sound, **said})(function)
    return declared


def refused(function: Any = _act, **said: Any) -> str:
    """Why it is refused."""
    with pytest.raises(TypeError) as fault:
        declare(function, **said)
    return str(fault.value)


@pytest.mark.parametrize("agent", ["Billing Bot", "a/b", "", "a" * 65, None])
def test_an_agent_that_no_row_could_name_is_refused(agent: Any) -> None:
    said = refused(agent=agent)
    assert said.startswith("workflow mine: an agent")
    assert declare(agent="a" * 64).agent == "a" * 64


def test_a_workflow_that_deliveries_start_says_which_event_it_takes() -> None:
    assert "event=" in refused(event=Tick)
    assert "event=" in refused(event=int)
    assert declare(on=(OPENED, OPENED)).on == (OPENED, OPENED)


def opened() -> Trigger[Opened]:
    """Ours, not called."""
    return OPENED


@pytest.mark.parametrize(
    "on",
    [[OPENED], opened, (OPENED, opened), "pull_request", None],
    ids=["list", "not called", "one not called", "text", "none"],
)
def test_what_is_no_trigger_is_refused(on: Any) -> None:
    assert "on= takes a trigger" in refused(on=on)


async def _awaited(run: Any, event: Any) -> None:
    """Nobody would await it."""


def _generated(run: Any, event: Any) -> Any:
    yield


async def _both(run: Any, event: Any) -> Any:
    yield


@pytest.mark.parametrize("function", [_awaited, _generated, _both])
def test_a_function_that_would_end_before_it_began_is_refused(function: Any) -> None:
    assert "def" in refused(function)


@pytest.mark.parametrize(
    "function",
    [lambda run: None, lambda run, event, more: None, lambda *, run, event: None, "triage"],
    ids=["one", "three", "by keyword", "no function"],
)
def test_a_function_that_takes_something_other_than_a_run_and_an_event_is_refused(function: Any) -> None:
    assert "(run, event)" in refused(function)
    assert declare(lambda run, event, more=None: None).name == "mine"
    assert declare(lambda *both: None).name == "mine"


@pytest.mark.parametrize(
    ("uses", "says"),
    [
        ({PostMessage: Who(0)}, "slack.PostMessage runs as nobody"),
        ({PostMessage: Who(0).on_revoke(SKIP)}, "slack.PostMessage runs as nobody"),
        ({PostMessage: "service"}, "slack.PostMessage runs as USER, SERVICE"),
        ({PostMessage: SERVICE.on_revoke("skip")}, "slack.PostMessage says of a revocation STOP, SKIP or compensate"),  # type: ignore[arg-type]
        ([PostMessage], "uses= says of each action as whom it runs"),
        ({"slack.PostMessage": SERVICE}, "'slack.PostMessage' is no action"),
    ],
)
def test_actions_that_are_not_said_to_run_as_somebody_are_refused(uses: Any, says: str) -> None:
    assert says in refused(uses=uses)


def test_a_workflow_that_nothing_could_start_is_refused() -> None:
    assert "nothing starts it" in refused(on=())
    assert "told of a Tick" in refused(on=(), schedule=Daily(cron="0 9 * * *"))
    assert "schedule= takes a Daily" in refused(on=(), event=Tick, schedule="0 9 * * *")
    assert declare(on=(), event=Tick).schedule is None  # a tenant may give it one
    assert declare(on=(), event=Tick, schedule=Daily(cron="0 9 * * *")).on == ()

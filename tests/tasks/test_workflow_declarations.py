"""A workflow that could not run, or would take deliveries from others, is refused where it is declared."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import pytest

from pipeline.authoring.declared_workflow import Workflow
from pipeline.authoring.registry import Registry
from pipeline.authoring.uses import SERVICE, SKIP, Who
from pipeline.workflow import Daily, Event, Tick, Trigger, workflow
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
    assert "event=" in refused(event=None)
    assert "event=" in refused(event=int)
    assert declare(on=(OPENED, OPENED)).on == (OPENED, OPENED)
    assert declare(event=None, on=()).event is Tick


def test_a_delivery_may_be_a_tick_where_that_is_said() -> None:
    pushed = Trigger(source="shop", event="close", read=lambda body: Tick(slot=body["at"]))
    declared = declare(event=Tick, on=pushed, schedule=Daily(cron="0 9 * * *"))
    (match,) = Registry([declared]).match("shop", "close", {"at": "2026-01-01T00:00:00+00:00"})
    assert match.document == {"slot": "2026-01-01T00:00:00+00:00", "schedule": ""}


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


class AwaitedRun:
    async def __call__(self, run: Any, event: Any) -> None:
        """Nobody would await it."""


@pytest.mark.parametrize("function", [_awaited, _generated, _both, AwaitedRun()])
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


class Awaited:
    async def __call__(self, event: Any) -> None:
        """Nobody would await it."""


async def _awaited_reader(event: Any) -> None:
    """Nobody would await it."""


@pytest.mark.parametrize("reader", ["user", "triggered_by"])
def test_whom_a_workflow_runs_for_is_told_by_a_function_of_its_event(reader: str) -> None:
    wrong: Any
    for wrong in (Awaited(), _awaited_reader):
        assert f"{reader}= is neither `async def`" in refused(**{reader: wrong})
    for wrong in ("ada", lambda: None, lambda run, event: None):
        assert f"{reader}= takes (event)" in refused(**{reader: wrong})
    for sound in (None, lambda event: None, attrgetter("author"), str):
        assert getattr(declare(**{reader: sound}), reader) is sound


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

"""Checks of the arguments to `@workflow`: a declaration that could not work is a TypeError at import."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction, signature
from typing import Any

from pydantic import BaseModel

from identity.errors import BadInput
from identity.principals import checked_id
from pipeline.action import Action
from pipeline.authoring.action_checks import check_action
from pipeline.authoring.timetable import Daily
from pipeline.authoring.uses import USER, OnRevoke, Use, Who, as_use
from pipeline.events import Event, Tick, Trigger
from pipeline.fields import check_kept

LONGEST_NAME = 64  # characters, for the names of workflows, agents and schedules


def checked_name(what: str, name: Any) -> str:
    """Return *name*, or raise TypeError.

    Rows with this name are written for each tenant in the transaction that accepts everybody's jobs, so it must not
    fail there.
    """
    try:
        checked_id(name if isinstance(name, str) else "")
    except BadInput as fault:
        raise TypeError(f"{what} cannot have that name: {fault}") from fault
    if len(name) > LONGEST_NAME:
        raise TypeError(f"{what}'s name has {LONGEST_NAME} characters at most, and {name!r} has {len(name)}")
    return str(name)


def check_function(what: str, function: Any, *takes: str) -> None:
    """Check that *function* accepts these arguments and has done its work when it returns. Raises TypeError."""
    for one in (function, getattr(function, "__call__", None)):  # noqa: B004 - an object's __call__ may be `async def`
        if iscoroutinefunction(one) or isgeneratorfunction(one) or isasyncgenfunction(one):
            raise TypeError(f"{what} is neither `async def` nor a generator: called, those do nothing yet")
    try:
        signature(function).bind(*takes)
    except TypeError as fault:
        raise TypeError(f"{what} takes ({', '.join(takes)}): {fault}") from fault
    except ValueError:
        return  # the signature of a function written in C is not always known


def checked_uses(uses: Any, user: object) -> Mapping[type[Action[Any]], Use]:
    """Return the declaration for each action in `uses`; *user* defines USER. Raises TypeError."""
    if not isinstance(uses, Mapping):
        raise TypeError(
            f"uses= says of each action as whom it runs, {{action: SERVICE}}, and is no {type(uses).__name__}"
        )
    declared = {}
    for action, said in uses.items():
        check_action(action)
        declared[action] = use = as_use(said)
        _check_use(action.action_name(), use)
        if use.who & USER and user is None:
            raise TypeError(
                f"{action.action_name()} may run as USER, but the workflow does not say who that is: user=…"
            )
    return declared


def _check_use(action: str, use: Use) -> None:
    """Require the constants themselves: a string that looks like one would match nothing."""
    who: Any = use.who
    then: Any = use.on_revoke
    if not isinstance(who, Who):
        raise TypeError(f"{action} runs as USER, SERVICE or either of them, USER | SERVICE, and not as {who!r}")
    if not who:
        raise TypeError(f"{action} runs as nobody: USER, SERVICE or USER | SERVICE")
    if not isinstance(then, OnRevoke):
        raise TypeError(f"{action} says of a revocation STOP, SKIP or compensate(…), and not {then!r}")


def checked_triggers(on: Any) -> tuple[Trigger[Any], ...]:
    """Return the triggers as a tuple."""
    triggers = on if isinstance(on, tuple) else (on,)
    for one in triggers:
        # Every delivery of every tenant is matched against it, so a bad one would break more than this workflow.
        if not isinstance(one, Trigger):
            raise TypeError(
                f"on= takes a trigger or a tuple of them, and not {one!r}: a function that gives one is called"
            )
    return triggers


def checked_event(event: Any, on: tuple[Trigger[Any], ...]) -> type[Event]:
    """Return the class of the event; a workflow without one, and without triggers, takes a Tick."""
    if event is None:
        if on:
            raise TypeError("what its triggers read is not said: event=, the class of it")
        return Tick
    if not (isinstance(event, type) and issubclass(event, Event)):
        raise TypeError(f"event= is a class below Event, and not {event!r}")
    check_kept(event)
    return event


def check_start(event: type[Event], on: tuple[Trigger[Any], ...], schedule: Any) -> None:
    """Check that something starts the workflow, and that a scheduled one takes a Tick."""
    if schedule is not None and not isinstance(schedule, Daily):
        raise TypeError(f"schedule= takes a Daily, Daily(cron=…), and not {schedule!r}")
    if schedule is not None and not issubclass(Tick, event):
        raise TypeError(f"a scheduled workflow is told of a Tick, and this one takes {event.__name__}")
    if not on and not issubclass(Tick, event):  # a tenant may give a schedule to a workflow that takes a Tick
        raise TypeError(f"nothing starts it: on=, the triggers that read {event.__name__}")


def check_config(config: Any) -> None:
    """Check that *config* is a model, as which a tenant's configuration is stored and read."""
    if not (isinstance(config, type) and issubclass(config, BaseModel)):
        raise TypeError(f"config= is a class below pydantic's BaseModel, and not {config!r}")
    check_kept(config)

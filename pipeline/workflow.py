"""The workflow API: the `@workflow` decorator and the names needed to declare one.

It is part of the Python API (docs/reference/python-api.md): our own modules import from `pipeline.authoring`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from pipeline.action import Action
from pipeline.authoring.declarations import (
    check_config,
    check_function,
    check_start,
    checked_event,
    checked_name,
    checked_triggers,
    checked_uses,
)
from pipeline.authoring.declared_workflow import NoConfig, Workflow
from pipeline.authoring.timetable import Daily
from pipeline.authoring.uses import SERVICE, SKIP, STOP, USER, Use, Who, compensate
from pipeline.events import Event, ExternalUser, Tick, Trigger

if TYPE_CHECKING:
    from pipeline.run import Run


__all__ = [
    "SERVICE",
    "SKIP",
    "STOP",
    "USER",
    "Daily",
    "Event",
    "ExternalUser",
    "NoConfig",
    "Tick",
    "Trigger",
    "Use",
    "Who",
    "compensate",
    "workflow",
]


def workflow(
    *,
    agent: str,
    uses: Mapping[type[Action[Any]], Who | Use],
    event: type[Event] | None = None,
    on: Trigger[Any] | tuple[Trigger[Any], ...] = (),
    schedule: Daily | None = None,
    user: Callable[[Any], ExternalUser | None] | None = None,
    triggered_by: Callable[[Any], ExternalUser | str | None] | None = None,
    config: type[BaseModel] = NoConfig,
    name: str | None = None,
) -> Callable[[Callable[[Run[Any], Any], None]], Workflow]:
    """Declare a workflow. Raises TypeError for a declaration that could not be carried out.

    *agent* names the software that acts; it appears in every audit row. *uses* maps each action to the principals it
    may run as, and optionally to its behaviour on revocation (`USER.on_revoke(SKIP)`). *event* is the type that the
    triggers read; without triggers it is Tick. *user* reads from the event the person that USER stands for.
    *triggered_by* reads the event's sender, who can never approve the job's steps. Return an ExternalUser where the
    sender provides a stable id: a login may belong to somebody else tomorrow.
    """

    def declare(function: Callable[[Run[Any], Any], None]) -> Workflow:
        called = checked_name("a workflow", name or getattr(function, "__name__", ""))
        try:
            check_function("its function", function, "run", "event")
            for reader, reads in (("user=", user), ("triggered_by=", triggered_by)):
                if reads is not None:
                    check_function(reader, reads, "event")
            declared = checked_uses(uses, user)
            triggers = checked_triggers(on)
            told = checked_event(event, triggers)
            check_start(told, triggers, schedule)
            check_config(config)
            return Workflow(
                name=called,
                agent=checked_name("an agent", agent),
                function=function,
                on=triggers,
                schedule=schedule,
                user=user,
                triggered_by=triggered_by,
                uses={action: use.who for action, use in declared.items()},
                config=config,
                event=told,
                on_revoke={action: use.on_revoke for action, use in declared.items()},
                compensations={action: use.compensation for action, use in declared.items() if use.compensation},
            )
        except TypeError as fault:
            raise TypeError(f"workflow {called}: {fault}") from fault

    return declare

"""What a workflow that listens to a kind of event makes of one delivery: a match, or why not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

if TYPE_CHECKING:
    from pipeline.workflow import Event, ExternalUser, Trigger, Workflow


@dataclass(frozen=True, kw_only=True)
class Match:
    """A workflow that a delivery starts, with its typed event."""

    workflow: Workflow
    event: Event
    user: ExternalUser | None
    triggered_by: ExternalUser | str | None


@dataclass(frozen=True, kw_only=True)
class Considered:
    """What a workflow that listens to a kind of event makes of one: a match, or why not."""

    workflow: Workflow
    match: Match | None
    refusal: str = ""
    misfit: bool = False  # the body is not of the sender's published shape


def consider(declared: Workflow, triggers: Iterable[Trigger[Any]], body: Mapping[str, Any]) -> Considered:
    """What *declared* makes of a body by those of its triggers that listen to its event."""
    misfit = ""
    for trigger in triggers:
        try:
            typed = trigger.read(body)
        except ValidationError as error:
            fields = ", ".join(".".join(map(str, e["loc"])) for e in error.errors()[:5])
            misfit = f"the {trigger.source} {trigger.event} body lacks or mistypes: {fields}"
            continue
        if typed is not None:
            user = declared.user(typed) if declared.user else None
            by = declared.triggered_by(typed) if declared.triggered_by else None
            return Considered(
                workflow=declared, match=Match(workflow=declared, event=typed, user=user, triggered_by=by)
            )
    refusal = misfit or "its filter says that it does not want this one"
    return Considered(workflow=declared, match=None, refusal=refusal, misfit=bool(misfit))

"""Matching of one delivery against a workflow that listens to its kind of event."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from identity.errors import BadInput
from pipeline.fields import misfitting
from pipeline.tables import TRIGGERED_BY

if TYPE_CHECKING:
    from pipeline.authoring.declared_workflow import Workflow
    from pipeline.events import Event, ExternalUser, Trigger


log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Match:
    """A workflow that a delivery starts, with the typed event and its stored form."""

    workflow: Workflow
    event: Event
    document: Mapping[str, Any]
    user: ExternalUser | None
    triggered_by: ExternalUser | str | None


@dataclass(frozen=True, kw_only=True)
class Considered:
    """The result of offering a delivery to a workflow: a match, or the reason why not."""

    workflow: Workflow
    match: Match | None
    refusal: str = ""
    misfit: bool = False  # the body does not have the sender's published shape, or the workflow failed to read it


def by_hand(declared: Workflow, document: object) -> Match:
    """Return the match for a job that an operator starts, with the event given as JSON. Raises BadInput.

    Nobody sent this event, so no sender is recorded, whatever the event says.
    """
    try:
        match = _matched(declared, declared.event.model_validate(document))
    except ValidationError as error:
        raise BadInput(f"this is no {declared.event.__name__} of {declared.name}: {misfitting(error)}") from None
    except ValueError:
        raise BadInput(f"this is no {declared.event.__name__} of {declared.name}: JSON cannot hold it") from None
    # The workflow's own code, as in `consider`.
    except Exception as fault:
        raise BadInput(f"{declared.name} failed to read it ({type(fault).__name__}): mend its `user=`") from fault
    match = replace(match, triggered_by=None)
    if unfit := _unfit(match):
        raise BadInput(unfit)
    return match


def consider(declared: Workflow, triggers: Iterable[Trigger[Any]], body: Mapping[str, Any]) -> Considered:
    """Offer *body* to *declared* through its triggers for this event.

    Never raises, whatever the functions of *declared* do: what it cannot read is a misfit.
    """
    misfit = ""
    for trigger in triggers:
        try:
            match = _match(declared, trigger, body)
            unfit = _unfit(match) if match is not None else ""
        except ValidationError as error:
            sent = f"the {trigger.source} {trigger.event} body"
            misfit = f"{declared.name} cannot read it: {sent} lacks or mistypes: {misfitting(error)}"
        # The trigger, the event, `user` and `triggered_by` are the workflow's own code and may raise anything. They
        # must not take the delivery from other workflows or from the ledger. Only the class is reported: the message
        # may quote a body.
        except Exception as fault:  # noqa: BLE001 - said above
            kind = type(fault).__name__
            misfit = (
                f"{declared.name} failed to read it ({kind}): "
                "mend its trigger, its event, user or triggered_by, then replay it"
            )
            what = {"action": "trigger.failed", "workflow": declared.name, "of": f"{trigger.source} {trigger.event}"}
            log.error("workflow %s failed to read a delivery: %s", declared.name, kind, extra=what)
        else:
            if match is not None and not unfit:
                return Considered(workflow=declared, match=match)
            misfit = unfit or misfit
    refusal = misfit or "its filter says that it does not want this one"
    return Considered(workflow=declared, match=None, refusal=refusal, misfit=bool(misfit))


def _match(declared: Workflow, trigger: Trigger[Any], body: Mapping[str, Any]) -> Match | None:
    typed: Any = trigger.read(body)
    return None if typed is None else _matched(declared, typed)


def _matched(declared: Workflow, typed: Any) -> Match:
    # Checked here, not when it is stored: an event that cannot be stored would fail the acceptance of everybody's jobs.
    document = typed.model_dump(mode="json")
    json.dumps(document, allow_nan=False)  # PostgreSQL's JSON has no infinity
    user = declared.user(typed) if declared.user else None
    by = declared.triggered_by(typed) if declared.triggered_by else None
    return Match(workflow=declared, event=typed, document=document, user=user, triggered_by=by)


def _unfit(match: Match) -> str:
    """Return why runs could not read the event, or why the ledger could not hold the people it names; "" if neither."""
    event = match.workflow.event
    try:
        event.model_validate(match.document)
    except ValidationError as error:
        return (
            f"a trigger of {match.workflow.name} reads what is no {event.__name__}, as its event= says: "
            f"{misfitting(error)}"
        )
    by: Any = match.triggered_by
    sent = (getattr(by, "name_for_good", by), getattr(by, "login", None))  # of a person as their provider names them
    for what, text in (("user", match.user and match.user.id), *(("triggered_by", one) for one in sent)):
        if text is None:
            continue
        if not isinstance(text, str):
            return f"{match.workflow.name} takes for {what} what is no text"
        # PostgreSQL's text does not allow NUL, and UTF-8 has no half surrogate pairs; JSON can spell both.
        if any(character == "\x00" or "\ud800" <= character <= "\udfff" for character in text):
            return (
                f"{match.workflow.name} takes for {what} a text with a NUL or half a character, which cannot be stored"
            )
    if any(len(one or "") > TRIGGERED_BY for one in sent):
        return f"{match.workflow.name} takes for triggered_by a text of more than {TRIGGERED_BY} characters"
    return ""

"""Texts that MCP gives to a model about jobs and faults, worded so that it can act on them.

A model may pass on and obey anything it reads, so no text has a link, an operator's name or a key's id.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from identity.errors import Unavailable, Unconfirmed
from pipeline.authoring.registry import Registry
from pipeline.ledger.paging import Record
from pipeline.states import Wait
from webhooks.api import shapes
from webhooks.api.job_models import Outcome, ToolAnswer

LOOK = "aswhom__look_at_job"

_NOT_DONE = {Outcome.FAILED, Outcome.REFUSED, Outcome.CANCELLED, Outcome.DEAD}
_NOT_AGAIN = f"It goes on by itself: do not call the tool again for it, and ask {LOOK} later what became of it."
_QUOTATION = re.compile(r"(“[^”]*(?:”|$))")  # of a provider, by `identity.quoting`
_WHO = (
    (re.compile(r"^(cancelled|replayed|resolved) by [^;]*"), r"\1 by a person"),
    (re.compile(r"\S+ said no\b"), "somebody said no"),
)


def of_job(row: Record, workflows: Registry, *, now: datetime) -> tuple[Outcome, dict[str, Any]]:
    """Return the outcome of a tool's job, and the MCP result that reports it."""
    told = shapes.tool_answer(row, workflows)
    answer: dict[str, Any] = {"outcome": told.outcome, "job": told.job.id}
    if told.result is not None:
        answer["result"] = told.result
    if told.reason is not None:
        answer["reason"] = _nameless(told.reason)
    if told.outcome is Outcome.NEEDS_CONSENT and told.job.consent is not None:
        answer["connection"] = told.job.consent.connection
        answer["missing_scopes"] = told.job.consent.missing_scopes
    if (next_step := _next(told)) is not None:
        answer["next"] = next_step
    if (seconds := shapes.look_again(row, now)) is not None:
        answer["look_again_in"] = seconds
    if told.job.next_try_at is not None:
        answer["next_try_at"] = told.job.next_try_at.isoformat()
    # Models read an error as "it was not done", and call again.
    return told.outcome, _result(answer, is_error=told.outcome in _NOT_DONE and told.result is None)


def of_fault(detail: str, *more: str) -> dict[str, Any]:
    """Return the result that says that nothing was called, and why."""
    return _said("\n".join((detail, *more)), is_error=True)


def not_now(error: Unavailable, *, keyed: bool) -> dict[str, Any]:
    """Return the result of a call while the ledger is unavailable; *keyed*: the call has an idempotency key."""
    if not isinstance(error, Unconfirmed):
        return of_fault(f"This cannot be taken now, and nothing was. Call again in {_seconds(error)} s.")
    what = "Call again with the same idempotencyKey, which has it done once."
    if not keyed:
        what = "Do not call the tool again, or it may be done twice: tell the person, who looks whether it was."
    return _said(f"Nobody knows yet whether this was taken: it may be done. {what}", is_error=False)


def not_seen(error: Unavailable) -> dict[str, Any]:
    """Return the result of looking at a job while the ledger is unavailable."""
    again = f"ask {LOOK} again in {_seconds(error)} s; do not call the tool again for it"
    return _said(f"What became of the job cannot be read now. It goes on by itself: {again}.", is_error=False)


def said(errors: list[dict[str, str]]) -> str:
    return "; ".join(map(misfit, errors))


def misfit(error: Mapping[str, str]) -> str:
    return f"{error['where']}: {error['why']}"


def _next(told: ToolAnswer) -> str | None:
    match told.outcome:
        case Outcome.PENDING:
            return _NOT_AGAIN
        case Outcome.NEEDS_CONSENT if told.job.consent is not None and told.job.consent.user is None:
            return f"An operator has to connect the service's account first. {_NOT_AGAIN}"
        case Outcome.NEEDS_CONSENT:
            where = "where they connect accounts to the product that they use this from, or by a link from its operator"
            return f"The person has to connect their account first, {where}. {_NOT_AGAIN}"
        case Outcome.WAITING if told.job.wait is Wait.UNKNOWN:
            return f"It may have been done already: an operator has to look. {_NOT_AGAIN}"
        case Outcome.WAITING:
            return f"Somebody has to approve it first. {_NOT_AGAIN}"
        case Outcome.UNKNOWN:
            return "It may have been done. Look at the provider before you call the tool again."
        case Outcome.DONE:
            return None
        case _ if told.result is not None:
            return "It was done, although its job ended otherwise: do not call the tool again for it."
        case _:
            return None


def _nameless(reason: str) -> str:
    """Remove people's names from a reason. Its quotations stay verbatim."""
    parts = _QUOTATION.split(reason)
    for who, nobody in _WHO:
        parts[::2] = [who.sub(nobody, ours) for ours in parts[::2]]
    return "".join(parts)


def _seconds(error: Unavailable) -> int:
    return max(1, round(error.retry_after.total_seconds()))


def _result(told: Mapping[str, Any], *, is_error: bool) -> dict[str, Any]:
    return _said(json.dumps(told, ensure_ascii=False), is_error=is_error)


def _said(text: str, *, is_error: bool) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text}], "isError": is_error}

"""The content of a receipt: jobs stopped, calls in flight, compensations, and the provider's answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, select

from identity.refresh.intents import UNSETTLED
from pipeline.revocation.declaration import in_flight
from pipeline.revocation.job_ends import report_jobs
from pipeline.revocation.tables import NARROWING, compensations
from pipeline.revocation.token_requests import token_requests
from pipeline.states import AttemptState, JobState
from pipeline.tables import jobs, steps

FORMAT = "aswhom.receipt.1"

Receipt = Mapping[str, Any]


class ProviderAnswer(StrEnum):
    """The progress of the revocation of the credentials at the provider."""

    NOT_ASKED = "not_asked"  # the credentials stay valid there; Aswhom does not use them
    PENDING = "pending"  # asked, or to be asked again; or some accounts are still to be taken
    DONE = "done"
    STUCK = "stuck"  # given up until an operator acts
    GIVEN_UP = "given_up"  # for good: an operator deleted the tenant without it


@dataclass(frozen=True, kw_only=True)
class ProviderSide:
    """The provider's side of a revocation, as a receipt reports it."""

    answer: ProviderAnswer = ProviderAnswer.NOT_ASKED
    accounts: tuple[Mapping[str, Any], ...] = ()  # one JSON document per account

    def document(self) -> dict[str, Any]:
        return {"answer": str(self.answer), "accounts": [dict(account) for account in self.accounts]}


#: Reads it by the id of a revocation, in the receipt's transaction.
ReadProviderSide = Callable[[Connection, str], ProviderSide]


def compose(connection: Connection, row: Row[Any], provider_side: ReadProviderSide, *, now: datetime) -> Receipt:
    """Compose what there is to say about the revocation *row* now."""
    return {
        "format": FORMAT,
        "revocation": row.id,
        "number": row.number,
        "scope": {"kind": row.kind, "key": row.key},
        **({} if row.narrowing is None else {"narrowing": row.narrowing}),
        "source": row.source,
        "signal": row.signal_id,
        "doubt": row.doubt,  # see pipeline.revoker.inquiry; None: the signal was never in doubt
        "requested_by": row.requested_by,
        "reason": row.reason,
        "effective_at": row.effective_at.isoformat(),
        "quiesced_at": (row.quiesced_at or now).isoformat(),
        **report_jobs(connection, row),
        "in_flight": _calls(connection, row),
        **_token_requests(connection, row, now),
        "compensations": _compensations(connection, row),
        "provider": provider_side(connection, row.id).document(),
    }


def count_open_ends(receipt: Receipt) -> int:
    """Count what a later revision may still settle."""
    unknown = sum(call["outcome"] in (AttemptState.UNKNOWN, AttemptState.OPEN) for call in receipt["in_flight"])
    pending = sum(one["outcome"] == "pending" for one in receipt["compensations"])
    awaited = sum(one["outcome"] in UNSETTLED for one in receipt.get("token_requests", ()))
    return int(unknown + pending + awaited + (receipt["provider"]["answer"] == ProviderAnswer.PENDING))


def _calls(connection: Connection, row: Row[Any]) -> list[dict[str, Any]]:
    """Return the calls in flight. Those that retention has removed keep the words of the last receipt."""
    now = {one.id: _call(one) for one in in_flight(connection, row)}
    before = row.receipt["in_flight"] if row.receipt is not None else []
    return [*(now.pop(call["attempt"], call) for call in before), *now.values()]


def _token_requests(connection: Connection, row: Row[Any], now: datetime) -> dict[str, Any]:
    """Return the token requests. A narrowing has none, nor has a receipt first issued before receipts listed them."""
    if row.kind == NARROWING or (row.receipt is not None and "token_requests" not in row.receipt):
        return {}
    return {"token_requests": token_requests(connection, row, now=now)}


def _call(attempt: Row[Any]) -> dict[str, Any]:
    ended = attempt.closed_at is not None and attempt.state != AttemptState.UNKNOWN
    return {
        "attempt": attempt.id,
        "job": attempt.job_id,
        "step": attempt.step_id,
        "principal": attempt.principal_id,
        "opened_at": attempt.opened_at.isoformat(),
        "closed_at": attempt.closed_at.isoformat() if ended else None,
        "ended": "ended" if ended else "presumed ended",
        "outcome": attempt.state,
    }


def _compensations(connection: Connection, row: Row[Any]) -> list[dict[str, Any]]:
    """Return the compensations of the cancelled jobs' effects, or why there were none.

    The last receipt's words on a refused compensation stay, although a replay has it looked at again.
    """
    by = jobs.alias("by")
    its_end = by.c.state.label("by_state"), by.c.reason.label("by_reason")
    found = connection.execute(
        select(compensations, steps.c.action, steps.c.job_id.label("of_job"), *its_end)
        .join(steps, steps.c.id == compensations.c.step_id)
        .outerjoin(by, by.c.id == compensations.c.job_id)
        .where(compensations.c.revocation_id == row.id)
        .order_by(compensations.c.created_at, compensations.c.step_id)
    )
    now = {
        one.step_id: {
            "step": one.step_id,
            "job": one.of_job,
            "action": one.action,
            "by_job": one.job_id,
            "outcome": _outcome(one.by_state) if one.job_id else "not compensated",
            "reason": one.by_reason if _outcome(one.by_state) == "failed" else one.reason,
        }
        for one in found
    }
    before = row.receipt["compensations"] if row.receipt is not None else []
    return [*(now.pop(one["step"], one) for one in before), *now.values()]


def _outcome(state: str | None) -> str:
    match state:
        case JobState.DONE:
            return "done"
        case JobState.DEAD | JobState.CANCELLED:
            return "failed"
    return "pending"

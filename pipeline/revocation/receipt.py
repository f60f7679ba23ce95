"""The signed receipt of a revocation or narrowing: jobs stopped, calls in flight, and follow-up.

A receipt is issued once nothing of the revocation is in flight. What it calls pending or unknown may be settled later:
it is then issued again as the next revision, with everything else in the same words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, Row, func, select, update

from identity import audit
from identity.audit import AsWhom
from identity.audit.handovers import hold_signing
from identity.keys.signing import Signer, canonical
from identity.refresh.intents import UNSETTLED
from identity.sql.columns import database_now
from pipeline.authoring.uses import OnRevoke
from pipeline.batches import in_batches
from pipeline.jobs import scope_sets
from pipeline.revocation.declaration import Stage, in_flight, scope_of
from pipeline.revocation.pages import counted, first_cancelled, page_sizes, stopping_jobs
from pipeline.revocation.tables import NARROWING, compensations, revocations
from pipeline.revocation.token_requests import token_requests
from pipeline.states import AttemptState, JobState
from pipeline.tables import jobs, steps

FORMAT = "aswhom.receipt.1"
NAMED = 1_000  # cancelled jobs that a receipt names itself; the rest are on its pages

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


@dataclass(frozen=True, kw_only=True)
class Draft:
    """The next revision of a receipt, composed and signed but not yet written."""

    of: Row[Any]
    open_ends: int
    signed: Receipt | None  # None: the stored receipt says the same
    signature: str = ""
    sha256: str = ""


def draft(row: Row[Any], said: Receipt, signer: Signer, *, now: datetime) -> Draft:
    """Return the next revision of the receipt of *row*. *said*: the result of `compose`."""
    open_ends = _open_ends(said)
    if row.receipt is not None and _without_revision(row.receipt) == said:
        return Draft(of=row, open_ends=open_ends, signed=None)
    signed = {**said, "revision": row.revision + 1, "issued_at": now.isoformat()}
    signature, sha256 = signer.sign(signed), digest(signed)
    return Draft(of=row, open_ends=open_ends, signed=signed, signature=signature, sha256=sha256)


def issue(
    connection: Connection, row: Row[Any], signer: Signer, provider_side: ReadProviderSide, *, now: datetime
) -> None:
    """Write the receipt, or the next revision if there is more to say.

    The caller holds the revocation's row. Raises Misconfigured if *signer* is no longer the installation's.
    """
    hold_signing(connection, signer)
    _write(connection, draft(row, compose(connection, row, provider_side, now=now), signer, now=now), now=now)


def issue_next(connection: Connection, drafted: Draft, signer: Signer, *, now: datetime) -> bool:
    """Write a revision composed before this transaction.

    False: the receipt has changed since, or the revision is outdated. Raises Misconfigured if *signer* is no longer the
    installation's.
    """
    columns = revocations.c
    held = select(columns.revision, columns.open_ends).where(columns.id == drafted.of.id).with_for_update()
    if tuple(connection.execute(held).one()) != (drafted.of.revision, drafted.of.open_ends):
        return False
    hold_signing(connection, signer)  # after the row, as in `issue`: two lock orders could deadlock
    _write(connection, drafted, now=now)
    return True


def _write(connection: Connection, drafted: Draft, *, now: datetime) -> None:
    row, signed = drafted.of, drafted.signed
    if signed is None:
        if drafted.open_ends or row.open_ends:  # if it still has any, it is looked at again later
            looked = update(revocations).where(revocations.c.id == row.id)
            connection.execute(looked.values(moved_at=database_now(), open_ends=drafted.open_ends))
        return
    revision = signed["revision"]
    connection.execute(
        update(revocations)
        .where(revocations.c.id == row.id)
        .values(
            state=Stage.QUIESCED,
            quiesced_at=row.quiesced_at or now,
            moved_at=database_now(),
            receipt=signed,
            signature=drafted.signature,
            revision=revision,
            open_ends=drafted.open_ends,
            **counted(row.id),
        )
    )
    first = revision == 1
    audit.record(
        connection,
        "revocation.quiesced" if first else "revocation.receipt",
        AsWhom(tenant=row.tenant_id),
        id=audited_as(row.id, revision),
        at=now,
        outcome="quiesced",
        reason=row.reason,
        detail={
            "revocation": row.id,
            "revision": revision,
            "receipt_sha256": drafted.sha256,
            "cancelled_jobs": signed["cancelled_count"],
            "in_flight": len(signed["in_flight"]),
        },
    )


def outdate(connection: Connection, ids: Sequence[str]) -> None:
    """Mark receipts as outdated, because something they reported has changed: add an open end until they are reissued.

    This also outdates a revision that is being composed meanwhile.
    """
    told = revocations.c.id.in_(ids) & (revocations.c.state == Stage.QUIESCED)
    connection.execute(update(revocations).where(told).values(open_ends=revocations.c.open_ends + 1))


def digest(receipt: Receipt) -> str:
    """Return the digest that the audit keeps of a receipt, as it was signed."""
    return sha256(canonical(receipt)).hexdigest()


def audited_as(revocation: str, revision: int) -> str:
    """Return the id of this revision's audit row."""
    return f"{revocation}.quiesced" if revision == 1 else f"{revocation}.receipt.{revision}"


def _without_revision(receipt: Receipt) -> Receipt:
    """Return a receipt without the fields that differ in every revision."""
    return {key: value for key, value in receipt.items() if key not in ("revision", "issued_at")}


def _open_ends(receipt: Receipt) -> int:
    unknown = sum(call["outcome"] in (AttemptState.UNKNOWN, AttemptState.OPEN) for call in receipt["in_flight"])
    pending = sum(one["outcome"] == "pending" for one in receipt["compensations"])
    awaited = sum(one["outcome"] in UNSETTLED for one in receipt.get("token_requests", ()))
    return int(unknown + pending + awaited + (receipt["provider"]["answer"] == ProviderAnswer.PENDING))


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
        **_jobs(connection, row),
        "in_flight": _calls(connection, row),
        **_token_requests(connection, row, now),
        "compensations": _compensations(connection, row),
        "provider": provider_side(connection, row.id).document(),
    }


def _jobs(connection: Connection, row: Row[Any]) -> dict[str, Any]:
    """Return the outcome of the jobs. A replay after the first receipt does not change it."""
    if row.receipt is not None:
        told = ("cancelled_count", "cancelled_jobs", "finished_jobs", "skipping_jobs", "pages")
        return {key: row.receipt[key] for key in told}
    pages = page_sizes(connection, row.id)
    ended = _ends_of(connection, stopping_jobs(connection, row.id), before=row.number)
    finished, stopped = ([job for job, by_itself in ended.items() if by_itself is wanted] for wanted in (True, False))
    return {
        "cancelled_count": sum(page.cancelled for page in pages) + len(stopped),
        "cancelled_jobs": [*first_cancelled(connection, row.id, limit=NAMED), *stopped][:NAMED],
        "finished_jobs": finished,  # they ran, and their function returned before their next step
        "skipping_jobs": 0 if row.kind == NARROWING else _count_skipping(connection, row),
        "pages": [
            {"number": page.number, "jobs": page.cancelled + page.stopping, "sha256": page.sha256} for page in pages
        ],
    }


def _ends_of(connection: Connection, ids: list[str], *, before: int) -> dict[str, bool]:
    """Return whether each of these jobs, which were told to stop, finished before its next step; else it was cancelled.

    A job accepted again since, whatever has become of it, was cancelled: a finished one cannot be replayed.
    """
    by_itself = (jobs.c.state == JobState.DONE) & (jobs.c.accepted < before)
    ended: dict[str, bool] = {}
    for some in in_batches(ids, NAMED):
        found = select(jobs.c.id, by_itself.label("by_itself")).where(jobs.c.id.in_(some))
        ended.update((row.id, row.by_itself) for row in connection.execute(found.order_by(jobs.c.accepted)))
    return ended


def _calls(connection: Connection, row: Row[Any]) -> list[dict[str, Any]]:
    """Return the calls in flight. Those that retention has removed keep the words of the last receipt."""
    now = {one.id: _call(one) for one in in_flight(connection, row)}
    told = row.receipt["in_flight"] if row.receipt is not None else []
    return [*(now.pop(call["attempt"], call) for call in told), *now.values()]


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
    told = row.receipt["compensations"] if row.receipt is not None else []
    return [*(now.pop(one["step"], one) for one in told), *now.values()]


def _outcome(state: str | None) -> str:
    match state:
        case JobState.DONE:
            return "done"
        case JobState.DEAD | JobState.CANCELLED:
            return "failed"
    return "pending"


def _count_skipping(connection: Connection, row: Row[Any]) -> int:
    """Return how many unfinished jobs can go on without the steps that need the scope.

    None of them has reached a step that stops it yet.
    """
    count, after = 0, ""
    scope = scope_of(row)
    while sets := scope_sets.sets_with_work(
        connection, scope, before=row.number, after=after, then=OnRevoke.SKIP, limit=scope_sets.SETS
    ):
        found = scope_sets.jobs_of(before=row.number).where(jobs.c.scopes_sha256.in_(sets))
        count += connection.execute(found.with_only_columns(func.count())).scalar_one()
        after = sets[-1]
    return count

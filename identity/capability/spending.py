"""Spending: the one moment at which a capability counts, decided under the locks and by the rule that opens steps.

The first spend marks the row of the token's id with the request it was for, as whoever asks has said it. The same
request again is the same spend, until the step it was for has ended; another is refused. Redis has no part in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection, bindparam, select, update

from identity.capability import issued
from identity.capability.model import Audience, Issued
from identity.capability.tables import capabilities
from identity.capability.verifier import Capability, Reason
from identity.columns import database_now
from identity.model import RuledOut
from identity.scopes import revoked_since
from identity.sequence import lock_shared


class Unspendable(StrEnum):
    """Why a genuine token is not spent, beyond what a verifier can see."""

    UNKNOWN = "unknown"  # nothing of the kind was issued, or it was forgotten long after it expired
    REVOKED = "revoked"  # what it depends on was revoked, or is stopped
    SPENT = "spent"  # for another request, or by somebody who did not say for which
    CLOSED = "closed"  # the step it was for has ended, or another took its place


Why = Reason | Unspendable


@dataclass(frozen=True, kw_only=True)
class Spent:
    """It counts. *first*: it had not been spent before; otherwise this is the same spend once more."""

    record: Issued
    first: bool


@dataclass(frozen=True, kw_only=True)
class NotSpent:
    """It does not count, and why."""

    why: Why
    record: Issued | None = None
    ruled_out: RuledOut | None = None


_NOT_SAID = "not said"  # kept of a spend in place of its request: whoever says one later is not the same spender
_ALIVE = (capabilities.c.jti == bindparam("id")) & capabilities.c.closed_at.is_(None)
_SPEND = (
    update(capabilities)
    .where(_ALIVE, capabilities.c.spent_sha256.is_(None), capabilities.c.expires_at > database_now())
    .values(spent_sha256=bindparam("request"), spent_at=database_now())
)
_NOW = select(database_now())


def spend(connection: Connection, claimed: Capability, by: Audience, *, request_sha256: str | None) -> Spent | NotSpent:
    """Spend what *claimed*, a verified token, was issued as. *by* is who asks, as whom it is for.

    *request_sha256* is the request that carried it, as *by* has seen it. None: it does not say, and then only the first
    spend counts, since nobody could tell a second request from a repetition.
    """
    examined = examine(connection, claimed, by)
    if isinstance(examined, NotSpent):
        return examined
    record = examined
    if request_sha256 is not None and request_sha256 != record.capability.request_sha256:
        return NotSpent(why=Reason.REQUEST, record=record)
    request = request_sha256 or _NOT_SAID
    if connection.execute(_SPEND, {"id": claimed.id, "request": request}).rowcount == 1:
        return Spent(record=record, first=True)
    return _again(connection, claimed.id, request_sha256)


def examine(connection: Connection, claimed: Capability, by: Audience) -> Issued | NotSpent:
    """The record of a verified token, under the locks, if it says what was recorded and the rule lets it count."""
    found = issued.find(connection, claimed.id)  # what the locks are named by never changes
    if found is None:
        return NotSpent(why=Unspendable.UNKNOWN)
    if found.audience != by.id:  # whoever asks is not told what became of another's
        return NotSpent(why=Reason.AUDIENCE, record=found)
    scopes = found.scope_list
    lock_shared(connection, scopes)
    ruled_out = revoked_since(connection, scopes, found.accepted)
    if ruled_out is not None:
        return NotSpent(why=Unspendable.REVOKED, record=found, ruled_out=ruled_out)
    if why := _differs(claimed, found.capability):
        return NotSpent(why=why, record=found)
    return found


def _again(connection: Connection, jti: str, request_sha256: str | None) -> Spent | NotSpent:
    """What a token is that cannot be spent for the first time."""
    found = issued.find(connection, jti)
    if found is None:
        return NotSpent(why=Unspendable.UNKNOWN)
    if found.closed_at is not None:
        return NotSpent(why=Unspendable.CLOSED, record=found)
    if found.capability.expires_at <= connection.execute(_NOW).scalar_one():
        return NotSpent(why=Reason.EXPIRED, record=found)
    if found.spent_sha256 != request_sha256:
        return NotSpent(why=Unspendable.SPENT, record=found)
    return Spent(record=found, first=False)


def _differs(claimed: Capability, recorded: Capability) -> Reason | None:
    """The first thing in which a token says other than what was recorded: somebody else has the key."""
    limit, known_limit = claimed.limit, recorded.limit
    pairs: tuple[tuple[object, object, Reason], ...] = (
        (claimed.tenant, recorded.tenant, Reason.TENANT),
        (claimed.audience, recorded.audience, Reason.AUDIENCE),
        (claimed.subject, recorded.subject, Reason.SUBJECT),
        (claimed.actors, recorded.actors, Reason.ACTORS),
        (claimed.job, recorded.job, Reason.JOB),
        (claimed.step, recorded.step, Reason.STEP),
        (claimed.action, recorded.action, Reason.ACTION),
        (claimed.resource, recorded.resource, Reason.RESOURCE),
        (limit and limit.amount, known_limit and known_limit.amount, Reason.AMOUNT),
        (limit and limit.currency, known_limit and known_limit.currency, Reason.CURRENCY),
        (claimed.request_sha256, recorded.request_sha256, Reason.REQUEST),
        (claimed.issued_at, recorded.issued_at, Reason.ISSUED_AT),
        (claimed.expires_at, recorded.expires_at, Reason.EXPIRES_AT),
        (claimed.approved_by, recorded.approved_by, Reason.APPROVED_BY),
    )
    return next((why for said, known, why in pairs if said != known), None)

"""Spending: the one moment at which a capability counts, decided under the locks and by the rule that opens steps.

The first spend marks the row of the token's id with the request it was for, as whoever asks has said it. The same
request again is the same spend, until the step it was for has ended; another is refused. Redis has no part in it.

A first spend is one UPDATE that asks for all of this. Where it finds nothing to mark, what was recorded is read, and
says why.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Text, bindparam, cast, select, update

from identity.capability import issued
from identity.capability.model import Audience, Issued, approvers_of, scopes_of
from identity.capability.tables import capabilities
from identity.capability.verifier import Capability, Reason
from identity.model import RuledOut
from identity.scopes import all_standings, is_prohibited, prohibition, revoked_since, scope_keys
from identity.sql.columns import database_now
from identity.sql.prepared import Prepared
from identity.sql.sequence import lock_shared


class Unspendable(StrEnum):
    """Why a genuine token is not spent, beyond what a verifier can see."""

    UNKNOWN = "unknown"  # nothing of the kind was issued, or it was forgotten long after it expired
    REVOKED = "revoked"  # what it depends on was revoked, or is stopped
    SPENT = "spent"  # for another request, or by somebody who did not say for which
    CLOSED = "closed"  # the step it was for has ended, or another took its place


Why = Reason | Unspendable


@dataclass(frozen=True, kw_only=True)
class Spent:
    """The spend counts. *first*: the capability had not been spent before; else this is the same spend once more."""

    capability: Capability
    agent: str
    first: bool


@dataclass(frozen=True, kw_only=True)
class NotSpent:
    """The spend does not count, and why."""

    why: Why
    record: Issued | None = None
    ruled_out: RuledOut | None = None


_NOT_SAID = "not said"  # kept of a spend in place of its request: whoever says one later is not the same spender
_ALIVE = (capabilities.c.jti == bindparam("id")) & capabilities.c.closed_at.is_(None)
_SPEND = Prepared(
    update(capabilities)
    .where(_ALIVE, capabilities.c.spent_sha256.is_(None), capabilities.c.expires_at > database_now())
    .values(spent_sha256=bindparam("request"), spent_at=database_now())
)
_NOW = Prepared(select(database_now()))

#: What a token says, where it was recorded, and how: who says anything else of it has the key, and is somebody else.
_SAID: tuple[tuple[Reason, ColumnElement[Any], Callable[[Capability], Any]], ...] = (
    (Reason.TENANT, capabilities.c.tenant_id, lambda of: of.tenant),
    (Reason.AUDIENCE, capabilities.c.uri, lambda of: of.audience),
    (Reason.SUBJECT, capabilities.c.principal_id, lambda of: of.subject),
    (Reason.ACTORS, cast(capabilities.c.actors, Text), lambda of: json.dumps(of.actors)),
    (Reason.JOB, capabilities.c.job_id, lambda of: of.job),
    (Reason.STEP, capabilities.c.step_id, lambda of: of.step),
    (Reason.ACTION, capabilities.c.action, lambda of: of.action),
    (Reason.RESOURCE, capabilities.c.resource, lambda of: of.resource),
    (Reason.AMOUNT, capabilities.c.limit_amount, lambda of: of.limit and f"{of.limit.amount:f}"),
    (Reason.CURRENCY, capabilities.c.limit_currency, lambda of: of.limit and of.limit.currency),
    (Reason.REQUEST, capabilities.c.request_sha256, lambda of: of.request_sha256),
    (Reason.ISSUED_AT, capabilities.c.issued_at, lambda of: of.issued_at),
    (Reason.EXPIRES_AT, capabilities.c.expires_at, lambda of: of.expires_at),
    (Reason.APPROVED_BY, cast(capabilities.c.approved_by, Text), lambda of: json.dumps(of.approved_by)),
)
_SPEND_AS_SAID = _SPEND.statement.where(
    capabilities.c.audience_id == bindparam("by"),
    capabilities.c.connection_id == bindparam("connection_key"),
    capabilities.c.agent_id == bindparam("agent_key"),
    *(column.is_not_distinct_from(bindparam(f"said_{what}")) for what, column, _ in _SAID),
)


@cache
def _spend_as_said(approvers: int) -> Prepared:
    """`examine` and `_SPEND` in one, for who knows beforehand what to lock, with so many approvers."""
    users: list[ColumnElement[str]] = [bindparam(f"approver_{place}") for place in range(approvers)]
    return Prepared(_SPEND_AS_SAID.where(~is_prohibited(capabilities.c.accepted, users=users)))


def spend(connection: Connection, claimed: Capability, by: Audience, *, request_sha256: str | None) -> Spent | NotSpent:
    """Spend what *claimed*, a verified token, was issued as. *by* is who asks, as whom it is for.

    *request_sha256* is the request that carried it, as *by* has seen it. None: it does not say, and then only the first
    spend counts, since nobody could tell a second request from a repetition.
    """
    request = request_sha256 or _NOT_SAID
    if request_sha256 in (None, claimed.request_sha256) and _is_spent_as_said(connection, claimed, by, request):
        return Spent(capability=claimed, agent=claimed.actors[-1], first=True)
    record = examine(connection, claimed, by)
    if isinstance(record, NotSpent):
        return record
    if request_sha256 is not None and request_sha256 != record.capability.request_sha256:
        return NotSpent(why=Reason.REQUEST, record=record)
    # Approvers are checked before the first spend only: a repetition is told yes again, as the service may have acted.
    if record.spent_sha256 is None:
        approvers = all_standings(connection, approvers_of(record.capability))
        if (ruled_out := prohibition(approvers, record.accepted)) is not None:
            return NotSpent(why=Unspendable.REVOKED, record=record, ruled_out=ruled_out)
    if _SPEND.run(connection, {"id": claimed.id, "request": request}).rowcount == 1:
        return Spent(capability=record.capability, agent=record.agent, first=True)
    return _again(connection, claimed.id, request_sha256)


def _is_spent_as_said(connection: Connection, claimed: Capability, by: Audience, request: str) -> bool:
    """Whether it could be spent by one statement: for the first time, and being what it says that it is."""
    if by.connection is None or len(claimed.actors) != 1:
        return False  # through which connection a token came that was passed on is on record alone
    named = scopes_of(claimed, connection=by.connection, agent=claimed.actors[0])
    # Should what was recorded have other names than these, the UPDATE marks nothing.
    lock_shared(connection, (*named, *approvers_of(claimed)))
    said = {f"said_{what}": says(claimed) for what, _, says in _SAID}
    approvers = {f"approver_{place}": person for place, person in enumerate(claimed.approved_by)}
    values = {"id": claimed.id, "request": request, "by": by.id, **scope_keys(named), **said, **approvers}
    return _spend_as_said(len(approvers)).run(connection, values).rowcount == 1


def examine(connection: Connection, claimed: Capability, by: Audience) -> Issued | NotSpent:
    """The record of a verified token, under the locks, if it says what was recorded and the rule lets it count."""
    found = issued.find(connection, claimed.id)  # what the locks are named by never changes
    if found is None:
        return NotSpent(why=Unspendable.UNKNOWN)
    if found.audience != by.id:  # whoever asks is not told what became of another's
        return NotSpent(why=Reason.AUDIENCE, record=found)
    scopes = found.scope_list
    lock_shared(connection, (*scopes, *approvers_of(found.capability)))
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
    if found.capability.expires_at <= _NOW.run(connection).scalar_one():
        return NotSpent(why=Reason.EXPIRED, record=found)
    if found.spent_sha256 != request_sha256:
        return NotSpent(why=Unspendable.SPENT, record=found)
    return Spent(capability=found.capability, agent=found.agent, first=False)


def _differs(claimed: Capability, recorded: Capability) -> Reason | None:
    """The first thing in which a token says other than what was recorded: somebody else has the key."""
    return next((why for why, _, says in _SAID if says(claimed) != says(recorded)), None)

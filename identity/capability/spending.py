"""Spending: the use of a capability, decided under the locks and the rule that also govern the opening of steps.

The first spend marks the token's row with the request as the audience reports it. Repeating that request is the same
spend until the step ends; any other request is refused. Redis is not involved.

A first spend is a single UPDATE with all conditions. If it matches no row, the record is read to find the reason.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Text, bindparam, cast, select, update

from identity.accounts.scopes import all_standings, is_prohibited, prohibition, revoked_since, scope_keys
from identity.capability import issued
from identity.capability.model import Audience, Issued, approvers_of, scopes_of
from identity.capability.tables import capabilities
from identity.capability.verifier import Capability, Reason
from identity.model import RuledOut
from identity.sql.columns import database_now
from identity.sql.prepared import Prepared
from identity.sql.sequence import lock_shared


class Unspendable(StrEnum):
    """The reason why a genuine token is not spent, beyond those a verifier can see."""

    UNKNOWN = "unknown"  # never issued, or deleted long after it expired
    REVOKED = "revoked"  # a scope it depends on was revoked or is stopped
    SPENT = "spent"  # for another request, or for one that was not reported
    CLOSED = "closed"  # its step has ended, or another capability replaced it


Why = Reason | Unspendable


@dataclass(frozen=True, kw_only=True)
class Spent:
    """A spend that counts. *first* is False if it repeats an earlier spend."""

    capability: Capability
    agent: str
    first: bool


@dataclass(frozen=True, kw_only=True)
class NotSpent:
    """A spend that does not count, with the reason."""

    why: Why
    record: Issued | None = None
    ruled_out: RuledOut | None = None


_NOT_SAID = "not said"  # stored if no request was reported: no later report can match it
_ALIVE = (capabilities.c.jti == bindparam("id")) & capabilities.c.closed_at.is_(None)
_SPEND = Prepared(
    update(capabilities)
    .where(_ALIVE, capabilities.c.spent_sha256.is_(None), capabilities.c.expires_at > database_now())
    .values(spent_sha256=bindparam("request"), spent_at=database_now())
)
_NOW = Prepared(select(database_now()))

#: Each claim with its column and its stored form. A signed token that differs from its record means a stolen key.
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
    """Combine `examine` and `_SPEND` for callers that know the scopes to lock, with this number of approvers."""
    users: list[ColumnElement[str]] = [bindparam(f"approver_{place}") for place in range(approvers)]
    return Prepared(_SPEND_AS_SAID.where(~is_prohibited(capabilities.c.accepted, users=users)))


def spend(connection: Connection, claimed: Capability, by: Audience, *, request_sha256: str | None) -> Spent | NotSpent:
    """Spend the verified token *claimed* on behalf of its audience *by*.

    *request_sha256* is the hash of the request that carried it, as received by *by*. With None only the first spend
    counts, since a second request could not be told from a repetition.
    """
    request = request_sha256 or _NOT_SAID
    if request_sha256 in (None, claimed.request_sha256) and _is_spent_as_said(connection, claimed, by, request):
        return Spent(capability=claimed, agent=claimed.actors[-1], first=True)
    record = examine(connection, claimed, by)
    if isinstance(record, NotSpent):
        return record
    if request_sha256 is not None and request_sha256 != record.capability.request_sha256:
        return NotSpent(why=Reason.REQUEST, record=record)
    # Approvers are checked only before the first spend: a repetition is confirmed, as the service may have acted.
    if record.spent_sha256 is None:
        approvers = all_standings(connection, approvers_of(record.capability))
        if (ruled_out := prohibition(approvers, record.accepted)) is not None:
            return NotSpent(why=Unspendable.REVOKED, record=record, ruled_out=ruled_out)
    if _SPEND.run(connection, {"id": claimed.id, "request": request}).rowcount == 1:
        return Spent(capability=record.capability, agent=record.agent, first=True)
    return _again(connection, claimed.id, request_sha256)


def _is_spent_as_said(connection: Connection, claimed: Capability, by: Audience, request: str) -> bool:
    """Try the first spend in one statement; True if the record matches all claims and it was not spent before."""
    if by.connection is None or len(claimed.actors) != 1:
        return False  # only the record names the connection of a token that was passed on
    named = scopes_of(claimed, connection=by.connection, agent=claimed.actors[0])
    # If the record names other scopes than these, the UPDATE matches nothing.
    lock_shared(connection, (*named, *approvers_of(claimed)))
    said = {f"said_{what}": says(claimed) for what, _, says in _SAID}
    approvers = {f"approver_{place}": person for place, person in enumerate(claimed.approved_by)}
    values = {"id": claimed.id, "request": request, "by": by.id, **scope_keys(named), **said, **approvers}
    return _spend_as_said(len(approvers)).run(connection, values).rowcount == 1


def examine(connection: Connection, claimed: Capability, by: Audience) -> Issued | NotSpent:
    """Return a verified token's record, under the locks, if its claims match and the rule permits it."""
    found = issued.find(connection, claimed.id)  # the columns that name the locks never change
    if found is None:
        return NotSpent(why=Unspendable.UNKNOWN)
    if found.audience != by.id:  # do not reveal the state of another audience's token
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
    """Tell a repeated spend from the reason why a first spend failed."""
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
    """Return the first claim that differs from the record, which means a stolen key."""
    return next((why for why, _, says in _SAID if says(claimed) != says(recorded)), None)

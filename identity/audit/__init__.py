"""Audit rows, written in the transaction of what they record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection, insert

from identity.audit.tables import audit
from identity.model import AccessPattern, AccountKey
from identity.sql.prepared import Prepared
from identity.sql.sequence import NUMBERS, next_number

_INSERT = Prepared(insert(audit))
_INSERT_NUMBERED = Prepared(insert(audit).values(number=NUMBERS.next_value()).returning(audit.c.number))


@dataclass(frozen=True, kw_only=True)
class Act:
    """What every act of a person carries: the id of its record in the audit, who does it, when, and why if they say."""

    audit_id: str
    by: str
    now: datetime
    why: str | None = None


@dataclass(frozen=True, kw_only=True)
class AsWhom:
    """As whom something was done, and for whom."""

    tenant: str | None  # None: it is the platform's
    agent: str | None = None
    principal: str | None = None
    pattern: AccessPattern | None = None
    on_behalf_of: str | None = None
    account: str | None = None
    generation: int | None = None  # of the account's grant

    @classmethod
    def of_account(cls, key: AccountKey, *, id: str | None = None, generation: int | None = None) -> AsWhom:
        """The account of that key; *id* None: it has no row yet."""
        return cls(tenant=key.tenant, principal=key.principal, account=id, generation=generation)


@dataclass(frozen=True, kw_only=True)
class Work:
    """What it was done for."""

    job: str | None = None
    step: str | None = None
    attempt: str | None = None
    action: str | None = None


def record(
    connection: Connection,
    kind: str,
    whom: AsWhom,
    work: Work = Work(),
    *,
    id: str,
    at: datetime,
    number: int | None = None,
    outcome: str | None = None,
    reason: str | None = None,
    detail: Mapping[str, Any] | None = None,
) -> int:
    """Write one row, and return its ledger number: *number* if the caller has taken one, else the next.

    *detail* is JSON without floating-point numbers, so that the seal over it reads the same everywhere. Of it and of
    *reason*, what others wrote and UTF-8 cannot carry (half of a surrogate pair) becomes a question mark.
    """
    row = {
        "id": id,
        "at": at,
        "kind": kind,
        "tenant_id": whom.tenant or "",
        "agent_id": whom.agent,
        "principal_id": whom.principal,
        "pattern": whom.pattern,
        "on_behalf_of": whom.on_behalf_of,
        "account_id": whom.account,
        "generation": whom.generation,
        "job_id": work.job,
        "step_id": work.step,
        "attempt_id": work.attempt,
        "action": work.action,
        "outcome": outcome,
        "reason": None if reason is None else _carried(reason),
        "detail": carried(dict(detail or {})),
    }
    if number is None and connection.dialect.name == "postgresql":  # one round trip less
        return int(_INSERT_NUMBERED.run(connection, row).scalar_one())
    taken = next_number(connection) if number is None else number
    _INSERT.run(connection, row | {"number": taken})
    return taken


def said_by(by: str, why: str | None) -> str:
    """The reason of a record of what a person did: that they did it, and what they said of it."""
    return f"by {by}: {why}" if why else f"by {by}"


def record_act(
    connection: Connection,
    kind: str,
    whom: AsWhom,
    act: Act,
    *,
    work: Work = Work(),
    number: int | None = None,
    outcome: str,
    detail: Mapping[str, Any] | None = None,
) -> int:
    """Write the row of what a person did, and return its ledger number: that they did it is its reason."""
    return record(
        connection,
        kind,
        whom,
        work,
        id=act.audit_id,
        at=act.now,
        number=number,
        outcome=outcome,
        reason=said_by(act.by, act.why),
        detail=detail,
    )


def carried(detail: dict[str, Any]) -> dict[str, Any]:
    """*detail*, with a question mark for each half of a surrogate pair: no seal could be made over that."""
    try:
        orjson.dumps(detail)
    except orjson.JSONEncodeError:
        document: dict[str, Any] = json.loads(_carried(json.dumps(detail, ensure_ascii=False)))
        return document
    return detail


def _carried(text: str) -> str:
    return text if text.isascii() else text.encode(errors="replace").decode()

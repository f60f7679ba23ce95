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
    """An act of a person: the id of its audit record, who acts, when, and why if they say."""

    audit_id: str
    by: str
    now: datetime
    why: str | None = None


@dataclass(frozen=True, kw_only=True)
class AsWhom:
    """The parties of an audit record: as whom something was done, and for whom."""

    tenant: str | None  # None: the platform's
    agent: str | None = None
    principal: str | None = None
    pattern: AccessPattern | None = None
    on_behalf_of: str | None = None
    account: str | None = None
    generation: int | None = None  # of the account's grant

    @classmethod
    def of_account(cls, key: AccountKey, *, id: str | None = None, generation: int | None = None) -> AsWhom:
        """Return the parties for the account of that key; *id* None: it has no row yet."""
        return cls(tenant=key.tenant, principal=key.principal, account=id, generation=generation)


@dataclass(frozen=True, kw_only=True)
class Work:
    """The work that something was done for."""

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
    """Write one row and return its ledger number: *number* if the caller has taken one, otherwise the next.

    *detail* is JSON without floating-point numbers, so that the seal over it reads the same everywhere. In it and in
    *reason*, lone surrogates, which UTF-8 cannot encode, become question marks.
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
    if number is None and connection.dialect.name == "postgresql":  # one round trip fewer
        return int(_INSERT_NUMBERED.run(connection, row).scalar_one())
    taken = next_number(connection) if number is None else number
    _INSERT.run(connection, row | {"number": taken})
    return taken


def said_by(by: str, why: str | None) -> str:
    """Return the reason for the record of a person's act: who acted, and why."""
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
    """Write the row of a person's act, with that person in its reason; return its ledger number."""
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
    """Return *detail* with a question mark for each lone surrogate, over which no seal could be made."""
    try:
        orjson.dumps(detail)
    except orjson.JSONEncodeError:
        document: dict[str, Any] = json.loads(_carried(json.dumps(detail, ensure_ascii=False)))
        return document
    return detail


def _carried(text: str) -> str:
    return text if text.isascii() else text.encode(errors="replace").decode()

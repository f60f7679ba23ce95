"""Approvals as people are told of them: plain reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, select

from identity.tables import principals
from pipeline.approval_tables import approval_votes, approvals
from pipeline.ledger.approvals import YES
from pipeline.states import ApprovalState


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one approver said, and where."""

    principal: str
    name: str
    yes: bool
    through: str
    at: datetime


@dataclass(frozen=True, kw_only=True)
class Need:
    """One rule's quorum, who may meet it, and how many have said yes."""

    rule: str
    quorum: int
    approvers: tuple[str, ...]  # principals' ids
    names: tuple[str, ...]
    said_yes: int


@dataclass(frozen=True, kw_only=True)
class ApprovalView:
    """One approval. *shown* is all that approvers are told of the step; *digest* goes back with an answer."""

    id: str
    tenant: str
    job: str
    state: ApprovalState
    reason: str | None
    shown: Mapping[str, Any]
    digest: str
    policy_version: int
    needs: tuple[Need, ...]
    answers: tuple[Answer, ...]
    created_at: datetime
    expires_at: datetime
    decided_at: datetime | None

    def awaits(self, principal: str) -> bool:
        """Whether it is open, names *principal*, and has no answer of theirs."""
        return (
            self.state is ApprovalState.OPEN
            and any(principal in need.approvers for need in self.needs)
            and all(principal != one.principal for one in self.answers)
        )


def approval(connection: Connection, id: str, *, tenant: str | None = None) -> ApprovalView | None:
    """The approval of that id; *tenant*: if it is that tenant's."""
    which = approvals.c.id == id
    if tenant is not None:
        which &= approvals.c.tenant_id == tenant
    rows = connection.execute(select(approvals).where(which)).all()
    found = _views(connection, rows)
    return found[0] if found else None


def some_approvals(
    connection: Connection, *, tenant: str | None, state: ApprovalState | None, limit: int
) -> list[ApprovalView]:
    """The newest, of one tenant and in one state where those are given."""
    statement = select(approvals).order_by(approvals.c.created_at.desc(), approvals.c.id.desc()).limit(limit)
    if tenant is not None:
        statement = statement.where(approvals.c.tenant_id == tenant)
    if state is not None:
        statement = statement.where(approvals.c.state == state)
    return _views(connection, connection.execute(statement).all())


def _views(connection: Connection, rows: Iterable[Row[Any]]) -> list[ApprovalView]:
    rows = list(rows)
    answers = connection.execute(
        select(approval_votes)
        .where(approval_votes.c.approval_id.in_([row.id for row in rows]))
        .order_by(approval_votes.c.number)
    ).all()
    people = {one for row in rows for need in row.needs for one in need["approvers"]}
    people |= {one.principal_id for one in answers}
    named = connection.execute(select(principals.c.id, principals.c.name).where(principals.c.id.in_(sorted(people))))
    names = {row.id: row.name for row in named}
    return [_view(row, [one for one in answers if one.approval_id == row.id], names) for row in rows]


def _view(row: Row[Any], answers: list[Row[Any]], names: Mapping[str, str]) -> ApprovalView:
    yes = {one.principal_id for one in answers if one.answer == YES}
    return ApprovalView(
        id=row.id,
        tenant=row.tenant_id,
        job=row.job_id,
        state=ApprovalState(row.state),
        reason=row.reason,
        shown=row.shown,
        digest=row.digest,
        policy_version=row.policy_version,
        needs=tuple(
            Need(
                rule=need["rule"],
                quorum=need["quorum"],
                approvers=tuple(need["approvers"]),
                names=tuple(names.get(one, one) for one in need["approvers"]),
                said_yes=len(yes & set(need["approvers"])),
            )
            for need in row.needs
        ),
        answers=tuple(
            Answer(
                principal=one.principal_id,
                name=names.get(one.principal_id, one.principal_id),
                yes=one.answer == YES,
                through=one.through,
                at=one.at,
            )
            for one in answers
        ),
        created_at=row.created_at,
        expires_at=row.expires_at,
        decided_at=row.decided_at,
    )

"""Reads of approvals, for display."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Text, cast, exists, or_, select

from identity.sql.columns import is_one
from identity.tables import principals
from pipeline.approvals.bars import barred
from pipeline.approvals.requested import YES
from pipeline.approvals.tables import approval_votes, approvals
from pipeline.ledger.paging import Page, Record, Turn, page_of, place_of, rows_of
from pipeline.states import ApprovalState

# approvals examined for a page of those awaiting somebody: each needs a lookup of whether they may decide it
LOOKED_AT = 200
_SOME = 20  # approvals read at once for that page


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One approver's answer, and the channel it came by."""

    principal: str
    name: str
    yes: bool
    through: str
    at: datetime


@dataclass(frozen=True, kw_only=True)
class Need:
    """One rule's quorum, its possible approvers, and the number of yes answers."""

    rule: str
    quorum: int
    approvers: tuple[str, ...]  # principals' ids
    names: tuple[str, ...]
    said_yes: int


@dataclass(frozen=True, kw_only=True)
class ApprovalView:
    """One approval. *shown* is all that approvers are told of the step; *digest* is returned with an answer."""

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
    used_at: datetime | None  # when its step opened
    barred: Mapping[str, str] = field(default_factory=dict)  # named approvers who cannot decide it, and why

    def awaits(self, principal: str) -> bool:
        """True if it is open, names *principal*, who may decide it, and has no answer from them."""
        return (
            self.state is ApprovalState.OPEN
            and principal not in self.barred
            and any(principal in need.approvers for need in self.needs)
            and all(principal != one.principal for one in self.answers)
        )


def approval(connection: Connection, id: str) -> ApprovalView | None:
    """Return the approval with that id; while it is open, with the approvers who cannot decide it."""
    found = _views(connection, rows_of(connection, select(approvals).where(approvals.c.id == id)))
    if not found or found[0].state is not ApprovalState.OPEN:
        return found[0] if found else None
    named = {one for need in found[0].needs for one in need.approvers}
    return replace(found[0], barred=barred(connection, found[0].job, named))


def approvals_of_job(connection: Connection, job: str) -> list[ApprovalView]:
    """Return the approvals that the job's steps asked for, oldest first."""
    found = select(approvals).where(approvals.c.job_id == job).order_by(approvals.c.asked)
    return _views(connection, rows_of(connection, found))


def approvals_page(
    connection: Connection,
    turn: Turn,
    *,
    tenant: str | None,
    state: ApprovalState | None,
    awaiting: Collection[str] = (),
) -> tuple[Page, list[ApprovalView]]:
    """Return a page of approvals, newest first, as rows and as views; optionally of one tenant or state.

    Open approvals are ordered by expiry, soonest first. *awaiting*: only approvals that await one of these principals.
    Only these are checked for whether they may decide, since each check costs a query. The page skips all others until
    it is full, but examines at most `LOOKED_AT` approvals.
    """
    statement, columns = select(approvals), approvals.c
    if tenant is not None:
        statement = statement.where(columns.tenant_id == tenant)
    if state is not None:
        statement = statement.where(is_one(columns.state, state))

    def also(of: Any) -> Sequence[ColumnElement[bool]]:
        if not awaiting:
            return ()
        named = (cast(of.needs, Text).contains(json.dumps(one), autoescape=True) for one in awaiting)
        voted = exists().where(approval_votes.c.approval_id == of.id, approval_votes.c.principal_id.in_(awaiting))
        return or_(*named), ~voted

    is_open = state is ApprovalState.OPEN
    at = columns.expires_at if is_open else columns.created_at
    look = partial(page_of, connection, statement, at=at, id=columns.id, also=also, soonest_first=is_open)
    if not awaiting:
        page = look(turn)
        return page, _views(connection, page.rows)
    page = look(some := replace(turn, limit=_SOME))
    rows, views, looked_at = list[Record](), list[ApprovalView](), 0
    while True:
        for row, view in zip(page.rows, _views(connection, page.rows), strict=True):
            theirs = replace(view, barred=barred(connection, view.job, awaiting))
            # The text match says that somebody is named somewhere, the view says where: a rule may have the same name.
            if any(theirs.awaits(somebody) for somebody in awaiting):
                if len(views) == turn.limit:  # the page is full, and there is more
                    return Page(rows=rows, next=place_of(rows[-1], at, columns.id)), views
                rows.append(row)
                views.append(theirs)
        looked_at += len(page.rows)
        if page.next is None or page.looked_through is not None:
            return replace(page, rows=rows), views
        if looked_at >= LOOKED_AT:
            return replace(page, rows=rows, looked_through=looked_at), views
        page = look(replace(some, after=page.next))


def tenants_that_ask(connection: Connection) -> Sequence[str]:
    """Return the tenants that have an open approval."""
    found = select(approvals.c.tenant_id).where(is_one(approvals.c.state, ApprovalState.OPEN)).distinct()
    return connection.execute(found.order_by(approvals.c.tenant_id)).scalars().all()


def _views(connection: Connection, rows: Sequence[Record]) -> list[ApprovalView]:
    answers = connection.execute(
        select(approval_votes)
        .where(approval_votes.c.approval_id.in_([row["id"] for row in rows]))
        .order_by(approval_votes.c.number)
    ).all()
    people = {one for row in rows for need in row["needs"] for one in need["approvers"]}
    people |= {one.principal_id for one in answers}
    named = connection.execute(select(principals.c.id, principals.c.name).where(principals.c.id.in_(sorted(people))))
    names = {row.id: row.name for row in named}
    return [_view(row, [one for one in answers if one.approval_id == row["id"]], names) for row in rows]


def _view(row: Record, answers: list[Row[Any]], names: Mapping[str, str]) -> ApprovalView:
    yes = {one.principal_id for one in answers if one.answer == YES}
    return ApprovalView(
        id=row["id"],
        tenant=row["tenant_id"],
        job=row["job_id"],
        state=ApprovalState(row["state"]),
        reason=row["reason"],
        shown=row["shown"],
        digest=row["digest"],
        policy_version=row["policy_version"],
        needs=tuple(
            Need(
                rule=need["rule"],
                quorum=need["quorum"],
                approvers=tuple(need["approvers"]),
                names=tuple(names.get(one, one) for one in need["approvers"]),
                said_yes=len(yes & set(need["approvers"])),
            )
            for need in row["needs"]
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
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        decided_at=row["decided_at"],
        used_at=row["used_at"],
    )

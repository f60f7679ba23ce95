"""News of approvals for workflows: requests and outcomes, each told once to the enabled workflows that listen."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, Row, func, or_, select, update

from identity.errors import Unavailable
from identity.failures import Failures
from identity.sql.store import CommitUnknown, Store
from pipeline.approvals.shown import Shown
from pipeline.approvals.tables import approvals
from pipeline.authoring.declared_workflow import Workflow
from pipeline.authoring.registry import Registry
from pipeline.events import Event, Trigger
from pipeline.jobs import pins
from pipeline.jobs.bells import first_bells
from pipeline.jobs.new_jobs import NewJob, insert_job
from pipeline.model import Bell, Ring
from pipeline.states import ApprovalState
from pipeline.tables import jobs

SOURCE, EVENT = "aswhom", "approval"
BATCH = 50


class ApprovalNews(Event):
    """An approval was asked for, or is decided. *before* None: nothing was told of it yet.

    *asked*: this workflow posted the question. It gets the outcome with the same configuration, so that it answers in
    the same channel.
    """

    approval: str
    tenant: str
    state: str
    before: str | None
    asked: bool = False
    reason: str | None
    shown: Shown
    needs: list[dict[str, Any]]
    expires_at: str


def approval_news() -> Trigger[ApprovalNews]:
    """Trigger on every change of an approval's state."""
    return Trigger(source=SOURCE, event=EVENT, read=ApprovalNews.model_validate)


def tell_of_approvals(store: Store, workflows: Registry, ring: Ring, *, now: datetime) -> int:
    """Start the jobs of listening workflows for untold changes of approvals; return how many approvals that was.

    Safe to run twice, on two hosts, at once. One that cannot be told does not block the others. Raises an
    ExceptionGroup of unexpected failures after the rest. Raises Unavailable or CommitUnknown at once, in the group if
    there is one: then nothing else would succeed either.
    """
    told = 0
    failures = Failures()
    with failures.told("approvals that workflows could not be told of"):
        # More than one batch only if nothing in it could be told; otherwise those at the front would block the rest.
        while not told and (waiting := store.read(partial(_waiting, besides=list(failures.of)))):
            for id in waiting:
                try:
                    ring.jobs(store.write(partial(_tell, id=id, workflows=workflows, now=now)))
                    told += 1
                except (CommitUnknown, Unavailable):
                    raise  # the ledger's failure, not this approval's
                except Exception as failure:  # noqa: BLE001 - raised below: one bug must not stop the rest
                    failures.add("approval", id, failure)
    return told


def _waiting(connection: Connection, besides: Sequence[str]) -> Sequence[str]:
    untold = select(approvals.c.id).where(_untold(), approvals.c.id.not_in(besides))
    return connection.execute(untold.order_by(approvals.c.created_at, approvals.c.id).limit(BATCH)).scalars().all()


def _untold() -> Any:
    return or_(approvals.c.told_state.is_(None), approvals.c.told_state != approvals.c.state)


def _tell(connection: Connection, *, id: str, workflows: Registry, now: datetime) -> Sequence[Bell]:
    row = connection.execute(select(approvals).where(approvals.c.id == id, _untold())).one_or_none()
    if row is None:
        return ()
    same = func.coalesce(approvals.c.told_state, "") == (row.told_state or "")
    mark = update(approvals).where(approvals.c.id == id, approvals.c.state == row.state, same)
    if connection.execute(mark.values(told_state=row.state)).rowcount == 0:
        return ()  # another host was first, or it moved meanwhile and is told at the next turn
    listening = workflows.match(SOURCE, EVENT, _news(row).model_dump(mode="json"))
    if _of_listener(connection, row, [match.workflow for match in listening]):
        return ()  # requesting approval of a request would never end
    started = []
    for match in listening:
        config = pins.enabled(connection, row.tenant_id, match.workflow.name)
        if config is None:
            continue
        asked = pins.pinned(connection, _job(id, ApprovalState.OPEN, match.workflow))
        insert_job(
            connection,
            NewJob(
                id=_job(id, row.state, match.workflow),
                tenant=row.tenant_id,
                workflow=match.workflow,
                event=match.event.model_copy(update={"asked": asked is not None}).model_dump(mode="json"),
                config=config if asked is None else asked,
            ),
            now=now,
        )
        started.append(match.workflow)
    return first_bells(connection, row.tenant_id, started)


def _job(approval: str, state: str, workflow: Workflow) -> str:
    """Return the id of the job that tells a workflow of a state."""
    digest = sha256(f"{approval}\x00{state}\x00{workflow.name}".encode()).hexdigest()
    return f"job_{digest[:26]}"


def _news(row: Row[Any]) -> ApprovalNews:
    return ApprovalNews(
        approval=row.id,
        tenant=row.tenant_id,
        state=row.state,
        before=row.told_state,
        reason=row.reason,
        shown=row.shown,
        needs=row.needs,
        expires_at=row.expires_at.isoformat(),
    )


def _of_listener(connection: Connection, row: Row[Any], listeners: Sequence[Workflow]) -> bool:
    """True if the approval is for a step of one of the listening workflows."""
    name = connection.execute(select(jobs.c.workflow).where(jobs.c.id == row.job_id)).scalar_one()
    return any(one.name == name for one in listeners)

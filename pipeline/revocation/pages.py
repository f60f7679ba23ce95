"""Pages: the jobs a revocation reached, recorded in the transaction that reached them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, insert, select, update

from identity.keys.signing import canonical
from identity.sql.columns import database_now
from identity.sql.prepared import Prepared
from identity.sql.sequence import next_number
from pipeline.batches import in_batches
from pipeline.revocation.declaration import Stage
from pipeline.revocation.tables import revocation_pages, revocations
from pipeline.states import JobState
from pipeline.tables import jobs

_COUNT = Prepared(
    update(revocations)
    .where(revocations.c.id == bindparam("revocation"), revocations.c.state != Stage.QUIESCED)
    .values(
        moved_at=database_now(),
        cancelled_jobs=revocations.c.cancelled_jobs + bindparam("more_cancelled"),
        stopped_jobs=revocations.c.stopped_jobs + bindparam("more_stopped"),
    )
)
# Any number of transactions may hold this lock together, and with `_COUNT`. It excludes only the start of draining,
# which counts the jobs on the pages, and the writing of a receipt.
_IS_OPEN = Prepared(
    select(revocations.c.id)
    .where(revocations.c.id == bindparam("revocation"), revocations.c.state != Stage.QUIESCED)
    .with_for_update(read=True, key_share=True)
)


def write_page(connection: Connection, revocation: str, cancelled: Sequence[str], stopping: Sequence[str]) -> bool:
    """Record the jobs a revocation reached. A page never changes, so its digest represents it on the receipt.

    False: the receipt is already written.
    """
    more = {"revocation": revocation, "more_cancelled": len(cancelled), "more_stopped": len(stopping)}
    if _COUNT.run(connection, more).rowcount == 0:
        return False
    _insert(connection, revocation, cancelled, stopping)
    return True


def write_refused(connection: Connection, revocation: str, job: str) -> bool:
    """Record a job that ended because its step was refused. False: the receipt is already written.

    It is put on a page but not counted yet: every worker of a revoked tenant comes here, and none should wait for
    another.
    """
    if _IS_OPEN.run(connection, {"revocation": revocation}).first() is None:
        return False
    _insert(connection, revocation, [job], [])
    return True


def counted(revocation: str) -> dict[str, Any]:
    """Return the columns of a revocation that count the jobs on its pages."""
    columns = revocation_pages.c
    return {
        f"{name}_jobs": select(func.coalesce(func.sum(func.json_array_length(column)), 0))
        .where(columns.revocation_id == revocation)
        .scalar_subquery()
        for name, column in (("cancelled", columns.cancelled), ("stopped", columns.stopping))
    }


def _insert(connection: Connection, revocation: str, cancelled: Sequence[str], stopping: Sequence[str]) -> None:
    page = {"cancelled": sorted(cancelled), "stopping": sorted(stopping)}
    number = next_number(connection)
    connection.execute(
        insert(revocation_pages), {"revocation_id": revocation, "number": number, "sha256": page_digest(page), **page}
    )


def page_digest(page: Mapping[str, Any]) -> str:
    """Return what a receipt keeps of a page: the SHA-256 of its canonical JSON."""
    return sha256(canonical({"cancelled": page["cancelled"], "stopping": page["stopping"]})).hexdigest()


def page_numbers(connection: Connection, revocation: str) -> set[int]:
    """Return the numbers of all pages. A page may be committed after one with a greater number."""
    columns = revocation_pages.c
    return set(connection.execute(select(columns.number).where(columns.revocation_id == revocation)).scalars())


def ended_pages(connection: Connection, revocation: str, *, apart_from: AbstractSet[int]) -> dict[int, list[str]]:
    """Return the jobs of each page whose jobs have all ended, by the page's number, *apart_from* these pages."""
    columns = revocation_pages.c
    pages = select(columns.number, columns.cancelled, columns.stopping).where(columns.revocation_id == revocation)
    found: dict[int, list[str]] = {}
    for some in in_batches(sorted(page_numbers(connection, revocation) - apart_from)):
        for page in connection.execute(pages.where(columns.number.in_(some)).order_by(columns.number)).all():
            if not still_stopping(connection, page.stopping):
                found[page.number] = [*page.cancelled, *page.stopping]
    return found


def still_stopping(connection: Connection, told: Sequence[str]) -> bool:
    """True if one of these jobs, which were *told* to stop, has not ended yet."""
    for some in in_batches(told):
        still = select(jobs.c.id).where(jobs.c.id.in_(some), jobs.c.state == JobState.STOPPING)
        if connection.execute(still.limit(1)).first() is not None:
            return True
    return False


def stopping_jobs(connection: Connection, revocation: str) -> list[str]:
    """Return the jobs that were told to stop."""
    columns = revocation_pages.c
    some = (columns.revocation_id == revocation) & (func.json_array_length(columns.stopping) > 0)
    pages = select(columns.stopping).where(some).order_by(columns.number)
    return [job for page in connection.execute(pages).scalars() for job in page]


def page_sizes(connection: Connection, revocation: str) -> Sequence[Row[Any]]:
    """Return the number, digest and counts of cancelled and stopping jobs of each page.

    The database counts, because very many jobs may be cancelled and a receipt is written in one transaction.
    """
    columns = revocation_pages.c
    counts = (func.json_array_length(columns[name]).label(name) for name in ("cancelled", "stopping"))
    pages = select(columns.number, columns.sha256, *counts).where(columns.revocation_id == revocation)
    return connection.execute(pages.order_by(columns.number)).all()


def first_cancelled(connection: Connection, revocation: str, *, limit: int) -> list[str]:
    """Return the first *limit* cancelled jobs, in the order they were reached."""
    columns = revocation_pages.c
    found: list[str] = []
    after = 0
    pages = select(columns.number, columns.cancelled).where(columns.revocation_id == revocation)
    while len(found) < limit:
        few = connection.execute(pages.where(columns.number > after).order_by(columns.number).limit(10)).all()
        if not few:
            break
        found += [job for page in few for job in page.cancelled]
        after = few[-1].number
    return found[:limit]

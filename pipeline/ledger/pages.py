"""Pages: the jobs a revocation reached, written down in the transaction that reached them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, insert, select, update

from identity.columns import database_now
from identity.sequence import next_number
from identity.signing import canonical
from pipeline.revocation_tables import revocation_pages, revocations


def write_page(connection: Connection, revocation: str, cancelled: Sequence[str], stopping: Sequence[str]) -> bool:
    """Write down which jobs a revocation reached: a page never changes, so its digest stands for it on the receipt.

    False: the receipt is written already.
    """
    counted = (
        update(revocations)
        .where(revocations.c.id == revocation, revocations.c.state != "quiesced")
        .values(
            moved_at=database_now(),
            cancelled_jobs=revocations.c.cancelled_jobs + len(cancelled),
            stopped_jobs=revocations.c.stopped_jobs + len(stopping),
        )
    )
    # First this, which waits for a receipt that is being written.
    if connection.execute(counted).rowcount == 0:
        return False
    page = {"cancelled": sorted(cancelled), "stopping": sorted(stopping)}
    number = next_number(connection)
    connection.execute(
        insert(revocation_pages).values(revocation_id=revocation, number=number, sha256=page_digest(page), **page)
    )
    return True


def page_digest(page: Mapping[str, Any]) -> str:
    """What a receipt says of a page: the SHA-256 of its canonical JSON."""
    return sha256(canonical({"cancelled": page["cancelled"], "stopping": page["stopping"]})).hexdigest()


def stopping_jobs(connection: Connection, revocation: str) -> list[str]:
    """The jobs that were told to stop."""
    pages = select(revocation_pages.c.stopping).where(revocation_pages.c.revocation_id == revocation)
    return [job for page in connection.execute(pages.order_by(revocation_pages.c.number)).scalars() for job in page]

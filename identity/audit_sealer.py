"""The sealer: numbers audit rows densely, chains their digests, and signs the last of each batch."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select
from sqlalchemy.exc import IntegrityError

from identity.audit_chain import link_digest, row_digest
from identity.audit_links import ROW, document_of, last_link
from identity.audit_statements import sign
from identity.audit_tables import audit, audit_seals
from identity.columns import instant
from identity.handovers import hold_signing
from identity.signing import Signer
from identity.store import Store

#: How many rows are sealed in one transaction, and so by one signature at most.
BATCH = 500
# A row's number is taken before its transaction ends, so a lower number may appear after a higher one was sealed.
_LATE = 5_000


class Sealer:
    """Seals what was written since the last time. One at a time; a second one finds that it was late.

    Raises Misconfigured once its key was rotated.
    """

    def __init__(self, store: Store, signer: Signer) -> None:
        self._store = store
        self._signer = signer

    def run(self, *, now: datetime, batches: int = 20) -> int:
        """Seal what there is, in no more than so many transactions, and say how many rows."""
        sealed = 0
        for _ in range(batches):
            number = self.seal(now=now)
            sealed += number
            if number < BATCH:
                break
        return sealed

    def seal(self, *, now: datetime, limit: int = BATCH) -> int:
        """Seal up to *limit* rows, and say how many."""
        last, rows = self._store.read(lambda c: (last_link(c), _unsealed(c, limit)))
        digest, seals = last.digest, list[dict[str, Any]]()
        for seq, row in enumerate(rows, start=last.seq + 1):
            digest = link_digest(digest, seq, row_digest(document_of(row)))
            seals.append({"seq": seq, "audit_id": row.id, "digest": digest, "sealed_at": now, "signature": None})
        if not seals:
            return 0
        head = sign(self._signer, seq=seals[-1]["seq"], digest=digest, at=now)
        seals[-1]["signature"] = head.signature

        def write(connection: Connection) -> int:
            hold_signing(connection, self._signer)
            if last_link(connection) != last:
                return 0
            connection.execute(insert(audit_seals), seals)
            return len(seals)

        try:
            return self._store.write(write)
        except IntegrityError:  # on PostgreSQL another sealer committed between the look and the insert
            return 0


def first_never_sealed(connection: Connection) -> str | None:
    """A row that no sealer will take, because it was put in far below what is sealed; None: there is none."""
    low = _waiting().where(audit.c.number <= _floor(connection)).limit(1)
    row = connection.execute(low).first()
    return None if row is None else str(row.id)


def oldest_unsealed(connection: Connection) -> datetime | None:
    """When the oldest record was written that is to be sealed next; None: there is none."""
    rows = _unsealed(connection, 1)
    return instant(rows[0].at) if rows else None


def _unsealed(connection: Connection, limit: int) -> Sequence[Row[Any]]:
    waiting = _waiting().where(audit.c.number > _floor(connection))
    return connection.execute(waiting.order_by(audit.c.number, audit.c.id).limit(limit)).all()


def _waiting() -> Any:
    seals = audit_seals.c
    return select(*ROW).outerjoin(audit_seals, seals.audit_id == audit.c.id).where(seals.audit_id.is_(None))


def _floor(connection: Connection) -> int:
    newest = (
        select(audit.c.number)
        .join(audit_seals, audit_seals.c.audit_id == audit.c.id)
        .order_by(audit_seals.c.seq.desc())
        .limit(1)
    )
    return int(connection.execute(newest).scalar_one_or_none() or 0) - _LATE

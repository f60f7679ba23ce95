"""The sealer: numbers audit rows densely, chains their digests, and signs the last of each batch."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select
from sqlalchemy.exc import IntegrityError

from identity.audit.chain import Start, link_digest, row_digest
from identity.audit.links import ROW, document_of, last_link, last_seq, signed_end, still_has
from identity.audit.statements import sign
from identity.audit.tables import audit, audit_seals
from identity.columns import instant
from identity.handovers import hold_signing, trusted_keys
from identity.signing import Signer
from identity.store import Store

#: How many rows are sealed in one transaction, and so by one signature at most.
BATCH = 500
# A row's number is taken before its transaction ends, so a lower number may appear after a higher one was sealed: so
# many numbers later at most, or, where numbers are taken fast, so long at most. No transaction of ours takes as long.
_LATE = 5_000
_LATEST = timedelta(minutes=2)
# Those that are late by time alone are behind all that was sealed meanwhile, so they are looked for less often.
_SWEEP = timedelta(seconds=20)


class Sealer:
    """Seals what was written since the last time. One at a time; a second one finds that it was late.

    Raises Misconfigured once its key was rotated, and where the chain is not one to vouch for: its end is not signed,
    or it is not the chain any more that this sealer saw before.
    """

    def __init__(self, store: Store, signer: Signer) -> None:
        self._store = store
        self._signer = signer
        self._swept: datetime | None = None
        self._seen = Start()

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
        sweeps = self._swept is None or abs(now - self._swept) >= _SWEEP
        last, near, rows = self._store.read(lambda c: _look(c, limit, sweeps=sweeps, seen=self._seen))
        swept = now if sweeps and (len(rows) < limit or rows[-1].number > near) else self._swept
        digest, seals = last.digest, list[dict[str, Any]]()
        for seq, row in enumerate(rows, start=last.seq + 1):
            digest = link_digest(digest, seq, row_digest(document_of(row)))
            seals.append({"seq": seq, "audit_id": row.id, "digest": digest, "sealed_at": now, "signature": None})
        if not seals:
            self._swept, self._seen = swept, last
            return 0
        head = sign(self._signer, seq=seals[-1]["seq"], digest=digest, at=now)
        seals[-1]["signature"] = head.signature

        def write(connection: Connection) -> int:
            hold_signing(connection, self._signer)
            if signed_end(connection, trusted_keys(connection, self._signer.public_key())) != last:
                return 0
            connection.execute(insert(audit_seals), seals)
            return len(seals)

        try:
            sealed = self._store.write(write)
        except IntegrityError:  # on PostgreSQL another sealer committed between the look and the insert
            return 0
        if sealed:  # else what this one found late may not be among what the other sealed
            self._swept, self._seen = swept, Start(seq=head.seq, digest=head.digest)
        return sealed


def first_never_sealed(connection: Connection) -> str | None:
    """A row that no sealer will take, because it was put in far below what is sealed; None: there is none."""
    low = _waiting().where(audit.c.number <= _lowest_floor(connection)).limit(1)
    row = connection.execute(low).first()
    return None if row is None else str(row.id)


def oldest_unsealed(connection: Connection) -> datetime | None:
    """When the oldest record was written that is to be sealed next; None: there is none."""
    rows = _unsealed(connection, 1, floor=_floor(connection))
    return instant(rows[0].at) if rows else None


def _look(connection: Connection, limit: int, *, sweeps: bool, seen: Start) -> tuple[Start, int, Sequence[Row[Any]]]:
    """The last link, the floor below which a number is late by time alone, and what is to be sealed."""
    still_has(connection, seen)
    near = _floor(connection)
    floor = _lowest_floor(connection) if sweeps else near
    return last_link(connection), near, _unsealed(connection, limit, floor=floor)


def _unsealed(connection: Connection, limit: int, *, floor: int) -> Sequence[Row[Any]]:
    waiting = _waiting().where(audit.c.number > floor)
    return connection.execute(waiting.order_by(audit.c.number, audit.c.id).limit(limit)).all()


def _waiting() -> Any:
    seals = audit_seals.c
    return select(*ROW).outerjoin(audit_seals, seals.audit_id == audit.c.id).where(seals.audit_id.is_(None))


def _floor(connection: Connection) -> int:
    return _number_of(connection, last_seq(connection)) - _LATE


def _lowest_floor(connection: Connection) -> int:
    """Below what was sealed two minutes before the newest seal: by its time and not by a clock, so that it stands still
    while nothing is sealed, and says the same to the sealer and to whoever verifies. O(log seals).
    """
    ends = select(func.min(audit_seals.c.seq), func.max(audit_seals.c.seq))
    first, last = connection.execute(ends).one()
    if first is None:
        return -_LATE
    end = _sealed_at(connection, last) - _LATEST
    older = bisect_right(range(first, last + 1), end, key=lambda seq: _sealed_at(connection, seq))
    return min(_number_of(connection, first + max(older - 1, 0)), _number_of(connection, last)) - _LATE


def _sealed_at(connection: Connection, seq: int) -> datetime:
    at = select(audit_seals.c.sealed_at).where(audit_seals.c.seq == seq)
    # One that is missing was pruned meanwhile, or is the gap that the walk finds.
    return connection.execute(at).scalar_one_or_none() or datetime.min.replace(tzinfo=UTC)


def _number_of(connection: Connection, seq: int) -> int:
    sealed = select(audit.c.number).join(audit_seals, audit_seals.c.audit_id == audit.c.id)
    return int(connection.execute(sealed.where(audit_seals.c.seq == seq)).scalar_one_or_none() or 0)

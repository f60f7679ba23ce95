"""The sealer: numbers audit rows densely, chains their digests, and signs the last of each batch."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, Row, Select, cast, func, insert, select, type_coerce
from sqlalchemy.exc import IntegrityError, OperationalError

from identity.audit.chain import Start, link_digest, row_digest
from identity.audit.handovers import hold_signing, trusted_keys
from identity.audit.links import (
    NOT_READ,
    ROW,
    document_of,
    is_of_text,
    last_link,
    last_seq,
    not_sealed_on,
    signed_end,
    still_has,
)
from identity.audit.statements import sign
from identity.audit.stretches import Stretch, stretches
from identity.audit.tables import audit, audit_seals
from identity.errors import Misconfigured
from identity.keys.signing import Signer
from identity.sql.columns import instant
from identity.sql.store import Store

#: Rows sealed in one transaction, with one signature, at most.
BATCH = 500
# A row's number is taken before its transaction ends, so a lower number may appear after a higher one was sealed. It is
# late by at most this many numbers or, where numbers are taken fast, by at most this time. No transaction lasts longer.
_LATE = 5_000
_LATEST = timedelta(minutes=2)
# Rows late by time are below everything sealed meanwhile, so they are searched for less often.
_SWEEP = timedelta(seconds=20)
_LONG_AGO = instant(0)


class Sealer:
    """Seals the rows written since the last run. One at a time; a second sealer finds that it was late.

    Raises Misconfigured once its key was rotated, and if the chain must not be vouched for: its end is not signed, or
    is not the chain that this sealer saw before. It also raises Misconfigured at an unreadable record, after sealing
    those before it.
    """

    def __init__(self, store: Store, signer: Signer) -> None:
        self._store = store
        self._signer = signer
        self._swept: datetime | None = None
        self._seen = Start()

    def run(self, *, now: datetime, batches: int = 20) -> int:
        """Seal what there is, in at most that many transactions; return how many rows."""
        sealed = 0
        for _ in range(batches):
            number = self.seal(now=now)
            sealed += number
            if number < BATCH:
                break
        return sealed

    def seal(self, *, now: datetime, limit: int = BATCH) -> int:
        """Seal up to *limit* rows; return how many."""
        sweeps = self._swept is None or abs(now - self._swept) >= _SWEEP
        last, near, rows = self._store.read(lambda c: _look(c, limit, sweeps=sweeps, seen=self._seen))
        swept = now if sweeps and (len(rows) < limit or rows[-1].number > near) else self._swept
        digest, seals = last.digest, list[dict[str, Any]]()
        for seq, row in enumerate(rows, start=last.seq + 1):
            try:
                of_row = row_digest(document_of(row))
            except NOT_READ:
                if seals:
                    break
                raise _unreadable(row.number) from None
            digest = link_digest(digest, seq, of_row)
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
        if sealed:  # otherwise keep the position: the winning sealer may not have had the late rows found here
            self._swept, self._seen = swept, Start(seq=head.seq, digest=head.digest)
        return sealed


def first_never_sealed(store: Store, *, after: int | None = None) -> str | None:
    """Find a row inserted so far below the sealed ones that no sealer will take it; None if there is none.

    Named by its id, or by its ledger number if the id is unreadable. O(rows after that number, or all), one read a
    stretch.
    """
    floor = store.read(lowest_floor)
    for stretch in stretches(store, after=after):
        if stretch.after is not None and stretch.after >= floor:
            break
        if (found := store.read(partial(_never_sealed, stretch=stretch, floor=floor))) is not None:
            return found
    return None


def _never_sealed(connection: Connection, *, stretch: Stretch, floor: int) -> str | None:
    low = _waiting(audit.c.id).where(stretch.has(), audit.c.number <= floor).limit(1)
    try:
        row = connection.execute(low).first()
    except OperationalError as error:
        if not is_of_text(error):
            raise
    else:
        if row is None:
            return None
        if isinstance(row.id, str):
            return row.id
    number = low.with_only_columns(cast(audit.c.number, BigInteger))
    return f"of ledger number {connection.execute(number).scalar_one()}"


def number_waiting(connection: Connection, *, stretch: Stretch) -> int:
    """Return how many rows of the stretch are unsealed. O(its rows)."""
    waiting = _waiting(func.count()).select_from(audit).where(stretch.has())
    return int(connection.execute(waiting).scalar_one())


def oldest_unsealed(connection: Connection) -> datetime | None:
    """Return when the oldest record that is to be sealed next was written; None if there is none."""
    oldest = _next(type_coerce(audit.c.at, BigInteger).label("at"), floor=_floor(connection)).limit(1)
    row = connection.execute(oldest).first()
    return None if row is None else _moment(row.at)


def _look(connection: Connection, limit: int, *, sweeps: bool, seen: Start) -> tuple[Start, int, Sequence[Row[Any]]]:
    """Return the last link, the floor below which a row is late by time only, and the rows to seal."""
    still_has(connection, seen)
    near = _floor(connection)
    floor = lowest_floor(connection) if sweeps else near
    return last_link(connection), near, _unsealed(connection, limit, floor=floor)


def _unsealed(connection: Connection, limit: int, *, floor: int) -> Sequence[Row[Any]]:
    """Return the rows to seal next, up to an unreadable one. Raises Misconfigured if that is the first."""
    found: list[Row[Any]] = []
    try:
        for row in connection.execute(_next(*ROW, floor=floor).limit(limit)):
            found.append(row)  # noqa: PERF402 - rows before the unreadable one are kept
    except OperationalError as error:
        if not is_of_text(error):
            raise
        if not found:
            number = _next(cast(audit.c.number, BigInteger), floor=floor).limit(1)
            raise _unreadable(connection.execute(number).scalar_one()) from None
    return found


def _unreadable(number: object) -> Misconfigured:
    return not_sealed_on(f"its next record, of ledger number {number}, cannot be read")


def _next(*columns: ColumnElement[Any], floor: int) -> Select[Any]:
    return _waiting(*columns).where(audit.c.number > floor).order_by(audit.c.number, audit.c.id)


def _waiting(*columns: ColumnElement[Any]) -> Select[Any]:
    seals = audit_seals.c
    return select(*columns).outerjoin(audit_seals, seals.audit_id == audit.c.id).where(seals.audit_id.is_(None))


def _floor(connection: Connection) -> int:
    return _number_of(connection, last_seq(connection)) - _LATE


def lowest_floor(connection: Connection) -> int:
    """Return the ledger number at or below which no row will be sealed any more. O(log seals).

    It follows from what was sealed two minutes before the newest seal. Based on the seals' times and not on a clock, it
    stands still while nothing is sealed, and is the same for the sealer and a verifier.
    """
    ends = select(func.min(audit_seals.c.seq), func.max(audit_seals.c.seq))
    first, last = connection.execute(ends).one()
    if first is None:
        return -_LATE
    end = _sealed_at(connection, last) - _LATEST
    older = bisect_right(range(first, last + 1), end, key=lambda seq: _sealed_at(connection, seq))
    return min(_number_of(connection, first + max(older - 1, 0)), _number_of(connection, last)) - _LATE


def _sealed_at(connection: Connection, seq: int) -> datetime:
    at = select(type_coerce(audit_seals.c.sealed_at, BigInteger)).where(audit_seals.c.seq == seq)
    # A missing one was pruned meanwhile, or is a gap that the walk finds.
    return _moment(connection.execute(at).scalar_one_or_none())


def _moment(at: Any) -> datetime:
    """Return the time, or the epoch for an unreadable one, which must not stop its users."""
    try:
        return instant(at)
    except NOT_READ:
        return _LONG_AGO


def _number_of(connection: Connection, seq: int) -> int:
    sealed = select(audit.c.number).join(audit_seals, audit_seals.c.audit_id == audit.c.id)
    return int(connection.execute(sealed.where(audit_seals.c.seq == seq)).scalar_one_or_none() or 0)

"""The chain as stored in the ledger: its links in order, its beginning, and its integrity."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import orjson
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Row,
    Select,
    Text,
    bindparam,
    cast,
    func,
    select,
    type_coerce,
)
from sqlalchemy.exc import OperationalError

from identity.audit import carried
from identity.audit.chain import FirstBad, Link, Start, row_digest
from identity.audit.statements import PRUNED, Head, holds
from identity.audit.tables import audit, audit_prunings, audit_seals
from identity.errors import BadInput, Misconfigured
from identity.keys.trusted_keys import TrustedKeys
from identity.sql.columns import instant
from identity.sql.prepared import Prepared
from identity.sql.store import Store

_SEALS = audit_seals.c
# Raw values: SQLAlchemy's type conversion takes longer for a row than its digest does.
_RAW: dict[str, ColumnElement[Any]] = {
    "at": type_coerce(audit.c.at, BigInteger).label("at"),
    "detail": cast(audit.c.detail, Text).label("detail"),
}
#: The columns that `document_of` takes, in this order.
ROW = tuple(_RAW.get(column.name, column) for column in audit.c)
_NAMES = tuple(str(column.name) for column in audit.c)
#: Errors of `document_of`, `row_digest` and `instant` for a value that is no valid time, text or JSON.
NOT_READ = (ValueError, TypeError, LookupError, OverflowError, RecursionError)
# The digest of a row with an invalid time, text or JSON. It was sealed, so it was altered afterwards.
_UNREADABLE = ""
_SEAL = (
    _SEALS.seq,
    _SEALS.audit_id,
    _SEALS.digest,
    type_coerce(_SEALS.sealed_at, BigInteger).label("sealed_at"),
    _SEALS.signature,
)
_LINKS = audit_seals.outerjoin(audit, audit.c.id == _SEALS.audit_id)
_NEXT = Prepared(select(_SEALS.seq).where(_SEALS.seq > bindparam("after")).order_by(_SEALS.seq).limit(1000))
_THOUSAND = Prepared(_NEXT.statement.with_only_columns(*_SEAL, *ROW).select_from(_LINKS))
_SEAL_OF, _ROW_OF = (select(*part).select_from(_LINKS).where(_SEALS.seq == bindparam("seq")) for part in (_SEAL, ROW))
# The columns of a row that cannot be fetched; they yield no document.
_NO_ROW = (b"",) * len(ROW)


def document_of(values: Sequence[Any]) -> dict[str, Any]:
    """Return the document that an audit row's digest covers, without NULL values; *values* are ordered as `ROW`."""
    document = {name: value for name, value in zip(_NAMES, values, strict=True) if value is not None}
    document["at"] = instant(document["at"])
    try:
        document["detail"] = orjson.loads(document["detail"])
    except orjson.JSONDecodeError:  # a row from before `record` replaced surrogates, or not written by it
        document["detail"] = carried(json.loads(document["detail"]))
    return document


SealedRow = tuple[Link, dict[str, Any] | None]


Progress = Callable[[int], object]


def unwatched(_: int) -> None:
    """Ignore progress."""


def sealed_rows(connection: Connection, *, after: int = 0) -> Iterator[SealedRow]:
    """Yield the links after *after* in order, each with its row; None if the row is missing or unreadable.

    They are read by the thousand.
    """
    while thousand := _thousand(connection, after):
        # One by one: the garbage collector would walk through retained documents again and again.
        yield from map(_sealed_row, thousand)
        after = thousand[-1][0]


class PrunedMeanwhile(BadInput):
    """The rows to be read next were pruned meanwhile, according to a pruning statement."""


def sealed_rows_between(store: Store, *, after: int, end: int, progress: Progress) -> Iterator[SealedRow]:
    """Yield the links after *after* up to *end*, as `sealed_rows` does. *progress* is called for each thousand.

    Each thousand is a read of its own, because SQLite's WAL grows as long as a read lasts. Raises PrunedMeanwhile.
    """
    while after < end and (thousand := store.read(partial(_page, after=after))):
        told = [(link, row) for link, row in thousand if link.seq <= end]
        yield from told
        progress(len(told))
        after = thousand[-1][0].seq


def _page(connection: Connection, *, after: int) -> list[SealedRow]:
    page = [_sealed_row(stored) for stored in _thousand(connection, after)]
    pruned = newest_pruning(connection)
    if pruned is not None and pruned.seq > after and (not page or page[0][0].seq != after + 1):
        raise PrunedMeanwhile(f"the chain was pruned up to {pruned.seq} while it was read behind {after}: begin again")
    return page


def _thousand(connection: Connection, after: int) -> Sequence[Sequence[Any]]:
    try:
        return _THOUSAND.run(connection, {"after": after}).all()
    except OperationalError as error:
        if not is_of_text(error):
            raise
    return [_by_parts(connection, seq) for seq in _NEXT.run(connection, {"after": after}).scalars()]


def _by_parts(connection: Connection, seq: int) -> Sequence[Any]:
    """Return a link that cannot be fetched whole, its seal and row separately: the seal still names its row."""
    seal = _part(connection, _SEAL_OF, seq, (seq, f"of link {seq}", "", 0, None))
    return *seal, *_part(connection, _ROW_OF, seq, _NO_ROW)


def _part(connection: Connection, part: Select[Any], seq: int, otherwise: Sequence[Any]) -> Sequence[Any]:
    try:
        return connection.execute(part, {"seq": seq}).one()
    except OperationalError as error:
        if not is_of_text(error):
            raise
        return otherwise


def is_of_text(error: OperationalError) -> bool:
    """True if a text column holds invalid UTF-8: SQLite stores any bytes, and Python's driver refuses those.

    An error with an SQLite error code, or from PostgreSQL, means that the ledger is unreadable, not altered.
    """
    return isinstance(error.orig, sqlite3.OperationalError) and not hasattr(error.orig, "sqlite_errorcode")


def _sealed_row(stored: Sequence[Any]) -> SealedRow:
    seq, id, digest, at, signature = stored[:5]
    values = stored[5:]
    try:
        row = None if values[0] is None else document_of(values)
        signed = Head(seq=seq, digest=digest, at=instant(at), signature=signature) if signature else None
        return Link(seq, id, digest, None if row is None else row_digest(row), signed), row
    except NOT_READ:
        return Link(seq, id, digest, _UNREADABLE, None), None


def links_behind(connection: Connection, after: int = 0) -> int:
    """Return how many links `sealed_rows` yields, if none is missing. O(1)."""
    pruned = newest_pruning(connection)
    return max(0, last_seq(connection) - max(after, pruned.seq if pruned is not None else 0))


def last_seq(connection: Connection) -> int:
    """Return the last link's number, 0 if there is none, even if the rest of it is unreadable."""
    return connection.execute(select(func.max(_SEALS.seq))).scalar_one() or 0


def digest_of(connection: Connection, seq: int) -> str | None:
    """Return the stored digest of that link; None if it is missing or unreadable."""
    try:
        digest = connection.execute(select(_SEALS.digest).where(_SEALS.seq == seq)).scalar_one_or_none()
    except OperationalError as error:
        if not is_of_text(error):
            raise
        return None
    return digest if isinstance(digest, str) else None


def last_link(connection: Connection) -> Start:
    """Return what the next link follows. Raises Misconfigured if that is unreadable."""
    last = select(_SEALS.seq, _SEALS.digest).order_by(_SEALS.seq.desc()).limit(1)
    row = _fetched(connection, last)
    return Start() if row is None else Start(seq=row.seq, digest=row.digest)


def signed_end(connection: Connection, keys: TrustedKeys) -> Start:
    """Return what the next link follows, for signing it. The last link is always signed, since batches commit whole.

    The signer of the next link vouches for everything before it, so the end must itself be signed. Raises
    Misconfigured.
    """
    last, head = last_link(connection), newest_checkpoint(connection)
    if last.seq > 0 and (head is None or not holds(head, keys)):
        raise not_sealed_on(f"its last link, {last.seq}, does not have the signature of this installation's key")
    if keys.handovers and keys.handovers[0].seq > last.seq:
        raise not_sealed_on(f"it ends at {last.seq}, and when its key was rotated it had {keys.handovers[0].seq} rows")
    return last


def still_has(connection: Connection, seen: Start) -> None:
    """Raise Misconfigured unless *seen*, formerly the last link, still exists unchanged or was pruned."""
    row = _fetched(connection, select(_SEALS.digest).where(_SEALS.seq == seen.seq))
    digest = None if row is None else row.digest
    if seen.seq == 0 or digest == seen.digest:
        return
    pruned = newest_pruning(connection)
    if digest is not None or pruned is None or pruned.seq < seen.seq:
        raise not_sealed_on(f"its link {seen.seq} is not the one that this process saw there")


def _fetched(connection: Connection, link: Select[Any]) -> Row[Any] | None:
    try:
        return connection.execute(link).one_or_none()
    except OperationalError as error:
        if not is_of_text(error):
            raise
        raise not_sealed_on("its last link cannot be read") from None


def not_sealed_on(why: str) -> Misconfigured:
    """Return the error for a chain that must not be vouched for, or whose next row cannot be sealed."""
    return Misconfigured(
        f"the audit's chain is not sealed on: {why}. `aswhom audit verify` says how far it is proven; "
        "the runbook says what then (AswhomAuditUnsealed)"
    )


def newest_checkpoint(connection: Connection) -> Head | None:
    """Return the chain's length and head, as signed when it was sealed; None if nothing is sealed yet.

    Raises Misconfigured if that is unreadable.
    """
    row = _fetched(connection, select(*_SEAL).order_by(_SEALS.seq.desc()).limit(1))
    if row is None or row.signature is None:
        return None
    try:
        at = instant(row.sealed_at)
    except NOT_READ:
        raise not_sealed_on("its last link cannot be read") from None
    return Head(seq=row.seq, digest=row.digest, at=at, signature=row.signature)


def newest_pruning(connection: Connection) -> Head | None:
    """Return how far the beginning was pruned; None if it was not."""
    newest = select(audit_prunings).order_by(audit_prunings.c.seq.desc()).limit(1)
    row = connection.execute(newest).one_or_none()
    if row is None:
        return None
    return Head(seq=row.seq, digest=row.digest, at=row.at, signature=row.signature, says=PRUNED)


def beginning(connection: Connection, keys: TrustedKeys) -> Start | FirstBad:
    """Return where the chain begins; FirstBad if the pruning before it was not signed with the key."""
    pruned = newest_pruning(connection)
    if pruned is None:
        return Start()
    if not holds(pruned, keys):
        return FirstBad(seq=1, why=f"whoever removed the rows up to {pruned.seq} did not have the key", proven=0)
    return Start(seq=pruned.seq, digest=pruned.digest)

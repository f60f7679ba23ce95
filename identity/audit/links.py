"""The chain as it lies in the ledger: its links in order, where it begins, and whether it holds."""

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
# As they are stored: a type of SQLAlchemy's own takes longer a row than its digest.
_RAW: dict[str, ColumnElement[Any]] = {
    "at": type_coerce(audit.c.at, BigInteger).label("at"),
    "detail": cast(audit.c.detail, Text).label("detail"),
}
#: The columns that `document_of` takes, in this order.
ROW = tuple(_RAW.get(column.name, column) for column in audit.c)
_NAMES = tuple(str(column.name) for column in audit.c)
#: What `document_of`, `row_digest` and `instant` raise of what is no time, no text or no JSON.
NOT_READ = (ValueError, TypeError, LookupError, OverflowError, RecursionError)
# In place of the digest of a row with what is no time, no text or no JSON: it was sealed, so it was altered since.
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
# In place of the columns of a row that cannot be fetched: no document comes of them.
_NO_ROW = (b"",) * len(ROW)


def document_of(values: Sequence[Any]) -> dict[str, Any]:
    """An audit row, its columns as `ROW` has them, as the document that its digest is of: without what is NULL."""
    document = {name: value for name, value in zip(_NAMES, values, strict=True) if value is not None}
    document["at"] = instant(document["at"])
    try:
        document["detail"] = orjson.loads(document["detail"])
    except orjson.JSONDecodeError:  # of a row that was not written by `record`, or before it saw to that
        document["detail"] = carried(json.loads(document["detail"]))
    return document


SealedRow = tuple[Link, dict[str, Any] | None]


Progress = Callable[[int], object]


def unwatched(_: int) -> None:
    """Nobody asks how far it is."""


def sealed_rows(connection: Connection, *, after: int = 0) -> Iterator[SealedRow]:
    """The links behind *after* in order, each with its row, None where that is gone or cannot be read.

    They are read by the thousand.
    """
    while thousand := _thousand(connection, after):
        # One by one: documents that are kept are what the garbage collector walks through again and again.
        yield from map(_sealed_row, thousand)
        after = thousand[-1][0]


class PrunedMeanwhile(BadInput):
    """What was to be read next is gone, as whoever pruned the chain states."""


def sealed_rows_between(store: Store, *, after: int, end: int, progress: Progress) -> Iterator[SealedRow]:
    """The links behind *after* up to *end*, as `sealed_rows` has them. *progress* hears of each thousand.

    Each is read by itself: on SQLite the log of changes grows as long as somebody reads. Raises PrunedMeanwhile.
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
    """One link of a thousand that cannot be fetched, its seal and its row apart: the seal still names its row."""
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
    """Whether what is stored as text is none: SQLite keeps any bytes, and Python's driver refuses those that are not
    UTF-8. With a code of SQLite's, or of PostgreSQL, it is the ledger that cannot be read, and nothing was altered.
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
    """How many links `sealed_rows` finds, if none is missing. O(1)."""
    pruned = newest_pruning(connection)
    return max(0, last_seq(connection) - max(after, pruned.seq if pruned is not None else 0))


def last_seq(connection: Connection) -> int:
    """The last link's number, 0 for none, also where nobody can read the rest of it."""
    return connection.execute(select(func.max(_SEALS.seq))).scalar_one() or 0


def digest_of(connection: Connection, seq: int) -> str | None:
    """What that link's digest is said to be; None: it is not there, or is no text."""
    try:
        digest = connection.execute(select(_SEALS.digest).where(_SEALS.seq == seq)).scalar_one_or_none()
    except OperationalError as error:
        if not is_of_text(error):
            raise
        return None
    return digest if isinstance(digest, str) else None


def last_link(connection: Connection) -> Start:
    """What the next link follows. Raises Misconfigured where that is no text."""
    last = select(_SEALS.seq, _SEALS.digest).order_by(_SEALS.seq.desc()).limit(1)
    row = _fetched(connection, last)
    return Start() if row is None else Start(seq=row.seq, digest=row.digest)


def signed_end(connection: Connection, keys: TrustedKeys) -> Start:
    """What the next link follows, where it is going to be signed: the last one always is, since batches commit whole.

    Whoever signs what follows vouches for all before it, so it has to be what was signed. Raises Misconfigured.
    """
    last, head = last_link(connection), newest_checkpoint(connection)
    if last.seq > 0 and (head is None or not holds(head, keys)):
        raise not_sealed_on(f"its last link, {last.seq}, does not have the signature of this installation's key")
    if keys.handovers and keys.handovers[0].seq > last.seq:
        raise not_sealed_on(f"it ends at {last.seq}, and when its key was rotated it had {keys.handovers[0].seq} rows")
    return last


def still_has(connection: Connection, seen: Start) -> None:
    """Raises Misconfigured unless *seen*, which was the last link, is one yet, or was pruned."""
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
    """The chain is not one to vouch for, or what comes next is nothing to be sealed."""
    return Misconfigured(
        f"the audit's chain is not sealed on: {why}. `aswhom audit verify` says how far it is proven; "
        "the runbook says what then (AswhomAuditUnsealed)"
    )


def newest_checkpoint(connection: Connection) -> Head | None:
    """The chain's length and head, as it was signed when that was sealed; None: nothing is sealed yet.

    Raises Misconfigured where that cannot be read.
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
    """How far the beginning was pruned; None: it was not."""
    newest = select(audit_prunings).order_by(audit_prunings.c.seq.desc()).limit(1)
    row = connection.execute(newest).one_or_none()
    if row is None:
        return None
    return Head(seq=row.seq, digest=row.digest, at=row.at, signature=row.signature, says=PRUNED)


def beginning(connection: Connection, keys: TrustedKeys) -> Start | FirstBad:
    """Where the chain begins, if whoever pruned what was before it had the key."""
    pruned = newest_pruning(connection)
    if pruned is None:
        return Start()
    if not holds(pruned, keys):
        return FirstBad(seq=1, why=f"whoever removed the rows up to {pruned.seq} did not have the key", proven=0)
    return Start(seq=pruned.seq, digest=pruned.digest)

"""The seal over the audit: dense numbers, a keyed chain over the rows, and signed checkpoints kept elsewhere.

Without the key nobody can restamp an edited, deleted, inserted or swapped row. A chain cut at its end is still a
chain: that is what the checkpoints are for. Rows that are not sealed yet are the unsealed window.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from sqlalchemy import Connection, Row, func, insert, select

from identity.audit_tables import audit, audit_seals
from identity.errors import BadInput
from identity.store import Store

_GENESIS = "0" * 64
# A row's number is taken before its transaction ends, so a lower number may appear after a higher one was sealed.
_LATE = 5_000

Key = bytes
AnyRow = Row[tuple[object, ...]]


@dataclass(frozen=True, kw_only=True)
class Verified:
    """The chain holds."""

    count: int
    head: str  # the mac of the last seal
    unsealed: int


@dataclass(frozen=True, kw_only=True)
class FirstBad:
    """The chain breaks here."""

    seq: int
    why: str


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """How long the chain was, and its head, at some moment."""

    seq: int
    mac: str
    at: datetime


class Sealer:
    """Seals what was written since the last time. One at a time; a second one finds that it was late."""

    def __init__(self, store: Store, key: Key) -> None:
        self._store = store
        self._key = key

    def seal(self, *, now: datetime, limit: int = 1000) -> int:
        """Seal up to *limit* rows, and say how many."""
        last, rows = self._store.read(lambda connection: (_last(connection), _unsealed(connection, limit)))
        seq, mac = last
        seals = []
        for number, row in enumerate(rows, start=seq + 1):
            mac = _mac(self._key, mac, number, row)
            seals.append({"seq": number, "audit_id": row.id, "mac": mac, "sealed_at": now})
        if not seals:
            return 0

        def write(connection: Connection) -> int:
            if _last(connection) != last:
                return 0
            connection.execute(insert(audit_seals), seals)
            return len(seals)

        return self._store.write(write)

    def checkpoint(self, signing_key: Ed25519PrivateKey, *, now: datetime) -> str:
        """The chain's length and head, signed: a line of JSON to keep elsewhere."""
        seq, mac = self._store.read(_last)
        body = {"seq": seq, "mac": mac, "at": now.isoformat()}
        signature = signing_key.sign(_canonical(body)).hex()
        return json.dumps(body | {"signature": signature})


def read_checkpoint(text: str, public_key: Ed25519PublicKey) -> Checkpoint:
    """A checkpoint whose signature holds. Raises BadInput."""
    try:
        match json.loads(text):
            case {"seq": int(seq), "mac": str(mac), "at": str(at), "signature": str(signature)}:
                public_key.verify(bytes.fromhex(signature), _canonical({"seq": seq, "mac": mac, "at": at}))
                return Checkpoint(seq=seq, mac=mac, at=datetime.fromisoformat(at))
    except (ValueError, InvalidSignature):
        pass
    raise BadInput("this is not a checkpoint signed by the key of this installation")


def verify(connection: Connection, key: Key, *, checkpoint: Checkpoint | None = None) -> Verified | FirstBad:
    """Walk the whole chain; with a checkpoint, a chain that was cut or rebuilt is found too."""
    seq, mac = 0, _GENESIS
    chain = (
        select(audit_seals.c.seq, audit_seals.c.audit_id, audit_seals.c.mac, *audit.c)
        .select_from(audit_seals.outerjoin(audit, audit.c.id == audit_seals.c.audit_id))
        .order_by(audit_seals.c.seq)
        .execution_options(yield_per=1000)
    )
    with connection.execute(chain) as links:
        for link in links:
            seq += 1
            if why := _breach(key, mac, seq, link):
                return FirstBad(seq=seq, why=why)
            mac = link.mac
            if checkpoint is not None and checkpoint.seq == seq and not hmac.compare_digest(mac, checkpoint.mac):
                return FirstBad(seq=seq, why=f"the chain is not the one of the checkpoint of {checkpoint.at}")
    if checkpoint is not None and checkpoint.seq > seq:
        return FirstBad(seq=seq + 1, why=f"the chain was cut: at {checkpoint.at} it had {checkpoint.seq} rows")
    total = connection.execute(select(func.count()).select_from(audit)).scalar_one()
    return Verified(count=seq, head=mac, unsealed=total - seq)


def _breach(key: Key, before: str, seq: int, link: AnyRow) -> str | None:
    """What is wrong with one link, or None."""
    if link.seq != seq:
        return "its seal is missing"
    if link.id is None:
        return f"the audit row {link.audit_id} is missing"
    if not hmac.compare_digest(_mac(key, before, seq, link), link.mac):
        return f"the audit row {link.audit_id} or its seal was altered"
    return None


def _last(connection: Connection) -> tuple[int, str]:
    last = select(audit_seals.c.seq, audit_seals.c.mac).order_by(audit_seals.c.seq.desc()).limit(1)
    row = connection.execute(last).one_or_none()
    return (row.seq, row.mac) if row is not None else (0, _GENESIS)


def oldest_unsealed(connection: Connection) -> datetime | None:
    """When the oldest record was written that is to be sealed next; None: there is none."""
    rows = _unsealed(connection, 1)
    return rows[0].at if rows else None


def _unsealed(connection: Connection, limit: int) -> Sequence[AnyRow]:
    newest = (
        select(audit.c.number)
        .join(audit_seals, audit_seals.c.audit_id == audit.c.id)
        .order_by(audit_seals.c.seq.desc())
        .limit(1)
    )
    floor = (connection.execute(newest).scalar_one_or_none() or 0) - _LATE
    waiting = (
        select(audit)
        .outerjoin(audit_seals, audit_seals.c.audit_id == audit.c.id)
        .where(audit.c.number > floor, audit_seals.c.audit_id.is_(None))
        .order_by(audit.c.number, audit.c.id)
        .limit(limit)
    )
    return connection.execute(waiting).all()


def _mac(key: Key, before: str, seq: int, row: AnyRow) -> str:
    columns = {column.name: _plain(getattr(row, column.name)) for column in audit.c}
    return hmac.digest(key, _canonical({"before": before, "seq": seq, "row": columns}), "sha256").hex()


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else value


def _canonical(document: object) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()

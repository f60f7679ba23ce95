"""Signals that affect very many accounts: the rest are reached in chunks, one transaction each, ordered by key.

The transaction that accepts the signal stores the affected accounts; none is added or dropped later. The accepting
request, its repetition and housekeeping may therefore all continue, concurrently or after a crash.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Connection, Row, delete, exists, insert, select, update

from identity.model import AccountKey
from pipeline.batches import in_batches
from pipeline.revocation import signals
from pipeline.revocation.reaction import Became, ReceivedSignal
from pipeline.revocation.tables import signal_chunks
from pipeline.signal import Nobody, Signal
from pipeline.tables import deliveries

ACCOUNTS = 25  # per transaction: each has a lock and some thirteen statements

_SIGNAL: TypeAdapter[Signal] = TypeAdapter(Signal)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The work of one transaction on a signal."""

    revocations: tuple[str, ...] = ()
    left: bool  # accounts remain to be reached
    reason: str = ""  # of the whole signal, once none remains
    # Of the delivery, if this transaction reached the last of its accounts and a revocation or narrowing was declared.
    received_at: datetime | None = None


def leave(connection: Connection, received: ReceivedSignal, followed: signals.Followed) -> None:
    """Store the accounts that a signal has yet to reach, in the transaction that accepts it."""
    if not followed.left:
        return
    # The affected accounts are known by now; what is to be said of the other targets is kept for the summary.
    nobodies = tuple(one for one in received.signal.whom if isinstance(one, Nobody))
    if followed.advice:
        nobodies = (*nobodies, Nobody(why=followed.advice))
    row = {
        "delivery_id": received.signal_id,
        "number": followed.number,
        "revocation_id": received.id,
        "signal": _SIGNAL.dump_python(replace(received.signal, whom=nobodies), mode="json"),
        "seen": received.seen,
    }
    reached = sum(followed.became.values())
    rows = [{**row, "place": 0, "accounts": [], "became": dict(followed.became)}]
    rows += [{**row, "place": place, "accounts": few, "became": None} for place, few in _few(followed, reached)]
    connection.execute(insert(signal_chunks), rows)


def _few(followed: signals.Followed, reached: int) -> Iterator[tuple[int, list[list[str]]]]:
    for some in in_batches(followed.left, ACCOUNTS):
        yield reached, [[key.tenant, key.principal] for key in some]
        reached += len(some)


def is_unfollowed(connection: Connection, delivery: str) -> bool:
    """True if accounts that a delivery's signal affects remain to be reached."""
    return bool(connection.execute(select(exists().where(signal_chunks.c.delivery_id == delivery))).scalar_one())


def unfollowed(connection: Connection, *, besides: Sequence[str], limit: int) -> list[str]:
    """Return deliveries whose signals have accounts left to reach, for housekeeping."""
    id = signal_chunks.c.delivery_id
    found = select(id).where(id.not_in(besides)).distinct().order_by(id)
    return list(connection.execute(found.limit(limit)).scalars())


def follow_next(connection: Connection, delivery: str, *, now: datetime) -> Progress:
    """Reach the next chunk of accounts for a delivery's signal; with the last one, conclude the signal."""
    columns = signal_chunks.c
    # One at a time: the last chunk's transaction must see the outcomes of all other chunks.
    held = select(deliveries.c.connection_id, deliveries.c.source, deliveries.c.received_at)
    of = connection.execute(held.where(deliveries.c.id == delivery).with_for_update()).one()
    waiting = select(signal_chunks).where(columns.delivery_id == delivery, columns.became.is_(None))
    chunks = connection.execute(waiting.order_by(columns.place).limit(2)).all()
    if not chunks:
        return Progress(left=False, reason=_reason(connection, delivery))
    chunk = chunks[0]
    received = _signal_of(chunk, by=signals.BY_PROVIDER + of.source, now=now)
    keys = [AccountKey(tenant=tenant, connection=of.connection_id, principal=who) for tenant, who in chunk.accounts]
    made, became = signals.reach(connection, keys, received, number=chunk.number, place=chunk.place)
    done = update(signal_chunks).where(columns.delivery_id == delivery, columns.place == chunk.place)
    connection.execute(done.values(became=dict(became)))
    if len(chunks) > 1:
        return Progress(revocations=made, left=True)
    reason, declared = _conclude(connection, delivery, received.signal)
    return Progress(revocations=made, left=False, reason=reason, received_at=of.received_at if declared else None)


def _signal_of(chunk: Row[Any], *, by: str, now: datetime) -> ReceivedSignal:
    return ReceivedSignal(
        signal=_SIGNAL.validate_python(chunk.signal),
        id=chunk.revocation_id,
        by=by,
        signal_id=chunk.delivery_id,
        seen=chunk.seen,
        now=now,
    )


def _conclude(connection: Connection, delivery: str, signal: Signal) -> tuple[str, bool]:
    """Record the signal's summary with its delivery. Return it, and True if a revocation or narrowing was declared."""
    columns = signal_chunks.c
    became: Counter[str] = Counter()
    for few in connection.execute(select(columns.became).where(columns.delivery_id == delivery)).scalars():
        became.update(few)
    reason = signals.said(became, signal)
    connection.execute(update(deliveries).where(deliveries.c.id == delivery).values(reason=reason))
    connection.execute(delete(signal_chunks).where(columns.delivery_id == delivery))
    return reason, any(outcome in became for outcome in Became if outcome.declares)


def _reason(connection: Connection, delivery: str) -> str:
    return connection.execute(select(deliveries.c.reason).where(deliveries.c.id == delivery)).scalar_one() or ""

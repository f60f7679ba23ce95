"""Progress of revocations: unfinished ones, calls still in flight, and what the receipt is composed from."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Integer,
    Row,
    bindparam,
    case,
    literal_column,
    or_,
    select,
    type_coerce,
)

from identity.keys.signing import Signer
from identity.sql.columns import database_in_microseconds, is_one, microseconds
from pipeline.ledger.clock import NOW, ledger_now
from pipeline.revocation import receipt
from pipeline.revocation.declaration import REACHING, Stage, in_flight, load
from pipeline.revocation.pages import page_numbers, still_stopping, stopping_jobs
from pipeline.revocation.receipt_content import ReadProviderSide, Receipt
from pipeline.revocation.receipt_content import compose as compose_receipt
from pipeline.revocation.tables import revocations
from pipeline.states import AttemptState
from pipeline.steps import stored as ledger_steps


def _ago(parameter: str) -> ColumnElement[datetime]:
    """Return the time that long ago, as a subquery: PostgreSQL uses no index for a clock that moves as it looks."""
    return select(database_in_microseconds(parameter)).scalar_subquery()


# Built once, as housekeeping asks every second. The first two conditions are worded as in their indexes.
_GOES_ON = ~is_one(revocations.c.state, Stage.QUIESCED)
_OPEN_ENDED = revocations.c.open_ends > literal_column("0")
_REACHES_JOBS = revocations.c.state.in_(REACHING)
_MOVED, _QUIET = (type_coerce(column, BigInteger) for column in (revocations.c.moved_at, revocations.c.quiesced_at))
_UNMOVED_FOR = type_coerce(NOW, BigInteger) - _MOVED
# An open end is checked at growing intervals: a tenth of the time since the receipt, at most an hour.
_HOUR = microseconds(timedelta(hours=1))
_DUE = or_(_UNMOVED_FOR >= _HOUR, 10 * _UNMOVED_FOR >= _MOVED - _QUIET)
_OLDEST = select(revocations.c.id).where(revocations.c.moved_at <= _ago("back")).limit(bindparam("most", type_=Integer))
_IDLE = _OLDEST.where(_GOES_ON).order_by(case((_REACHES_JOBS, 0), else_=1), revocations.c.moved_at)
_PENDING = _OLDEST.where(_OPEN_ENDED, _DUE).order_by(revocations.c.moved_at)


def unfinished(connection: Connection, idle: float, pending: float, limit: int) -> list[str]:
    found: list[str] = []
    for some, seconds in ((_IDLE, idle), (_PENDING, pending)):
        back = microseconds(timedelta(seconds=-seconds))
        found += connection.execute(some, {"back": back, "most": limit}).scalars()
    return found


def drained(connection: Connection, revocation: str) -> bool:
    """True if every call in flight has ended, or is presumed to have: its deadline passed without an answer."""
    row = load(connection, revocation)
    if row.state != Stage.DRAINING:
        return bool(row.state == Stage.QUIESCED)
    now = ledger_now(connection)
    still = False
    for attempt in in_flight(connection, row):
        if attempt.state != AttemptState.OPEN:
            continue
        if attempt.settled_by > now or not ledger_steps.settle(connection, attempt, now=now):
            still = True
    return not still and not still_stopping(connection, stopping_jobs(connection, revocation))


def jobs_in_flight(connection: Connection, revocation: str) -> list[str]:
    """Return the jobs of the calls in flight."""
    return sorted({attempt.job_id for attempt in in_flight(connection, load(connection, revocation))})


def compose(
    connection: Connection, *, revocation: str, side: ReadProviderSide
) -> tuple[Row[Any], Receipt, datetime] | None:
    """Compose the present receipt of a revocation. None: it has no receipt yet.

    Returns its row, the receipt and the time of reading.
    """
    row = load(connection, revocation)
    if row.receipt is None:
        return None
    now = ledger_now(connection)
    return row, compose_receipt(connection, row, side, now=now), now


class UncompensatedPages(Exception):
    """The jobs of a page are not compensated, or still run, so no receipt can be written yet."""


def conclude(
    connection: Connection,
    revocation: str,
    signer: Signer,
    provider_side: ReadProviderSide,
    *,
    compensated: AbstractSet[int],
) -> float | None:
    """Write the first receipt, signed. Return the seconds until it was quiesced; None if another process was faster.

    *compensated*: the numbers of the pages whose jobs were compensated after they had ended. Raises UncompensatedPages
    if there are others: until the receipt is written, a refused step adds its job to a page, and another process may
    tell jobs to stop. The row's lock keeps both out here.
    """
    held = select(revocations).where(revocations.c.id == revocation).with_for_update()
    row = connection.execute(held).one()
    if row.state not in (Stage.DRAINING, Stage.QUIESCED):
        return None
    if row.receipt is None and page_numbers(connection, revocation) - compensated:
        raise UncompensatedPages
    now = ledger_now(connection)
    receipt.issue(connection, row, signer, provider_side, now=now)
    return None if row.quiesced_at is not None else float((now - row.effective_at).total_seconds())

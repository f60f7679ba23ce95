"""The provider's side of a revocation: the revoked credentials end there too, and the receipt says how far that is.

Which those are, `pipeline/revocation/collecting.py` says.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import Connection, Row, select

from identity.failures import Failures
from identity.hold import find_hold
from identity.sql.store import Store
from identity.withdrawals import WithdrawalState
from identity.withdrawals.tables import withdrawals
from identity.withdrawals.withdrawer import Turn
from pipeline.revocation.collecting import Collector
from pipeline.revocation.due_withdrawals import (
    Due,
    Line,
    due_of,
    is_pending,
    late,
    overdue,
    uncollected,
)
from pipeline.revocation.receipt import ProviderAnswer, ProviderSide

_LOOK = 1000  # withdrawals: as many as GitHub lets one request name
_TOLD = tuple(
    withdrawals.c[name] for name in ("account_id", "generation", "origin", "state", "reason", "finished_at")
)  # on the receipt: not the ciphertext


class ProviderAsker:
    """Takes what is to end and has it asked for. `advance` is safe to repeat, and to run in two processes at once."""

    def __init__(
        self,
        store: Store,
        ask: Callable[[str, Sequence[str]], Turn],
        *,
        clock: Callable[[], datetime],
        within: timedelta = timedelta(seconds=5),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._collector = Collector(store=store, clock=clock, monotonic=monotonic)
        self._ask = ask  # about one, and those of others in its line that the same request can name
        self._clock = clock
        self._within = within.total_seconds()  # no request begins after it: others have their turn, and then the rest
        self._monotonic = monotonic

    def advance(self, revocation: str) -> bool:
        """Ask for all that is due of a revocation, and again for what a refresh that ended meanwhile has won.

        False: something of it is still pending. After half of the time no more are taken than a transaction takes, so
        that a scope of very many accounts is asked about meanwhile.
        """
        until = self._monotonic() + self._within / 2
        self._ask_all(revocation, before=lambda: self._collector.collect(revocation, until))
        return not self._store.read(lambda c: is_pending(c, revocation))

    def due(self, *, limit: int = 100) -> list[str]:
        """The revocations of which something is to be asked now, for housekeeping. O(pending)."""
        now = self._clock()
        found = self._store.read(lambda c: [*late(c, limit), *overdue(c, now, limit), *uncollected(c, limit)])
        return list(dict.fromkeys(found))

    def ask_leftovers(self) -> None:
        """Ask about what refused connects had won, which is of no revocation. For housekeeping, O(pending)."""
        self._ask_all(None, before=lambda: None)

    def _ask_all(self, revocation: str | None, *, before: Callable[[], None]) -> None:
        """Ask about each that is due, once, until the time is over, and whatever becomes of the others.

        Where a provider has no room for one, the others of its line stay as they are: to claim each of them, only to
        put it off, would take all the time that those in other lines have.
        """
        end = self._monotonic() + self._within
        asked: set[str] = set()
        full: set[Line] = set()
        failures = Failures()
        with failures.told("credentials that could not be taken or asked about"):
            while True:
                try:
                    before()
                except Exception as failure:  # noqa: BLE001 - told at the end: what was taken is asked about meanwhile
                    failures.add("revocation", str(revocation), failure)
                look = partial(
                    _due_unless_held, revocation=revocation, now=self._clock(), besides=full, limit=_LOOK + len(asked)
                )
                fresh = [one for one in self._store.read(look) if one.id not in asked]
                for one in fresh:
                    if self._monotonic() >= end:
                        break
                    if one.line in full:
                        continue
                    if one.id in asked:
                        continue
                    asked.add(one.id)
                    others = [other.id for other in fresh if other.line == one.line and other.id not in asked]
                    try:
                        turn = self._ask(one.id, others)
                        asked |= turn.also
                        if not turn.room:
                            full.add(one.line)
                    except Exception as failure:  # noqa: BLE001 - told at the end, after the rest
                        failures.add("withdrawal", one.id, failure)
                if not fresh or self._monotonic() >= end:
                    break


def _due_unless_held(connection: Connection, **which: Any) -> Sequence[Due]:
    """Nothing while the installation is held: each would be claimed in vain, under its account's lock."""
    return [] if find_hold(connection) is not None else due_of(connection, **which)


def provider_side(connection: Connection, revocation: str) -> ProviderSide:
    """What the receipt says of it."""
    columns = withdrawals.c
    of_it = select(*_TOLD).where(columns.revocation_id == revocation)
    rows = connection.execute(of_it.order_by(columns.account_id, columns.id)).all()
    states = {row.state for row in rows}
    if is_pending(connection, revocation):
        states.add(WithdrawalState.PENDING)  # also while accounts of its scope are still to be taken
    ranked = (ProviderAnswer.PENDING, ProviderAnswer.STUCK, ProviderAnswer.GIVEN_UP, ProviderAnswer.DONE)
    answer = next((one for one in ranked if one in states), ProviderAnswer.NOT_ASKED)
    return ProviderSide(answer=answer, accounts=tuple(_withdrawal_document(row) for row in rows))


def _withdrawal_document(row: Row[Any]) -> dict[str, Any]:
    """One credential. While it is pending, only that: each try would be another receipt."""
    return {
        "account": row.account_id,
        "generation": row.generation,
        "of": row.origin,
        "answer": row.state,
        "answered_at": row.finished_at.isoformat() if row.finished_at and row.state == WithdrawalState.DONE else None,
        "reason": None if row.state == WithdrawalState.PENDING else row.reason,
    }

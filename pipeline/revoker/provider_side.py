"""The provider's side of a revocation: end the revoked credentials there, and report the progress on the receipt.

`pipeline/revoker/collecting.py` says which credentials.
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
from identity.withdrawals.tables import withdrawals
from identity.withdrawals.withdrawal import WithdrawalState
from identity.withdrawals.withdrawer import WithdrawalTurn
from pipeline.revocation.receipt_content import ProviderAnswer, ProviderSide
from pipeline.revoker.collecting import Collector
from pipeline.revoker.due_withdrawals import (
    Due,
    ProviderQueue,
    due_of,
    is_pending,
    late,
    overdue,
    uncollected,
)

_LOOK = 1000  # withdrawals: as many as GitHub lets one request name
# The columns shown on the receipt, without the ciphertext.
_TOLD = tuple(withdrawals.c[name] for name in ("account_id", "generation", "origin", "state", "reason", "finished_at"))


class ProviderAsker:
    """Takes the credentials that must end, and asks for them. `advance` is safe to repeat and to run concurrently."""

    def __init__(
        self,
        store: Store,
        ask: Callable[[str, Sequence[str]], WithdrawalTurn],
        *,
        clock: Callable[[], datetime],
        within: timedelta = timedelta(seconds=5),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._collector = Collector(store=store, clock=clock, monotonic=monotonic)
        self._ask = ask  # about one, and those of others in its line that the same request can name
        self._clock = clock
        # no request begins later: other revocations have their turn, then the rest
        self._within = within.total_seconds()
        self._monotonic = monotonic

    def advance(self, revocation: str) -> bool:
        """Ask for all that is due of a revocation, including what a refresh won meanwhile.

        False: something of it is still pending. After half of the time, each round takes only one transaction's worth
        of accounts, so that a scope of very many accounts is asked about meanwhile.
        """
        until = self._monotonic() + self._within / 2
        self._ask_all(revocation, before=lambda: self._collector.collect(revocation, until))
        return not self._store.read(lambda c: is_pending(c, revocation))

    def due(self, *, limit: int = 100) -> list[str]:
        """Return the revocations with something to ask now, for housekeeping. O(pending)."""
        now = self._clock()
        found = self._store.read(lambda c: [*late(c, limit), *overdue(c, now, limit), *uncollected(c, limit)])
        return list(dict.fromkeys(found))

    def ask_leftovers(self) -> None:
        """Ask about what refused connects had won, which belongs to no revocation. For housekeeping, O(pending)."""
        self._ask_all(None, before=lambda: None)

    def _ask_all(self, revocation: str | None, *, before: Callable[[], None]) -> None:
        """Ask about each due withdrawal once, until the time is over. A failure does not stop the rest.

        If a provider has no room for one, the rest of its line is left alone: claiming each only to put it off would
        use up the time of the other lines.
        """
        end = self._monotonic() + self._within
        asked: set[str] = set()
        full: set[ProviderQueue] = set()
        failures = Failures()
        with failures.told("credentials that could not be taken or asked about"):
            while True:
                try:
                    before()
                except Exception as failure:  # noqa: BLE001 - reported at the end: asking goes on meanwhile
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
                    except Exception as failure:  # noqa: BLE001 - reported at the end, after the rest
                        failures.add("withdrawal", one.id, failure)
                if not fresh or self._monotonic() >= end:
                    break


def _due_unless_held(connection: Connection, **which: Any) -> Sequence[Due]:
    """Return what is due; nothing while the installation is held, as each claim would be in vain."""
    return [] if find_hold(connection) is not None else due_of(connection, **which)


def provider_side(connection: Connection, revocation: str) -> ProviderSide:
    """Return what the receipt says about the provider."""
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
    """Return one credential as on the receipt. A pending one has no details: each try would need another receipt."""
    return {
        "account": row.account_id,
        "generation": row.generation,
        "of": row.origin,
        "answer": row.state,
        "answered_at": row.finished_at.isoformat() if row.finished_at and row.state == WithdrawalState.DONE else None,
        "reason": None if row.state == WithdrawalState.PENDING else row.reason,
    }

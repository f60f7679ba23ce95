"""Writes of a refresh: its endings, and facts about a presentation that must not be lost."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection

from identity.errors import GrantRevoked
from identity.model import RuledOut
from identity.refresh.endings import Ending, Settled
from identity.refresh.intents import RefreshIntent
from identity.refresh.parts import RefreshParts
from identity.refresh.settlement import Settlement
from identity.refresh.situation import Situation
from identity.sql.persistent_write import PersistentWrite
from identity.sql.store import CommitUnknown

log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class RefreshWriter:
    """Writes the endings of refreshes."""

    parts: RefreshParts

    def end(
        self,
        situation: Situation,
        intent: RefreshIntent,
        act: Callable[Concatenate[Settlement, Connection, P], Ending],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> bool:
        """Settle *intent* by *act* in one transaction; False if another caller was first.

        Raises GrantRevoked and Unavailable.
        """
        settlement = self._settlement(situation, intent)
        try:
            ending = self.parts.store.write(lambda connection: act(settlement, connection, *args, **kwargs))
        except CommitUnknown:
            # It takes effect at most once, so the caller only has to read again.
            log.warning("the end of a refresh may not be committed", extra={"action": "refresh.commit_unknown"})
            return False
        return self._has_settled(ending)

    def fail_unsent(
        self, situation: Situation, intent: RefreshIntent, reason: str, *, retry_at: datetime | None
    ) -> bool:
        """Settle an intent that was certainly not sent, before it passes for unknown. False if another was first."""
        fail = partial(self._settlement(situation, intent).fail, reason=reason, retry_at=retry_at, unpresented=True)
        return self._has_settled(self.insist(intent, "end", fail))

    def insist(self, intent: RefreshIntent, what: str, fn: Callable[[Connection], T]) -> T:
        """Write a fact about a presentation that would otherwise be lost, retrying within `budget.store`."""
        where = {"action": f"refresh.{what}_not_stored", "account": intent.account, "intent": intent.id}
        keep = PersistentWrite(
            within=self.parts.budget.store,
            pause=self.parts.budget.poll,
            monotonic=self.parts.monotonic,
            sleep=self.parts.sleep,
        )
        return keep.write(
            self.parts.store, fn, what=f"the {what} of a refresh of account {intent.account}", where=where
        )

    def _settlement(self, situation: Situation, intent: RefreshIntent) -> Settlement:
        parts = self.parts
        return Settlement(
            account=situation.account, intent=intent, now=parts.clock(), ids=parts.ids, restored=parts.restored
        )

    @staticmethod
    def _has_settled(ending: Ending) -> bool:
        if isinstance(ending, RuledOut):
            raise GrantRevoked(ending.reason)
        return isinstance(ending, Settled)

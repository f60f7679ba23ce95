"""How many deliveries may come in a minute, through a provider connection and for a tenant.

Only what was verified is counted, so a stranger cannot use up what a sender may send. Signals always come in: a
revocation must not wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from webhooks import problems
from webhooks.problems import Problem
from webhooks.quota import Spent


class Counts(Protocol):
    """Requests a minute. `webhooks.quota` implements it."""

    def spend(self, key: str) -> Spent: ...


@dataclass(frozen=True, kw_only=True)
class Rates:
    """The limits there are; None: as many as come."""

    connection: Counts | None = None
    tenant: Counts | None = None

    def admit(self, connection: str, tenant: Callable[[], str | None]) -> None:
        """Count one verified delivery. Raises Problem if that was too many. *tenant* is asked for only if it counts."""
        for what, spent in self._spent(connection, tenant):
            if not spent.allowed:
                detail = f"This {what} takes {spent.limit} deliveries a minute. Send it again after Retry-After."
                raise Problem(problems.TOO_MANY, detail, retry_after=timedelta(seconds=spent.resets_in))

    def _spent(self, connection: str, tenant: Callable[[], str | None]) -> Iterator[tuple[str, Spent]]:
        # The tenant's comes first: what it may not send must not use up what others send through the same connection.
        if self.tenant is not None and (whose := tenant()) is not None:
            yield "tenant", self.tenant.spend(whose)
        if self.connection is not None:
            yield "provider connection", self.connection.spend(connection)

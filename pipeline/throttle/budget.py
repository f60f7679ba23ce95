"""Upstreams' rate limits as budgets shared by all workers, so that no request is sent only to be refused.

A budget covers one endpoint class of one account (or tenant) through one provider connection. It is learned from the
headers of answers, kept in Redis, and drawn on before a step opens. A job that finds it empty comes back by `due_at`:
no worker sleeps, and no other tenant waits. Without Redis there are no budgets, and jobs come back by `due_at` when the
upstream itself refuses.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from importlib.resources import files

from identity.model import AccountKey
from identity.shared_by_redis import SharedByRedis
from pipeline import metrics
from pipeline.throttle.limits import LONGEST_WAIT, EndpointClass, Limits, Per

UNKNOWN_FLYING = 4  # requests that may be in flight while no answer has stated the budget's size
GUESSED_WINDOW = timedelta(minutes=1)
A_LITTLE = timedelta(seconds=1)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The budget that one request draws on."""

    provider: str
    account: AccountKey
    endpoints: EndpointClass

    @property
    def whose(self) -> str:
        """The account or tenant whose requests are counted together."""
        if self.endpoints.per is Per.TENANT:
            return f"{self.account.tenant}/{self.account.connection}"
        return str(self.account)


class Budgets(SharedByRedis):
    """The requests that upstreams still allow. While Redis is away, nothing is drawn and nothing is learned."""

    script = files("pipeline.throttle").joinpath("budget.lua").read_text()

    def enter(self, budget: Budget) -> timedelta | None:
        """Return None to send now, which is then counted; otherwise the time to wait before asking again."""
        wait = self._ask(budget, "enter", UNKNOWN_FLYING, GUESSED_WINDOW, A_LITTLE)
        without = "unwatched" if self._client is not None else "unconfigured"
        outcome = without if wait is None else "waits" if wait else "passes"
        metrics.BUDGET_REQUESTS.labels(budget.provider, budget.endpoints.name, outcome).inc()
        return timedelta(microseconds=wait) if wait else None

    def give_back(self, budget: Budget) -> None:
        """Take back a request that passed but was not sent."""
        self._ask(budget, "back")

    def told(self, budget: Budget, limits: Limits, *, pause: timedelta | None) -> None:
        """Learn from the answer to a request that passed; `Limits()` if there was no answer.

        *pause*: the upstream refused and asked for no requests for this long.
        """
        left = limits.left
        if left is not None and left.limit > 0:
            share = min(left.remaining / left.limit, 1.0)
            metrics.BUDGET_LEFT.labels(budget.provider, budget.endpoints.name).observe(share)
        if pause is not None:
            metrics.BUDGET_PAUSES.labels(budget.provider, budget.endpoints.name).inc()
        said = ("", 0, 0) if left is None else (left.remaining, left.limit, min(left.resets_in, LONGEST_WAIT))
        held = 0 if pause is None else min(max(pause, A_LITTLE), LONGEST_WAIT)
        self._ask(budget, "told", *said, held, int(limits.whole))

    def _ask(self, budget: Budget, *arguments: str | int | timedelta) -> int | None:
        """Return the answer of Redis; None: it is away."""
        whose = f"{self._prefix}budget:{budget.whose}"
        return self._together([f"{whose}:{budget.endpoints.name}", whose], *arguments)

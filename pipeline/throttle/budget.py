"""Upstreams' rate limits as budgets that all workers share: nobody asks who would be refused.

A budget is one endpoint class of one account (or tenant) through one provider connection. It is learned from the
answers' headers, kept in Redis, and drawn on before a step opens. Who finds it empty comes back by `due_at`: no worker
sleeps, and no other tenant waits. Without Redis nothing is drawn on: the upstream's own refusal rules, by `due_at` too.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from importlib.resources import files

from identity.model import AccountKey
from identity.shared_by_redis import SharedByRedis
from pipeline import metrics
from pipeline.throttle.limits import LONGEST_WAIT, EndpointClass, Limits, Per

UNKNOWN_FLYING = 4  # requests that may be on the way while no answer has said how large the budget is
GUESSED_WINDOW = timedelta(minutes=1)
A_LITTLE = timedelta(seconds=1)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What one request draws on."""

    provider: str
    account: AccountKey
    endpoints: EndpointClass

    @property
    def whose(self) -> str:
        """Whose requests are counted together."""
        if self.endpoints.per is Per.TENANT:
            return f"{self.account.tenant}/{self.account.connection}"
        return str(self.account)


class Budgets(SharedByRedis):
    """What upstreams still let through. While Redis is away, nothing is drawn on, and nothing is learned."""

    script = files("pipeline.throttle").joinpath("budget.lua").read_text()

    def enter(self, budget: Budget) -> timedelta | None:
        """None: send now, it is counted. Otherwise how long to wait before asking again."""
        wait = self._ask(budget, "enter", UNKNOWN_FLYING, GUESSED_WINDOW, A_LITTLE)
        without = "unwatched" if self._client is not None else "unconfigured"
        outcome = without if wait is None else "waits" if wait else "passes"
        metrics.BUDGET_REQUESTS.labels(budget.provider, budget.endpoints.name, outcome).inc()
        return timedelta(microseconds=wait) if wait else None

    def give_back(self, budget: Budget) -> None:
        """Take back a request that went through and was not sent after all."""
        self._ask(budget, "back")

    def told(self, budget: Budget, limits: Limits, *, pause: timedelta | None) -> None:
        """What the answer to a request that went through said; also that there was none: `Limits()`.

        *pause*: it refused, and asked not to be asked before.
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
        """What Redis says; None: it is away."""
        whose = f"{self._prefix}budget:{budget.whose}"
        return self._together([f"{whose}:{budget.endpoints.name}", whose], *arguments)

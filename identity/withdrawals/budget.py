"""Time limits and retries of withdrawals."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from identity.backoff import doubled


@dataclass(frozen=True, kw_only=True)
class WithdrawalBudget:
    """Time limits and retries of asking a provider to end a credential."""

    send: timedelta = timedelta(seconds=5)  # from the claim to the first byte
    tries: int = 12
    first: timedelta = timedelta(seconds=2)  # pause after the first try; doubles each time
    longest: timedelta = timedelta(minutes=5)
    keyless: timedelta = timedelta(days=1)  # how long a refused connect's leftovers wait for their vault key
    outlasted: timedelta = timedelta(hours=1)  # a token that expires within this is waited for, not marked stuck
    limited: timedelta = timedelta(days=1)  # being rate limited spends no try for this long; no real limit lasts longer
    margin: timedelta = timedelta(seconds=30)  # by which a claim outlives its request

    def pause(self, tries: int) -> timedelta:
        """Return the pause after *tries* tries."""
        return doubled(self.first, tries - 1, longest=self.longest)

"""How long and how often providers are asked to end what was revoked."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from identity.backoff import doubled


@dataclass(frozen=True, kw_only=True)
class WithdrawalBudget:
    """How long and how often a provider is asked to end a credential."""

    send: timedelta = timedelta(seconds=5)  # from the claim to the first byte
    tries: int = 12
    first: timedelta = timedelta(seconds=2)  # after the first try; each pause lasts twice as long as the one before
    longest: timedelta = timedelta(minutes=5)
    keyless: timedelta = timedelta(days=1)  # of tries: what a refused connect had won waits for who has its vault key
    outlasted: timedelta = timedelta(hours=1)  # what ends by itself within that is waited for, and troubles nobody
    limited: timedelta = timedelta(
        days=1
    )  # for so long being told to wait spends no try: no limit of a rate lasts longer
    margin: timedelta = timedelta(seconds=30)  # a claim outlives its request by so much

    def pause(self, tries: int) -> timedelta:
        """Until the try after that many."""
        return doubled(self.first, tries - 1, longest=self.longest)

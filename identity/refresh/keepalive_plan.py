"""Schedules refreshes that no step asked for: pure, deterministic functions of stored state.

- A token that was used is refreshed before it expires. An unused token is not replaced ahead of need.
- An unused grant's refresh token is presented only if its provider expires idle ones.
- Refreshes are spread over a window to avoid a thundering herd. Each account's place in it follows from its id, and
  all hosts compute the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

from identity.backoff import doubled
from identity.model import MINTED, Credential
from identity.providers.profile import Profile

IN_USE, IDLE = 0, 1  # ranks: grants in use, or close to their idle limit, go first

_SPREAD = 0.2  # of a token's lifetime: the window in which it is refreshed ahead
_IDLE_FROM, _IDLE_TO, _IDLE_LATE = 0.6, 0.85, 0.9  # of the idle limit: used between the first two; late from the third
_LEAST = timedelta(minutes=1)  # between two refreshes, however short the tokens' lifetime
_FIRST_RETRY, _LAST_RETRY = timedelta(minutes=1), timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class Tended:
    """The facts about a grant that the plan depends on."""

    account: str
    credential: Credential
    renewable: bool  # it has a refresh token
    obtained_at: datetime
    expires_at: datetime | None
    used_at: datetime | None

    @property
    def in_use(self) -> bool:
        """True if the current token was used."""
        return self.used_at is not None and self.used_at >= self.obtained_at


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A refresh scheduled at *due*."""

    due: datetime
    rank: int


def plan(grant: Tended, profile: Profile, *, now: datetime) -> Plan | None:
    """Return when to refresh the grant next, or None if there is nothing to keep alive."""
    minted = grant.credential in MINTED
    if not minted and not grant.renewable:
        return None
    moments: list[Plan] = []
    if grant.in_use and grant.expires_at is not None:
        moments.append(Plan(due=_ahead(grant, grant.expires_at, profile), rank=IN_USE))
    if not minted and profile.idle_limit is not None:
        moments.append(_touch(grant, profile.idle_limit, now=now))
    return min(moments, key=lambda moment: (moment.due, moment.rank), default=None)


def place(account: str) -> float:
    """Return the account's fixed place in every window, from 0 to 1."""
    return int.from_bytes(sha256(account.encode()).digest()[:8], "big") / 2**64


def retry_in(account: str, *, failures: int, asked: timedelta) -> timedelta:
    """Return the backoff after *failures* in a row, at least as long as the last one *asked* for."""
    return max(doubled(_FIRST_RETRY, failures - 1, longest=_LAST_RETRY), asked) * (1 + place(account) / 2)


def _ahead(grant: Tended, expires_at: datetime, profile: Profile) -> datetime:
    """Return a time before a step would have to refresh: it needs `min_ttl`, at most half of the token's lifetime."""
    life = expires_at - grant.obtained_at
    latest = expires_at - min(profile.min_ttl, life / 2)
    return max(latest - life * _SPREAD * place(grant.account), grant.obtained_at + _LEAST)


def _touch(grant: Tended, limit: timedelta, *, now: datetime) -> Plan:
    """Plan a refresh within the idle limit, which runs from the last presentation of a refresh token."""
    due = grant.obtained_at + limit * (_IDLE_FROM + (_IDLE_TO - _IDLE_FROM) * place(grant.account))
    late = now >= grant.obtained_at + limit * _IDLE_LATE
    return Plan(due=due, rank=IN_USE if late else IDLE)

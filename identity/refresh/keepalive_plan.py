"""When a grant is refreshed although no step asks for it: pure functions of what is stored, never of chance.

- A token that was used is refreshed before it ends. Each has to be used to earn the next one.
- Without use, a refresh token is presented only because its provider forgets those that lie idle.
- Everyone's moment lies at a place of its own in a stretch of time, so that a herd spreads; the place follows from the
  account's id, so all hosts find the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

from identity.backoff import doubled
from identity.model import MINTED, Credential
from identity.providers.profile import Profile

IN_USE, IDLE = 0, 1  # ranks: what is in use, or close to its end, goes first

_SPREAD = 0.2  # of a token's life: the stretch in which it is refreshed ahead
_IDLE_FROM, _IDLE_TO, _IDLE_LATE = 0.6, 0.85, 0.9  # of the idle limit: touched between; late from there on
_LEAST = timedelta(minutes=1)  # between two refreshes, however short tokens live
_FIRST_RETRY, _LAST_RETRY = timedelta(minutes=1), timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class Tended:
    """A grant, as far as the plan goes."""

    account: str
    credential: Credential
    renewable: bool  # it has a refresh token
    obtained_at: datetime
    expires_at: datetime | None
    used_at: datetime | None

    @property
    def in_use(self) -> bool:
        """Whether the present token was used."""
        return self.used_at is not None and self.used_at >= self.obtained_at


@dataclass(frozen=True, kw_only=True)
class Plan:
    """To be refreshed at *due*."""

    due: datetime
    rank: int


def plan(grant: Tended, profile: Profile, *, now: datetime) -> Plan | None:
    """When to refresh it next; None: there is nothing to keep alive."""
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
    """The account's own place in every stretch, from 0 to 1."""
    return int.from_bytes(sha256(account.encode()).digest()[:8], "big") / 2**64


def retry_in(account: str, *, failures: int, asked: timedelta) -> timedelta:
    """How long to leave it alone after so many failures in a row, the last of which *asked* for so long."""
    return max(doubled(_FIRST_RETRY, failures - 1, longest=_LAST_RETRY), asked) * (1 + place(account) / 2)


def _ahead(grant: Tended, expires_at: datetime, profile: Profile) -> datetime:
    """Before a step would have to: it wants `min_ttl` of rest, at most half of the token's life."""
    life = expires_at - grant.obtained_at
    latest = expires_at - min(profile.min_ttl, life / 2)
    return max(latest - life * _SPREAD * place(grant.account), grant.obtained_at + _LEAST)


def _touch(grant: Tended, limit: timedelta, *, now: datetime) -> Plan:
    """Inside the idle limit, which counts from the last presentation of a refresh token."""
    due = grant.obtained_at + limit * (_IDLE_FROM + (_IDLE_TO - _IDLE_FROM) * place(grant.account))
    late = now >= grant.obtained_at + limit * _IDLE_LATE
    return Plan(due=due, rank=IN_USE if late else IDLE)

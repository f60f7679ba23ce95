"""Errors, classed by what happens next.

    AswhomError
    ├── Unavailable      retry     a lock is busy, a provider is down or limits us; spends no run
    │   └── LedgerDamaged          until somebody has restored the ledger
    ├── ReauthRequired   park      waits for a person; the job is kept
    ├── GrantRevoked     cancel    an explicit signal; what depends on the grant is cancelled
    ├── PolicyDenied     refuse    policy, scope, audience or approval
    ├── Misconfigured    refuse    the operator's fault: never touches a user's grant; raises an alarm
    │   └── AccountRefused         or one organisation's: jobs wait, and are given up one day
    └── BadInput         answer    a caller's request cannot be used as it is
        └── NotInState             nor while what it is about is in the state that it is in

Messages name principals and accounts by id and never contain a token or a body.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from identity.model import AccountKey


class AswhomError(Exception):
    """Any error this system raises on purpose."""


class Unavailable(AswhomError):
    """Try again later; nothing is known to be wrong with the credential."""

    def __init__(self, message: str, *, retry_after: timedelta = timedelta(seconds=1)) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unconfirmed(Unavailable):
    """It may have been done, or not: no commit of it was confirmed. Look, or ask again by the same key."""


class LedgerDamaged(Unavailable):
    """The ledger's file is not what was written: a backup must be restored. Senders are to repeat until then."""


class KeysAway(Unavailable):
    """The public keys that a token is verified by cannot be fetched from whoever issues it."""


class ReauthRequired(AswhomError):
    """The account needs a person to connect it again."""

    def __init__(self, message: str, *, account: str) -> None:
        super().__init__(message)
        self.account = account


class GrantRevoked(AswhomError):
    """The authority was withdrawn by an explicit signal."""


class PolicyDenied(AswhomError):
    """Policy, a missing scope or a missing approval forbids the step."""


class Misconfigured(AswhomError):
    """The operator must change a setting, key or client registration."""


class AccountRefused(Misconfigured):
    """One account is given no token until somebody acts, there or here; it is asked again after *retry_after*."""

    def __init__(self, message: str, *, account: AccountKey, retry_after: timedelta) -> None:
        super().__init__(message)
        self.account = account
        self.retry_after = retry_after


class KeyMissing(Misconfigured):
    """A vault key is not in this host's file; another host's may have it already, or this one's soon."""


class BadInput(AswhomError):
    """What a caller sent cannot be used; the message says what, why and what to do."""


class NotInState(BadInput):
    """What was asked for is not done to a thing in this state; the request itself is right."""

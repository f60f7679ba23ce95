"""Errors, classified by what happens next.

    AswhomError
    ├── Unavailable      retry     a lock is busy, a provider is down or limits us; spends no run
    │   ├── TookTooLong            a smaller request may succeed
    │   └── LedgerDamaged          until the ledger has been restored
    ├── ReauthRequired   park      waits for a person; the job is kept
    ├── GrantRevoked     cancel    an explicit signal; what depends on the grant is cancelled
    ├── PolicyDenied     refuse    policy, scope, audience or approval
    ├── Misconfigured    refuse    the operator's fault: never touches a user's grant; raises an alarm
    │   └── AccountRefused         or one organisation's fault: jobs wait, and are eventually given up
    └── BadInput         answer    a caller's request cannot be used as it is
        └── NotInState             or its subject is in the wrong state for it

Messages name principals and accounts by id and never contain a token or a body.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from identity.model import AccountKey


class AswhomError(Exception):
    """Base of every error that this system raises on purpose."""


class Unavailable(AswhomError):
    """Try again later; nothing is known to be wrong with the credential."""

    def __init__(self, message: str, *, retry_after: timedelta = timedelta(seconds=1)) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unconfirmed(Unavailable):
    """No commit was confirmed, so the write may or may not have happened. Look, or retry with the same key."""


class TookTooLong(Unavailable):
    """The ledger's server ended a statement at its time limit. Repeated as it is, it would take as long again."""


class LedgerDamaged(Unavailable):
    """The ledger's file is corrupt and must be restored from a backup. Senders retry until then."""


class KeysAway(Unavailable):
    """The issuer's public keys, needed to verify a token, cannot be fetched."""


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
    """One account gets no token until somebody acts, here or at the provider; asked again after *retry_after*."""

    def __init__(self, message: str, *, account: AccountKey, retry_after: timedelta) -> None:
        super().__init__(message)
        self.account = account
        self.retry_after = retry_after


class KeyMissing(Misconfigured):
    """A vault key is missing from this host's key file.

    Other hosts may have it already, and this one may get it soon.
    """


class BadInput(AswhomError):
    """A caller's input cannot be used; the message says what, why and what to do."""


class NotInState(BadInput):
    """The request is valid, but not for a thing in its present state."""

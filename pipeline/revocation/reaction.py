"""Reaction of one account to a signal, in the transaction that accepts the signal.

The laws (docs/revocation.md, "Late, repeated and false signals"):

- a signal that names a time older than the grant's consent, or an installation that is no longer the account's, changes
  nothing; neither does one for an account without a grant to withdraw, whichever scope revoked it;
- otherwise it fails closed: it is followed at once, and if it looks like a repetition the provider is asked afterwards;
- a suspension and its end are ordered by the provider's own times.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection, select

from identity import audit
from identity.accounts.grants import Grant, get_grant
from identity.accounts.narrowing import rescope
from identity.accounts.scopes import newest_revocation
from identity.accounts.states import Account, find_account, move_account, note_said
from identity.audit import AsWhom
from identity.connect_sessions.sessions import is_connecting
from identity.model import MINTED, AccountKey, AccountState, Credential, ReconnectCause
from identity.refresh.stale_access import drop_access
from identity.tables import accounts
from pipeline.jobs.awaited import consent_of, wake
from pipeline.revocation import declaration
from pipeline.revocation.narrowing import declare_narrowing
from pipeline.revocation.tables import is_of_any, revocations
from pipeline.signal import Asks, Signal

_OF_SUSPENSION = (Asks.SUSPEND, Asks.RESUME)


@dataclass(frozen=True, kw_only=True)
class ReceivedSignal:
    """A signal as received: its sender, and the message that carried it."""

    signal: Signal
    id: str  # of the revocation, if one results
    by: str
    signal_id: str  # the delivery or `jti` that brought it
    seen: bool  # the same bytes came before, or it names no time and we had it sent again
    now: datetime

    @property
    def cause(self) -> declaration.Cause:
        """The cause of the revocation or narrowing, if one results."""
        signal = self.signal
        return declaration.Cause(source=signal.source, by=self.by, reason=signal.reason, signal=self.signal_id)


class Became(StrEnum):
    """Effect of a signal on one account, stored per chunk and in the audit; `in_words` is for people."""

    REVOKED = "revoked"
    SUSPENDED = "suspended"
    RESUMED = "resumed"
    NEEDS_RECONNECT = "needs_reconnect"  # its grant died while it was suspended
    NARROWED = "narrowed"
    RESCOPED = "rescoped"
    RENEWED = "renewed"
    KEPT = "kept"  # nothing could renew its access token
    NOTED = "noted"
    # Nothing changed:
    GONE = "gone"
    REVOKED_ALREADY = "revoked_already"
    PENDING_ALREADY = "pending_already"
    SUSPENDED_ALREADY = "suspended_already"
    NEEDS_RECONNECT_ALREADY = "needs_reconnect_already"
    NOT_SUSPENDED = "not_suspended"
    CONNECTED_AGAIN = "connected_again"
    OUTDATED = "outdated"

    @property
    def declares(self) -> bool:
        """True if a revocation, or a narrowing, was declared."""
        return self in (Became.REVOKED, Became.NARROWED)


_IN_WORDS: dict[str, str] = {
    Became.KEPT: "kept, since nothing could renew it",
    Became.CONNECTED_AGAIN: "connected again since",
    Became.OUTDATED: "older than what is known",
}
_WITHOUT_GRANT = {
    AccountState.REVOKED: Became.REVOKED_ALREADY,
    AccountState.PENDING: Became.PENDING_ALREADY,
}
_INACTIVE = {
    **_WITHOUT_GRANT,
    AccountState.SUSPENDED: Became.SUSPENDED_ALREADY,
    AccountState.NEEDS_RECONNECT: Became.NEEDS_RECONNECT_ALREADY,
}


def in_words(became: str) -> str:
    """Return an outcome for people. An earlier version stored them in words, which are returned as they are."""
    return _IN_WORDS.get(became, became.replace("_", " "))


def react(connection: Connection, key: AccountKey, received: ReceivedSignal, number: int) -> Became:
    """Apply a signal to one account. The caller holds its lock.

    *number*: the ledger number of the signal's acceptance.
    """
    account = find_account(connection, key)
    if account is None:
        return Became.GONE
    grant = get_grant(connection, account.id)
    reaction = Reaction(connection=connection, account=account, grant=grant, received=received, number=number)
    return reaction.prohibits() or reaction.apply()


@dataclass(frozen=True, kw_only=True)
class Reaction:
    """One account and the signal that reached it."""

    connection: Connection
    account: Account
    grant: Grant | None
    received: ReceivedSignal
    number: int  # ledger number of the signal's acceptance

    @property
    def signal(self) -> Signal:
        return self.received.signal

    def prohibits(self) -> Became | None:
        """Return why the signal changes nothing about this account, or None."""
        connection, account, grant, signal = self.connection, self.account, self.grant, self.signal
        at = signal.happened_at
        ended = newest_revocation(connection, account.key.scopes)
        # A revocation of a wider scope leaves the account's state alone.
        from_above = grant is not None and grant.consented <= ended and signal.asks not in _OF_SUSPENSION
        if account.state in _WITHOUT_GRANT or from_above:
            # A link that was opened before the signal must not be completed after it.
            under_way = signal.asks is Asks.REVOKE and is_connecting(
                connection, account.key, now=self.received.now, after=ended, before=self.number
            )
            return None if under_way else _WITHOUT_GRANT.get(account.state, Became.REVOKED_ALREADY)
        # Thousands of accounts of a workspace are reached one by one; somebody may have reconnected meanwhile.
        if grant is not None and grant.consented > self.number:
            return Became.CONNECTED_AGAIN
        # Within the precision of the sender's time, the signal counts as later than the consent.
        if at and grant and _precedes(at + signal.precision, grant.consented_at, or_equals=True):
            return Became.CONNECTED_AGAIN
        match signal.asks:
            # GitHub's times are in seconds: a resume of the same second ends a suspension; a suspend of that second
            # does not restart it.
            case Asks.SUSPEND if _precedes(at, account.suspension_said_at, or_equals=True):
                return Became.OUTDATED
            case Asks.RESUME if _precedes(at, account.suspension_said_at):
                return Became.OUTDATED
            case Asks.RESCOPE if self.received.seen or _precedes(at, account.permissions_said_at):
                return Became.OUTDATED
        return None

    def apply(self) -> Became:
        """Do what the signal asks, and return the outcome."""
        connection, account, signal = self.connection, self.account, self.signal
        if signal.asks in _OF_SUSPENSION:
            # Noted in any state, because signals may arrive out of order.
            note_said(connection, account.id, suspension=signal.happened_at)
        match signal.asks:
            case Asks.REVOKE:
                return self._revoke()
            case Asks.SUSPEND:
                return self._suspend()
            case Asks.RESUME:
                return self._resume()
            case Asks.RESCOPE:
                return self._rescope()
            case Asks.RENEW:
                return self._record(Became.RENEWED if drop_access(connection, account) else Became.KEPT)
            case Asks.NOTE:
                return self._record(Became.NOTED)

    def _revoke(self) -> Became:
        signal, received, key = self.signal, self.received, self.account.key
        # A signal without a time may be a replay, or the echo of our own request: it is followed, and the provider is
        # asked. For an installation it is neither, because its id is never reused.
        of_person = self.account.credential is Credential.AUTHORIZATION_CODE
        doubtful = signal.happened_at is None and of_person and (received.seen or self._may_be_echo())
        declaration.declare(
            self.connection,
            key.scope,
            received.cause,
            id=received.id,
            tenant=key.tenant,
            now=received.now,
            doubt="open" if doubtful else None,
        )
        return Became.REVOKED

    def _may_be_echo(self) -> bool:
        """True if a revocation before the signal, of any scope, ended a grant of this person to this client.

        The provider ends everything a person granted at once, so a request of ours for another of their accounts comes
        back as a signal. Revocations by this very signal have higher numbers.
        """
        account = self.account
        keys = [account.key]
        if account.external_id is not None:  # two accounts of whom nothing is known need not be one person's
            columns = accounts.c
            persons = (columns.connection_id == account.key.connection) & (columns.external_id == account.external_id)
            keys += map(AccountKey.of, self.connection.execute(select(accounts).where(persons)))
        over = {scope for key in keys for scope in key.scopes}
        before = select(revocations.c.id).where(is_of_any(over), revocations.c.number < self.number)
        return self.connection.execute(before.limit(1)).first() is not None

    def _suspend(self) -> Became:
        if (state := self.account.state) is not AccountState.ACTIVE:
            return _INACTIVE[state]
        self._move(AccountState.SUSPENDED, reason=self.signal.reason)
        return self._record(Became.SUSPENDED)

    def _resume(self) -> Became:
        account, grant = self.account, self.grant
        if account.state is not AccountState.SUSPENDED:
            return Became.NOT_SUSPENDED
        dead = grant is None or (grant.access_sealed is None and grant.refresh_sealed is None)
        if dead and account.credential not in MINTED:
            reason = "its grant died while it was suspended"
            self._move(AccountState.NEEDS_RECONNECT, reason=reason, cause=ReconnectCause.DEAD)
            return self._record(Became.NEEDS_RECONNECT)
        self._move(AccountState.ACTIVE)
        wake(self.connection, consent_of(account.key))
        return self._record(Became.RESUMED)

    def _rescope(self) -> Became:
        connection, account, signal, received = self.connection, self.account, self.signal, self.received
        note_said(connection, account.id, permissions=signal.happened_at)
        narrowed = rescope(connection, account, tuple(sorted(signal.scopes or ())))
        drop_access(connection, account)
        wake(connection, consent_of(account.key))
        if narrowed is None:
            return self._record(Became.RESCOPED)
        declare_narrowing(connection, account.key, narrowed, received.cause, id=received.id)
        return self._record(Became.NARROWED, number=narrowed.number)

    def _move(self, to: AccountState, *, reason: str | None = None, cause: ReconnectCause | None = None) -> None:
        move_account(self.connection, self.account.id, to=to, reason=reason, cause=cause, now=self.received.now)

    def _record(self, became: Became, *, number: int | None = None) -> Became:
        """Record the outcome in the audit, under *number* if it has one already. Return it."""
        audit.record(
            self.connection,
            f"account.{self.signal.asks}",
            AsWhom.of_account(self.account.key, id=self.account.id),
            id=f"{self.received.id}.signal",
            at=self.received.now,
            number=number,
            outcome=became,
            reason=self.signal.reason,
            detail={"source": self.signal.source, "by": self.received.by},
        )
        return became


def _precedes(at: datetime | None, known: datetime | None, *, or_equals: bool = False) -> bool:
    if at is None or known is None:
        return False
    return at <= known if or_equals else at < known

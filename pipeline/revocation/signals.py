"""Following signals: finds the affected accounts and moves each, in the transaction that accepts the signal.

The laws (docs/revocation.md):

- a signal that names a time older than the grant's consent, or an installation that is no longer the account's, changes
  nothing; neither does one for an account without a grant to withdraw, whichever scope revoked it;
- otherwise it fails closed: it is followed at once, and if it looks like a repetition the provider is asked afterwards;
- a suspension and its end are ordered by the provider's own times.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from sqlalchemy import Connection, select

from identity import audit
from identity.accounts.grants import Grant, get_grant
from identity.accounts.narrowing import Narrowed, rescope
from identity.accounts.scopes import newest_revocation
from identity.accounts.states import Account, find_account, move_account, note_said
from identity.audit import AsWhom
from identity.connect_sessions.sessions import is_connecting
from identity.connections.installations import remove_installation
from identity.connections.registry import get_connection
from identity.model import MINTED, AccountKey, AccountState, Credential, ReconnectCause
from identity.refresh.stale_access import drop_access
from identity.sql.sequence import checked_number, lock_exclusive
from identity.tables import accounts
from pipeline.jobs.awaited import consent_of, wake
from pipeline.revocation import declaration
from pipeline.revocation.narrowing import declare_narrowing
from pipeline.revocation.signal_targets import accounts_meant, unlisted_place
from pipeline.revocation.tables import is_of_any, revocations
from pipeline.signal import Asks, Installation, Nobody, Signal

BY_PROVIDER = "provider:"  # prefix of `requested_by` of its revocations; the delivery's source follows

_WITHOUT_GRANT = (AccountState.REVOKED, AccountState.PENDING)
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


@dataclass(frozen=True, kw_only=True)
class Followed:
    """The effects of a signal, and the accounts it has yet to reach."""

    revocations: tuple[str, ...] = ()
    reason: str  # for the delivery's record
    became: Mapping[str, int] = field(default_factory=dict)  # number of accounts by outcome: revoked, suspended …
    left: tuple[AccountKey, ...] = ()
    advice: str = ""  # about a place that is listed for no tenant
    nobodys: bool = False  # it withdraws grants in a place that is listed for no tenant
    strangers: bool = False  # and nobody has ever connected there
    number: int = 0  # ledger number of the signal's acceptance, used for the remaining accounts


def follow(
    connection: Connection,
    through: str,
    received: ReceivedSignal,
    *,
    tenant: str | None = None,
    at_most: int | None = None,
) -> Followed:
    """Follow a signal from the sender of the provider connection *through*. Raises Unavailable.

    *tenant*: only this tenant's accounts. *at_most*: reach at most so many accounts, and leave the rest to the caller.
    """
    signal = received.signal
    if refusal := _other_client(connection, through, signal):
        return Followed(reason=refusal)
    found = accounts_meant(connection, through, signal.whom)
    meant = sorted((key for key in found if tenant in (None, key.tenant)), key=str)
    # Read first: anyone who starts to connect after this number is not affected. With a number behind the rows, every
    # account would seem to have connected again since.
    number = checked_number(connection)
    few = meant[:at_most]
    made, became = reach(connection, few, received, number=number, place=0)
    _forget_installations(connection, through, signal)
    left = tuple(meant[len(few) :])
    reason = said(became, signal) + (f"; {len(left)} account(s) to go" if left else "")
    unlisted = unlisted_place(connection, through, signal)
    advice = "" if unlisted is None else unlisted.says
    reason = "; ".join(filter(None, (reason, advice)))
    return Followed(
        revocations=made,
        reason=reason,
        became=became,
        left=left,
        advice=advice,
        nobodys=unlisted is not None,
        strangers=unlisted is not None and not unlisted.seen,
        number=number,
    )


def reach(
    connection: Connection, keys: Sequence[AccountKey], received: ReceivedSignal, *, number: int, place: int
) -> tuple[tuple[str, ...], Counter[str]]:
    """Apply a signal to these accounts; return its revocations, and the number of accounts by outcome.

    *number*: the ledger number of the signal's acceptance. *keys* are sorted, and *place* is the position of the first
    among all affected accounts.
    """
    made: list[str] = []
    became: Counter[str] = Counter()
    for nth, key in enumerate(keys, start=place):
        of_account = replace(received, id=f"{received.id}.{nth}" if nth else received.id)
        # Locked separately: in one statement with the read, the snapshot would precede the wait for the lock.
        lock_exclusive(connection, key.scope)
        outcome = _apply(connection, key, of_account, number)
        became[outcome] += 1
        if outcome in ("revoked", "narrowed"):
            made.append(of_account.id)
    return tuple(made), became


def said(became: Mapping[str, int], signal: Signal) -> str:
    """Return a summary of the signal's effects, for the delivery's record."""
    whys = [one.why for one in signal.whom if isinstance(one, Nobody)]
    counts = [f"{number} account(s) {outcome}" for outcome, number in sorted(became.items())]
    return "; ".join(counts + whys) or "no account of this connection is meant"


def _apply(connection: Connection, key: AccountKey, received: ReceivedSignal, number: int) -> str:
    """Apply a signal to one account, and return the outcome in a few words. The caller holds its lock."""
    account = find_account(connection, key)
    if account is None:
        return "gone"
    grant = get_grant(connection, account.id)
    if unmoved := _prohibits(connection, account, grant, received, number):
        return unmoved
    signal = received.signal
    if signal.asks in _OF_SUSPENSION:
        # Noted in any state, because signals may arrive out of order.
        note_said(connection, account.id, suspension=signal.happened_at)
    match signal.asks:
        case Asks.REVOKE:
            return _revoke(connection, account, received, number)
        case Asks.SUSPEND:
            if account.state is not AccountState.ACTIVE:
                return f"{account.state} already"
            move_account(connection, account.id, to=AccountState.SUSPENDED, reason=signal.reason, now=received.now)
            return _record(connection, account, received, "suspended")
        case Asks.RESUME:
            if account.state is not AccountState.SUSPENDED:
                return "not suspended"
            return _resume(connection, account, grant, received)
        case Asks.RESCOPE:
            note_said(connection, account.id, permissions=signal.happened_at)
            narrowed = rescope(connection, account, tuple(sorted(signal.scopes or ())))
            drop_access(connection, account)
            wake(connection, consent_of(key))
            if narrowed is None:
                return _record(connection, account, received, "rescoped")
            _declare_narrowing(connection, key, narrowed, received)
            return _record(connection, account, received, "narrowed", number=narrowed.number)
        case Asks.RENEW:
            renewed = drop_access(connection, account)
            return _record(
                connection, account, received, "renewed" if renewed else "kept, since nothing could renew it"
            )
        case Asks.NOTE:
            return _record(connection, account, received, "noted")


def _prohibits(
    connection: Connection, account: Account, grant: Grant | None, received: ReceivedSignal, number: int
) -> str | None:
    """Return why the signal changes nothing about this account, or None."""
    signal, at = received.signal, received.signal.happened_at
    ended = newest_revocation(connection, account.key.scopes)
    # A revocation of a wider scope leaves the account's state alone.
    from_above = grant is not None and grant.consented <= ended and signal.asks not in _OF_SUSPENSION
    if account.state in _WITHOUT_GRANT or from_above:
        # A link that was opened before the signal must not be completed after it.
        under_way = signal.asks is Asks.REVOKE and is_connecting(
            connection, account.key, now=received.now, after=ended, before=number
        )
        state = account.state if account.state in _WITHOUT_GRANT else AccountState.REVOKED
        return None if under_way else f"{state} already"
    # Thousands of accounts of a workspace are reached one by one; somebody may have reconnected meanwhile.
    if grant is not None and grant.consented > number:
        return "connected again since"
    # Within the precision of the sender's time, the signal counts as later than the consent.
    if at is not None and grant is not None and _precedes(at + signal.precision, grant.consented_at, or_equals=True):
        return "connected again since"
    match signal.asks:
        # GitHub's times are in seconds: a resume of the same second ends a suspension; a suspend of that second does
        # not restart it.
        case Asks.SUSPEND if _precedes(at, account.suspension_said_at, or_equals=True):
            return "older than what is known"
        case Asks.RESUME if _precedes(at, account.suspension_said_at):
            return "older than what is known"
        case Asks.RESCOPE if received.seen or _precedes(at, account.permissions_said_at):
            return "older than what is known"
    return None


def _precedes(at: datetime | None, known: datetime | None, *, or_equals: bool = False) -> bool:
    if at is None or known is None:
        return False
    return at <= known if or_equals else at < known


def _revoke(connection: Connection, account: Account, received: ReceivedSignal, number: int) -> str:
    signal = received.signal
    # A signal without a time may be a replay, or the echo of our own request: it is followed, and the provider is
    # asked. For an installation it is neither, because its id is never reused.
    of_person = account.credential is Credential.AUTHORIZATION_CODE
    doubtful = signal.happened_at is None and of_person and (received.seen or _may_be_echo(connection, account, number))
    declaration.declare(
        connection,
        id=received.id,
        scope=account.key.scope,
        tenant=account.key.tenant,
        source=signal.source,
        by=received.by,
        reason=signal.reason,
        signal=received.signal_id,
        now=received.now,
        doubt="open" if doubtful else None,
    )
    return "revoked"


def _declare_narrowing(connection: Connection, key: AccountKey, narrowed: Narrowed, received: ReceivedSignal) -> None:
    signal = received.signal
    declare_narrowing(
        connection,
        key,
        narrowed,
        id=received.id,
        source=signal.source,
        by=received.by,
        reason=signal.reason,
        signal=received.signal_id,
    )


def _may_be_echo(connection: Connection, account: Account, number: int) -> bool:
    """True if a revocation before *number*, of any scope, ended a grant of this person to this client.

    The provider ends everything a person granted at once, so a request of ours for another of their accounts comes back
    as a signal. Revocations by this very signal have higher numbers.
    """
    keys = [account.key]
    if account.external_id is not None:  # two accounts of whom nothing is known need not be one person's
        columns = accounts.c
        persons = (columns.connection_id == account.key.connection) & (columns.external_id == account.external_id)
        keys += map(AccountKey.of, connection.execute(select(accounts).where(persons)))
    over = {scope for key in keys for scope in key.scopes}
    before = select(revocations.c.id).where(is_of_any(over), revocations.c.number < number)
    return connection.execute(before.limit(1)).first() is not None


def _resume(connection: Connection, account: Account, grant: Grant | None, received: ReceivedSignal) -> str:
    dead = grant is None or (grant.access_sealed is None and grant.refresh_sealed is None)
    if dead and account.credential not in MINTED:
        to, reason = AccountState.NEEDS_RECONNECT, "its grant died while it was suspended"
        move_account(connection, account.id, to=to, reason=reason, cause=ReconnectCause.DEAD, now=received.now)
        return _record(connection, account, received, "needs reconnect")
    move_account(connection, account.id, to=AccountState.ACTIVE, reason=None, now=received.now)
    wake(connection, consent_of(account.key))
    return _record(connection, account, received, "resumed")


def _record(
    connection: Connection, account: Account, received: ReceivedSignal, outcome: str, *, number: int | None = None
) -> str:
    """Record the *outcome* in the audit, under *number* if it has one already. Return it."""
    audit.record(
        connection,
        f"account.{received.signal.asks}",
        AsWhom.of_account(account.key, id=account.id),
        id=f"{received.id}.signal",
        at=received.now,
        number=number,
        outcome=outcome[:64],
        reason=received.signal.reason,
        detail={"source": received.signal.source, "by": received.by},
    )
    return outcome


def _other_client(connection: Connection, through: str, signal: Signal) -> str | None:
    if signal.client is None or signal.client == get_connection(connection, through).client_id:
        return None
    return "it names another client registration than this connection's"


def _forget_installations(connection: Connection, through: str, signal: Signal) -> None:
    """Forget revoked installations: GitHub gives a new installation a new id."""
    if signal.asks is Asks.REVOKE:
        for one in signal.whom:
            if isinstance(one, Installation):
                remove_installation(connection, owner=through, external_id=one.id)

"""Acceptance of security events: one transaction for the token and what follows from it, once per `jti`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import Connection, select

from identity.accounts.scopes import newest_revocation
from identity.accounts.states import find_account
from identity.connect_sessions.sessions import open_links
from identity.console.sessions import end_at_providers_word
from identity.console.sign_in import LEEWAY
from identity.model import AccountKey, AccountState, Scope, ScopeKind
from identity.principals import resolve_alias
from identity.refresh.stale_access import drop_access
from identity.sql.rows import insert_new
from identity.sql.sequence import lock_exclusive
from identity.tables import accounts, grants
from identity.transmitters import Transmitter
from pipeline.model import Acceptance, DeliveryOutcome, SecurityEvent
from pipeline.revocation import declaration
from pipeline.revocation.reaction import ReceivedSignal
from pipeline.revocation.signal_targets import accounts_meant
from pipeline.revocation.signals import Followed, follow
from pipeline.revocation.tables import revocations, security_events
from pipeline.signal import Asks, Holders, Nobody, People, Signal, Whom

BY_TRANSMITTER = "transmitter:"  # prefix of `requested_by` of its revocations; its id follows


def accept(
    connection: Connection, event: SecurityEvent, transmitter: Transmitter, *, id: str, now: datetime
) -> Acceptance:
    """Record a verified token and do what it asks. A repeated `jti` changes nothing (RFC 8417 §2.2)."""
    outcome = DeliveryOutcome.SIGNAL if event.signals else DeliveryOutcome.IGNORED
    row = {
        "transmitter_id": transmitter.id,
        "jti": event.jti,
        "tenant_id": transmitter.tenant,
        "events": list(event.events),
        "outcome": outcome,
        "reason": event.note,
        "token": event.token,
        "received_at": now,
    }
    if not insert_new(connection, security_events, row):
        return _repetition(event)
    _lock_all(connection, event, transmitter)
    followed = [
        _follow(
            connection,
            ReceivedSignal(
                signal=signal,
                id=f"{id}.s{place}" if place else id,
                by=f"{BY_TRANSMITTER}{transmitter.id}",
                signal_id=event.jti,
                seen=False,
                now=now,
            ),
            transmitter,
        )
        for place, signal in enumerate(event.signals)
    ]
    left = [
        _left_console(connection, signal, transmitter, id=f"{id}.c{place}", now=now)
        for place, signal in enumerate(event.signals)
    ]
    reason = "; ".join(filter(None, [*(one.reason for one in followed), *left, event.note]))
    connection.execute(
        security_events.update()
        .where(security_events.c.transmitter_id == transmitter.id, security_events.c.jti == event.jti)
        .values(reason=reason)
    )
    return Acceptance(
        delivery=event.jti,
        outcome=outcome,
        reason=reason,
        revocations=tuple(made for one in followed for made in one.revocations),
    )


def _lock_all(connection: Connection, event: SecurityEvent, transmitter: Transmitter) -> None:
    """Lock everything its events affect: users before accounts, as openings do, each ordered by id.

    Locked one by one while followed, they would be in the sender's order, and two tokens could deadlock.
    """
    wanted = {scope for signal in event.signals for scope in _touched(connection, signal, transmitter)}
    if len(wanted) > 1:  # a single scope is locked where the event is followed
        for scope in sorted(wanted, key=lambda one: (one.kind is not ScopeKind.USER, one.key)):
            lock_exclusive(connection, scope)


def _touched(connection: Connection, signal: Signal, transmitter: Transmitter) -> Iterator[Scope]:
    """Yield the scopes that are locked where the signal is followed."""
    if transmitter.connection is not None:
        meant = accounts_meant(connection, transmitter.connection, signal.whom, tenant=transmitter.tenant)
        yield from (key.scope for key in meant)
        return
    for principal in (one for whom in signal.whom for one in _named(connection, whom, transmitter) if one is not None):
        if signal.asks is Asks.RENEW:
            yield from (key.scope for key in _keys(connection, principal, transmitter))
        else:
            yield Scope(kind=ScopeKind.USER, key=principal)


def _named(connection: Connection, whom: Whom, transmitter: Transmitter) -> list[str | None]:
    """Return the users whom an identity provider names, None for each that nobody is linked to, in a stable order."""
    ids = sorted(whom.ids) if isinstance(whom, People) else ()
    return [resolve_alias(connection, transmitter.tenant or "", transmitter.id, id) for id in ids]


def taken_before(connection: Connection, event: SecurityEvent, transmitter: Transmitter) -> Acceptance | None:
    """Return the answer to a token whose `jti` was taken before; None: it was not."""
    columns = security_events.c
    taken = select(columns.jti).where(columns.transmitter_id == transmitter.id, columns.jti == event.jti)
    return None if connection.execute(taken).first() is None else _repetition(event)


def _repetition(event: SecurityEvent) -> Acceptance:
    return Acceptance(delivery=event.jti, outcome=DeliveryOutcome.DUPLICATE, reason="this jti was taken before")


def _follow(connection: Connection, received: ReceivedSignal, transmitter: Transmitter) -> Followed:
    if transmitter.connection is not None:
        return follow(connection, transmitter.connection, received, tenant=transmitter.tenant)
    made: list[str] = []
    outcomes: list[str] = []
    for one in received.signal.whom:
        match one:
            case Nobody(why=why):
                outcomes.append(why)
            case Holders():
                outcomes.append("the subject is a token, and this transmitter is of no provider connection")
            case People():
                for place, principal in enumerate(_named(connection, one, transmitter)):
                    of_user = replace(received, id=f"{received.id}.{place}" if place else received.id)
                    ended, outcome = _apply(connection, of_user, transmitter, principal)
                    made += ended
                    outcomes.append(f"1 user {outcome}")
            case _:
                outcomes.append("the subject is not a person")
    return Followed(revocations=tuple(made), reason="; ".join(outcomes))


def _left_console(connection: Connection, signal: Signal, transmitter: Transmitter, *, id: str, now: datetime) -> str:
    """End the console sessions of these people at that provider. Return a summary, empty if there were none.

    A tenant's hub may speak of another provider's people: then only its own tenant's roles are removed, as the hub's
    keys are the tenant's.
    """
    people = [one.ids for one in signal.whom if isinstance(one, People)]
    if signal.asks is not Asks.REVOKE or not people:
        return ""
    end = None if signal.of_account else _end(signal)
    is_hub = transmitter.names_subjects_of != transmitter.issuer
    told = end_at_providers_word(
        connection,
        issuer=transmitter.names_subjects_of,
        subjects=frozenset().union(*people),
        within=transmitter.tenant if is_hub else None,
        before=end and end + timedelta(seconds=LEEWAY),  # by the provider's clock
        audit_id=id,
        by=f"{BY_TRANSMITTER}{transmitter.id}",
        reason=signal.reason,
        now=now,
    )
    said = {
        "ended": told.ended,
        "go on without its tenant's roles": told.narrowed,
        "of a later sign-in go on": told.younger,
        "of others than its tenant's go on": told.of_others,
    }
    return ", ".join(f"{number} console session(s) {what}" for what, number in said.items() if number)


def _apply(
    connection: Connection, received: ReceivedSignal, transmitter: Transmitter, principal: str | None
) -> tuple[tuple[str, ...], str]:
    """Apply a signal to the user an identity provider names. Return the revocations, and the outcome in words."""
    signal = received.signal
    if principal is None:
        return (), "unknown: nobody of the tenant is linked to this subject"
    if signal.asks is Asks.RENEW:
        return (), _renew(connection, principal, transmitter)
    scope = Scope(kind=ScopeKind.USER, key=principal)
    lock_exclusive(connection, scope)
    if _revoked_since(connection, scope, signal):
        return (), "revoked since"
    if _connected_again(connection, principal, signal, now=received.now):
        return (), "connected again since"
    declaration.declare(
        connection,
        scope,
        received.cause,
        id=received.id,
        tenant=transmitter.tenant or "",
        now=received.now,
    )
    return (received.id,), "revoked"


def _revoked_since(connection: Connection, scope: Scope, signal: Signal) -> bool:
    """True if the user was revoked after the signal's event: everything alive now is newer than that."""
    newest = declaration.newest_of(scope).with_only_columns(revocations.c.effective_at)
    at, end = connection.execute(newest).scalar_one_or_none(), _end(signal)
    return at is not None and end is not None and end <= at


def _connected_again(connection: Connection, principal: str, signal: Signal, *, now: datetime) -> bool:
    """True if all live consents and open links of the user are newer than the signal's event.

    Revoked consents do not count, whatever the scope: a revocation above the accounts leaves their states alone. If
    anything is older, the user is revoked as a whole, including what is newer: jobs under capabilities and answers to
    approvals depend on no account, so only the user's own revocation ends them.
    """
    held = (
        select(accounts.c.tenant_id, accounts.c.connection_id, accounts.c.principal_id)
        .add_columns(grants.c.consented, grants.c.consented_at)
        .join(accounts, accounts.c.id == grants.c.account_id)
        .where(
            accounts.c.principal_id == principal,
            accounts.c.state.not_in([AccountState.REVOKED, AccountState.PENDING]),
        )
    )
    end = _end(signal)
    if end is None:
        return False

    def is_alive(number: int, key: AccountKey) -> bool:
        return number > newest_revocation(connection, key.scopes)

    granted = connection.execute(held).all()
    consents = [row.consented_at for row in granted if is_alive(row.consented, AccountKey.of(row))]
    begun = open_links(connection, principal, now=now)
    links = [one.created_at for one in begun if is_alive(one.started, one.key)]
    return bool(consents) and all(at is not None and end <= at for at in (*consents, *links))


def _end(signal: Signal) -> datetime | None:
    """Return the end of the signal's event time, with its precision; None if it names no time."""
    return signal.happened_at and signal.happened_at + signal.precision


def _keys(connection: Connection, principal: str, transmitter: Transmitter) -> list[AccountKey]:
    """Return the user's accounts, in lock order."""
    tenant = transmitter.tenant or ""
    found = select(accounts.c.connection_id).where(accounts.c.tenant_id == tenant, accounts.c.principal_id == principal)
    through = connection.execute(found).scalars()
    return sorted((AccountKey(tenant=tenant, connection=one, principal=principal) for one in through), key=str)


def _renew(connection: Connection, principal: str, transmitter: Transmitter) -> str:
    renewed = 0
    for key in _keys(connection, principal, transmitter):
        lock_exclusive(connection, key.scope)
        account = find_account(connection, key)
        renewed += account is not None and drop_access(connection, account)
    return f"with {renewed} account(s) renewed"

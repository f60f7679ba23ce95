"""The connect flow for the web: texts for people, and the waking of jobs with the consent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from sqlalchemy import Connection, select

from identity.accounts.grants import get_grant
from identity.accounts.states import find_account
from identity.connect.flow import Connected, ConnectFlow, ConnectOffer, ConnectRefused, Outcome
from identity.connect.outcomes import Awaiting
from identity.connect.outcomes import InLine as Queued
from identity.connect.reasons import Why
from identity.connections.registry import get_connection
from identity.model import AccountKey, AccountState
from identity.providers.words import provider_name, scope_in_words
from identity.sql.store import Store
from identity.tables import principals, tenants
from pipeline.accounts.abilities import Ability, Waiting, abilities, waiting_for
from pipeline.authoring.registry import Registry
from pipeline.jobs import awaited


@dataclass(frozen=True, kw_only=True)
class Permission:
    """A scope, and what it permits in words; None: nobody has described it."""

    scope: str
    words: str | None


@dataclass(frozen=True, kw_only=True)
class Party:
    """The person and the provider they connect."""

    provider: str  # its display name
    person: str
    tenant: str


@dataclass(frozen=True, kw_only=True)
class Offer:
    """The question a person is asked before they go to the provider."""

    party: Party
    host: str  # of the sign-in page
    permissions: tuple[Permission, ...]  # without those held
    held: tuple[Permission, ...]  # those already permitted
    abilities: tuple[Ability, ...]
    waiting: tuple[Waiting, ...]  # jobs that continue as soon as they have connected
    awaited: str | None  # the identity they must sign in with
    again: AccountState | None  # the state of the account to be reconnected
    good_for: timedelta


@dataclass(frozen=True, kw_only=True)
class Away:
    """The address to send the browser to."""

    party: Party
    url: str


@dataclass(frozen=True, kw_only=True)
class Done:
    """A completed consent."""

    session: str
    party: Party
    login: str | None
    missing: tuple[Permission, ...]
    return_to: str | None


@dataclass(frozen=True, kw_only=True)
class Failed:
    """Nothing was connected. *session*: set if this browser may see the result again."""

    why: Why
    reason: str
    next_step: str
    session: str | None = None
    party: Party | None = None
    return_to: str | None = None


@dataclass(frozen=True, kw_only=True)
class Underway:
    """It is being completed: look again."""

    session: str


@dataclass(frozen=True, kw_only=True)
class Unconfirmed:
    """A consent that the product which made the link must confirm as its person's, within *good_for*."""

    session: str
    party: Party
    good_for: timedelta
    return_to: str | None
    code: str | None  # carried there by the browser; given only once


@dataclass(frozen=True, kw_only=True)
class InLine:
    """A consent waiting for its turn to fetch the token: the browser comes back for it."""

    party: Party
    turn_in: timedelta


Ended = Done | Failed | Underway | Unconfirmed


class Connecting:
    """Content and actions of the connect pages, in words for people, over `ConnectFlow`."""

    def __init__(self, store: Store, connect: ConnectFlow, workflows: Registry) -> None:
        self._store = store
        self._connect = connect
        self._workflows = workflows

    def offer(self, link: str, *, browser: str, now: datetime) -> Offer | Ended:
        """Return the content of a link's page."""
        offer = self._connect.offer(link, browser=browser, now=now)
        if not isinstance(offer, ConnectOffer):
            return self._ended(offer, now=now)
        key = offer.key

        def read(connection: Connection) -> Offer:
            held = _held(connection, key) & set(offer.scopes)
            return Offer(
                party=_party(connection, key, offer.provider),
                host=urlsplit(offer.authorize_url).netloc,
                permissions=_in_words(offer.provider, tuple(one for one in offer.scopes if one not in held)),
                held=_in_words(offer.provider, tuple(sorted(held))),
                abilities=abilities(connection, self._workflows, tenant=key.tenant, provider=offer.provider, now=now),
                waiting=waiting_for(connection, self._workflows, key),
                awaited=str(offer.awaited) if offer.awaited else None,
                again=None if offer.state is AccountState.PENDING else offer.state,
                good_for=offer.expires_at - now,
            )

        return self._store.read(read)

    def authorize(self, link: str, *, browser: str, now: datetime) -> Away | Ended:
        """Return where to send the browser that goes on."""
        outcome = self._connect.authorize(link, browser=browser, now=now)
        if not isinstance(outcome, str):
            return self._ended(outcome, now=now)
        (session, _, _) = link.partition(".")
        about = self._connect.about(session)
        if about is None:
            raise LookupError(f"connect session {session} is gone")
        return Away(party=self._store.read(lambda c: _party(c, about[0], None)), url=outcome)

    def finish(self, connection: str, params: Mapping[str, str], *, browser: str, now: datetime) -> Ended | InLine:
        """Handle the callback at *connection*'s own address."""
        outcome = self._connect.finish(params, browser=browser, connection_id=connection, now=now, also=wake_waiting)
        if isinstance(outcome, Queued) and (about := self._connect.about(outcome.session)):
            party = self._store.read(lambda c: _party(c, about[0], None))
            return InLine(party=party, turn_in=outcome.turn_in)
        return self._ended(outcome, now=now)

    def result(self, session: str, *, browser: str, now: datetime) -> Ended:
        """Return how a session ended, for its own browser."""
        return self._ended(self._connect.result(session, browser=browser, now=now), now=now)

    def _ended(self, outcome: Outcome, *, now: datetime) -> Ended:
        about = self._connect.about(outcome.session) if outcome.session else None
        key, return_to = about or (None, None)
        match outcome:
            case Connected():
                return self._store.read(lambda c: _done(c, outcome, return_to))
            case Awaiting(key=of):
                return Unconfirmed(
                    session=outcome.session,
                    party=self._store.read(lambda c: _party(c, of, None)),
                    good_for=outcome.until - now,
                    return_to=return_to,
                    code=outcome.code,
                )
            case ConnectRefused():
                party = None if key is None else self._store.read(lambda c: _party(c, key, None))
                return Failed(
                    why=outcome.why,
                    reason=outcome.reason,
                    next_step=outcome.next_step,
                    session=outcome.session,
                    party=party,
                    return_to=return_to,
                )
            case _:
                return Underway(session=outcome.session)


def _done(connection: Connection, connected: Connected, return_to: str | None) -> Done:
    provider = get_connection(connection, connected.key.connection).provider
    return Done(
        session=connected.session,
        party=_party(connection, connected.key, provider),
        login=connected.login,
        missing=_in_words(provider, connected.missing_scopes),
        return_to=return_to,
    )


def _party(connection: Connection, key: AccountKey, provider: str | None) -> Party:
    named = provider or get_connection(connection, key.connection).provider
    who = select(principals.c.name, tenants.c.name.label("tenant")).join(
        tenants, tenants.c.id == principals.c.tenant_id
    )
    row = connection.execute(who.where(principals.c.id == key.principal)).one()
    return Party(provider=provider_name(named), person=row.name, tenant=row.tenant)


def _held(connection: Connection, key: AccountKey) -> set[str]:
    """Return the scopes of a valid consent."""
    account = find_account(connection, key)
    grant = get_grant(connection, account.id) if account and account.state is AccountState.ACTIVE else None
    return set(grant.scopes) if grant else set()


def _in_words(provider: str, scopes: tuple[str, ...]) -> tuple[Permission, ...]:
    return tuple(Permission(scope=scope, words=scope_in_words(provider, scope)) for scope in scopes)


def wake_waiting(connection: Connection, key: AccountKey) -> None:
    """Queue the jobs that waited for that account's consent, in the consent's own commit."""
    awaited.wake(connection, awaited.consent_of(key))

"""The second leg of a connect: the product that made the link confirms who is signed in there.

The browser that went through the provider's pages may be anybody's. The owner of a link can have somebody else follow
it. An attacker with a stolen link can follow it and have its owner open the address to which the attacker was sent
back. The callback therefore sends the browser on to the product with a code. The product knows whose browser it has: it
names that person and passes the nonce kept in that browser's session. Only the link's own person, in the session that
asked for the link, turns the obtained tokens into a consent. The consent keeps the number of its connect session, and a
revocation between the two legs refuses it, whichever commits first.

A caller without the code does not speak for that browser: it learns only that, and cannot end the session. The code has
256 bits, so failed tries need not be counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from identity.connect.arrival import Arrival
from identity.connect.leftovers import kept_of, opened, take_back
from identity.connect.outcomes import TOO_LATE, Connected, told
from identity.connect.reasons import ConnectRefused, Refusal, Why, refuse
from identity.connect.refusals import Refusals
from identity.connect.storing import Storing
from identity.connect_sessions.sessions import AWAITING, CONNECTED, ConnectSession, get_session
from identity.connections.registry import get_connection
from identity.connections.self_hosted import profile_for
from identity.errors import NotInState
from identity.keys.vault import Vault
from identity.model import AccountKey, TokenAnswer
from identity.providers.profile import ExternalIdentity, Profile
from identity.sql.store import Store


def as_kept(answer: TokenAnswer, external: ExternalIdentity | None) -> dict[str, object]:
    """Return what a waiting session stores about the obtained tokens, besides the tokens."""
    whose = external and {"id": external.id, "login": external.login, "places": sorted(external.places)}
    return {"token_type": answer.token_type, "scopes": list(answer.scopes), "external": whose}


@dataclass(frozen=True, kw_only=True)
class CameBack:
    """A product's statement about a returning browser: who is signed in, and the code and nonce."""

    principal: str
    code: str = field(repr=False)  # from the address it opened
    nonce: str = field(repr=False)  # from its session at the product; empty if there is none

    def is_of(self, session: ConnectSession) -> bool:
        """True if the person, code and nonce all match *session*."""
        return self.principal == session.key.principal and session.is_code(self.code) and session.is_nonce(self.nonce)


@dataclass(frozen=True, kw_only=True)
class Consenter:
    """The person who consented, for a page that asks for confirmation. *login* is the provider's name for them."""

    key: AccountKey
    login: str | None
    scopes: tuple[str, ...]  # granted
    until: datetime


@dataclass(frozen=True, kw_only=True)
class Confirmations:
    """Turns the tokens of callbacks into consents, or has them ended."""

    store: Store
    vault: Vault
    profiles: Mapping[str, Profile]
    refusals: Refusals
    storing: Storing

    def look(self, session: str, came: CameBack, *, tenant: str, now: datetime) -> Consenter | ConnectRefused | None:
        """Return who consented, to callers whom `confirm` would accept. Changes nothing.

        None if the tenant has no such session. Raises NotInState if there is nothing to confirm.
        """
        found = self._found(session, tenant)
        if found is None:
            return None
        if found.outcome != AWAITING:
            ended = _ended(found, is_same=came.is_of(found), now=now)
            if isinstance(ended, Connected):
                raise NotInState("this link has connected an account already, so there is nothing to ask any more")
            return ended
        try:
            _check(found, came, by="", now=now)
        except Refusal as refusal:
            return refusal.refused
        said: Mapping[str, Any] = found.result or {}
        return Consenter(
            key=found.key,
            login=said["external"] and said["external"]["login"],
            scopes=tuple(said["scopes"]),
            until=found.expires_at,
        )

    def confirm(
        self,
        session: str,
        came: CameBack,
        *,
        tenant: str,
        by: str,
        now: datetime,
        also: Callable[[Connection, AccountKey], None],
    ) -> Connected | ConnectRefused | None:
        """Store the tokens of the session's callback, or have them ended. None if the tenant has no such session.

        *by* names the caller. *also* runs in the consent's transaction. Idempotent. Raises NotInState if there is
        nothing to confirm; Unavailable or Misconfigured, after which the call may be repeated.
        """
        found = self._found(session, tenant)
        if found is None:
            return None
        if found.outcome != AWAITING:
            return _ended(found, is_same=came.is_of(found), now=now)
        try:
            _check(found, came, by=by, now=now)
            return self._store(found, now=now, also=also)
        except Refusal as refusal:
            if not refusal.final:
                return refusal.refused
            noted = self.refusals.note(found, refusal, now=now)
        if came.is_of(found):  # the same call may have been made twice at once
            again = self.store.read(lambda connection: get_session(connection, session))
            if again is not None and isinstance(stored := told(again, now=now), Connected):
                return stored
        return noted

    def _found(self, session: str, tenant: str) -> ConnectSession | None:
        found = self.store.read(lambda connection: get_session(connection, session))
        if found is None or found.key.tenant != tenant:
            return None
        return found

    def _store(
        self, session: ConnectSession, *, now: datetime, also: Callable[[Connection, AccountKey], None]
    ) -> Connected:
        row = self.store.read(lambda connection: kept_of(connection, session.started))
        if row is None:
            refuse(Why.UNCONFIRMED, TOO_LATE, final=True)
        owner = self.store.read(lambda connection: get_connection(connection, session.key.connection))
        said: Mapping[str, Any] = session.result or {}
        answer = opened(
            self.vault,
            row,
            key=session.key,
            provider=owner.provider,
            token_type=said["token_type"],
            scopes=tuple(said["scopes"]),
        )
        whose = said["external"]
        external = whose and ExternalIdentity(id=whose["id"], login=whose["login"], places=frozenset(whose["places"]))
        arrival = Arrival(
            session=session,
            owner=replace(owner, client_id=row.client_id),  # obtained it; the connection may have another now
            profile=profile_for(self.profiles, owner),
            at=now,
        )

        def with_it(connection: Connection, key: AccountKey) -> None:
            if not take_back(connection, session.started, until=session.expires_at):
                refuse(Why.UNCONFIRMED, TOO_LATE, final=True)
            also(connection, key)

        return self.storing.consent(arrival, answer, external, also=with_it)


def _check(session: ConnectSession, came: CameBack, *, by: str, now: datetime) -> None:
    """Raise Refusal if that is not the confirmation the link waits for."""
    if not session.is_code(came.code):
        refuse(Why.UNCONFIRMED, "the code is not the one that this connect brought back")
    if now >= session.expires_at:
        refuse(Why.UNCONFIRMED, TOO_LATE, final=True, by=by)
    if came.principal != session.key.principal:
        reason = "somebody else is signed in where you got the link than the person it is for"
        mine = "ask there for a link of your own, and follow nobody else's"
        refuse(Why.UNCONFIRMED, reason, mine, final=True, by=by, said=came.principal)
    if session.nonce_hash is None:
        reason = "the link was made before an upgrade, when no link was bound to the browser session that asked for it"
        refuse(Why.UNCONFIRMED, reason, "ask for a new one", final=True, by=by)
    if not session.is_nonce(came.nonce):
        reason = "this is not the browser session in which the link was asked for"
        mine = "ask for a new link in this one, follow it here, and open no address that somebody sends you"
        refuse(Why.UNCONFIRMED, reason, mine, final=True, by=by, said=came.principal, browser="another")


def _ended(session: ConnectSession, *, is_same: bool, now: datetime) -> Connected | ConnectRefused:
    """Return the outcome of a session that does not wait for a confirmation. Raises NotInState."""
    if session.outcome == CONNECTED and not is_same:
        raise NotInState("this link connected an account already, and this is not what confirmed it")
    outcome = told(session, now=now)
    nobody = session.finished_at is None and now < session.expires_at
    if nobody or not isinstance(outcome, Connected | ConnectRefused):
        raise NotInState("nobody has come back by this link yet: it is confirmed with the code they bring")
    return outcome

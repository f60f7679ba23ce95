"""The second leg of a connect: the product that made the link says who is signed in there, and by that it counts.

The browser that went through the provider's pages may be anybody's: whoever has a link of their own can have somebody
else follow it, and whoever got hold of somebody else's can follow that and have its person open the address he comes
back to. So the callback sends that browser on to the product with a code; the product, which knows whose browser it
has, names them, and gives the nonce that it keeps in that browser's session. Only the link's own person, in the session
that asked for the link, makes a consent of what was won. It keeps the number of its connect session, so a revocation
between the two refuses it, whichever of them is committed first.

Who does not know the code was not sent by that browser: they are told no more than that, and end nothing. It has 256
bits, so their tries need not be counted.
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
from identity.connect.sessions import AWAITING, CONNECTED, ConnectSession, get_session
from identity.connect.storing import Storing
from identity.connections.registry import get_connection
from identity.connections.self_hosted import profile_for
from identity.errors import NotInState
from identity.keys.vault import Vault
from identity.model import AccountKey, TokenAnswer
from identity.providers.profile import ExternalIdentity, Profile
from identity.sql.store import Store


def as_kept(answer: TokenAnswer, external: ExternalIdentity | None) -> dict[str, object]:
    """What a session that waits keeps of what was won, beside the tokens."""
    whose = external and {"id": external.id, "login": external.login, "places": sorted(external.places)}
    return {"token_type": answer.token_type, "scopes": list(answer.scopes), "external": whose}


@dataclass(frozen=True, kw_only=True)
class CameBack:
    """What a product says of a browser that came back to it: who is signed in there, and what it brought and holds."""

    principal: str
    code: str = field(repr=False)  # from its address
    nonce: str = field(repr=False)  # from its session at the product; empty: there is none

    def is_of(self, session: ConnectSession) -> bool:
        """Whether it is the person and the browser that the link was made for, with what the provider sent back."""
        return self.principal == session.key.principal and session.is_code(self.code) and session.is_nonce(self.nonce)


@dataclass(frozen=True, kw_only=True)
class Consenter:
    """Who consented, for a page that asks whether that is right: *login* is as the provider calls them."""

    key: AccountKey
    login: str | None
    scopes: tuple[str, ...]  # that were granted
    until: datetime


@dataclass(frozen=True, kw_only=True)
class Confirmations:
    """Makes consents of what callbacks have won, or has it ended."""

    store: Store
    vault: Vault
    profiles: Mapping[str, Profile]
    refusals: Refusals
    storing: Storing

    def look(self, session: str, came: CameBack, *, tenant: str, now: datetime) -> Consenter | ConnectRefused | None:
        """Who consented, told to whom `confirm` would listen. Nothing counts by it, and nothing ends.

        None: the tenant has no such session. Raises NotInState where there is nothing to confirm.
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
        """Store what the session's callback has won, or have it ended. None: the tenant has no such session.

        *by* is who says so. *also* runs in the consent's transaction. The same said again has the same answer. Raises
        NotInState where there is nothing to confirm; Unavailable or Misconfigured, after which it may be said again.
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
        if came.is_of(found):  # the same may have been said twice at once
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
            owner=replace(owner, client_id=row.client_id),  # the one that won it, should the connection have another
            profile=profile_for(self.profiles, owner),
            at=now,
        )

        def with_it(connection: Connection, key: AccountKey) -> None:
            if not take_back(connection, session.started, until=session.expires_at):
                refuse(Why.UNCONFIRMED, TOO_LATE, final=True)
            also(connection, key)

        return self.storing.consent(arrival, answer, external, also=with_it)


def _check(session: ConnectSession, came: CameBack, *, by: str, now: datetime) -> None:
    """Raises Refusal where that is not what the link waits for."""
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
    """What there is to say of one that does not wait. Raises NotInState."""
    if session.outcome == CONNECTED and not is_same:
        raise NotInState("this link connected an account already, and this is not what confirmed it")
    outcome = told(session, now=now)
    nobody = session.finished_at is None and now < session.expires_at
    if nobody or not isinstance(outcome, Connected | ConnectRefused):
        raise NotInState("nobody has come back by this link yet: it is confirmed with the code they bring")
    return outcome

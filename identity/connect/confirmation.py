"""The second leg of a connect: the product that made the link says who is signed in there, and by that it counts.

The browser that went through the provider's pages may be anybody's: whoever has a link of their own can have somebody
else follow it. So the callback sends that browser on to the product with a code, and the product, which knows whose
browser it is, names them. Only the link's own person makes a consent of what was won. It keeps the number of its
session, so a revocation between the two refuses it, whichever of them is committed first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
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
from identity.connections import get_connection
from identity.errors import NotInState
from identity.model import AccountKey, TokenAnswer
from identity.own_values import profile_for
from identity.providers.profile import ExternalIdentity, Profile
from identity.store import Store
from identity.vault import Vault


def as_kept(answer: TokenAnswer, external: ExternalIdentity | None) -> dict[str, object]:
    """What a session that waits keeps of what was won, beside the tokens."""
    whose = external and {"id": external.id, "login": external.login, "places": sorted(external.places)}
    return {"token_type": answer.token_type, "scopes": list(answer.scopes), "external": whose}


@dataclass(frozen=True, kw_only=True)
class Confirmations:
    """Makes consents of what callbacks have won, or has it ended."""

    store: Store
    vault: Vault
    profiles: Mapping[str, Profile]
    refusals: Refusals
    storing: Storing

    def confirm(
        self,
        session: str,
        principal: str,
        code: str,
        *,
        tenant: str,
        by: str,
        now: datetime,
        also: Callable[[Connection, AccountKey], None],
    ) -> Connected | ConnectRefused | None:
        """Store what the session's callback has won, or have it ended. None: the tenant has no such session.

        *principal* is who is signed in where the link was made, *code* what their browser brought there, *by* who says
        so. *also* runs in the consent's transaction. The same said again has the same answer. Raises NotInState where
        there is nothing to confirm; Unavailable or Misconfigured, after which it may be said again.
        """
        found = self.store.read(lambda connection: get_session(connection, session))
        if found is None or found.key.tenant != tenant:
            return None
        if found.outcome != AWAITING:
            return _ended(found, is_same=principal == found.key.principal and found.is_code(code), now=now)
        try:
            if now >= found.expires_at:
                refuse(Why.UNCONFIRMED, TOO_LATE, final=True, by=by)
            if principal != found.key.principal:
                reason = "somebody else is signed in where you got the link than the person it is for"
                mine = "ask there for a link of your own, and follow nobody else's"
                refuse(Why.UNCONFIRMED, reason, mine, final=True, by=by, said=principal)
            if not found.is_code(code):
                refuse(Why.UNCONFIRMED, "the code is not the one that this connect brought back", final=True, by=by)
            return self._store(found, now=now, also=also)
        except Refusal as refusal:
            refused = self.refusals.note(found, refusal, now=now)
        if principal == found.key.principal and found.is_code(code):  # the same may have been said twice at once
            again = self.store.read(lambda connection: get_session(connection, session))
            if again is not None and isinstance(stored := told(again, now=now), Connected):
                return stored
        return refused

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


def _ended(session: ConnectSession, *, is_same: bool, now: datetime) -> Connected | ConnectRefused:
    """What there is to say of one that does not wait. Raises NotInState."""
    if session.outcome == CONNECTED and not is_same:
        raise NotInState("this link connected an account already, and this is not what confirmed it")
    outcome = told(session, now=now)
    nobody = session.finished_at is None and now < session.expires_at
    if nobody or not isinstance(outcome, Connected | ConnectRefused):
        raise NotInState("nobody has come back by this link yet: it is confirmed with the code they bring")
    return outcome

"""Invitations: links by which a tenant's people connect their accounts, requested by an agent or an operator.

If a link says so, its requester must confirm who came back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from sqlalchemy import Connection

from identity import audit
from identity.agents.api_keys import Caller
from identity.audit import AsWhom
from identity.connect.barred import barred
from identity.connect.confirmation import CameBack, Consenter
from identity.connect.flow import Connected, ConnectFlow, ConnectRefused
from identity.connections.registry import connection_for, get_connection
from identity.errors import BadInput, Misconfigured
from identity.ids import Ids
from identity.model import AccountKey, PrincipalKind, ProviderConnection
from identity.principals import ensure_principal
from identity.sql.store import Store
from pipeline.accounts.abilities import scopes_to_ask
from pipeline.accounts.askable import check_askable
from pipeline.accounts.connecting import wake_waiting
from pipeline.agents_api.callers import Keyed
from pipeline.agents_api.requests import Asked, let_in, made_by_key
from pipeline.authoring.registry import Registry
from pipeline.operators import api_operator

LONGEST_ID = 64  # of a principal's id, as its column


@dataclass(frozen=True, kw_only=True)
class Invitation:
    """A link for one person."""

    id: str  # of its session, used to confirm it
    url: str
    key: AccountKey
    scopes: tuple[str, ...]
    confirm: bool
    expires_at: datetime


class Invitations:
    """Makes connect links, and the users they are for."""

    def __init__(self, store: Store, connect: ConnectFlow, workflows: Registry, ids: Ids, *, base_url: str) -> None:
        self._store = store
        self._connect = connect
        self._workflows = workflows
        self._ids = ids
        self._base_url = base_url.rstrip("/")

    def invite(
        self,
        caller: Caller,
        user: str,
        through: str,
        *,
        scopes: tuple[str, ...] | None,
        return_to: str | None,
        confirm: bool = False,
        nonce: str | None = None,
        keyed: Keyed,
        now: datetime,
    ) -> Invitation:
        """Return a link for *user* to connect *through* a provider or provider connection; the same for one key.

        Raises BadInput, Misconfigured, PolicyDenied, NotLetIn or KeyReused.
        """
        tenant = caller.tenant
        principal, name = _named(tenant, user)
        if len(principal) > LONGEST_ID:
            raise BadInput(f"a user's id, {tenant}.<name>, has at most {LONGEST_ID} characters")
        caller.check_user(principal)
        owner = self._store.read(lambda c: _leading(c, _owner(c, tenant, through)))
        kind, audit_id = PrincipalKind.USER, self._ids("aud")
        asked = Asked(caller=caller, id="", idempotency_key=keyed.key, request_hash=keyed.request_hash, now=now)
        ensure = partial(ensure_principal, id=principal, tenant=tenant, kind=kind, name=name, now=now)
        key = AccountKey(tenant=tenant, connection=owner.id, principal=principal)
        if scopes is not None:
            self._store.read(lambda c: check_askable(c, self._workflows, caller, key, owner, scopes))

        def session_of_key(c: Connection, session: str) -> str:
            let_in(c, caller, now)
            return made_by_key(c, replace(asked, id=session))

        def record(c: Connection) -> None:
            ensure(c)
            audit.record(
                c,
                "connect.invited",
                AsWhom(tenant=tenant, agent=caller.agent, principal=key.principal),
                id=audit_id,
                at=now,
                outcome="invited",
                reason=f"through {owner.id}",
                detail={"key": caller.key},
            )

        return self._made(
            key,
            owner,
            scopes=scopes,
            return_to=return_to,
            confirm=confirm,
            nonce=nonce,
            now=now,
            session_of_key=session_of_key,
            also=record,
        )

    def look(
        self, caller: Caller, link: str, *, user: str, code: str, nonce: str, now: datetime
    ) -> Consenter | ConnectRefused | None:
        """Return who consented by that link, to a caller whom `confirm` would accept. Changes nothing.

        None: the caller's tenant has no such link. Raises PolicyDenied or NotInState.
        """
        principal = self._who_came_back(caller, link, user)
        if principal is None:
            return None
        came = CameBack(principal=principal, code=code, nonce=nonce)
        return self._connect.confirmations.look(link, came, tenant=caller.tenant, now=now)

    def confirm(
        self, caller: Caller, link: str, *, user: str, code: str, nonce: str, now: datetime
    ) -> Connected | ConnectRefused | None:
        """Confirm a consent. *user*: signed in in the browser that came back, with *code* in its address.

        *nonce*: from that browser's session. None: the caller's tenant has no such link. Raises PolicyDenied,
        NotInState, Misconfigured or NotLetIn.
        """
        principal = self._who_came_back(caller, link, user)
        if principal is None:
            return None
        audit_id = self._ids("aud")

        def record(c: Connection, key: AccountKey) -> None:
            let_in(c, caller, now)
            wake_waiting(c, key)
            audit.record(
                c,
                "connect.confirmed",
                AsWhom(tenant=caller.tenant, agent=caller.agent, principal=key.principal),
                id=audit_id,
                at=now,
                outcome="confirmed",
                reason=f"through {key.connection}",
                detail={"key": caller.key},
            )

        came = CameBack(principal=principal, code=code, nonce=nonce)
        return self._connect.confirmations.confirm(
            link, came, tenant=caller.tenant, by=api_operator(caller), now=now, also=record
        )

    def _who_came_back(self, caller: Caller, link: str, user: str) -> str | None:
        """Return the principal of *user*; None: the caller's tenant has no such link.

        Raises PolicyDenied, before anything can end, unless the key may act as both them and the link's own person.
        """
        about = self._connect.about(link)
        if about is None or about[0].tenant != caller.tenant:
            return None
        principal, _ = _named(caller.tenant, user)
        for each in (about[0].principal, principal):
            caller.check_user(each)
        return principal

    def link(
        self,
        key: AccountKey,
        *,
        by: str,
        scopes: tuple[str, ...] | None = None,
        return_to: str | None = None,
        any_account: bool = False,
        ensure: Callable[[Connection], object] | None = None,
        now: datetime,
    ) -> Invitation:
        """Return a link for the person of *key*, made by an operator. *ensure* creates the person in the same commit.

        Raises BadInput, Misconfigured or PolicyDenied, and whatever *ensure* raises.
        """
        audit_id = self._ids("aud")
        owner = self._store.read(lambda c: _leading(c, get_connection(c, key.connection)))

        def record(c: Connection) -> None:
            if ensure is not None:
                ensure(c)
            audit.record(
                c,
                "connect.invited",
                AsWhom.of_account(key),
                id=audit_id,
                at=now,
                outcome="invited",
                reason=f"through {owner.id}, by {by}",
            )

        return self._made(key, owner, scopes=scopes, return_to=return_to, any_account=any_account, now=now, also=record)

    def _made(
        self,
        key: AccountKey,
        owner: ProviderConnection,
        *,
        scopes: tuple[str, ...] | None,
        return_to: str | None,
        any_account: bool = False,
        confirm: bool = False,
        nonce: str | None = None,
        now: datetime,
        session_of_key: Callable[[Connection, str], str] | None = None,
        also: Callable[[Connection], None],
    ) -> Invitation:
        asked = scopes or self._store.read(lambda c: scopes_to_ask(c, key, owner))
        made = self._connect.start(
            key,
            now=now,
            scopes=asked,
            return_to=return_to,
            any_account=any_account,
            confirm=confirm,
            nonce=nonce,
            made_by_key=session_of_key,
            also=also,
        )
        return Invitation(
            id=made.session,
            url=f"{self._base_url}/connect/{made.text}",
            key=key,
            scopes=made.scopes,
            confirm=made.confirm,
            expires_at=made.expires_at,
        )


def _named(tenant: str, user: str) -> tuple[str, str]:
    """Return the id and the name of the principal of a tenant's *user*, given by either."""
    name = user.removeprefix(f"{tenant}.")
    return f"{tenant}.{name}", name


def _leading(connection: Connection, owner: ProviderConnection) -> ProviderConnection:
    """Return *owner* if people can connect there. Raises Misconfigured: a link would lead them to a refusal."""
    if (lacking := barred(connection, owner)) is not None:
        raise Misconfigured(f"nobody can connect there: {lacking}")
    return owner


def _owner(connection: Connection, tenant: str, through: str) -> ProviderConnection:
    """Return the provider connection that *through* names by id, if the tenant may use it, or by provider."""
    try:
        found = get_connection(connection, through)
    except Misconfigured:
        return connection_for(connection, tenant, through)
    return found if found.tenant in (None, tenant) else connection_for(connection, tenant, through)

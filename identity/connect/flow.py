"""Connecting an account in the browser: authorization code with PKCE, once, in the browser that began it.

start ─► a link, for one person ─► offer: a page with what is requested ─► authorize: redirect to the provider
      ─► finish: the callback (`identity.connect.callback`) ─► result: a page with the outcome

If a connect must be confirmed, the product that made the link says between the last two whose browser it was
(`identity.connect.confirmation`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from sqlalchemy import Connection

from identity.accounts.scopes import revoked_since
from identity.accounts.states import find_account
from identity.connect.arrival import Arrival
from identity.connect.awaited import awaited_at
from identity.connect.beginning import check_may_begin
from identity.connect.callback import Callback, check_issuer
from identity.connect.code_exchange import CodeExchange
from identity.connect.confirmation import Confirmations
from identity.connect.links import ConnectLink, read_link, write_link
from identity.connect.offer import ConnectOffer
from identity.connect.outcomes import Connected, Finishing, Outcome, refused, told
from identity.connect.reasons import ConnectRefused, Refusal, Why, held, refuse
from identity.connect.refusals import Refusals
from identity.connect.return_targets import may_return
from identity.connect.storing import Storing
from identity.connect_sessions.sessions import (
    ConnectSession,
    add_session,
    bind_browser,
    digest,
    find_session,
    get_session,
    open_verifier,
    seal_verifier,
)
from identity.connections.registry import get_connection
from identity.connections.self_hosted import profile_for
from identity.errors import BadInput
from identity.http.client import Client
from identity.keys.signing import Signer
from identity.keys.vault import Vault
from identity.model import AccountKey, ProviderConnection
from identity.oauth.requests import authorization_url
from identity.providers.profile import Profile
from identity.sql.sequence import lock_shared, next_number
from identity.sql.store import Store
from identity.token_endpoint.budget import RefreshBudget
from identity.token_endpoint.gate import Gate

__all__ = ["ConnectFlow", "ConnectLink", "ConnectOffer", "ConnectRefused", "Connected", "Finishing", "Outcome"]


class ConnectFlow:
    """Begins and finishes connect sessions. *redirect_uri* returns a provider connection's own callback address."""

    def __init__(
        self,
        store: Store,
        vault: Vault,
        http: Client,
        profiles: Mapping[str, Profile],
        signer: Signer,
        *,
        redirect_uri: Callable[[str], str],
        ids: Callable[[], str],
        token: Callable[[], str],  # at least 43 characters of the URL-safe alphabet
        lifetime: timedelta = timedelta(minutes=10),
        budget: timedelta = timedelta(seconds=15),
        send: timedelta = RefreshBudget.send,
        gate: Gate,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        exchange = CodeExchange(
            store=store,
            vault=vault,
            http=http,
            gate=gate,
            budget=budget,
            send=send,
            ids=ids,
            monotonic=monotonic,
        )
        self._refusals = Refusals(store=store, vault=vault, ids=ids)
        storing = Storing(store=store, vault=vault, ids=ids)
        self._callback = Callback(
            store=store,
            vault=vault,
            exchange=exchange,
            refusals=self._refusals,
            storing=storing,
            redirect_uri=redirect_uri,
            ids=ids,
            token=token,
        )
        self.confirmations = Confirmations(
            store=store, vault=vault, profiles=profiles, refusals=self._refusals, storing=storing
        )
        self._store = store
        self._vault = vault
        self._profiles = profiles
        self._signer = signer
        self._redirect_uri = redirect_uri
        self._token = token
        self._lifetime = lifetime

    def start(
        self,
        key: AccountKey,
        *,
        now: datetime,
        scopes: tuple[str, ...] | None = None,
        return_to: str | None = None,
        any_account: bool = False,
        confirm: bool = False,
        nonce: str | None = None,
        made_by_key: Callable[[Connection, str], str] | None = None,
        also: Callable[[Connection], None] = lambda connection: None,
    ) -> ConnectLink:
        """Return a link for the person who is to connect *key*.

        *scopes* default to the provider connection's. *return_to* is a registered address to which the last page leads.
        With *any_account*, another login at the provider may replace the one that consented before. With *confirm*, or
        if the provider connection demands it, the product must confirm who consented; this needs *nonce*, a value that
        the product keeps in the session of the browser that asked. *made_by_key* claims the request's idempotency key
        in the same transaction and returns the session that it stands for: the given one, or an earlier one. *also*
        runs in that transaction if a session begins.

        Raises BadInput, Misconfigured, PolicyDenied or Unavailable.
        """
        owner, profile = self._provider(key.connection)
        session, state, verifier = self._token(), self._token(), self._token()
        sealed = seal_verifier(self._vault, key.tenant, session, owner.provider, state=state, verifier=verifier)
        expires_at = now + self._lifetime

        def begin(connection: Connection) -> ConnectSession:
            # Claim the key before the locks, in the order that a revocation uses: no deadlock.
            if made_by_key is not None and (before := made_by_key(connection, session)) != session:
                return _there(connection, before)
            lock_shared(connection, key.scopes)
            begun = ConnectSession(
                id=session,
                key=key,
                state_hash=digest(state),
                started=next_number(connection),
                scopes=owner.scopes if scopes is None else scopes,
                verifier_sealed=sealed,
                browser_hash=None,
                expires_at=expires_at,
                finished_at=None,
                return_to=return_to,
                any_account=any_account,
                confirm=confirm or owner.confirms,
                nonce_hash=None if nonce is None else digest(nonce),
                created_at=now,
            )
            check_may_begin(connection, begun, profile)
            also(connection)
            add_session(connection, begun)
            return begun

        made = self._store.write(begin)
        text = write_link(self._signer, made.id)
        return ConnectLink(
            session=made.id, text=text, scopes=made.scopes, confirm=made.confirm, expires_at=made.expires_at
        )

    def offer(self, link: str, *, browser: str, now: datetime) -> ConnectOffer | Outcome:
        """Return the content of the page behind *link*. Nothing is bound yet: a link preview is not the person.

        *browser* is the value of the browser's cookie, or empty.
        """
        session = self._opened(link, browser=browser, now=now)
        if not isinstance(session, ConnectSession):
            return session
        owner, _ = self._provider(session.key.connection)

        def read(connection: Connection) -> ConnectOffer:
            account = find_account(connection, session.key)
            return ConnectOffer(
                session=session.id,
                key=session.key,
                provider=owner.provider,
                authorize_url=owner.authorize_url,
                scopes=session.scopes,
                awaited=None if session.any_account else awaited_at(connection, session.key, owner.people),
                state=account.state if account else None,
                reason=account.reason if account else None,
                expires_at=session.expires_at,
            )

        return self._store.read(read)

    def authorize(self, link: str, *, browser: str, now: datetime) -> str | Outcome:
        """Bind *link* to this browser and return the provider's address; no other browser can finish it.

        *browser* is the value of this browser's cookie, random and long.
        """
        session = self._opened(link, browser=browser, now=now)
        if not isinstance(session, ConnectSession):
            return session
        until = now + self._lifetime
        bind = self._store.write(lambda c: bind_browser(c, session.id, digest(browser), now=now, expires_at=until))
        if not bind:
            return refused(Why.OTHER_BROWSER, "this link was opened in another browser just now")
        owner, profile = self._provider(session.key.connection)
        state, verifier = open_verifier(self._vault, session, owner.provider)
        return authorization_url(
            owner,
            profile,
            redirect_uri=self._redirect_uri(owner.id),
            scopes=session.scopes,
            state=state,
            verifier=verifier,
        )

    def finish(
        self,
        params: Mapping[str, str],
        *,
        browser: str,
        connection_id: str,
        now: datetime,
        also: Callable[[Connection, AccountKey], None],
    ) -> Outcome:
        """Handle the callback at *connection_id*'s address. *also* runs in the consent's transaction."""
        state_hash = digest(params.get("state", ""))
        session = self._store.read(lambda connection: find_session(connection, state_hash))
        if session is None:
            return refused(Why.UNTRUSTED, "this answer belongs to no link of ours")
        owner, profile = self._provider(session.key.connection)
        try:
            # These checks precede using up the session: a callback that is not its own must not end it.
            if owner.id != connection_id:
                refuse(Why.UNTRUSTED, "this answer came back to the address of another provider connection")
            check_issuer(owner, profile, params)
            if not session.is_of(browser):
                refuse(Why.OTHER_BROWSER, "this is not the browser in which the link was opened")
            arrival = Arrival(session=session, owner=owner, profile=profile, at=now)
            connected = self._callback.finish(arrival, params, also=also)
        except Refusal as refusal:
            return self._refusals.note(session, refusal, now=now) if refusal.final else refusal.refused
        return connected or self._again(session.id, now=now)

    def result(self, session: str, *, browser: str, now: datetime) -> Outcome:
        """Return the outcome of a session, for the browser that went through it."""
        found = self._store.read(lambda connection: get_session(connection, session))
        if found is None or not found.is_of(browser):
            return refused(Why.OTHER_BROWSER, "this page is for the browser in which the link was opened")
        return told(found, now=now)

    def about(self, session: str) -> tuple[AccountKey, str | None] | None:
        """Return a session's account key, and its return target if still registered."""

        def read(connection: Connection) -> tuple[AccountKey, str | None] | None:
            found = get_session(connection, session)
            if found is None:
                return None
            to = found.return_to
            return found.key, to if to is not None and may_return(connection, found.key.tenant, to) else None

        return self._store.read(read)

    def _again(self, session: str, *, now: datetime) -> Outcome:
        found = self._store.read(lambda connection: get_session(connection, session))
        return told(found, now=now) if found else refused(Why.UNKNOWN_LINK, "there is no such link")

    def _opened(self, link: str, *, browser: str, now: datetime) -> ConnectSession | Outcome:
        """Return the session of a link that may be opened in this browser, or the outcome to show instead."""
        named = read_link(self._signer, link)
        session = named and self._store.read(lambda connection: get_session(connection, named))
        if not session:
            return refused(Why.UNKNOWN_LINK, "there is no such link: perhaps a part of it was lost on its way")
        if session.finished_at is not None:
            used = refused(Why.USED, "this link was used already, and a link is good once")
            return told(session, now=now) if session.is_of(browser) else used
        if session.browser_hash is not None and not session.is_of(browser):
            return refused(Why.OTHER_BROWSER, "this link was opened in another browser before")
        if now >= session.expires_at:
            return refused(Why.EXPIRED, "this link has expired: it is good for some minutes only")
        key, started = session.key, session.started
        if self._store.read(lambda connection: revoked_since(connection, key.scopes, started)):
            return refused(Why.REVOKED, "access was revoked after this link was made")
        return self._store.read(held) or session

    def _provider(self, owner: str) -> tuple[ProviderConnection, Profile]:
        found = self._store.read(lambda connection: get_connection(connection, owner))
        return found, profile_for(self._profiles, found)


def _there(connection: Connection, session: str) -> ConnectSession:
    if (found := get_session(connection, session)) is None:
        raise BadInput("the link that this key made before is forgotten: ask again with a new key")
    return found

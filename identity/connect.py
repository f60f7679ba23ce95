"""Connecting an account in the browser: authorization code with PKCE, once, in the browser that began it.

The checks of a callback, in order: its state is one of ours; it came to the address of that state's provider
connection and (where the provider sends it) from its issuer; in the same browser; in time; for the first time.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NoReturn

from sqlalchemy import Connection

from identity import audit
from identity.code_exchange import CodeExchange
from identity.connect_sessions import (
    ConnectSession,
    add_session,
    bind_browser,
    digest,
    find_session,
    get_session,
    note_outcome,
    use_up,
    verifier_binding,
)
from identity.connections import get_connection
from identity.consents import write_consent
from identity.errors import BadInput, PolicyDenied
from identity.gate import Gate
from identity.grants import Consent, Consented
from identity.http import Client
from identity.model import AccountKey, Credential, ProviderConnection, RuledOut, TokenAnswer
from identity.oauth import authorization_url
from identity.principals import link_alias
from identity.providers import profile_of
from identity.providers.profile import ExternalIdentity, Profile
from identity.refusal import AGAIN, OPERATOR, ConnectRefused, Refusal, refuse
from identity.scopes import grant_scopes, revoked_since
from identity.secret import Secret
from identity.sequence import lock_shared, next_number
from identity.store import Store
from identity.vault import Vault

__all__ = ["Connect", "ConnectLink", "ConnectRefused", "Connected"]


@dataclass(frozen=True, kw_only=True)
class ConnectLink:
    """What is given to a person: the link's id is good once, until then."""

    id: str
    expires_at: datetime


@dataclass(frozen=True, kw_only=True)
class Connected:
    """The account is connected."""

    account: str
    key: AccountKey
    generation: int
    external: ExternalIdentity | None
    missing_scopes: tuple[str, ...]  # asked for and not granted


class Connect:
    """Begins and finishes connect sessions. *redirect_uri* gives each provider connection its own callback address."""

    def __init__(
        self,
        store: Store,
        vault: Vault,
        http: Client,
        profiles: Mapping[str, Profile],
        *,
        redirect_uri: Callable[[str], str],
        ids: Callable[[], str],
        token: Callable[[], str],  # at least 43 characters of the URL-safe alphabet
        lifetime: timedelta = timedelta(minutes=10),
        budget: timedelta = timedelta(seconds=15),
        gate: Gate | None = None,
    ) -> None:
        self._store = store
        self._vault = vault
        self._provider_side = CodeExchange(store=store, vault=vault, http=http, gate=gate or Gate(None), budget=budget)
        self._profiles = profiles
        self._redirect_uri = redirect_uri
        self._ids = ids
        self._token = token
        self._lifetime = lifetime

    def start(self, key: AccountKey, *, now: datetime, scopes: tuple[str, ...] | None = None) -> ConnectLink:
        """A link for the person who is to connect *key*. Raises Misconfigured, PolicyDenied."""
        owner = self._store.read(lambda connection: get_connection(connection, key.connection))
        profile_of(self._profiles, owner.provider)
        link = ConnectLink(id=self._token(), expires_at=now + self._lifetime)
        state, verifier = self._token(), self._token()
        sealed = self._vault.seal(
            Secret(json.dumps([state, verifier])), verifier_binding(key.tenant, link.id, owner.provider)
        )

        def begin(connection: Connection) -> RuledOut | None:
            lock_shared(connection, grant_scopes(key))
            number = next_number(connection)
            if refusal := revoked_since(connection, grant_scopes(key), number):
                return refusal
            session = ConnectSession(
                id=link.id,
                key=key,
                state_hash=digest(state),
                started=number,
                scopes=owner.scopes if scopes is None else scopes,
                verifier_sealed=sealed,
                browser_hash=None,
                expires_at=link.expires_at,
                finished_at=None,
            )
            add_session(connection, session, now=now)
            return None

        if refusal := self._store.write(begin):
            raise PolicyDenied(f"no account is connected now: {refusal.reason}")
        return link

    def authorize(self, link: str, *, browser: str, now: datetime) -> str:
        """Where to send the browser that opened *link*; from here on no other browser can finish. Raises BadInput.

        *browser* is the value of a cookie made for this browser, random and long.
        """
        bound = self._store.write(lambda connection: bind_browser(connection, link, digest(browser), now=now))
        session = self._store.read(lambda connection: get_session(connection, link))
        if not bound or session is None:
            raise BadInput(f"this link has expired, was used, or was opened in another browser: {AGAIN}")
        owner, profile = self._provider(session.key.connection)
        state, verifier = self._opened(session, owner)
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
    ) -> Connected | ConnectRefused:
        """The callback that arrived at *connection_id*'s address. *also* runs in the consent's transaction."""
        state_hash = digest(params.get("state", ""))
        session = self._store.read(lambda connection: find_session(connection, state_hash))
        try:
            if session is None:
                refuse("this answer belongs to no connect session")
            return self._finish(session, params, browser=browser, connection_id=connection_id, now=now, also=also)
        except Refusal as refusal:
            refused = refusal.refused
            if session is None or not refusal.final:
                return refused
            audit_id = self._ids()
            self._store.write(lambda connection: self._note(connection, session, refused, audit_id, now))
            return refused

    def _finish(
        self,
        session: ConnectSession,
        params: Mapping[str, str],
        *,
        browser: str,
        connection_id: str,
        now: datetime,
        also: Callable[[Connection, AccountKey], None],
    ) -> Connected:
        owner, profile = self._provider(session.key.connection)
        # A callback that is not this session's own must not end it, so these come before it is used up.
        if owner.id != connection_id:
            refuse("this answer came back to the address of another provider connection")
        self._check_issuer(owner, profile, params)
        if session.browser_hash is None or not hmac.compare_digest(session.browser_hash, digest(browser)):
            refuse("this is not the browser in which the link was opened")
        self._provider_side.enter(owner, profile)
        if not self._store.write(lambda connection: use_up(connection, session.id, now=now)):
            refuse("this link has expired or was used")
        if (error := params.get("error")) is not None:
            self._refuse_error(error, owner)
        code = params.get("code") or refuse("the provider sent no code", final=True)
        _, verifier = self._opened(session, owner)
        answer = self._provider_side.tokens(
            owner,
            profile,
            code=code,
            verifier=verifier,
            redirect_uri=self._redirect_uri(owner.id),
            scopes=session.scopes,
            now=now,
        )
        external = self._provider_side.whose(owner, profile, answer.access_token)
        stored = self._store_consent(session, owner, answer, external, now=now, also=also)
        missing = tuple(scope for scope in session.scopes if scope not in answer.scopes)
        return Connected(
            account=stored.account,
            key=session.key,
            generation=stored.generation,
            external=external,
            missing_scopes=missing,
        )

    def _store_consent(
        self,
        session: ConnectSession,
        owner: ProviderConnection,
        answer: TokenAnswer,
        external: ExternalIdentity | None,
        *,
        now: datetime,
        also: Callable[[Connection, AccountKey], None],
    ) -> Consented:
        key, account_id, audit_id = session.key, self._ids(), self._ids()
        consent = Consent(
            id=account_id,
            key=key,
            provider=owner.provider,
            credential=Credential.AUTHORIZATION_CODE,
            consented=session.started,
            external_id=external.id if external else None,
            external_login=external.login if external else None,
        )

        def with_it(connection: Connection, stored: Consented) -> None:
            if external is not None and not link_alias(
                connection,
                tenant=key.tenant,
                provider=owner.provider,
                external_id=external.id,
                principal=key.principal,
                login=external.login,
                made_by=f"connect:{stored.account}",
                now=now,
            ):
                step = f"sign in to {owner.provider} as yourself, or {OPERATOR}"
                refuse(f"this {owner.provider} account is linked to someone else here", step, final=True)
            note_outcome(connection, session.id, "connected")
            audit.record(
                connection,
                id=audit_id,
                at=now,
                kind="account.connected",
                tenant=key.tenant,
                principal=key.principal,
                account=stored.account,
                generation=stored.generation,
                outcome="success",
                detail={"provider": owner.provider, "scopes": sorted(answer.scopes)},
            )
            also(connection, key)

        outcome = write_consent(self._store, self._vault, consent, answer, scopes=answer.scopes, now=now, also=with_it)
        if isinstance(outcome, RuledOut):
            refuse("access was revoked after this link was made", final=True)
        return outcome

    def _check_issuer(self, owner: ProviderConnection, profile: Profile, params: Mapping[str, str]) -> None:
        """RFC 9207: the answer says which authorization server it comes from."""
        expected, sent = owner.config.get("issuer"), params.get("iss")
        if profile.sends_iss and (expected is None or sent is None):
            refuse("the answer does not say which provider it comes from")
        if expected is not None and sent is not None and sent != expected:
            refuse("the answer comes from another provider")

    def _refuse_error(self, error: str, owner: ProviderConnection) -> NoReturn:
        if error == "access_denied":
            refuse(f"access was declined at {owner.provider}", "open a new link if that was a mistake", final=True)
        code = error[:40] if error.isascii() and error.replace("_", "").isalnum() else "unnamed"
        refuse(f"{owner.provider} answered {code}", f"{AGAIN}, or {OPERATOR}", final=True)

    def _provider(self, owner: str) -> tuple[ProviderConnection, Profile]:
        found = self._store.read(lambda connection: get_connection(connection, owner))
        return found, profile_of(self._profiles, found.provider)

    def _opened(self, session: ConnectSession, owner: ProviderConnection) -> tuple[str, str]:
        binding = verifier_binding(session.key.tenant, session.id, owner.provider)
        state, verifier = json.loads(self._vault.open(session.verifier_sealed, binding).reveal())
        return state, verifier

    @staticmethod
    def _note(
        connection: Connection, session: ConnectSession, refused: ConnectRefused, audit_id: str, now: datetime
    ) -> None:
        note_outcome(connection, session.id, refused.reason)
        audit.record(
            connection,
            id=audit_id,
            at=now,
            kind="connect.refused",
            tenant=session.key.tenant,
            principal=session.key.principal,
            outcome="refused",
            reason=refused.reason,
        )

"""The callback: a provider's answer, checked and turned into a stored consent, once.

The checks, in order: its state is one of ours; it came to the address of that state's provider connection and (where
the provider sends it) from its issuer; in the same browser; in time; for the first time; from the account awaited.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NoReturn

from sqlalchemy import Connection

from identity import audit
from identity.audit import AsWhom
from identity.connect.awaited import Awaited
from identity.connect.code_exchange import CodeExchange
from identity.connect.leftovers import Leftover
from identity.connect.outcomes import Connected
from identity.connect.reasons import AGAIN, OPERATOR, Refusal, Why, refuse
from identity.connect.refusals import Refusals, in_words
from identity.connect.sessions import CONNECTED, ConnectSession, note_outcome, open_verifier, use_up
from identity.connections import people_of
from identity.consent_ledger import AnotherAccount, AnotherClient, Consent, Consented
from identity.consents import write_consent
from identity.model import AccountKey, Credential, ProviderConnection, RuledOut, TokenAnswer
from identity.principals import link_alias, resolve_alias, to_unlink
from identity.providers.profile import ExternalIdentity, Profile
from identity.providers.words import provider_name
from identity.scopes import grant_scopes, revoked_since
from identity.store import Store
from identity.vault import Vault


@dataclass(frozen=True, kw_only=True)
class Callback:
    """Finishes sessions."""

    store: Store
    vault: Vault
    exchange: CodeExchange
    refusals: Refusals
    redirect_uri: Callable[[str], str]
    ids: Callable[[], str]

    def finish(
        self,
        session: ConnectSession,
        owner: ProviderConnection,
        profile: Profile,
        params: Mapping[str, str],
        *,
        now: datetime,
        also: Callable[[Connection, AccountKey], None],
    ) -> Connected | None:
        """What came of it; None: another callback of this session is at it, or was. Raises Refusal.

        Whether the answer is this session's own was checked before: from here on the session is used up.
        """
        if session.finished_at is not None or now >= session.expires_at:
            return None
        try:
            code = self._code(session, owner, params)
        except Refusal:
            if not self._use_up(session, now):
                return None
            raise
        self.exchange.enter(owner, profile)  # where that must wait, the session stays as it is
        if not self._use_up(session, now):
            return None
        with in_words():
            return self._consent(session, owner, profile, code, now=now, also=also)

    def _use_up(self, session: ConnectSession, now: datetime) -> bool:
        return self.store.write(lambda connection: use_up(connection, session.id, now=now))

    def _code(self, session: ConnectSession, owner: ProviderConnection, params: Mapping[str, str]) -> str:
        """The code that is to be exchanged. Raises Refusal."""
        if (error := params.get("error")) is not None:
            _refuse_error(error, owner)
        code = params.get("code") or refuse(Why.PROVIDER, "the provider sent no code", final=True)
        scopes, started = grant_scopes(session.key), session.started
        if self.store.read(lambda connection: revoked_since(connection, scopes, started)):
            _refuse_revoked()
        return code

    def _consent(
        self,
        session: ConnectSession,
        owner: ProviderConnection,
        profile: Profile,
        code: str,
        *,
        now: datetime,
        also: Callable[[Connection, AccountKey], None],
    ) -> Connected:
        _, verifier = open_verifier(self.vault, session, owner.provider)
        answer = self.exchange.tokens(
            owner,
            profile,
            session=session,
            code=code,
            verifier=verifier,
            redirect_uri=self.redirect_uri(owner.id),
            now=now,
        )
        won = Leftover(
            key=session.key,
            provider=owner.provider,
            client_id=owner.client_id,
            started=session.started,
            answer=answer,
        )
        with self.refusals.leaving(won, now=now):
            external = self.exchange.whose(session, owner, profile, answer.access_token)
        covered = profile.covered(answer.scopes)
        missing = tuple(scope for scope in session.scopes if scope not in covered)
        with self.refusals.leaving(replace(won, external_id=external.id if external else None), now=now):
            stored = self._store(session, owner, answer, external, missing, now=now, also=also)
        return Connected(
            session=session.id,
            key=session.key,
            account=stored.account,
            generation=stored.generation,
            login=external.login if external else None,
            missing_scopes=missing,
        )

    def _store(
        self,
        session: ConnectSession,
        owner: ProviderConnection,
        answer: TokenAnswer,
        external: ExternalIdentity | None,
        missing: tuple[str, ...],
        *,
        now: datetime,
        also: Callable[[Connection, AccountKey], None],
    ) -> Consented:
        key, account_id, audit_id = session.key, self.ids(), self.ids()
        consent = Consent(
            id=account_id,
            key=key,
            provider=owner.provider,
            credential=Credential.AUTHORIZATION_CODE,
            consented=session.started,
            began_at=session.created_at,
            external_id=external.id if external else None,
            external_login=external.login if external else None,
            any_account=session.any_account,
            client_id=owner.client_id,
        )

        def with_it(connection: Connection, stored: Consented) -> None:
            if external is not None:
                _link(connection, key, owner, external, made_by=f"connect:{stored.account}", now=now)
            result = {
                "account": stored.account,
                "generation": stored.generation,
                "login": external.login if external else None,
                "missing_scopes": list(missing),
            }
            note_outcome(connection, session.id, CONNECTED, result)
            audit.record(
                connection,
                "account.connected",
                AsWhom.of_account(key, id=stored.account, generation=stored.generation),
                id=audit_id,
                at=now,
                outcome="success",
                detail={
                    "provider": owner.provider,
                    "scopes": sorted(answer.scopes),
                    "consented": consent.consented,
                },
            )
            also(connection, key)

        outcome = write_consent(self.store, self.vault, consent, answer, scopes=answer.scopes, now=now, also=with_it)
        match outcome:
            case RuledOut():
                _refuse_revoked()
            case AnotherAccount(awaited=awaited):
                _refuse_another(owner, external, awaited)
            case AnotherClient(reason=reason):
                refuse(Why.INTERRUPTED, reason, final=True, won_by=owner.client_id)
        return outcome


def _link(
    connection: Connection,
    key: AccountKey,
    owner: ProviderConnection,
    external: ExternalIdentity,
    *,
    made_by: str,
    now: datetime,
) -> None:
    """Say that the provider's user is this principal. Refuses one who is linked to another of the tenant."""
    # Asked for anew: while the code was exchanged, an operator may have given its people another name.
    people = people_of(connection, owner.id)
    if link_alias(
        connection,
        tenant=key.tenant,
        provider=people,
        external_id=external.id,
        principal=key.principal,
        login=external.login,
        made_by=made_by,
        now=now,
    ):
        return
    name = provider_name(owner.provider)
    holder = resolve_alias(connection, key.tenant, people, external.id)
    refuse(
        Why.LINKED_ELSEWHERE,
        f"the {name} account {external.login or external.id} is linked to someone else here",
        f"sign in at {name} with an account of your own and {AGAIN}; if this one is yours, {OPERATOR}",
        final=True,
        external_id=external.id,
        linked_to=holder or "",
        next=to_unlink(key.tenant, people, external.id),
    )


def check_issuer(owner: ProviderConnection, profile: Profile, params: Mapping[str, str]) -> None:
    """RFC 9207: the answer says which authorization server it comes from."""
    expected, sent = owner.config.get("issuer"), params.get("iss")
    must = profile.sends_iss or owner.config.get("sends_iss") == "true"
    if must and (expected is None or sent is None):
        refuse(Why.UNTRUSTED, "the answer does not say which provider it comes from")
    if expected is not None and sent is not None and sent != expected:
        refuse(Why.UNTRUSTED, "the answer comes from another provider")


def _refuse_revoked() -> NoReturn:
    refuse(Why.REVOKED, "access was revoked after this link was made", final=True)


def _refuse_another(owner: ProviderConnection, external: ExternalIdentity | None, awaited: Awaited) -> NoReturn:
    name = provider_name(owner.provider)
    if external is None:
        refuse(
            Why.OPERATOR,
            f"{awaited} is expected, and {name} cannot be asked here whose account this is",
            f"{OPERATOR}: provider connection {owner.id} needs a userinfo_url, or the link --any-account",
            final=True,
        )
    refuse(
        Why.WRONG_ACCOUNT,
        f"you are signed in at {name} as {external.login or external.id}, and {awaited} is expected",
        f"sign out at {name}, sign in there as {awaited}, then {AGAIN}",
        final=True,
        external_id=external.id,
    )


def _refuse_error(error: str, owner: ProviderConnection) -> NoReturn:
    name = provider_name(owner.provider)
    if error == "access_denied":
        refuse(Why.DECLINED, f"access was declined at {name}", f"if that was a mistake, {AGAIN}", final=True)
    code = error[:40] if error.isascii() and error.replace("_", "").isalnum() else "unnamed"
    refuse(Why.PROVIDER, f"{name} answered {code}", f"{AGAIN}, or {OPERATOR}", final=True)

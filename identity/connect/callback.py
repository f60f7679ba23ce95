"""The callback: a provider's answer, checked and turned into a stored consent, once.

The checks, in order: its state is one of ours; it came to the address of that state's provider connection and (where
the provider sends it) from its issuer; in the same browser; in time; for the first time; from the account awaited,
in a workspace of the tenant's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NoReturn

from sqlalchemy import Connection

from identity import audit
from identity.audit import AsWhom
from identity.authorization import authorization
from identity.connect.arrival import Arrival
from identity.connect.awaited import Awaited
from identity.connect.code_exchange import CodeExchange
from identity.connect.leftovers import Leftover
from identity.connect.outcomes import Connected, as_noted
from identity.connect.place import check_place
from identity.connect.reasons import AGAIN, OPERATOR, Refusal, Why, refuse
from identity.connect.refusals import Refusals, in_words
from identity.connect.sessions import CONNECTED, note_outcome, open_verifier, use_up
from identity.connections import people_of
from identity.consent_ledger import AnotherAccount, AnotherClient, Consent, Consented
from identity.consents import CompletedConsent, write_consent
from identity.model import AccountKey, Credential, ProviderConnection, RuledOut, TokenAnswer
from identity.principals import link_alias, resolve_alias, to_unlink
from identity.providers.profile import ExternalIdentity, Profile
from identity.scopes import grant_scopes, revoked_since
from identity.store import Store
from identity.vault import Vault

_OFFLINE = frozenset({"offline_access"})  # OpenID Connect Core §11: whoever has a refresh token was granted it


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
        self, arrival: Arrival, params: Mapping[str, str], *, also: Callable[[Connection, AccountKey], None]
    ) -> Connected | None:
        """What came of it; None: another callback of this session is at it, or was. Raises Refusal.

        Whether the answer is this session's own was checked before: from here on the session is used up.
        """
        session = arrival.session
        if session.finished_at is not None or arrival.at >= session.expires_at:
            return None
        try:
            code = self._code(arrival, params)
        except Refusal:
            if not self._use_up(arrival):
                return None
            raise
        self.exchange.enter(arrival)  # where that must wait, the session stays as it is
        send_before = self.exchange.send_before()
        if not self._use_up(arrival):
            return None
        with in_words():
            return self._consent(arrival, code, send_before=send_before, also=also)

    def _use_up(self, arrival: Arrival) -> bool:
        return self.store.write(lambda connection: use_up(connection, arrival.session.id, now=arrival.at))

    def _code(self, arrival: Arrival, params: Mapping[str, str]) -> str:
        """The code that is to be exchanged. Raises Refusal."""
        if (error := params.get("error")) is not None:
            _refuse_error(error, arrival.provider)
        code = params.get("code") or refuse(Why.PROVIDER, "the provider sent no code", final=True)
        scopes, started = grant_scopes(arrival.session.key), arrival.session.started
        if self.store.read(lambda connection: revoked_since(connection, scopes, started)):
            _refuse_revoked()
        return code

    def _consent(
        self, arrival: Arrival, code: str, *, send_before: float, also: Callable[[Connection, AccountKey], None]
    ) -> Connected:
        session, owner = arrival.session, arrival.owner
        _, verifier = open_verifier(self.vault, session, owner.provider)
        redirect_uri = self.redirect_uri(owner.id)
        answer = self.exchange.tokens(
            arrival, code=code, verifier=verifier, redirect_uri=redirect_uri, send_before=send_before
        )
        won = Leftover(
            key=session.key,
            provider=owner.provider,
            client_id=owner.client_id,
            started=session.started,
            answer=answer,
        )
        with self.refusals.leaving(won, now=arrival.at):
            authorization(owner, answer.access_token, token_type=answer.token_type)  # may it be used at all?
            external = self.exchange.whose(arrival, answer.access_token)
        with self.refusals.leaving(replace(won, external_id=external.id if external else None), now=arrival.at):
            return self._store(arrival, answer, external, also=also)

    def _store(
        self,
        arrival: Arrival,
        answer: TokenAnswer,
        external: ExternalIdentity | None,
        *,
        also: Callable[[Connection, AccountKey], None],
    ) -> Connected:
        session, owner = arrival.session, arrival.owner
        consent = _consent_of(arrival, external, id=self.ids())
        audit_id = self.ids()
        covered = arrival.profile.covered(answer.scopes)
        if answer.refresh_token is not None:
            covered |= _OFFLINE  # some servers leave it out of the scopes they name
        missing = tuple(scope for scope in session.scopes if scope not in covered)

        def connected(stored: Consented) -> Connected:
            return Connected(
                session=session.id,
                key=session.key,
                account=stored.account,
                generation=stored.generation,
                login=consent.external_login,
                missing_scopes=missing,
            )

        def with_it(connection: Connection, stored: Consented) -> None:
            check_place(connection, arrival, external)
            if external is not None:
                _link(connection, arrival, external, made_by=f"connect:{stored.account}")
            note_outcome(connection, session.id, CONNECTED, as_noted(connected(stored)))
            audit.record(
                connection,
                "account.connected",
                AsWhom.of_account(session.key, id=stored.account, generation=stored.generation),
                id=audit_id,
                at=arrival.at,
                outcome="success",
                detail={
                    "provider": owner.provider,
                    "scopes": sorted(answer.scopes),
                    "consented": consent.consented,
                },
            )
            also(connection, session.key)

        completed = CompletedConsent(consent=consent, answer=answer, scopes=answer.scopes, at=arrival.at, also=with_it)
        outcome = write_consent(self.store, self.vault, completed)
        match outcome:
            case RuledOut():
                _refuse_revoked()
            case AnotherAccount(awaited=awaited):
                _refuse_another(arrival, external, awaited)
            case AnotherClient(reason=reason):
                refuse(Why.INTERRUPTED, reason, final=True, won_by=owner.client_id)
        return connected(outcome)


def _consent_of(arrival: Arrival, external: ExternalIdentity | None, *, id: str) -> Consent:
    session, owner = arrival.session, arrival.owner
    return Consent(
        id=id,
        key=session.key,
        provider=owner.provider,
        credential=Credential.AUTHORIZATION_CODE,
        consented=session.started,
        began_at=session.created_at,
        external_id=external.id if external else None,
        external_login=external.login if external else None,
        any_account=session.any_account,
        client_id=owner.client_id,
    )


def _link(connection: Connection, arrival: Arrival, external: ExternalIdentity, *, made_by: str) -> None:
    """Say that the provider's user is this principal. Refuses one who is linked to another of the tenant."""
    key, name = arrival.session.key, arrival.provider
    # Asked for anew: while the code was exchanged, an operator may have given its people another name.
    people = people_of(connection, arrival.owner.id)
    if link_alias(
        connection,
        tenant=key.tenant,
        provider=people,
        external_id=external.id,
        principal=key.principal,
        login=external.login,
        made_by=made_by,
        now=arrival.at,
    ):
        return
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


def _refuse_another(arrival: Arrival, external: ExternalIdentity | None, awaited: Awaited) -> NoReturn:
    name = arrival.provider
    if external is None:
        refuse(
            Why.OPERATOR,
            f"{awaited} is expected, and {name} cannot be asked here whose account this is",
            f"{OPERATOR}: provider connection {arrival.owner.id} needs a userinfo_url, or the link --any-account",
            final=True,
        )
    refuse(
        Why.WRONG_ACCOUNT,
        f"you are signed in at {name} as {external.login or external.id}, and {awaited} is expected",
        f"sign out at {name}, sign in there as {awaited}, then {AGAIN}",
        final=True,
        external_id=external.id,
    )


def _refuse_error(error: str, name: str) -> NoReturn:
    if error == "access_denied":
        refuse(Why.DECLINED, f"access was declined at {name}", f"if that was a mistake, {AGAIN}", final=True)
    code = error[:40] if error.isascii() and error.replace("_", "").isalnum() else "unnamed"
    refuse(Why.PROVIDER, f"{name} answered {code}", f"{AGAIN}, or {OPERATOR}", final=True)

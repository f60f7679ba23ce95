"""Stores a connect's tokens as a grant, with alias, audit row and outcome. There is no other way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from sqlalchemy import Connection

from identity import audit
from identity.audit import AsWhom
from identity.connect.arrival import Arrival
from identity.connect.awaited import Awaited
from identity.connect.consent_ledger import AnotherAccount, AnotherClient, Consent, Consented
from identity.connect.consents import CompletedConsent, write_consent
from identity.connect.outcomes import Connected, as_noted
from identity.connect.place import check_place
from identity.connect.reasons import AGAIN, OPERATOR, Why, refuse, refuse_revoked
from identity.connect_sessions.sessions import CONNECTED, note_outcome
from identity.connections.registry import people_of
from identity.keys.vault import Vault
from identity.model import AccountKey, Credential, RuledOut, TokenAnswer
from identity.principals import link_alias, resolve_alias, to_unlink
from identity.providers.profile import ExternalIdentity
from identity.sql.store import Store

_OFFLINE = frozenset({"offline_access"})  # OpenID Connect Core §11: a refresh token implies it


@dataclass(frozen=True, kw_only=True)
class Storing:
    """Turns the tokens of connects into grants."""

    store: Store
    vault: Vault
    ids: Callable[[], str]

    def consent(
        self,
        arrival: Arrival,
        answer: TokenAnswer,
        external: ExternalIdentity | None,
        *,
        also: Callable[[Connection, AccountKey], None],
    ) -> Connected:
        """Store the consent. *also* runs in the same transaction. Raises Refusal or Unavailable."""
        session, owner = arrival.session, arrival.owner
        consent = _consent_of(arrival, external, id=self.ids())
        audit_id = self.ids()
        covered = arrival.profile.covered(answer.scopes)
        if answer.refresh_token is not None:
            covered |= _OFFLINE  # some servers omit it from `scope`
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
                refuse_revoked()
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
    """Link the provider's user to this principal. Refuses a user linked to another principal of the tenant."""
    key, name = arrival.session.key, arrival.provider
    # Read again: an operator may have changed `people` while the code was exchanged.
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

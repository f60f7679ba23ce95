"""Writing of completed consents: a person's through the browser, or an admin's for a service account."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from identity import audit
from identity.accounts.grants import get_grant, lock_grant, no_token_yet, seal_answer
from identity.accounts.states import find_account
from identity.audit import Act, AsWhom
from identity.connect.consent_ledger import (
    AnotherAccount,
    AnotherClient,
    Consent,
    Consented,
    Moved,
    store_consent,
)
from identity.connections.installations import note_service
from identity.errors import GrantRevoked, Unavailable, Unconfirmed
from identity.keys.vault import Vault
from identity.minting.service_credential import ServiceCredential
from identity.model import AccountKey, Credential, RuledOut, TokenAnswer
from identity.sql.sequence import next_number
from identity.sql.store import CommitUnknown, Store

_TRIES = 5


@dataclass(frozen=True, kw_only=True)
class CompletedConsent:
    """A consent to be stored, the answer that came with it, and the writes that accompany it."""

    consent: Consent
    answer: TokenAnswer | None  # None: the service's tokens are minted when needed, for *scopes*
    scopes: tuple[str, ...]
    at: datetime
    also: Callable[[Connection, Consented], None]  # runs in the transaction that stores the consent


def write_consent(
    store: Store, vault: Vault, completed: CompletedConsent
) -> Consented | AnotherAccount | AnotherClient | RuledOut:
    """Store a consent, sealed for the generation that it becomes.

    Raises Unavailable; Unconfirmed if the consent may have been stored.
    """
    key = completed.consent.key
    lost: CommitUnknown | None = None
    for _ in range(_TRIES):
        try:
            outcome = _write_once(store, vault, completed, again=lost is not None)
        except CommitUnknown as error:
            lost = error
        except Unavailable as error:
            if lost is None:
                raise
            raise Unconfirmed(f"it is not known whether the consent for account {key} is stored") from error
        else:
            if not isinstance(outcome, Moved):
                return outcome
    if lost is not None:
        raise Unconfirmed(f"it is not known whether the consent for account {key} is stored") from lost
    raise Unavailable(f"the consent for account {key} could not be stored")


def _write_once(
    store: Store, vault: Vault, completed: CompletedConsent, *, again: bool
) -> Consented | Moved | AnotherAccount | AnotherClient | RuledOut:
    """Seal it for the next generation and store it; *again*: unless an earlier try has stored it."""
    consent, answer = completed.consent, completed.answer
    account, generation = store.read(lambda connection: _present(connection, consent))
    named = dataclasses.replace(consent, id=account or consent.id)
    sealed = (
        no_token_yet(completed.scopes, generation=generation + 1)
        if answer is None
        else seal_answer(
            vault,
            answer,
            tenant=consent.key.tenant,
            account=named.id,
            provider=consent.provider,
            generation=generation + 1,
        )
    )

    def write(connection: Connection) -> Consented | Moved | AnotherAccount | AnotherClient | RuledOut:
        if again and (stored := _stored(connection, consent)) is not None:
            return stored
        outcome = store_consent(connection, named, sealed, now=completed.at)
        if isinstance(outcome, Consented):
            completed.also(connection, outcome)
        return outcome

    return store.write(write)


def connect_service(
    store: Store,
    vault: Vault,
    key: AccountKey,
    credential: ServiceCredential,
    act: Act,
    *,
    id: str,
    provider: str,
    scopes: tuple[str, ...],
    also: Callable[[Connection, AccountKey], None],
    replace: bool = False,
) -> Consented:
    """Connect a service account for an admin, with this credential and these scopes.

    *also* runs in the consent's own commit: it wakes the jobs that waited for it. *replace* permits another
    installation or workspace than the present one. Raises BadInput, GrantRevoked, Unavailable or Unconfirmed.
    """
    answer = credential.answer(scopes=scopes, now=act.now)
    consented = store.write(next_number)
    consent = Consent(
        id=id,
        key=key,
        provider=provider,
        credential=credential.kind,
        consented=consented,
        external_id=credential.external_id,
        resources=credential.resources,
        ceiling=credential.ceiling,
        any_account=True,
        elsewhere=replace,
    )

    def write_audit(connection: Connection, stored: Consented) -> None:
        audit.record_act(
            connection,
            "account.connected",
            AsWhom.of_account(key, id=stored.account, generation=stored.generation),
            act,
            outcome="success",
            detail={"provider": provider, "credential": str(credential.kind), "consented": consented},
        )
        also(connection, key)  # first: it may list the place
        # for JWT bearer it is a subject
        place = None if credential.kind is Credential.JWT_BEARER else credential.external_id
        note_service(connection, key.connection, key.tenant, place)

    completed = CompletedConsent(consent=consent, answer=answer, scopes=scopes, at=act.now, also=write_audit)
    outcome = write_consent(store, vault, completed)
    if not isinstance(outcome, Consented):
        raise GrantRevoked(outcome.reason)
    return outcome


def _present(connection: Connection, consent: Consent) -> tuple[str | None, int]:
    account = find_account(connection, consent.key)
    grant = get_grant(connection, account.id) if account else None
    return account.id if account else None, grant.generation if grant else 0


def _stored(connection: Connection, consent: Consent) -> Consented | None:
    """Return the result of a consent whose commit was unknown, recognised by its number."""
    lock_grant(connection, consent.key)  # a plain read would miss a commit in progress
    account = find_account(connection, consent.key)
    grant = get_grant(connection, account.id) if account else None
    if grant is None or grant.consented != consent.consented:
        return None
    return Consented(account=grant.account, generation=grant.generation)

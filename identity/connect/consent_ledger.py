"""Storage of a completed consent: a new generation of the account's grant, unless the rule for grants refuses it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, update

from identity.accounts.grants import SealedAnswer, lock_grant, look_at
from identity.accounts.scopes import newest_revocation, revoked_since
from identity.accounts.states import Account, ensure_account, move_account
from identity.connect.awaited import Awaited, awaited_at
from identity.connections.registry import get_connection, lock_connection, people_of
from identity.errors import BadInput
from identity.model import AccountKey, AccountState, Credential, RuledOut
from identity.sql.rows import insert_new
from identity.tables import accounts, grants
from identity.withdrawals.taking import EndedConsents, take_grant


@dataclass(frozen=True, kw_only=True)
class Consent:
    """The grant that a completed consent makes, and the start of its connect session."""

    id: str  # for the account, should it have no row yet
    key: AccountKey
    provider: str
    credential: Credential
    consented: int
    external_id: str | None = None
    external_login: str | None = None
    resources: tuple[str, ...] | None = None  # the resources that its tokens are limited to
    ceiling: tuple[str, ...] | None = None  # the scopes an admin bounded it to; None: no bound
    any_account: bool = False  # an admin accepts whichever account the provider reports
    elsewhere: bool = False  # a service moves to this installation or workspace from its present one
    # the client that won its tokens, the only one that can renew them; None: an admin supplied them
    client_id: str | None = None
    began_at: datetime | None = None  # start of its connect session; None: now


@dataclass(frozen=True, kw_only=True)
class Consented:
    """The consent is stored."""

    account: str
    generation: int


@dataclass(frozen=True, kw_only=True)
class Moved:
    """The account or its generation is not the one that the answer was sealed for: read and seal again."""


@dataclass(frozen=True, kw_only=True)
class AnotherAccount:
    """The consent came from another account than the awaited one, or from an unknown one."""

    awaited: Awaited

    @property
    def reason(self) -> str:
        return f"the consent came from another account than {self.awaited}"


@dataclass(frozen=True, kw_only=True)
class AnotherClient:
    """The provider connection now belongs to another client than the one that won the tokens."""

    reason: str = "the provider connection was given another client while the code was exchanged"


def store_consent(
    connection: Connection, consent: Consent, sealed: SealedAnswer, *, now: datetime
) -> Consented | Moved | AnotherAccount | AnotherClient | RuledOut:
    """Store a completed consent: a new generation, and the account is active. Refused by the rule for grants.

    Raises BadInput for a service that acts through another installation or workspace, unless it is to be *elsewhere*.

    It takes the account's lock exclusively, while parking takes it shared: a job cannot park between the consent and
    the wake-up that follows it.
    """
    above, own = lock_grant(connection, consent.key)
    if refusal := revoked_since(connection, (*above, own), consent.consented):
        return refusal
    if consent.client_id is not None:
        # a change of the client waits for this lock, and then finds the account
        lock_connection(connection, consent.key.connection)
        if get_connection(connection, consent.key.connection).client_id != consent.client_id:
            return AnotherClient()
    if consent.credential is Credential.AUTHORIZATION_CODE and not consent.any_account:
        awaited = awaited_at(connection, consent.key, people_of(connection, consent.key.connection))
        # If the provider cannot be asked whose token it is, anybody may have signed in, so the awaited person is
        # unconfirmed.
        if awaited is not None and consent.external_id not in awaited.ids:
            return AnotherAccount(awaited=awaited)
    account = ensure_account(
        connection, consent.key, id=consent.id, provider=consent.provider, credential=consent.credential, now=now
    )
    if account.id != consent.id:
        return Moved()
    if not consent.elsewhere:
        _check_same_place(account, consent)
    # Credentials that were revoked must still end at the provider, listed by name.
    ended = EndedConsents(upto=newest_revocation(connection, (*above, own)))
    take_grant(connection, account, ended, revocation=None, now=now)
    if not _write(connection, account.id, sealed, consent, now=now):
        return Moved()
    replaced = consent.credential is Credential.AUTHORIZATION_CODE and consent.any_account
    before = None if replaced else account  # the new person may be somebody else
    named = {
        "credential": consent.credential,
        "external_id": consent.external_id or (before and before.external_id),
        "external_login": consent.external_login or (before and before.external_login),
        "resources": None if consent.resources is None else list(consent.resources),
    }
    connection.execute(update(accounts).where(accounts.c.id == account.id).values(named))
    move_account(connection, account.id, to=AccountState.ACTIVE, reason=None, now=now)
    return Consented(account=account.id, generation=sealed.generation)


def _check_same_place(account: Account, consent: Consent) -> None:
    """Raise BadInput if another place would replace the account's: its tokens could not reach the former one."""
    now, then = account.external_id, consent.external_id
    of_person = Credential.AUTHORIZATION_CODE in (account.credential, consent.credential)
    if of_person or account.state is AccountState.REVOKED or None in (now, then) or now == then:
        return
    raise BadInput(
        f"{account.key.principal} acts through {now} at {account.key.connection}, and a tenant's service acts through "
        f"one there: {then} would take its place, and what comes from {now} would be answered by tokens that do not "
        f"reach it. Give --replace where that is meant; otherwise make a tenant of its own for {then}"
    )


def _write(connection: Connection, account: str, sealed: SealedAnswer, consent: Consent, *, now: datetime) -> bool:
    """Write a consent's credentials over the previous generation; False if that is not the stored one."""
    row = {
        "generation": sealed.generation,
        "consented": consent.consented,
        "consented_at": consent.began_at or now,
        "access_sealed": sealed.access_sealed,
        "refresh_sealed": sealed.refresh_sealed,
        "refresh_digest": sealed.refresh_digest,
        "refresh_prefix_digest": sealed.refresh_prefix_digest,
        "token_type": sealed.token_type,
        "scopes": list(sealed.scopes),
        "ceiling": None if consent.ceiling is None else list(consent.ceiling),  # a new consent lifts the former ceiling
        "obtained_at": now,
        "expires_at": sealed.expires_at,
        **look_at(now),
    }
    if sealed.generation == 1:
        return insert_new(connection, grants, {"account_id": account, **row})
    replaced = update(grants).where(grants.c.account_id == account, grants.c.generation == sealed.generation - 1)
    return connection.execute(replaced.values(row)).rowcount == 1

"""Whom asking a provider to end a credential would reach besides: somebody else there, or a later consent."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, select

from identity.accounts import Account
from identity.connect.leftovers import kept
from identity.connect.sessions import is_connecting
from identity.grants import Grant, get_grant
from identity.model import AccountKey, Credential
from identity.providers.profile import Profile
from identity.scopes import newest_revocation, revoked_since
from identity.tables import accounts
from identity.withdrawals import Origin, Withdrawal, WithdrawalState, is_refreshing, of_account
from identity.withdrawals.end_request import reaches_all

_UNDER_WAY = timedelta(minutes=2)  # longer than a claim lasts
_LINKS = timedelta(minutes=30)  # longer than a link can last that was made before the end of what was won began


def awaits_provider(connection: Connection, account: Account, profile: Profile, *, now: datetime) -> bool:
    """Whether a consent of now would be ended at the provider by a revocation of before. The caller holds its locks."""
    if not reaches_all(profile, account.credential):
        return False
    # What is ended by its own name reaches no consent; a request by another that was claimed before may be under way.
    since = now - _UNDER_WAY

    def by_name(one: Withdrawal | Grant) -> bool:
        expired = one.expires_at is not None and one.expires_at <= since
        dropped = one.access_sealed is None  # since before it was revoked: no request named it
        return profile.renewal is not None and one.refresh_sealed is not None and (dropped or expired)

    pending = of_account(connection, account.id, WithdrawalState.PENDING)
    # What waits for a confirmation is not asked about yet: when it is, this consent is seen (`reaches_others`).
    waiting = {one.id for one in kept(connection, [account.id]) if one.until > now}
    won = [one for one in pending if one.origin is Origin.CONNECT and one.id not in waiting]
    if profile.renewal is None and not all(_is_anothers(account, one) for one in won):
        return True
    if any(not by_name(one) for one in pending if one.origin is not Origin.CONNECT):
        return True
    grant = get_grant(connection, account.id)
    if grant is None or not revoked_since(connection, account.key.scopes, grant.consented, or_stopped=False):
        return False
    held = grant.access_sealed is not None or grant.refresh_sealed is not None
    return is_refreshing(connection, account.id) or (held and not by_name(grant))


def _is_anothers(account: Account, one: Withdrawal) -> bool:
    """Whether a connect won it from somebody who is not the person of the account."""
    return one.external_id is not None and account.external_id not in (None, one.external_id)


def awaits_link(connection: Connection, account: Account, claimed: Withdrawal, *, now: datetime) -> bool:
    """Whether a link for the account works, and who comes back by it may be the person whom the request would reach.

    Nobody has connected the account yet, so who won this may have followed a link of somebody else's, who must not keep
    it from its end by another one. It waits until that link has ended: meanwhile no other one begins.
    """
    if not _is_nobodys(account, claimed) or now >= claimed.created_at + _LINKS:
        return False
    newest = newest_revocation(connection, account.key.scopes)
    return is_connecting(connection, account.key, now=now, after=newest, besides=claimed.consented)


def _is_nobodys(account: Account, one: Withdrawal) -> bool:
    """Whether a connect won it from somebody known, for an account of which nobody knows whose it is."""
    return one.origin is Origin.CONNECT and one.external_id is not None and account.external_id is None


def reaches_others(connection: Connection, account: Account, claimed: Withdrawal, *, now: datetime) -> str | None:
    """Whom the request would reach besides, in words; None: nobody."""
    newest = newest_revocation(connection, account.key.scopes)
    # The session that won this is over, also where nothing but its tokens was noted.
    own = claimed.consented if claimed.origin is Origin.CONNECT else None
    of_its_person = not _is_anothers(account, claimed) and not _is_nobodys(account, claimed)
    if of_its_person and is_connecting(connection, account.key, now=now, after=newest, besides=own):
        return "the person is connecting anew, and asking would end that consent too"
    persons: ColumnElement[bool] = (accounts.c.id == account.id) | (accounts.c.external_id == account.external_id)
    if claimed.origin is Origin.CONNECT:
        if claimed.external_id is None:
            return "whose it is was not said, and asking may end somebody else's too"
        persons = accounts.c.external_id == claimed.external_id
    same = select(accounts).where(
        accounts.c.connection_id == account.key.connection,
        accounts.c.credential == Credential.AUTHORIZATION_CODE,
        persons,
    )
    for row in connection.execute(same).all():
        grant = get_grant(connection, row.id)
        if grant is None or (grant.access_sealed is None and grant.refresh_sealed is None):
            continue
        key = AccountKey.of(row)
        if revoked_since(connection, key.scopes, grant.consented, or_stopped=False) is None:
            if row.id == account.id:
                return "asking would end a later consent too"
            # A tenant reads it on its receipt, so what another tenant has is not named.
            name = f"account {row.id}" if row.tenant_id == account.key.tenant else "another account"
            return f"asking would end {name}, of the same person there, too"
    return None

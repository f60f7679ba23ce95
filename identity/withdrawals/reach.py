"""Side effects of ending a credential at its provider: on other people there, or on a later consent."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, select

from identity.accounts.grants import Grant, get_grant
from identity.accounts.scopes import newest_revocation, revoked_since
from identity.accounts.states import Account
from identity.connect_sessions.sessions import CONFIRMED_WITHIN, is_connecting, links_end
from identity.model import AccountKey, Credential
from identity.providers.profile import Profile
from identity.tables import accounts
from identity.withdrawals.awaiting import kept
from identity.withdrawals.end_request import reaches_all
from identity.withdrawals.withdrawal import Origin, Withdrawal, WithdrawalState, is_refreshing, of_account

_UNDER_WAY = timedelta(minutes=2)  # longer than a claim lasts


def awaits_provider(connection: Connection, account: Account, profile: Profile, *, now: datetime) -> bool:
    """True if an earlier, unfinished revocation would also end a consent given now. The caller holds its locks."""
    if not reaches_all(profile, account.credential):
        return False
    # Ending by name affects no consent, but a request by other means, claimed earlier, may be in flight.
    since = now - _UNDER_WAY

    def by_name(one: Withdrawal | Grant) -> bool:
        expired = one.expires_at is not None and one.expires_at <= since
        dropped = one.access_sealed is None  # since before the revocation: no request named it
        return profile.renewal is not None and one.refresh_sealed is not None and (dropped or expired)

    pending = of_account(connection, account.id, WithdrawalState.PENDING)
    won = _won(connection, account, pending, now=now)
    if profile.renewal is None and not all(_is_anothers(account, one) for one in won):
        return True
    if any(not by_name(one) for one in pending if one.origin is not Origin.CONNECT):
        return True
    grant = get_grant(connection, account.id)
    if grant is None or not revoked_since(connection, account.key.scopes, grant.consented, or_stopped=False):
        return False
    held = grant.access_sealed is not None or grant.refresh_sealed is not None
    return is_refreshing(connection, account.id) or (held and not by_name(grant))


def _won(
    connection: Connection, account: Account, pending: Collection[Withdrawal], *, now: datetime
) -> list[Withdrawal]:
    """Return the leftovers of connects among *pending*, except those that await a confirmation.

    The latter are not asked about yet; once they are, `reaches_others` sees a consent given now.
    """
    waiting = {one.id for one in kept(connection, [account.id]) if one.until > now}
    return [one for one in pending if one.origin is Origin.CONNECT and one.id not in waiting]


def _is_anothers(account: Account, one: Withdrawal) -> bool:
    """True if a connect obtained it from somebody other than the account's person."""
    return one.external_id is not None and account.external_id not in (None, one.external_id)


def awaited_link(connection: Connection, account: Account, claimed: Withdrawal, *, now: datetime) -> datetime | None:
    """Return when the last link ends through which the affected person may still connect; None if there is none.

    Nobody has connected the account yet, so the person behind these tokens may have followed somebody else's link.
    Links made after the ending began do not count: new ones must not postpone it.
    """
    if not _is_nobodys(account, claimed):
        return None
    newest, end_began = newest_revocation(connection, account.key.scopes), claimed.created_at + CONFIRMED_WITHIN
    return links_end(connection, account.key, now=now, made_by=end_began, after=newest, besides=claimed.consented)


def links_awaited(connection: Connection, account: Account, *, now: datetime) -> datetime | None:
    """Return when the last link ends for which pending leftovers wait; None if they wait for none."""
    pending = of_account(connection, account.id, WithdrawalState.PENDING)
    won = _won(connection, account, pending, now=now)
    ends = [awaited_link(connection, account, one, now=now) for one in won]
    return max((end for end in ends if end is not None), default=None)


def _is_nobodys(account: Account, one: Withdrawal) -> bool:
    """True if a connect obtained it from a known person, for an account whose person is not known."""
    return one.origin is Origin.CONNECT and one.external_id is not None and account.external_id is None


def reaches_others(connection: Connection, account: Account, claimed: Withdrawal, *, now: datetime) -> str | None:
    """Return, in words, who else the request would affect; None if nobody."""
    newest = newest_revocation(connection, account.key.scopes)
    # The session that obtained this is over, even if only its tokens were recorded.
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
            # The tenant reads this on its receipt, so another tenant's account is not named.
            name = f"account {row.id}" if row.tenant_id == account.key.tenant else "another account"
            return f"asking would end {name}, of the same person there, too"
    return None

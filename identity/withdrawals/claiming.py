"""Claims: withdrawals reserved for this process for a while, each with all that its request needs.

All functions run inside the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import Connection

from identity.accounts.states import Account, get_account
from identity.connections.registry import get_connection
from identity.connections.secrets import ending_authenticator, live_secrets
from identity.connections.self_hosted import profile_for
from identity.model import ProviderConnection
from identity.providers.profile import Profile
from identity.sql.sequence import lock_exclusive
from identity.withdrawals.end_request import Case, goes_by_name, may_be_shared, reaches_all
from identity.withdrawals.reach import awaited_link, reaches_others
from identity.withdrawals.withdrawal import (
    Counts,
    Origin,
    Withdrawal,
    WithdrawalState,
    claim,
    get_withdrawal,
    has_lost_answer,
    is_refreshing,
    is_superseded,
    postpone,
    settle,
)

_SECOND = timedelta(seconds=1)
_LINK = timedelta(seconds=30)  # until open links are checked again


def claim_case(
    connection: Connection, withdrawal: str, profiles: Mapping[str, Profile], *, now: datetime, until: datetime
) -> Case | None:
    """Claim the withdrawal; None if it cannot be asked about, now or ever. Raises Misconfigured."""
    found = get_withdrawal(connection, withdrawal)
    if found is None:
        return None
    return _claim_found(connection, found, get_account(connection, found.account), profiles, now=now, until=until)


def claim_alike(
    connection: Connection,
    others: Sequence[str],
    first: Case,
    profiles: Mapping[str, Profile],
    *,
    now: datetime,
    until: datetime,
) -> list[Case]:
    """Claim those of *others* that the request for *first* can name: same revocation, same provider connection.

    Excludes those with more failed tries: a token that makes a provider refuse a whole list must not rejoin a long one.
    """
    profile, which = profile_for(profiles, first.owner), first.withdrawal
    alike: list[tuple[Withdrawal, Account]] = []
    for found in filter(None, (get_withdrawal(connection, one) for one in others)):
        account = get_account(connection, found.account)
        same = (found.revocation, account.key.connection) == (which.revocation, first.account.key.connection)
        if same and found.tries < which.tries and goes_by_name(profile, found, now=now):
            alike.append((found, account))
    alike.sort(key=lambda one: str(one[1].key))  # the order in which everyone locks several accounts
    claimed = (_claim_found(connection, *one, profiles, now=now, until=until) for one in alike)
    return [case for case in claimed if case is not None]


def _claim_found(
    connection: Connection,
    found: Withdrawal,
    account: Account,
    profiles: Mapping[str, Profile],
    *,
    now: datetime,
    until: datetime,
) -> Case | None:
    # A statement of its own: together with the reads, the snapshot would precede the wait for the lock.
    lock_exclusive(connection, account.key.scope)
    claimed = claim(connection, found.id, now=now, until=until)
    if claimed is None:
        return None
    if is_refreshing(connection, account.id):
        postpone(connection, claimed.id, due_at=now + _SECOND, reason="a refresh has not ended", counts=Counts.NOTHING)
        return None
    owner = _owner(connection, account, claimed)
    profile = profile_for(profiles, owner)
    by_name = goes_by_name(profile, claimed, now=now)
    reaches = not by_name and (reaches_all(profile, claimed.credential) or may_be_shared(claimed))
    others = reaches_others(connection, account, claimed, now=now) if reaches else None
    if others is not None and claimed.origin is not Origin.CONNECT:
        settle(connection, claimed.id, to=WithdrawalState.STUCK, reason=others, now=now)
        return None
    if reaches and others is None and awaited_link(connection, account, claimed, now=now) is not None:
        why = "somebody may be connecting, and asking would end that consent too"
        postpone(connection, claimed.id, due_at=now + _LINK, reason=why, counts=Counts.NOTHING)
        return None
    wanted = ending_authenticator(owner, claimed.credential)
    return Case(
        withdrawal=claimed,
        account=account,
        owner=owner,
        secrets=live_secrets(connection, owner.id, wanted) if wanted else (),
        others=others,
        superseded=is_superseded(connection, claimed),
        lost=has_lost_answer(connection, claimed),
    )


def _owner(connection: Connection, account: Account, claimed: Withdrawal) -> ProviderConnection:
    owner = get_connection(connection, account.key.connection)
    if claimed.client_id is not None:  # another client is refused, or told the token is invalid (RFC 7009 §2.1, §2.2)
        owner = replace(owner, client_id=claimed.client_id)
    return owner

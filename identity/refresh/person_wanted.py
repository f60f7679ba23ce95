"""Accounts whose provider gives no token until their person signs in, and a way back without the person.

Their credentials stay sealed: they may work again once the provider's admin has removed the policy that demands it.
"""

from __future__ import annotations

from sqlalchemy import Connection, select

from identity import audit
from identity.accounts.grants import get_grant
from identity.accounts.states import get_account, move_account
from identity.audit import Act, AsWhom
from identity.model import AccountKey, AccountState, ReconnectCause
from identity.sql.sequence import lock_exclusive
from identity.tables import accounts


def awaiting_person(connection: Connection, owner: str) -> list[str]:
    """Return the ids of a provider connection's accounts that wait for their person."""
    columns = accounts.c
    waiting = select(columns.id).where(
        columns.connection_id == owner,
        columns.state == AccountState.NEEDS_RECONNECT,
        columns.reconnect_cause == ReconnectCause.PERSON,
    )
    return list(connection.execute(waiting.order_by(columns.id)).scalars())


def try_without(connection: Connection, account: str, act: Act) -> AccountKey | str:
    """Reactivate the account with its stored credentials. If the provider still wants the person, it says so again.

    Return the account's key, by which its jobs are woken in the same transaction, or the reason why a retry is
    pointless.
    """
    found = get_account(connection, account)
    lock_exclusive(connection, found.key.scope)
    found, grant = get_account(connection, account), get_grant(connection, account)
    if found.state is not AccountState.NEEDS_RECONNECT:
        return f"it is {found.state}, and waits for nobody to sign in"
    if found.reconnect_cause is not ReconnectCause.PERSON:
        return "its provider did not ask for its person"
    if grant is None or grant.refresh_sealed is None:
        return "nothing is left that its provider could be asked with"
    move_account(connection, account, to=AccountState.ACTIVE, reason=None, now=act.now)
    whom = AsWhom.of_account(found.key, id=account, generation=grant.generation)
    audit.record_act(connection, "account.retried", whom, act, outcome="active", detail={"was": found.reason})
    return found.key

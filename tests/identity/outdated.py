"""A signal that puts an account's tokens out of date."""

from __future__ import annotations

from sqlalchemy import Connection

from identity.accounts.narrowing import rescope
from identity.model import AccountKey, Scope, ScopeKind
from identity.refresh.stale_access import drop_access
from identity.sql.sequence import lock_exclusive
from tests.identity.world import World


def put_out_of_date(world: World, key: AccountKey, scopes: tuple[str, ...] | None = None) -> bool:
    """What a signal does: the account's tokens say what does not hold any more, and what it may do may be another."""
    account = world.account(key)

    def write(connection: Connection) -> bool:
        lock_exclusive(connection, Scope(kind=ScopeKind.ACCOUNT, key=str(key)))
        if scopes is not None:
            rescope(connection, account, scopes)
        return drop_access(connection, account)

    return world.store.write(write)

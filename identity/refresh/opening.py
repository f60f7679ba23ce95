"""Beginning of a refresh in the ledger: its intent is opened under the grant's locks and the rule for grants."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import Connection

from identity.accounts.grants import get_grant
from identity.accounts.scopes import revoked_since
from identity.accounts.states import Account
from identity.hold import state_unless_held
from identity.model import AccountState, RuledOut
from identity.refresh.endings import Superseded
from identity.refresh.intents import RefreshIntent, open_intent
from identity.sql.sequence import lock_shared, next_number


def begin(
    connection: Connection,
    account: Account,
    new: RefreshIntent,
    *,
    former: RefreshIntent | None,
    granted: tuple[str, ...],
) -> RefreshIntent | RuledOut | Superseded:
    """Open the intent under the grant's locks, if the rule allows it.

    *granted* are the scopes for which its request was built. Raises Unavailable while the installation is held.
    """
    scopes = account.key.scopes
    lock_shared(connection, scopes)
    grant = get_grant(connection, account.id)
    if grant is None or grant.generation != new.generation or grant.consented != new.consented:
        return Superseded()
    if grant.scopes != granted:
        return Superseded()
    if ruled_out := revoked_since(connection, scopes, grant.consented):
        return ruled_out
    if state_unless_held(connection, account.id) is not AccountState.ACTIVE:
        return Superseded()
    return open_intent(connection, replace(new, opened=next_number(connection)), former=former) or Superseded()

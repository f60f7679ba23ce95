"""Access tokens that a signal made out of date: neither the stored one nor one on its way is used.

Nothing is revoked, and the means of renewal stay: the next step fetches a token with the present permissions.
"""

from __future__ import annotations

from sqlalchemy import Connection, select, update

from identity.accounts.grants import EMPTIED, get_grant
from identity.accounts.states import Account
from identity.model import MINTED
from identity.refresh.intents import MOVES, IntentState
from identity.refresh.out_of_date import OutOfDate, outdated
from identity.refresh.tables import refresh_intents
from identity.tables import grants


def drop_access(connection: Connection, account: Account) -> bool:
    """Stop using the present access token, and the one that a refresh in flight brings.

    The caller holds the account's lock exclusively.

    False if nothing could renew it. Then it stays, since a signal that revokes nothing must not end a grant.
    """
    if account.credential not in MINTED:
        grant = get_grant(connection, account.id)
        if grant is None or grant.refresh_sealed is None:
            return False
    on_its_way = _overtake(connection, account.id)
    stale = update(grants).where(grants.c.account_id == account.id)
    if not on_its_way:
        stale = stale.where(grants.c.access_sealed.is_not(None))
    if account.credential in MINTED:
        # The new generation discards a token on its way, whatever it is: minting another costs little.
        stale = stale.values(generation=grants.c.generation + 1, **EMPTIED)
    else:
        # A refresh in flight may hold the only refresh token, so its answer is used only for that.
        stale = stale.values(access_sealed=None, expires_at=None)
    connection.execute(stale)
    return True


def _overtake(connection: Connection, account: str) -> bool:
    """Mark the presentation in flight for the account's current generation: its answer will be out of date.

    False if there is none. A presentation that begins later is not marked. The caller holds the account's lock
    exclusively.
    """
    columns = refresh_intents.c
    present = select(grants.c.generation).where(grants.c.account_id == account).scalar_subquery()
    states = [IntentState.ANSWERED, *MOVES.sources(IntentState.ANSWERED)]
    marked = update(refresh_intents).where(
        columns.account_id == account, columns.generation == present, columns.state.in_(states)
    )
    return connection.execute(marked.values(outdated(OutOfDate.OVERTAKEN))).rowcount > 0

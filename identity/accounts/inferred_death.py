"""Death inferred: a provider's API goes on refusing an account whose token was just renewed because of that.

A 401 is no revocation. A refresh kills the token in other workers' hands, an address may be barred, a clock be wrong.
So a refusal of any generation but the newest says nothing, and one of the newest is answered with one forced refresh.
What is refused after that needs a person; nothing is revoked.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from identity import audit
from identity.accounts.consent_ledger import lock_grant
from identity.accounts.grants import get_grant
from identity.accounts.states import get_account, park
from identity.audit import AsWhom
from identity.model import ReconnectCause


def infer_death(connection: Connection, account: str, *, generation: int, audit_id: str, now: datetime) -> bool:
    """Have a person reconnect it; False if *generation* is not its newest, or the account is not active any more.

    The account's lock is taken exclusively: a refresh that commits meanwhile must not be answered with this.
    """
    found = get_account(connection, account)
    lock_grant(connection, found.key)
    grant = get_grant(connection, account)
    if grant is None or grant.generation != generation:
        return False
    reason = "the provider's API refused a freshly renewed token"
    if not park(connection, account, reason, cause=ReconnectCause.REFUSED, now=now):
        return False  # revoked or suspended meanwhile
    audit.record(
        connection,
        "grant.refused",
        AsWhom.of_account(found.key, id=account, generation=generation),
        id=audit_id,
        at=now,
        outcome="refused",
        reason=reason,
        detail={"provider": found.provider},
    )
    return True

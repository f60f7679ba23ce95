"""Inferred death: a provider's API still refuses an account after a forced refresh of its token.

A 401 is not a revocation: a refresh kills tokens that other workers hold, an address may be barred, a clock may be
wrong. So a refusal of an older generation is ignored, and one of the newest leads to one forced refresh. A refusal
after that needs a person; nothing is revoked.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from identity import audit
from identity.accounts.grants import get_grant, lock_grant
from identity.accounts.states import get_account, park
from identity.audit import AsWhom
from identity.model import ReconnectCause


def infer_death(connection: Connection, account: str, *, generation: int, audit_id: str, now: datetime) -> bool:
    """Require a person to reconnect; False if *generation* is not the newest, or the account is not active any more.

    Takes the account's lock exclusively, so that no refresh commits between the check of the generation and the move.
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

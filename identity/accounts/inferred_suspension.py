"""Inferred suspension: an API reports an installation as suspended before, or without, the provider's signal.

Only an installation's account can be suspended this way: GitHub signals the end of no other suspension, so a person's
would never end. A signal about the suspension that arrived during the call is newer than its answer.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection

from identity import audit
from identity.accounts.grants import get_grant, lock_grant
from identity.accounts.states import get_account, move_account
from identity.audit import AsWhom
from identity.model import AccountState, Credential

#: The provider's clock, in whole seconds, may be behind ours by this much.
SLACK = timedelta(minutes=1)


def infer_suspension(
    connection: Connection, account: str, *, generation: int, sent_at: datetime, audit_id: str, now: datetime
) -> bool:
    """Suspend the account until the provider ends it; True if its steps are held back now.

    False if the answer concerned another generation's token, is older than what is known, or the account is a person's.
    """
    found = get_account(connection, account)
    if found.credential is not Credential.INSTALLATION:
        return False
    lock_grant(connection, found.key)
    found, grant = get_account(connection, account), get_grant(connection, account)
    if found.state is not AccountState.ACTIVE:
        return True  # its signal came first, or something more final
    if grant is None or grant.generation != generation:
        return False
    if found.suspension_said_at is not None and found.suspension_said_at > sent_at - SLACK:
        return False
    reason = "the provider's API answers that the app's installation is suspended"
    move_account(connection, account, to=AccountState.SUSPENDED, reason=reason, now=now)
    audit.record(
        connection,
        "account.suspend",
        AsWhom.of_account(found.key, id=account, generation=generation),
        id=audit_id,
        at=now,
        outcome="suspended",
        reason=reason,
        detail={"provider": found.provider, "source": "answer"},
    )
    return True

"""A suspension inferred: an API answers that it holds an installation back, and its signal is late, or was lost.

Only an installation's account is suspended by it: GitHub's signals speak of no other, so nothing would ever end it for
a person's. What was said of the suspension while the call was out is newer than the answer.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection

from identity import audit
from identity.accounts.consent_ledger import lock_grant
from identity.accounts.grants import get_grant
from identity.accounts.states import get_account, move_account
from identity.audit import AsWhom
from identity.model import AccountState, Credential

#: By so much the provider's clock, in whole seconds, may be behind ours.
SLACK = timedelta(minutes=1)


def infer_suspension(
    connection: Connection, account: str, *, generation: int, sent_at: datetime, audit_id: str, now: datetime
) -> bool:
    """Suspend it until the provider says otherwise; whether its steps are held back now.

    False: the answer was to another generation's token or is older than what is known, or its account is a person's.
    """
    found = get_account(connection, account)
    if found.credential is not Credential.INSTALLATION:
        return False
    lock_grant(connection, found.key)
    found, grant = get_account(connection, account), get_grant(connection, account)
    if found.state is not AccountState.ACTIVE:
        return True  # its signal was first, or something that ends more
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

"""What a person does about revocations that were declared: each change with its audit row."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from identity.withdrawals import ask_again
from pipeline.desk.changes import record
from pipeline.ledger import queries


def retry(connection: Connection, id: str, *, audit_id: str, by: str, now: datetime) -> int:
    """Have the provider asked again for what is stuck of a revocation. How many credentials; 0: nothing is stuck.

    Raises BadInput if there is no such revocation.
    """
    row = queries.revocation(connection, id)
    again = ask_again(connection, id, now=now)
    if again:
        told = {"revocation": id, "credentials": again}
        record(connection, "revocation.retried", row["tenant_id"], told, audit_id=audit_id, by=by, now=now)
    return again

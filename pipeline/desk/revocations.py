"""Operator actions on revocations, each with its audit row."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, select

from identity.audit import Act
from identity.errors import BadInput
from identity.model import Scope
from identity.sql.sequence import lock_exclusive
from identity.withdrawals.stuck_leftovers import ask_leftover_again, give_up_leftover, tenant_of_leftover
from identity.withdrawals.withdrawal import ask_again
from pipeline.desk.changes import record_change
from pipeline.revocation import declaration
from pipeline.revocation.receipt import outdate
from pipeline.revocation.tables import revocations
from pipeline.views import operator_queries

_TWICE = timedelta(minutes=1)  # the same form sent again within this time is the same act


def revoke_once(
    connection: Connection, scope: Scope, cause: declaration.Cause, *, id: str, tenant: str | None, now: datetime
) -> bool:
    """Revoke, unless this id was just used: a form sent twice revokes once. True if it revoked.

    Raises BadInput if the id belongs to a revocation of something else, or to an old one: the sender then means the
    present state.
    """
    lock_exclusive(connection, scope)  # before the look: a concurrent request with the same id has written by then
    found = connection.execute(
        select(revocations.c.kind, revocations.c.key, revocations.c.effective_at).where(revocations.c.id == id)
    ).one_or_none()
    if found is None:
        declaration.declare(connection, scope, cause, id=id, tenant=tenant, now=now)
        return True
    if (found.kind, found.key) != (scope.kind, scope.key):
        raise BadInput(f"revocation {id} is of {found.kind} {found.key}: look again at what you mean to revoke")
    if now - found.effective_at > _TWICE:
        at = f"{found.effective_at:%Y-%m-%d %H:%M} UTC"
        raise BadInput(f"nothing is revoked now: this form was sent at {at}, open it again to revoke anew")
    return False


def retry(connection: Connection, id: str, act: Act) -> int:
    """Have the provider asked again for the stuck credentials of a revocation, or of a refused connect.

    Returns how many; 0: nothing is stuck. Raises BadInput if there is no such revocation.
    """
    if (whose := tenant_of_leftover(connection, id)) is not None:
        again = ask_leftover_again(connection, id, now=act.now)
        if again:
            record_change(connection, "connect.retried", whose, {"withdrawal": id}, act)
        return again
    row = operator_queries.any_revocation(connection, id)
    again = ask_again(connection, id, now=act.now)
    if again:
        outdate(connection, [id])  # the receipt is then reissued even if the process that asks dies before it reports
        detail = {"revocation": id, "credentials": again}
        record_change(connection, "revocation.retried", row["tenant_id"], detail, act)
    return again


def give_up(connection: Connection, id: str, act: Act) -> int:
    """Stop asking for what a refused connect had won, and shred it. 0: it is not stuck.

    Raises BadInput if there is no such refused connect.
    """
    if (whose := tenant_of_leftover(connection, id)) is None:
        raise BadInput(f"no refused connect had won {id}: `aswhom revocations list --stuck` names what is stuck")
    ended = give_up_leftover(connection, id, now=act.now)
    if ended:
        record_change(connection, "connect.given_up", whose, {"withdrawal": id}, act)
    return ended

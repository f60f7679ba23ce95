"""Who asked for a job: never the one who approves it, under whatever name.

A job knows whom USER means, and who sent its event, or had it accepted anew, only as they are named there. So every
principal with an alias of such a name counts, at whichever provider, linked before or since: rather one person too many
than the requester.
"""

from __future__ import annotations

from sqlalchemy import Connection, func, or_, select

from identity.tables import aliases, principals
from pipeline.tables import jobs


def requesters(connection: Connection, job: str) -> frozenset[str]:
    """The principals that may have asked for *job*, or its agent has the name of."""
    asked = (jobs.c.triggered_by, jobs.c.triggered_login, jobs.c.replayed_by)
    columns = (jobs.c.tenant_id, jobs.c.user_id, jobs.c.agent_id, *asked)
    row = connection.execute(select(*columns).where(jobs.c.id == job)).one()
    said = [one for one in (row.triggered_by, row.triggered_login, *(row.replayed_by or ()), row.agent_id) if one]
    # As the sender names them, or behind the sender's own name: `github:1001`.
    words = {word.lower() for one in said for word in (one, one.partition(":")[2]) if word}
    named = select(principals.c.id).where(
        principals.c.tenant_id == row.tenant_id,
        or_(func.lower(principals.c.id).in_(words), func.lower(principals.c.name).in_(words)),
    )
    linked = select(aliases.c.principal_id).where(
        aliases.c.tenant_id == row.tenant_id,
        or_(func.lower(aliases.c.external_id).in_(words), func.lower(aliases.c.login).in_(words)),
    )
    found = set(connection.execute(named).scalars()) | set(connection.execute(linked).scalars())
    return frozenset(found | ({row.user_id} if row.user_id else set()))

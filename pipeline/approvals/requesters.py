"""Requesters of a job: nobody approves a job they asked for, under any name.

A job knows the user, the sender of its event, who replayed it, and who made or holds the API key that requested it, but
only as they are named there. Every principal with an alias of that name therefore counts, at any provider, linked
before or since: excluding one person too many is safer than missing the requester. Names are compared here because a
database's lower() may know only ASCII.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from unicodedata import normalize

from sqlalchemy import Connection, select

from identity.agents.api_keys import holder_of
from identity.tables import aliases, principals
from pipeline.authoring.tool_workflows import is_of_a_tool
from pipeline.operators import key_of_operator
from pipeline.tables import jobs

_ONE_I = {ord("\N{COMBINING DOT ABOVE}"): None, ord("\N{LATIN SMALL LETTER DOTLESS I}"): "i"}


def requesters(connection: Connection, job: str, among: Collection[str]) -> frozenset[str]:
    """Return the principals *among* that may have asked for *job*, or share the name of its agent."""
    asked = (jobs.c.triggered_by, jobs.c.triggered_login, jobs.c.replayed_by)
    columns = (jobs.c.tenant_id, jobs.c.user_id, jobs.c.agent_id, *asked)
    row = connection.execute(select(*columns).where(jobs.c.id == job)).one()
    said = [one for one in (row.triggered_by, row.triggered_login, *(row.replayed_by or ()), row.agent_id) if one]
    words = {_folded(word) for one in said for word in _without_prefixes(one)}
    known = [*_named(connection, row.tenant_id, among), *_linked(connection, row.tenant_id, among)]
    found = {principal for principal, names in known if any(_folded(name) in words for name in names if name)}
    return frozenset(found | ({row.user_id} & set(among)))


def unheld_key(connection: Connection, job: str) -> str | None:
    """Return an API key without a stated holder that requested or replayed *job*; None: there is none.

    Nobody knows who is behind such a key.
    """
    columns = (jobs.c.workflow, jobs.c.event, jobs.c.replayed_by)
    row = connection.execute(select(*columns).where(jobs.c.id == job)).one()
    keys = [key for by in row.replayed_by or () if (key := key_of_operator(by)) is not None]
    if is_of_a_tool(row.workflow) and row.event.get("held_by") is None:  # outlives the key
        keys.append(str(row.event["requested_by"]))
    return next((key for key in keys if holder_of(connection, key) is None), None)


def _without_prefixes(name: str) -> Iterator[str]:
    """Yield a name with and without the prefixes of its senders: `github:1001`, and `console:cli:ada` of a link."""
    while name:
        yield name
        _, _, name = name.partition(":")


def _named(connection: Connection, tenant: str, among: Collection[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the names of principals here."""
    theirs = (principals.c.tenant_id == tenant, principals.c.id.in_(among))
    for row in connection.execute(select(principals.c.id, principals.c.name).where(*theirs)):
        yield row.id, (row.id, row.name)


def _linked(connection: Connection, tenant: str, among: Collection[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the names of principals at providers."""
    columns = (aliases.c.principal_id, aliases.c.external_id, aliases.c.login)
    theirs = (aliases.c.tenant_id == tenant, aliases.c.principal_id.in_(among))
    for row in connection.execute(select(*columns).where(*theirs)):
        yield row.principal_id, (row.external_id, row.login)


def _folded(name: str) -> str:
    """Return one spelling for all variants of a name in case, and in composed or separate accents.

    Turkish has a dotless i, and capitals of both: here all four are one letter.
    """
    return normalize("NFKC", normalize("NFKD", name).casefold().translate(_ONE_I))

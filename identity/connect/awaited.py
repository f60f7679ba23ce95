"""The account at the provider that a connect expects: the one that consented before, or one an admin named.

It is never identified by an e-mail address or a name, which people can change.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select

from identity.accounts.states import find_account
from identity.model import AccountKey
from identity.principals import BY_ADMIN
from identity.tables import aliases


@dataclass(frozen=True, kw_only=True)
class Awaited:
    """Acceptable ids at the provider, and a login for people to read."""

    ids: frozenset[str]
    login: str | None

    def __str__(self) -> str:
        return self.login or ", ".join(sorted(self.ids))


def awaited_at(connection: Connection, key: AccountKey, people: str) -> Awaited | None:
    """Return who is expected when *key* connects, by the aliases of *people*; None if anybody may.

    Only aliases by an admin count. One that a connect made through another connection says nothing about this one:
    GitHub Enterprise numbers its users separately.
    """
    account = find_account(connection, key)
    if account is not None and account.external_id is not None:
        return Awaited(ids=frozenset({account.external_id}), login=account.external_login)
    said = select(aliases.c.external_id, aliases.c.login).where(
        aliases.c.tenant_id == key.tenant,
        aliases.c.provider == people,
        aliases.c.principal_id == key.principal,
        aliases.c.made_by.startswith(BY_ADMIN),
    )
    rows = connection.execute(said.order_by(aliases.c.created_at)).all()
    if not rows:
        return None
    return Awaited(ids=frozenset(row.external_id for row in rows), login=rows[0].login)

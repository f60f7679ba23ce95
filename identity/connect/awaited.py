"""Which account at the provider a connect must come back with: the one that consented before, or what an admin said.

Never an e-mail address or a name: those are what people can change.
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
    """The provider's ids, any of which will do, and a login for people to read."""

    ids: frozenset[str]
    login: str | None

    def __str__(self) -> str:
        return self.login or ", ".join(sorted(self.ids))


def awaited_at(connection: Connection, key: AccountKey, people: str) -> Awaited | None:
    """Who is awaited when *key* connects, by aliases of *people*; None: whoever comes first.

    An alias that a connect made through another connection of that provider says nothing about this one: GitHub
    Enterprise numbers its users by itself.
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

"""The tenants whose rows a reader may see. Every list takes them, so that a forgotten tenant shows nothing."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Table, true


@dataclass(frozen=True)
class Tenants:
    """The tenants among whose rows a reader may look. With `ids` None, every tenant's and the platform's."""

    ids: frozenset[str] | None

    @classmethod
    def of(cls, *ids: str) -> Tenants:
        return cls(frozenset(ids))

    def among(self, table: Table) -> ColumnElement[bool]:
        """Return the condition that a row of *table* is of these tenants."""
        return true() if self.ids is None else table.c.tenant_id.in_(sorted(self.ids))


#: For operators only: a test of the house keeps it out of the web.
EVERY_TENANT = Tenants(None)

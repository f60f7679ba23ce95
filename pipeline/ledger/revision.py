"""The revision of the ledger's tables, compared with this version's. Alembic is used only for upgrades."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from identity.sql.store import Store

_VERSIONS = Path(__file__).parents[1] / "migrations" / "versions"


def revision_of(store: Store) -> str | None:
    """Return the ledger's revision; None: it has no tables."""
    return store.read(revision_in)


def newest() -> str:
    """Return this version's revision."""
    return max(_known())


def misfit(revision: str | None) -> str | None:
    """Return what to say of a ledger at *revision* if its tables are not this version's, or None."""
    if revision == newest():
        return None
    at = f"at revision {revision}" if revision else "without tables"
    return of_a_newer_version(revision) or (
        f"the ledger is {at}, and this version needs {newest()}: run `aswhom db upgrade`"
    )


def of_a_newer_version(revision: str | None) -> str | None:
    """Return what to say of a ledger at *revision* if this version does not know it, or None."""
    if revision is None or revision in _known():
        return None
    return f"the ledger is at revision {revision}, of a newer Aswhom: install that version, or restore a backup"


def revision_in(connection: Connection) -> str | None:
    """Return the revision as `revision_of`, in a transaction of the caller."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.execute(text("select version_num from alembic_version")).scalar()
    return revision


@cache
def _known() -> frozenset[str]:
    """Return the known revisions, which start the names of the migrations' files."""
    return frozenset(path.name.partition("_")[0] for path in _VERSIONS.glob("[0-9]*.py"))

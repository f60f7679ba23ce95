"""Proof that a host's vault keys are the ledger's: a recreated key file has other keys under the same ids.

Values sealed by wrong keys open nowhere else, so none must be written. New keys do not replace missing ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from sqlalchemy import ColumnElement, Connection, LargeBinary, func, inspect, select

from identity.audit.links import last_seq
from identity.audit.tables import audit_seals
from identity.capability.tables import keys as capability_keys
from identity.errors import KeyMissing, Misconfigured, Unavailable
from identity.keys.vault import HEAD, Vault, key_of
from identity.sealed.rewrap import SEALED, Field
from identity.sql.store import Store
from identity.tables import connection_secrets, grants

#: Columns whose values stay sealed while in use. The others are soon emptied, and searching them would take long.
KEPT = tuple(field for field in SEALED if field.table in (grants, connection_secrets, capability_keys))
LOOKED_THROUGH = 10_000  # of each column, at process start: no index tells which key sealed a row
_TRIED = 3  # of each column: one altered value does not prove a wrong key


def proves(store: Store, vault: Vault) -> bool:
    """True if the ledger holds something that the vault's newest key sealed; False if the ledger is unavailable.

    Raises Misconfigured if one of the vault's keys is not the ledger's key of that id.
    """
    try:
        return store.read(partial(prove, vault=vault))
    except Unavailable:  # nothing can be sealed into it either, and a wrong key has opened nothing yet
        return False


def prove(connection: Connection, vault: Vault, *, among: int | None = None, fields: Sequence[Field] = KEPT) -> bool:
    """True if the ledger holds something that the newest key sealed, and it opens.

    Raises Misconfigured as `proves` does. *among* limits the search to that many of each column's oldest rows, unless
    none of the vault's keys sealed any of them. *fields* are the columns to search, where the tables are of another
    version (`kept_there`).

    Raises KeyMissing if every value found was sealed by keys that the vault lacks, as in a ledger from before its
    oldest key was retired.
    """
    proven: dict[int, bool] = {}
    for id, head in vault.heads().items():
        oldest = [value for field in fields for value in _oldest(connection, field, head, among)]
        if oldest and not any(vault.wraps(value) for value in oldest):
            raise Misconfigured(
                f"vault key {id} is not the ledger's: it opens none of the secrets that the ledger's key {id} sealed, "
                "and what it seals would open nowhere else. Stop, and copy the file of the vault's keys (keys/vault) "
                "from a host that has the right one, or from the backup"
            )
        proven[id] = bool(oldest)
    if not any(proven.values()) and among is not None:
        return prove(connection, vault, fields=fields)
    if not any(proven.values()) and (others := _sealed_by(connection, fields)):
        known, lacking = (", ".join(map(str, sorted(ids))) for ids in (proven, others))
        raise KeyMissing(
            f"vault key {lacking} sealed the ledger's secrets, and here is only {known}, which opens none of them. "
            "A key that was retired lies in keys/vault.retired, beside the file of the vault's keys (keys/vault): put "
            "its line back into that, or copy that file from a host that has the key, or from the backup. "
            "`aswhom keys rewrap` then moves all under the newest key"
        )
    return proven[max(proven)]


def _oldest(connection: Connection, field: Field, head: bytes, among: int | None) -> Iterator[bytes]:
    """Search the oldest rows, since a host with wrong keys comes later."""
    value: ColumnElement[bytes] = field.column
    key: ColumnElement[str] = field.key
    if among is not None:
        some = select(value, key).order_by(key).limit(among).subquery()
        value, key = some.c[value.name], some.c[key.name]
    wrapped = func.substr(value, 1, HEAD, type_=LargeBinary) == head
    found = select(value).where(wrapped).order_by(key).limit(_TRIED)
    return (bytes(value) for value in connection.execute(found).scalars())


def _sealed_by(connection: Connection, fields: Sequence[Field]) -> list[int]:
    """Return the ids of the keys that sealed the first few values."""
    found = (
        connection.execute(select(field.column).where(field.column.is_not(None)).limit(_TRIED)).scalars()
        for field in fields
    )
    return sorted({key_of(bytes(value)) for values in found for value in values})


def kept_there(connection: Connection) -> tuple[Field, ...]:
    """Return the kept columns that the ledger has, at whatever version its tables are."""
    ledger = inspect(connection)
    tables = set(ledger.get_table_names())

    def has(field: Field) -> bool:
        name = field.table.name
        return name in tables and field.name in {column["name"] for column in ledger.get_columns(name)}

    return tuple(filter(has, KEPT))


def held(connection: Connection) -> tuple[int, int]:
    """Return how many kept secrets and how many chain links the ledger has, at whatever version its tables are."""
    counts = [select(func.count(field.column)) for field in kept_there(connection)]
    secrets = sum(connection.execute(count).scalar_one() for count in counts)
    return secrets, last_seq(connection) if inspect(connection).has_table(audit_seals.name) else 0

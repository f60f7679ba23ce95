"""Whether the ledger sequence is ahead of the rows that were numbered by it.

Behind them, a revocation is numbered as if it had come before what it is to end, and ends nothing. A database's tools
bring it there: logical replication and many a migration service carry rows and no sequence.
"""

from __future__ import annotations

import logging

from sqlalchemy import Connection, case, column, func, select, table, text

from identity.audit.tables import audit
from identity.sql.sequence import NUMBERS
from identity.tables import ledger_numbers, scopes
from pipeline.tables import attempts, jobs

log = logging.getLogger(__name__)

# Each an index's end. What else is numbered has its record in the audit; a job's acceptance has none.
_ENDS = (
    select(func.max(audit.c.number)).scalar_subquery(),
    select(func.max(attempts.c.closed)).scalar_subquery(),
)
# Besides, a row for each scope that was ever revoked and each unfinished job.
_NUMBERED = (
    *_ENDS,
    select(func.max(scopes.c.revoked)).scalar_subquery(),
    select(func.max(jobs.c.accepted)).where(jobs.c.finished_at.is_(None)).scalar_subquery(),
)
# Not `pg_sequence_last_value`: it knows none after RESTART WITH or setval(…, false), by which many put one right.
_ROW = table(NUMBERS.name, column("last_value"), column("is_called"))
_LAST_OF_SEQUENCE = select(case((_ROW.c.is_called, _ROW.c.last_value), else_=_ROW.c.last_value - 1))
_MAY_LOOK = text(f"select has_sequence_privilege('{NUMBERS.name}', 'SELECT')")
_LAST_OF_ROW = select(ledger_numbers.c.value)
_SET_SEQUENCE = f"select setval('{NUMBERS.name}', {{}})"
_SET_ROW = "update ledger_numbers set value = {}"


def newest(connection: Connection, *, quickly: bool = False) -> int:
    """The greatest number that a row has; *quickly*: of those that are found at the ends of indexes."""
    numbered = select(*(_ENDS if quickly else _NUMBERED))
    return max((number for number in connection.execute(numbered).one() if number is not None), default=0)


def behind(connection: Connection, *, quickly: bool = False) -> str | None:
    """What is to be said of a ledger whose sequence is behind its rows, and done about it; else None.

    *quickly*: among very many unfinished jobs too. Then it is not seen where nothing but those was numbered beyond it.
    """
    on_postgresql = connection.dialect.name == "postgresql"
    # Before the sequence: it may go on between the two, and must not seem to be behind by that.
    numbered = newest(connection, quickly=quickly)
    last = last_given(connection)
    if last is None:
        log.warning(
            "this role may not look at %s, so nobody knows whether it is behind the rows: grant select on it",
            NUMBERS.name,
            extra={"action": "ledger.numbers_unseen"},
        )
        return None
    if last >= numbered:
        return None
    mend = (_SET_SEQUENCE if on_postgresql else _SET_ROW).format(numbered)
    return (
        f"the ledger's numbers are at {last}, and its rows have them up to {numbered}: a revocation would count as "
        f"made before what it is to end, and end nothing. With every process stopped, run `{mend}` on its database; if "
        "processes have run since it was restored or moved, withdraw anew what was revoked meanwhile. Where it was put "
        "back from a backup, `aswhom db restored` does that, and more (docs/operations.md)"
    )


def last_given(connection: Connection) -> int | None:
    """The last number that the ledger gave; None: its role may not look at the sequence."""
    if connection.dialect.name != "postgresql":
        return int(connection.execute(_LAST_OF_ROW).scalar_one())
    if not connection.execute(_MAY_LOOK).scalar_one():
        return None
    return int(connection.execute(_LAST_OF_SEQUENCE).scalar_one())

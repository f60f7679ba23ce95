"""Detects a ledger sequence that is behind the rows numbered by it.

A revocation would then be numbered as older than what it is to end, and end nothing. Database tools cause this: logical
replication and many migration services copy rows but not sequences.
"""

from __future__ import annotations

import logging

from sqlalchemy import Connection, case, cast, column, func, literal, select, table, text, update
from sqlalchemy.dialects.postgresql import REGCLASS

from identity.audit.tables import audit
from identity.sql.metadata import ledger_numbers
from identity.sql.sequence import NUMBERS
from identity.tables import scopes
from pipeline.tables import attempts, jobs

log = logging.getLogger(__name__)

# Each the end of an index. Everything else that is numbered has an audit record, except a job's acceptance.
_ENDS = (
    select(func.max(audit.c.number)).scalar_subquery(),
    select(func.max(attempts.c.closed)).scalar_subquery(),
)
# These also read one row per scope ever revoked, and per unfinished job.
_NUMBERED = (
    *_ENDS,
    select(func.max(scopes.c.revoked)).scalar_subquery(),
    select(func.max(jobs.c.accepted)).where(jobs.c.finished_at.is_(None)).scalar_subquery(),
)
# Not `pg_sequence_last_value`: it is NULL after RESTART WITH or setval(…, false), which many use for repair.
_ROW = table(NUMBERS.name, column("last_value"), column("is_called"))
_LAST_OF_SEQUENCE = select(case((_ROW.c.is_called, _ROW.c.last_value), else_=_ROW.c.last_value - 1))
_MAY_LOOK = text(f"select has_sequence_privilege('{NUMBERS.name}', 'SELECT')")
_LAST_OF_ROW = select(ledger_numbers.c.value)
_SEQUENCE = cast(literal(NUMBERS.name), REGCLASS)
_SET_SEQUENCE = f"select setval('{NUMBERS.name}', {{}})"
_SET_ROW = "update ledger_numbers set value = {}"


def newest(connection: Connection, *, quickly: bool = False) -> int:
    """Return the greatest number of any row; *quickly*: only of those at the ends of indexes."""
    numbered = select(*(_ENDS if quickly else _NUMBERED))
    return max((number for number in connection.execute(numbered).one() if number is not None), default=0)


def behind(connection: Connection, *, quickly: bool = False) -> str | None:
    """Return what is wrong and what to do if the ledger's sequence is behind its rows, or None.

    *quickly*: cheap even with very many unfinished jobs, but misses a sequence that only these are ahead of.
    """
    on_postgresql = connection.dialect.name == "postgresql"
    # Read before the sequence, which may advance meanwhile and must not seem to be behind because of that.
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
    """Return the last number the ledger gave; None: the role may not read the sequence."""
    if connection.dialect.name != "postgresql":
        return int(connection.execute(_LAST_OF_ROW).scalar_one())
    if not connection.execute(_MAY_LOOK).scalar_one():
        return None
    return int(connection.execute(_LAST_OF_SEQUENCE).scalar_one())


def move_numbers(connection: Connection, *, to: int) -> None:
    """Make *to*, which is positive, the last number given. No process may run on the ledger."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.setval(_SEQUENCE, to)))
    else:
        connection.execute(update(ledger_numbers).values(value=to))

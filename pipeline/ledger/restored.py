"""A ledger that was put back from a backup, or lost its newest commits, is marked as such before any process starts.

In one transaction: it is held, no ledger number is given twice, nothing that a schedule has fired since is fired again,
and the audit says that, by whom, and where the chain ended before.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, cast, func, literal, select, update
from sqlalchemy.dialects.postgresql import REGCLASS

from identity import audit
from identity.audit import Act, AsWhom
from identity.audit.links import last_seq
from identity.audit.statements import Head
from identity.audit.tables import audit as audit_rows
from identity.errors import BadInput
from identity.hold import hold_anew
from identity.hold_tables import holds
from identity.sql.sequence import NUMBERS
from identity.tables import ledger_numbers
from pipeline.ledger.numbering import last_given, newest
from pipeline.schedules.changes import skip_missed

#: Beyond what the ledger and what was kept beside it show: more than was given out since the last of them was written.
GAP = 1_000_000_000
#: In the audit.
MARKED = "ledger.restored"
_SEQUENCE = cast(literal(NUMBERS.name), REGCLASS)


@dataclass(frozen=True, kw_only=True)
class Restored:
    """What was done."""

    last: int  # the last ledger number that a row has in what was put back
    after: int  # the next number is greater
    ends_at: int  # the last link of the audit's chain in what was put back
    schedules: tuple[str, ...]  # whose missed slots are left out


@dataclass(frozen=True, kw_only=True)
class Mark:
    """The act that marked a ledger as put back."""

    id: str  # no other copy of the ledger has it
    after: int  # what the ledger has numbered since is greater


def mark_restored(connection: Connection, act: Act, *, seen: int, lost: Head | None, fire_missed: bool) -> Restored:
    """Mark it. *seen* is the greatest ledger number that exports show, *lost* the head of the chain that is gone.

    Raises BadInput if that chain was no longer than this one is.
    """
    ends_at = last_seq(connection)
    if lost is not None and lost.seq <= ends_at:
        raise BadInput(
            f"the checkpoint is of link {lost.seq}, and this ledger's chain goes to {ends_at}: it says nothing of what "
            "was lost. Give the newest one, or none"
        )
    # What was put back, the rows say alone: a sequence is of no snapshot, so that a dump or a standby has it ahead of
    # them. It may be behind them too: a dump that broke off, or a replica without sequences, puts none back.
    last = newest(connection)
    after = max(last, last_given(connection) or 0, seen) + GAP
    _move_numbers(connection, to=after)
    was_held = hold_anew(connection, act)
    left_out = () if fire_missed else tuple(skip_missed(connection, now=act.now))
    detail = {
        "last_number": last,
        "numbers_after": after,
        "chain_ends_at": ends_at,
        "lost": None if lost is None else lost.document() | {"signature": lost.signature},
        "schedules": len(left_out),
        "missed": "fired" if fire_missed else "left out",
        "held_before": None if was_held is None else was_held.sentence,
    }
    audit.record_act(connection, MARKED, AsWhom(tenant=None), act, outcome="held", detail=detail)
    return Restored(last=last, after=after, ends_at=ends_at, schedules=left_out)


def is_of_restore(connection: Connection) -> bool:
    """Whether the hold that stands came with the mark of a restore, not by somebody's wish."""
    marked = select(audit_rows.c.id).where(
        audit_rows.c.tenant_id == "", audit_rows.c.kind == MARKED, audit_rows.c.at == holds.c.since
    )
    return connection.execute(select(holds.c.id).where(marked.exists())).first() is not None


def marks(connection: Connection) -> list[Mark]:
    """The marks of each time that the ledger was put back, the newest first; none: as far as its audit remembers."""
    found = select(audit_rows.c.id, audit_rows.c.detail).where(
        audit_rows.c.tenant_id == "", audit_rows.c.kind == MARKED
    )
    rows = connection.execute(found.order_by(audit_rows.c.number.desc()))
    return [Mark(id=row.id, after=int(row.detail["numbers_after"])) for row in rows]


def _move_numbers(connection: Connection, *, to: int) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.setval(_SEQUENCE, to)))
    else:
        connection.execute(update(ledger_numbers).values(value=to))

"""Marking of a ledger that was restored from a backup or lost its newest commits.

Runs before any process starts. In one transaction the ledger is held, no ledger number is given twice, no slot already
fired fires again, and the audit records who did this and where the chain ended before.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select

from identity import audit
from identity.audit import Act, AsWhom
from identity.audit.links import last_seq
from identity.audit.statements import Head
from identity.audit.tables import audit as audit_rows
from identity.errors import BadInput
from identity.hold import find_hold, hold_anew, last_release
from pipeline.ledger.numbering import last_given, move_numbers, newest
from pipeline.schedules.changes import skip_missed

#: Margin beyond the numbers that the ledger and its exports show: more than was given out since the last export.
GAP = 1_000_000_000
#: The kind of the audit record.
MARKED = "ledger.restored"


@dataclass(frozen=True, kw_only=True)
class Restored:
    """The result of marking a ledger."""

    last: int  # the last ledger number of any row in the restored ledger
    after: int  # the next number is greater
    ends_at: int  # the last link of the audit's chain in the restored ledger
    schedules: tuple[str, ...]  # those whose missed slots are left out


@dataclass(frozen=True, kw_only=True)
class Mark:
    """The act that marked a ledger as restored."""

    id: str  # no other copy of the ledger has it
    after: int  # what the ledger has numbered since is greater


def mark_restored(connection: Connection, act: Act, *, seen: int, lost: Head | None, fire_missed: bool) -> Restored:
    """Mark it. *seen*: the greatest ledger number in exports. *lost*: the head of the chain that is gone.

    Raises BadInput if that chain was not longer than this one.
    """
    ends_at = last_seq(connection)
    if lost is not None and lost.seq <= ends_at:
        raise BadInput(
            f"the checkpoint is of link {lost.seq}, and this ledger's chain goes to {ends_at}: it says nothing of what "
            "was lost. Give the newest one, or none"
        )
    # Only the rows tell what was restored. A sequence is not part of a snapshot: in a dump or a standby it is ahead of
    # them. It may also be behind them, after an incomplete dump or a replica without sequences.
    last = newest(connection)
    after = max(last, last_given(connection) or 0, seen) + GAP
    move_numbers(connection, to=after)
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
    """True if the ledger is held, and no hold was released since it was marked as restored.

    The reason of the present hold may be another: a rehearsal may move a restored ledger to another database.
    """
    found = marks(connection)
    if not found or find_hold(connection) is None:
        return False
    return last_release(connection, after=found[0].after) is None


def marks(connection: Connection) -> list[Mark]:
    """Return the marks of all restores the audit still has, newest first."""
    found = select(audit_rows.c.id, audit_rows.c.detail).where(
        audit_rows.c.tenant_id == "", audit_rows.c.kind == MARKED
    )
    rows = connection.execute(found.order_by(audit_rows.c.number.desc()))
    return [Mark(id=row.id, after=int(row.detail["numbers_after"])) for row in rows]

"""Whether the audit in the ledger is whole."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import Connection, func, select

from identity.audit.chain import FirstBad, Start, Verified, walk
from identity.audit.links import Progress, beginning, sealed_rows, unwatched
from identity.audit.sealer import first_never_sealed
from identity.audit.statements import Head
from identity.audit.tables import audit
from identity.trusted_keys import TrustedKeys


def verify(
    connection: Connection, keys: TrustedKeys, *, checkpoint: Head | None = None, progress: Progress = unwatched
) -> Verified | FirstBad:
    """Walk the whole chain with public keys alone. O(rows). *progress* hears of each thousand."""
    start = beginning(connection, keys)
    if isinstance(start, FirstBad):
        return start
    links = (link for link, _ in sealed_rows(connection, after=start.seq, progress=progress))
    outcome = walk(links, keys, start=start, checkpoint=checkpoint)
    if isinstance(outcome, FirstBad):
        # What was pruned between two reads is missing where the walk began: it is walked from where it begins now.
        anew = beginning(connection, keys) != start
        return verify(connection, keys, checkpoint=checkpoint, progress=progress) if anew else outcome
    last, newest = start.seq + outcome.count, keys.handovers[0] if keys.handovers else None
    if newest is not None and newest.seq > last:
        why = f"the chain was cut: when its key was rotated, at {newest.at}, it had {newest.seq} rows"
        return FirstBad(seq=last + 1, why=why, proven=last)
    return _beside(connection, start, outcome)


def _beside(connection: Connection, start: Start, found: Verified) -> Verified | FirstBad:
    """The rows that are not in the chain: those that wait for the sealer, and none that never will be in it."""
    total = connection.execute(select(func.count()).select_from(audit)).scalar_one()
    last = start.seq + found.count
    if total > found.count and (stray := first_never_sealed(connection)):
        why = f"the audit row {stray} was put in among those that are sealed"
        return FirstBad(seq=last + 1, why=why, proven=last)
    return replace(found, unsealed=max(total - found.count, 0))

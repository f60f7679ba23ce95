"""Whether the audit in the ledger is whole."""

from __future__ import annotations

from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Connection, func, select

from identity.audit_chain import FirstBad, Start, Verified, walk
from identity.audit_links import beginning, sealed_rows
from identity.audit_sealer import first_never_sealed
from identity.audit_statements import Head
from identity.audit_tables import audit


def verify(connection: Connection, key: Ed25519PublicKey, *, checkpoint: Head | None = None) -> Verified | FirstBad:
    """Walk the whole chain with the public key alone. O(rows)."""
    start = beginning(connection, key)
    if isinstance(start, FirstBad):
        return start
    links = (link for link, _ in sealed_rows(connection, after=start.seq))
    outcome = walk(links, key, start=start, checkpoint=checkpoint)
    if isinstance(outcome, FirstBad):
        return outcome
    return _beside(connection, start, outcome)


def _beside(connection: Connection, start: Start, found: Verified) -> Verified | FirstBad:
    """The rows that are not in the chain: those that wait for the sealer, and none that never will be in it."""
    total = connection.execute(select(func.count()).select_from(audit)).scalar_one()
    last = start.seq + found.count
    if total > found.count and (stray := first_never_sealed(connection)):
        why = f"the audit row {stray} was put in among those that are sealed"
        return FirstBad(seq=last + 1, why=why, proven=last)
    return replace(found, unsealed=max(total - found.count, 0))

"""Pruning of the audit: only sealed rows, only from the beginning, replaced by a signed statement."""

from __future__ import annotations

from datetime import datetime
from itertools import islice

from sqlalchemy import Connection, delete, insert, select

from identity.audit.chain import FirstBad, walk
from identity.audit.handovers import hold_signing, trusted_keys
from identity.audit.links import SealedRow, beginning, last_seq, sealed_rows
from identity.audit.sealer import BATCH
from identity.audit.statements import PRUNED, sign
from identity.audit.tables import audit, audit_prunings, audit_seals
from identity.errors import Misconfigured
from identity.keys.signing import Signer


def prune_audit(connection: Connection, *, before: datetime, limit: int, signer: Signer, now: datetime) -> int:
    """Delete rows at the chain's beginning that are all older than *before*; return how many.

    The deleted part ends at a signed link, and is walked first: altered rows stay, as evidence. The newest link stays
    too. *limit* is at least the sealer's batch, so that it contains a signed link.

    Raises Misconfigured if that part does not verify, or *signer* is no longer the installation's.
    """
    hold_signing(connection, signer)
    keys = trusted_keys(connection, signer.public_key())
    start = beginning(connection, keys)
    if isinstance(start, FirstBad):
        raise _kept(start)
    last = last_seq(connection)
    stretch = list(islice(sealed_rows(connection, after=start.seq), max(limit, BATCH)))
    old = _oldest(stretch, before=before, last=last)
    if not old:
        return 0
    held = walk((link for link, _ in old), keys, start=start)
    if isinstance(held, FirstBad):
        raise _kept(held)
    newest, _ = old[-1]
    end = sign(signer, seq=newest.seq, digest=newest.digest, at=now, says=PRUNED)
    stated = {"seq": end.seq, "digest": end.digest, "at": now, "signature": end.signature}
    connection.execute(insert(audit_prunings), stated)
    pruned = audit_seals.c.seq <= end.seq
    connection.execute(delete(audit).where(audit.c.id.in_(select(audit_seals.c.audit_id).where(pruned))))
    connection.execute(delete(audit_seals).where(pruned))
    connection.execute(delete(audit_prunings).where(audit_prunings.c.seq < end.seq))
    return len(old)


def _oldest(stretch: list[SealedRow], *, before: datetime, last: int) -> list[SealedRow]:
    """Return the rows at the beginning that are old enough, up to the last signed link among them."""
    end = 0
    for number, (link, row) in enumerate(stretch, start=1):
        if link.seq == last or (row is not None and row["at"] >= before):
            break
        if link.signed is not None:
            end = number
    return stretch[:end]


def _kept(bad: FirstBad) -> Misconfigured:
    return Misconfigured(f"the audit is not pruned, because its chain breaks at {bad.seq}: {bad.why}")

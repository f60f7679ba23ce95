"""Issuing the signed receipt of a revocation or narrowing (`pipeline.revocation.receipt_content`).

A receipt is issued once nothing of the revocation is in flight. What it calls pending or unknown may be settled later:
it is then issued again as the next revision, with everything else in the same words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, Row, select, update

from identity import audit
from identity.audit import AsWhom
from identity.audit.handovers import hold_signing
from identity.keys.signing import Signer, canonical
from identity.sql.columns import database_now
from pipeline.revocation.declaration import Stage
from pipeline.revocation.pages import counted
from pipeline.revocation.receipt_content import ReadProviderSide, Receipt, compose, count_open_ends
from pipeline.revocation.tables import revocations


@dataclass(frozen=True, kw_only=True)
class Draft:
    """The next revision of a receipt, composed and signed but not yet written."""

    of: Row[Any]
    open_ends: int
    signed: Receipt | None  # None: the stored receipt says the same
    signature: str = ""
    sha256: str = ""


def draft(row: Row[Any], said: Receipt, signer: Signer, *, now: datetime) -> Draft:
    """Return the next revision of the receipt of *row*. *said*: the result of `compose`."""
    open_ends = count_open_ends(said)
    if row.receipt is not None and _without_revision(row.receipt) == said:
        return Draft(of=row, open_ends=open_ends, signed=None)
    signed = {**said, "revision": row.revision + 1, "issued_at": now.isoformat()}
    signature, sha256 = signer.sign(signed), digest(signed)
    return Draft(of=row, open_ends=open_ends, signed=signed, signature=signature, sha256=sha256)


def issue(
    connection: Connection, row: Row[Any], signer: Signer, provider_side: ReadProviderSide, *, now: datetime
) -> None:
    """Write the receipt, or the next revision if there is more to say.

    The caller holds the revocation's row. Raises Misconfigured if *signer* is no longer the installation's.
    """
    hold_signing(connection, signer)
    _write(connection, draft(row, compose(connection, row, provider_side, now=now), signer, now=now), now=now)


def issue_next(connection: Connection, drafted: Draft, signer: Signer, *, now: datetime) -> bool:
    """Write a revision composed before this transaction.

    False: the receipt has changed since, or the revision is outdated. Raises Misconfigured if *signer* is no longer the
    installation's.
    """
    columns = revocations.c
    held = select(columns.revision, columns.open_ends).where(columns.id == drafted.of.id).with_for_update()
    if tuple(connection.execute(held).one()) != (drafted.of.revision, drafted.of.open_ends):
        return False
    hold_signing(connection, signer)  # after the row, as in `issue`: two lock orders could deadlock
    _write(connection, drafted, now=now)
    return True


def _write(connection: Connection, drafted: Draft, *, now: datetime) -> None:
    row, signed = drafted.of, drafted.signed
    if signed is None:
        if drafted.open_ends or row.open_ends:  # if it still has any, it is looked at again later
            looked = update(revocations).where(revocations.c.id == row.id)
            connection.execute(looked.values(moved_at=database_now(), open_ends=drafted.open_ends))
        return
    revision = signed["revision"]
    connection.execute(
        update(revocations)
        .where(revocations.c.id == row.id)
        .values(
            state=Stage.QUIESCED,
            quiesced_at=row.quiesced_at or now,
            moved_at=database_now(),
            receipt=signed,
            signature=drafted.signature,
            revision=revision,
            open_ends=drafted.open_ends,
            **counted(row.id),
        )
    )
    first = revision == 1
    audit.record(
        connection,
        "revocation.quiesced" if first else "revocation.receipt",
        AsWhom(tenant=row.tenant_id),
        id=audited_as(row.id, revision),
        at=now,
        outcome="quiesced",
        reason=row.reason,
        detail={
            "revocation": row.id,
            "revision": revision,
            "receipt_sha256": drafted.sha256,
            "cancelled_jobs": signed["cancelled_count"],
            "in_flight": len(signed["in_flight"]),
        },
    )


def outdate(connection: Connection, ids: Sequence[str]) -> None:
    """Mark receipts as outdated, because something they reported has changed: add an open end until they are reissued.

    This also outdates a revision that is being composed meanwhile.
    """
    issued = revocations.c.id.in_(ids) & (revocations.c.state == Stage.QUIESCED)
    connection.execute(update(revocations).where(issued).values(open_ends=revocations.c.open_ends + 1))


def digest(receipt: Receipt) -> str:
    """Return the digest that the audit keeps of a receipt, as it was signed."""
    return sha256(canonical(receipt)).hexdigest()


def audited_as(revocation: str, revision: int) -> str:
    """Return the id of this revision's audit row."""
    return f"{revocation}.quiesced" if revision == 1 else f"{revocation}.receipt.{revision}"


def _without_revision(receipt: Receipt) -> Receipt:
    """Return a receipt without the fields that differ in every revision."""
    return {key: value for key, value in receipt.items() if key not in ("revision", "issued_at")}

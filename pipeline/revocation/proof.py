"""Whether a receipt is to be believed: by its signature alone, or held against the ledger that keeps it as well."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, select

from identity.audit.tables import audit as audited
from identity.trusted_keys import TrustedKeys
from pipeline.revocation.receipt import FORMAT, Receipt, audited_as, digest
from pipeline.revocation.tables import revocations


def holds(keys: TrustedKeys, receipt: Receipt, signature: str) -> bool:
    """Whether the installation of these keys signed the receipt."""
    number = receipt.get("number")
    return (
        receipt.get("format") == FORMAT  # the same key signs other things too
        and isinstance(number, int)
        and keys.verifies(receipt, signature, number=number)
    )


def disproof(connection: Connection, keys: TrustedKeys, row: Mapping[str, Any]) -> str | None:
    """Why the receipt in a revocation's *row* is not to be believed; None: it is its newest, and the row says the same.

    The row itself is not signed, so whatever is told of it beside the receipt is held against that. Which receipt is
    the newest is in the audit, as long as that has not been pruned.
    """
    receipt = row["receipt"]
    if not holds(keys, receipt, row["signature"] or ""):
        return "the receipt was altered, or signed with another installation's key"
    said = {"revocation": row["id"], "scope": {"kind": row["kind"], "key": row["key"]}}
    said |= {name: row[name] for name in ("number", "source", "doubt", "requested_by", "reason")}
    said["signal"] = row["signal_id"]
    said |= {name: row[name] and row[name].isoformat() for name in ("effective_at", "quiesced_at")}
    if differs := [name for name, value in said.items() if receipt.get(name) != value]:
        return f"the receipt is another revocation's, or the ledger was altered: they differ in {', '.join(differs)}"
    revision = receipt["revision"]
    ids = [audited_as(row["id"], revision), audited_as(row["id"], revision + 1)]
    recorded = connection.execute(select(audited.c.id, audited.c.detail).where(audited.c.id.in_(ids)))
    told = {record.id: record.detail for record in recorded}
    stands = select(revocations.c.receipt).where(revocations.c.id == row["id"])
    # Else the next one was issued just now, after the row was read.
    if ids[1] in told and connection.execute(stands).scalar_one() == receipt:
        return f"the receipt is not the newest: the audit has revision {revision + 1}"
    if ids[0] in told and told[ids[0]]["receipt_sha256"] != digest(receipt):
        return "the receipt is not the one whose digest is in the audit"
    return None

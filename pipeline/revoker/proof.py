"""Verifying receipts: by the signature alone, or against the ledger that stores them as well."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from identity.audit.tables import audit as audited
from identity.keys.trusted_keys import TrustedKeys
from pipeline.revocation.pages import page_digest
from pipeline.revocation.receipt import audited_as, digest
from pipeline.revocation.receipt_content import FORMAT, Receipt
from pipeline.revocation.tables import revocations


def holds(keys: TrustedKeys, receipt: Receipt, signature: str) -> bool:
    """True if the installation with these keys signed the receipt."""
    number = receipt.get("number")
    return (
        receipt.get("format") == FORMAT  # the same key signs other documents as well
        and isinstance(number, int)
        and keys.verifies(receipt, signature, number=number)
    )


@dataclass(frozen=True, kw_only=True)
class OddPages:
    """Differences between the pages at hand and the digests on a receipt, by page number."""

    altered: tuple[int, ...] = ()  # or not listed on the receipt
    missing: tuple[int, ...] = ()
    repeated: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.altered or self.missing or self.repeated)

    def __str__(self) -> str:
        told = {"altered, or not on it": self.altered, "missing": self.missing, "there twice": self.repeated}
        return "; ".join(f"{', '.join(map(str, which))} {how}" for how, which in told.items() if which)


def odd_pages(receipt: Receipt, pages: Iterable[Mapping[str, Any]]) -> OddPages:
    """Compare *pages*, which must be all of them, with the digests on a verified receipt."""
    signed = {one["number"]: one["sha256"] for one in receipt["pages"]}
    there = [(page["number"], page_digest(page)) for page in pages]
    numbers = Counter(number for number, _ in there)
    return OddPages(
        altered=tuple(number for number, digest in there if signed.get(number) != digest),
        missing=tuple(number for number in signed if number not in numbers),
        repeated=tuple(number for number, times in numbers.items() if times > 1),
    )


def disproof(connection: Connection, keys: TrustedKeys, row: Mapping[str, Any]) -> str | None:
    """Return why the receipt in a revocation's *row* is not to be believed.

    None: it is the newest one, and the row agrees with it. The row itself is not signed, so each of its columns is
    compared with the receipt. Which receipt is the newest is in the audit, until that is pruned.
    """
    receipt = row["receipt"]
    if not holds(keys, receipt, row["signature"] or ""):
        return "the receipt was altered, or signed with another installation's key"
    said = {"revocation": row["id"], "scope": {"kind": row["kind"], "key": row["key"]}}
    said |= {name: row[name] for name in ("number", "source", "doubt", "requested_by", "reason", "narrowing")}
    said["signal"] = row["signal_id"]
    said |= {name: row[name] and row[name].isoformat() for name in ("effective_at", "quiesced_at")}
    if differs := [name for name, value in said.items() if receipt.get(name) != value]:
        return f"the receipt is another revocation's, or the ledger was altered: they differ in {', '.join(differs)}"
    revision = receipt["revision"]
    ids = [audited_as(row["id"], revision), audited_as(row["id"], revision + 1)]
    recorded = connection.execute(select(audited.c.id, audited.c.detail).where(audited.c.id.in_(ids)))
    told = {record.id: record.detail for record in recorded}
    stands = select(revocations.c.receipt).where(revocations.c.id == row["id"])
    # Otherwise the next one was issued just now, after the row was read.
    if ids[1] in told and connection.execute(stands).scalar_one() == receipt:
        return f"the receipt is not the newest: the audit has revision {revision + 1}"
    if ids[0] in told and told[ids[0]]["receipt_sha256"] != digest(receipt):
        return "the receipt is not the one whose digest is in the audit"
    return None

"""The hash chain over the audit, without a database: its links, and a walk that finds the first bad one.

Its laws:

- a row's digest is the SHA-256 of its canonical JSON, without NULL values;
- a link's digest is the SHA-256 of the previous digest, its own number and its row's digest, so a trusted digest
  vouches for everything before it;
- some links, always including the last, are signed with the installation's key: the chain cannot be forged without it;
- where the key was rotated, its successor signed the digest, so the former key cannot forge the chain either.

Walking it needs no secret. A chain cut after a signed link is still valid; only checkpoints kept elsewhere reveal the
cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import NamedTuple

import orjson

from identity.audit.statements import Head, holds
from identity.keys.trusted_keys import Handover, TrustedKeys

GENESIS = "0" * 64
# A signature costs as much as ten rows. One check in so many rows proves them all; those between narrow down a break.
_PROVE_EVERY = 1_000


class Link(NamedTuple):
    """A seal and the digest of its row. A tuple, because walks cover millions of them."""

    seq: int
    audit: str  # the row's id, or a description where it has none
    digest: str
    row_digest: str | None  # None: the row is missing
    signed: Head | None


@dataclass(frozen=True, kw_only=True)
class Start:
    """The predecessor of the first link: nothing, the pruned part, or the end of an earlier export."""

    seq: int = 0
    digest: str = GENESIS


@dataclass(frozen=True, kw_only=True)
class Verified:
    """The result of a walk whose chain holds."""

    first: int  # number of its first link
    count: int
    head: str  # digest of its last link
    signed_at: datetime | None  # when that was signed; None: nothing is signed yet
    unsealed: int = 0  # newer rows that are not in the chain yet
    accounted: int | None = None  # for a whole walk: the ledger number below which no row is outside the chain
    compared: bool = True  # False: the checkpoint predates the chain's beginning, and could not be compared


@dataclass(frozen=True, kw_only=True)
class FirstBad:
    """The break in the chain. Everything up to *proven* is as it was signed."""

    seq: int
    why: str
    proven: int


def row_digest(row: Mapping[str, object]) -> str:
    """Return the digest of a row: JSON with sorted keys, without spaces, in UTF-8, its time in ISO format.

    The bytes are those of `identity.keys.signing.canonical`, made in a tenth of its time.
    """
    return sha256(orjson.dumps(row, option=orjson.OPT_SORT_KEYS)).hexdigest()


def link_digest(before: str, seq: int, row: str) -> str:
    """Return the digest of link *seq*, which follows the digest *before*."""
    return sha256(f"{before}\n{seq}\n{row}".encode("ascii")).hexdigest()


def walk(
    links: Iterable[Link], keys: TrustedKeys, *, start: Start = Start(), checkpoint: Head | None = None
) -> Verified | FirstBad:
    """Walk a chain from its *start*. A *checkpoint* also reveals a chain that was cut or forged."""
    seq, digest, proven = start.seq, start.digest, start.seq
    signed: list[Head] = []  # since the proven part
    newest: Head | None = None
    pins = _pins(keys, checkpoint)
    if why := _departs(pins, seq, digest):
        return FirstBad(seq=seq, why=why, proven=0)
    for link in links:
        seq += 1
        if why := _breach(digest, seq, link):
            return _unproven(signed, keys, proven) or FirstBad(seq=seq, why=why, proven=_proven(signed, proven))
        digest = link.digest
        if link.signed is not None:
            newest = link.signed
            signed.append(newest)
            if seq - proven >= _PROVE_EVERY:
                if bad := _unproven(signed, keys, proven):
                    return bad
                proven, signed = seq, []
        if seq in pins and (why := _departs(pins, seq, digest)):
            return FirstBad(seq=seq, why=why, proven=proven)
    if signed and (bad := _unproven(signed, keys, proven)):
        return bad
    proven = _proven(signed, proven)
    if proven < seq:
        return FirstBad(seq=seq + 1, why=f"the chain was cut: its last link, {seq}, is not signed", proven=proven)
    if checkpoint is not None and checkpoint.seq > seq:
        why = f"the chain was cut: at {checkpoint.at} it had {checkpoint.seq} rows"
        return FirstBad(seq=seq + 1, why=why, proven=proven)
    signed_at = newest.at if newest else None
    compared = checkpoint is None or checkpoint.seq >= start.seq
    return Verified(first=start.seq + 1, count=seq - start.seq, head=digest, signed_at=signed_at, compared=compared)


def _breach(before: str, seq: int, link: Link) -> str | None:
    """Return what is wrong with one link, or None."""
    if link.seq != seq:
        return "its seal is missing"
    if link.row_digest is None:
        return f"the audit row {link.audit} is missing"
    if link_digest(before, seq, link.row_digest) != link.digest:
        return f"the audit row {link.audit} or its seal was altered"
    return None


def _unproven(signed: list[Head], keys: TrustedKeys, proven: int) -> FirstBad | None:
    """Return where signatures stop holding.

    The newest proves all before it; the others are checked only if it fails.
    """
    if not signed or holds(signed[-1], keys):
        return None
    for head in signed:
        if not holds(head, keys):
            why = f"the rows from here to {head.seq} are not the ones that were signed at {head.at}"
            return FirstBad(seq=proven + 1, why=why, proven=proven)
        proven = head.seq
    raise AssertionError("the newest signature did not hold")


def _proven(signed: list[Head], proven: int) -> int:
    return signed[-1].seq if signed else proven


def _pins(keys: TrustedKeys, checkpoint: Head | None) -> dict[int, list[Head | Handover]]:
    """Return the links whose digest is known from elsewhere."""
    pins: dict[int, list[Head | Handover]] = {}
    for pin in (checkpoint, *keys.handovers):
        if pin is not None and pin.seq > 0:
            pins.setdefault(pin.seq, []).append(pin)
    return pins


def _departs(pins: dict[int, list[Head | Handover]], seq: int, digest: str) -> str | None:
    """Return why the chain differs from the known one at this link; None if it does not."""
    for pin in pins.get(seq, ()):
        if pin.digest != digest:
            what = "checkpoint" if isinstance(pin, Head) else "rotation of its key"
            return f"the chain is not the one of the {what} of {pin.at}"
    return None

"""The chain over the audit, without a database: what a link is, and a walk that names the first one that is bad.

Its laws:
- a row's digest is the SHA-256 of its canonical JSON, without what is NULL;
- a link's digest is the SHA-256 of the digest before it, its own number and its row's digest, so a digest that is
  trusted vouches for all that came before it;
- some links are signed with the installation's key, the last one always: without it nobody can make the chain anew;
- where the key was rotated, the next one signed the digest, so the former one does not help to make it anew either.

No secret is needed to walk it. A chain cut behind a signed link is still a chain: checkpoints kept elsewhere tell.
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
# A signature costs as much as ten rows. One in so many rows proves them all; those between are for narrowing down.
_PROVE_EVERY = 1_000


class Link(NamedTuple):
    """One seal and the digest of the row it is of. A tuple, because a million of them are walked."""

    seq: int
    audit: str  # the row's id, or what there is to name it by
    digest: str
    row_digest: str | None  # None: the row is gone
    signed: Head | None


@dataclass(frozen=True, kw_only=True)
class Start:
    """What the first link follows: nothing, what was pruned, or an earlier export's end."""

    seq: int = 0
    digest: str = GENESIS


@dataclass(frozen=True, kw_only=True)
class Verified:
    """The chain holds."""

    first: int  # number of its first link
    count: int
    head: str  # digest of its last link
    signed_at: datetime | None  # when that was signed; None: there is none yet
    unsealed: int = 0  # newer rows that are not in the chain yet
    accounted: int | None = None  # of a whole walk: the ledger number below which no row is beside the chain
    compared: bool = True  # False: the checkpoint is of before the chain's beginning, and was held against nothing


@dataclass(frozen=True, kw_only=True)
class FirstBad:
    """The chain breaks here. Everything up to *proven* is what was signed."""

    seq: int
    why: str
    proven: int


def row_digest(row: Mapping[str, object]) -> str:
    """The digest of a row: of its JSON with sorted keys, without spaces, in UTF-8, and its time in ISO form.

    These are the bytes of `identity.keys.signing.canonical`, in a tenth of its time.
    """
    return sha256(orjson.dumps(row, option=orjson.OPT_SORT_KEYS)).hexdigest()


def link_digest(before: str, seq: int, row: str) -> str:
    """The digest of link *seq*, which follows the digest *before*."""
    return sha256(f"{before}\n{seq}\n{row}".encode("ascii")).hexdigest()


def walk(
    links: Iterable[Link], keys: TrustedKeys, *, start: Start = Start(), checkpoint: Head | None = None
) -> Verified | FirstBad:
    """Walk a chain from its *start*; with a checkpoint, one that was cut or made anew is found too."""
    seq, digest, proven = start.seq, start.digest, start.seq
    signed: list[Head] = []  # since what is proven
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
    """What is wrong with one link, or None."""
    if link.seq != seq:
        return "its seal is missing"
    if link.row_digest is None:
        return f"the audit row {link.audit} is missing"
    if link_digest(before, seq, link.row_digest) != link.digest:
        return f"the audit row {link.audit} or its seal was altered"
    return None


def _unproven(signed: list[Head], keys: TrustedKeys, proven: int) -> FirstBad | None:
    """Where the signatures stop to hold. The newest one proves all before it; the others are asked if it does not."""
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
    """The links whose digest is known from elsewhere."""
    pins: dict[int, list[Head | Handover]] = {}
    for pin in (checkpoint, *keys.handovers):
        if pin is not None and pin.seq > 0:
            pins.setdefault(pin.seq, []).append(pin)
    return pins


def _departs(pins: dict[int, list[Head | Handover]], seq: int, digest: str) -> str | None:
    """Why the chain is another than the one that is known, at this link; None: it is not."""
    for pin in pins.get(seq, ()):
        if pin.digest != digest:
            what = "checkpoint" if isinstance(pin, Head) else "rotation of its key"
            return f"the chain is not the one of the {what} of {pin.at}"
    return None

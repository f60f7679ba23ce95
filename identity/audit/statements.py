"""Signed statements about the audit: the chain's length, how far it was pruned, and how far it was verified."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from identity.errors import BadInput
from identity.keys.signing import Signer, verifies
from identity.keys.trusted_keys import TrustedKeys

CHECKPOINT = "aswhom-audit-checkpoint-1"
PRUNED = "aswhom-audit-pruned-1"
VERIFIED = "aswhom-audit-verified-1"


@dataclass(frozen=True, kw_only=True)
class Head:
    """A signed statement of the chain's length and the digest of its last link at some moment."""

    seq: int
    digest: str
    at: datetime
    signature: str
    says: str = CHECKPOINT

    def document(self) -> dict[str, str | int]:
        """Return the document to sign."""
        at = self.at.astimezone(UTC).isoformat()
        return {"says": self.says, "seq": self.seq, "digest": self.digest, "at": at}

    def line(self) -> str:
        """Return a line of JSON to keep elsewhere, for `read_checkpoint`."""
        return json.dumps(self.document() | {"signature": self.signature})


def sign(signer: Signer, *, seq: int, digest: str, at: datetime, says: str = CHECKPOINT) -> Head:
    """Sign the statement that link *seq* has this digest at this time."""
    unsigned = Head(seq=seq, digest=digest, at=at, signature="", says=says)
    return Head(seq=seq, digest=digest, at=at, signature=signer.sign(unsigned.document()), says=says)


def holds(head: Head, keys: TrustedKeys) -> bool:
    """True if the statement is signed by the key responsible for that part of the chain."""
    key = keys.of_pruning(head.seq) if head.says == PRUNED else keys.of_link(head.seq)
    return verifies(key, head.document(), head.signature)


def read_checkpoint(text: str, keys: TrustedKeys) -> Head:
    """Parse a checkpoint and check its signature. Raises BadInput."""
    try:
        match json.loads(text):
            case {"says": str(says), "seq": int(seq), "digest": str(digest), "at": str(at), "signature": str(signed)}:
                head = Head(seq=seq, digest=digest, at=datetime.fromisoformat(at), signature=signed, says=says)
                if says == CHECKPOINT and holds(head, keys):
                    return head
    except ValueError:
        pass
    raise BadInput("this is not a checkpoint signed by this installation")


@dataclass(frozen=True, kw_only=True)
class WholeVerification:
    """A signed statement that the chain held from its beginning to this link, with no row outside it."""

    seq: int
    digest: str
    number: int  # every row up to this ledger number was in the chain, or never will be
    at: datetime
    signature: str

    def document(self) -> dict[str, str | int]:
        """Return the document to sign."""
        at = self.at.astimezone(UTC).isoformat()
        return {"says": VERIFIED, "seq": self.seq, "digest": self.digest, "number": self.number, "at": at}

    def line(self) -> str:
        """Return a line of JSON to keep elsewhere, for `read_verification`."""
        return json.dumps(self.document() | {"signature": self.signature})


def sign_verification(signer: Signer, *, seq: int, digest: str, number: int, at: datetime) -> WholeVerification:
    """Sign the statement, for a caller that has just walked the whole chain."""
    unsigned = WholeVerification(seq=seq, digest=digest, number=number, at=at, signature="")
    return replace(unsigned, signature=signer.sign(unsigned.document()))


def read_verification(text: str, keys: TrustedKeys) -> WholeVerification:
    """Parse a verification and check its signature. Raises BadInput, also for a checkpoint, which verifies nothing."""
    try:
        match json.loads(text):
            case {
                "says": says,
                "seq": int(seq),
                "digest": str(digest),
                "number": int(number),
                "at": str(at),
                "signature": str(signed),
            } if says == VERIFIED:
                found = WholeVerification(
                    seq=seq, digest=digest, number=number, at=datetime.fromisoformat(at), signature=signed
                )
                if keys.vouch(found.document(), found.signature, seq=seq):
                    return found
    except ValueError:
        pass
    raise BadInput(
        "this is no statement of this installation that its whole chain was verified: `aswhom audit verify "
        "--statement FILE` writes one, and a checkpoint is none"
    )

"""The keys that an installation's signatures are checked with: the one of today, and through it those before it.

When the signing key is rotated, the new one signs a handover: which key signed before it, and how far. Its laws:
- who trusts today's key needs no other: each key vouches for the one before it;
- which key signed a link of the audit's chain follows from the link's number, never from what the link says;
- a handover pins the chain's digest at its link, so a former key that leaked cannot make its part of the chain anew;
- a former key signs nothing about what has a later ledger number than its handover.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from identity.errors import BadInput
from identity.keys.signing import canonical, verifies

HANDOVER = "aswhom-key-handover-1"


@dataclass(frozen=True, kw_only=True)
class Handover:
    """That the key *kid* follows *former*, signed by it."""

    kid: str
    former: str  # its 32 bytes, in URL-safe base64
    seq: int  # the last link of the chain that *former* signs for; 0: none
    digest: str  # that link's
    pruned: int  # the last link that was pruned by then
    number: int  # the ledger number of the rotation
    at: datetime
    signature: str

    def document(self) -> dict[str, str | int]:
        """What is signed."""
        said: dict[str, str | int] = {"says": HANDOVER, "kid": self.kid, "former": self.former, "seq": self.seq}
        at = self.at.astimezone(UTC).isoformat()
        return said | {"digest": self.digest, "pruned": self.pruned, "number": self.number, "at": at}

    def line(self) -> str:
        """A line of JSON, to go with the public key."""
        return json.dumps(self.document() | {"signature": self.signature})


class TrustedKeys:
    """One installation's public keys, newest first, each with how far it goes."""

    def __init__(self, key: Ed25519PublicKey, handovers: Iterable[Handover] = ()) -> None:
        """Trust *key*, and by its word the one before it, and so on. Other handovers count for nothing."""
        self._keys = [key]
        self.handovers: list[Handover] = []  # newest first
        by_successor = {handover.kid: handover for handover in handovers}
        while (handover := by_successor.pop(key_id(key), None)) and verifies(
            key, handover.document(), handover.signature
        ):
            key = decoded(handover.former)
            self._keys.append(key)
            self.handovers.append(handover)

    def of_link(self, seq: int) -> Ed25519PublicKey:
        """The key that signs for this link of the audit's chain."""
        return self._keys[sum(1 for handover in self.handovers if seq <= handover.seq)]

    def of_pruning(self, seq: int) -> Ed25519PublicKey:
        """The key that states that the chain was pruned up to this link."""
        return self._keys[sum(1 for handover in self.handovers if seq <= handover.pruned)]

    def vouch(self, document: Mapping[str, Any], signature: str, *, seq: int) -> bool:
        """Whether a key signed *document* that may say something about this link of the chain, and all before it."""
        formers = sum(1 for handover in self.handovers if seq <= handover.seq)
        return any(verifies(key, document, signature) for key in self._keys[: formers + 1])

    def verifies(self, document: Mapping[str, Any], signature: str, *, number: int) -> bool:
        """Whether a key signed *document* that may say something about what has this ledger number."""
        formers = sum(1 for handover in self.handovers if number <= handover.number)
        return any(verifies(key, document, signature) for key in self._keys[: formers + 1])


def key_id(key: Ed25519PublicKey) -> str:
    """A key's thumbprint (RFC 7638; the members of an Ed25519 key are in RFC 8037, section 2)."""
    members = {"crv": "Ed25519", "kty": "OKP", "x": encoded(key).rstrip("=")}
    return urlsafe_b64encode(sha256(canonical(members)).digest()).decode().rstrip("=")


def encoded(key: Ed25519PublicKey) -> str:
    """A key's 32 bytes, in URL-safe base64."""
    return urlsafe_b64encode(key.public_bytes_raw()).decode()


def read_handover(line: str) -> Handover:
    """What `Handover.line` wrote. Whether its signature holds is for `TrustedKeys`. Raises BadInput."""
    try:
        document: dict[str, Any] = json.loads(line)
        if document.pop("says") == HANDOVER:
            return Handover(**document | {"at": datetime.fromisoformat(document["at"])})
    except (ValueError, TypeError, KeyError, AttributeError):
        pass
    raise BadInput("what follows the public key is no handover of a key: `aswhom keys public` prints them")


def decoded(key: str) -> Ed25519PublicKey:
    """What `encoded` wrote. Raises ValueError."""
    return Ed25519PublicKey.from_public_bytes(urlsafe_b64decode(key))

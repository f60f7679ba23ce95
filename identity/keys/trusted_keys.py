"""The public keys that verify an installation's signatures: the present one and, through it, its predecessors.

When the signing key is rotated, the new key signs a handover: which key signed before it, and how far. Its laws:

- trust in the present key is enough: each key vouches for its predecessor;
- a link's number decides which key signed it in the audit's chain, never anything the link says;
- a handover pins the chain's digest at its link, so a leaked former key cannot forge its part of the chain;
- a former key is not accepted for anything with a later ledger number than its handover.
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
    """The statement, signed by the key *kid*, that it succeeds *former*."""

    kid: str
    former: str  # its 32 bytes, in URL-safe base64
    seq: int  # the last link of the chain that *former* signs for; 0: none
    digest: str  # digest of that link
    pruned: int  # the last link pruned by then
    number: int  # ledger number of the rotation
    at: datetime
    signature: str

    def document(self) -> dict[str, str | int]:
        """Return the document to sign."""
        said: dict[str, str | int] = {"says": HANDOVER, "kid": self.kid, "former": self.former, "seq": self.seq}
        at = self.at.astimezone(UTC).isoformat()
        return said | {"digest": self.digest, "pruned": self.pruned, "number": self.number, "at": at}

    def line(self) -> str:
        """Return a line of JSON, to go with the public key."""
        return json.dumps(self.document() | {"signature": self.signature})


class TrustedKeys:
    """An installation's public keys, newest first, each with how far it may sign."""

    def __init__(self, key: Ed25519PublicKey, handovers: Iterable[Handover] = ()) -> None:
        """Trust *key*, its predecessor by its handover, and so on. Other handovers are ignored."""
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
        """Return the key that signs this link of the audit's chain."""
        return self._keys[sum(1 for handover in self.handovers if seq <= handover.seq)]

    def of_pruning(self, seq: int) -> Ed25519PublicKey:
        """Return the key that states that the chain was pruned up to this link."""
        return self._keys[sum(1 for handover in self.handovers if seq <= handover.pruned)]

    def vouch(self, document: Mapping[str, Any], signature: str, *, seq: int) -> bool:
        """True if *document* is signed by a key that may vouch for this link of the chain and all before it."""
        formers = sum(1 for handover in self.handovers if seq <= handover.seq)
        return any(verifies(key, document, signature) for key in self._keys[: formers + 1])

    def verifies(self, document: Mapping[str, Any], signature: str, *, number: int) -> bool:
        """True if *document* is signed by a key that may vouch for something with this ledger number."""
        formers = sum(1 for handover in self.handovers if number <= handover.number)
        return any(verifies(key, document, signature) for key in self._keys[: formers + 1])


def key_id(key: Ed25519PublicKey) -> str:
    """Return a key's thumbprint (RFC 7638; the members of an Ed25519 key are in RFC 8037, section 2)."""
    members = {"crv": "Ed25519", "kty": "OKP", "x": encoded(key).rstrip("=")}
    return urlsafe_b64encode(sha256(canonical(members)).digest()).decode().rstrip("=")


def encoded(key: Ed25519PublicKey) -> str:
    """Return a key's 32 bytes, in URL-safe base64."""
    return urlsafe_b64encode(key.public_bytes_raw()).decode()


def read_handover(line: str) -> Handover:
    """Parse what `Handover.line` wrote. `TrustedKeys` checks its signature. Raises BadInput."""
    try:
        document: dict[str, Any] = json.loads(line)
        if document.pop("says") == HANDOVER:
            return Handover(**document | {"at": datetime.fromisoformat(document["at"])})
    except (ValueError, TypeError, KeyError, AttributeError):
        pass
    raise BadInput("what follows the public key is no handover of a key: `aswhom keys public` prints them")


def decoded(key: str) -> Ed25519PublicKey:
    """Parse what `encoded` wrote. Raises ValueError."""
    return Ed25519PublicKey.from_public_bytes(urlsafe_b64decode(key))

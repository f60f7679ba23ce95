"""Ids that we choose for objects at Linear, recognizable without a lookup.

Linear credits everything created with a person's token to that person, so its webhook does not tell our comments from
theirs. The id does: its end is a checksum of its beginning, which an id chosen by Linear matches once in 2^48.
"""

from __future__ import annotations

from hashlib import sha256
from uuid import UUID

from pipeline.action import Call

_OWN = 10  # bytes derived from the call; the other six are the checksum


def chosen_id(call: Call) -> str:
    """Return the id of what the call creates. The schema asks for "UUID v4 format", so the version bits say 4."""
    own = sha256(UUID(call.client_id).bytes).digest()[:_OWN]
    versioned = UUID(bytes=own + bytes(16 - _OWN), version=4).bytes[:_OWN]
    return str(UUID(bytes=versioned + _checksum(versioned)))


def sought_ids(call: Call) -> list[str]:
    """Return the ids to look up what the call may have created: the current one and that of earlier versions.

    A call by an earlier version that got no response cannot be told apart. Asking for both costs nothing, and nobody
    else chooses either.
    """
    return [chosen_id(call), str(UUID(int=UUID(call.client_id).int, version=4))]


def is_ours(id: str) -> bool:
    """True if one of our steps chose this id. A forged id passes as ours, and then starts nothing."""
    try:
        whole = UUID(id).bytes
    except ValueError:
        return False
    return whole[_OWN:] == _checksum(whole[:_OWN])


def _checksum(own: bytes) -> bytes:
    return sha256(b"aswhom at linear\x00" + own).digest()[: 16 - _OWN]

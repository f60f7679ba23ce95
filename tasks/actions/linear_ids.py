"""The ids that we choose for what we make at Linear, and how they are known again without asking anybody.

Whatever is made by a person's token is that person's to Linear, so its webhook does not tell our comment from hers. An
id of ours does: its end is a checksum of its beginning, which an id that Linear chose has once in 2^48.
"""

from __future__ import annotations

from hashlib import sha256
from uuid import UUID

from pipeline.action import Call

_OWN = 10  # bytes that are the call's own; the six after them say that it is ours


def chosen_id(call: Call) -> str:
    """The id of what the call makes. The schema asks for "UUID v4 format", so the version bits say 4."""
    own = sha256(UUID(call.client_id).bytes).digest()[:_OWN]
    versioned = UUID(bytes=own + bytes(16 - _OWN), version=4).bytes[:_OWN]
    return str(UUID(bytes=versioned + _checksum(versioned)))


def sought_ids(call: Call) -> list[str]:
    """By which ids what the call may have made is looked up: its own, and the one that it bore before the ids said so.

    A call that an earlier version has made, and that got no answer, is told from no other. To ask for both costs
    nothing, and nobody else chooses either.
    """
    return [chosen_id(call), str(UUID(int=UUID(call.client_id).int, version=4))]


def is_ours(id: str) -> bool:
    """Whether some step of ours chose this id. Somebody who makes one up is taken for us, and starts nothing."""
    try:
        whole = UUID(id).bytes
    except ValueError:
        return False
    return whole[_OWN:] == _checksum(whole[:_OWN])


def _checksum(own: bytes) -> bytes:
    return sha256(b"aswhom at linear\x00" + own).digest()[: 16 - _OWN]

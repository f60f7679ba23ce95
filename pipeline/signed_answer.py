"""An answer to an approval from a signed sender, and the value its button carries."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Identify the buttons of a question; the chat says which was pressed, and by whom.
APPROVE, DENY = "aswhom.approve", "aswhom.deny"

_CARRIED = re.compile(r"(apr_[0-9a-z]{10,60}):([0-9a-f]{64})")


@dataclass(frozen=True, kw_only=True)
class SignedAnswer:
    """A person's answer, with the provider's id of them. *digest*: of what the message showed."""

    provider: str
    user: str  # the provider's id
    approval: str
    digest: str
    yes: bool


def carried(approval: str, digest: str) -> str:
    """Return the value a button carries: the approval, and the digest of what was shown."""
    return f"{approval}:{digest}"


def read_carried(value: str) -> tuple[str, str] | None:
    """Return the approval and the digest; None: no button of ours carries that."""
    found = _CARRIED.fullmatch(value)
    return (found[1], found[2]) if found else None

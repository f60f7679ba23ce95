"""A person's answer to an approval as a signed sender tells of it, and what the button they pressed carries."""

from __future__ import annotations

import re
from dataclasses import dataclass

# By which the buttons of a question are known again; the chat says which was pressed, and who did.
APPROVE, DENY = "aswhom.approve", "aswhom.deny"

_CARRIED = re.compile(r"(apr_[0-9a-z]{10,60}):([0-9a-f]{64})")


@dataclass(frozen=True, kw_only=True)
class SignedAnswer:
    """Who answered, as the provider knows them, and what: *digest* is that of what the message showed."""

    provider: str
    user: str  # the provider's id
    approval: str
    digest: str
    yes: bool


def carried(approval: str, digest: str) -> str:
    """What a button carries: the question, and that which was shown."""
    return f"{approval}:{digest}"


def read_carried(value: str) -> tuple[str, str] | None:
    """The approval and the digest; None: no button of ours carries that."""
    found = _CARRIED.fullmatch(value)
    return (found[1], found[2]) if found else None

"""Sources of the values in provider profiles, and how far each was verified."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Evidence(StrEnum):
    """The degree to which a value was verified."""

    READ = "read"  # in the provider's own documentation or source code
    HEARD = "second-hand"  # from a third party
    ASSUMED = "assumed"  # undocumented; the cautious value


@dataclass(frozen=True, kw_only=True)
class Source:
    """The source of one value."""

    evidence: Evidence
    where: str  # an address, or the reason for an assumption


def read(where: str) -> Source:
    """Return a source that was read: the provider's own page or the RFC."""
    return Source(evidence=Evidence.READ, where=where)


def heard(where: str) -> Source:
    """Return a second-hand source."""
    return Source(evidence=Evidence.HEARD, where=where)


def assumed(why: str) -> Source:
    """Return an assumption with its reason."""
    return Source(evidence=Evidence.ASSUMED, where=why)

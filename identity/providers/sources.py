"""Where a value of a provider's row comes from, and how far it was verified."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Evidence(StrEnum):
    """How far a value was verified."""

    READ = "read"  # in the provider's own documentation or source code
    HEARD = "second-hand"  # somebody else says so
    ASSUMED = "assumed"  # nobody says so; the value is the cautious one


@dataclass(frozen=True, kw_only=True)
class Source:
    """Why a value is believed."""

    evidence: Evidence
    where: str  # an address, or for an assumption its reason


def read(where: str) -> Source:
    """The provider's own page, or the RFC, says so."""
    return Source(evidence=Evidence.READ, where=where)


def heard(where: str) -> Source:
    """Somebody else's page says so."""
    return Source(evidence=Evidence.HEARD, where=where)


def assumed(why: str) -> Source:
    """No page says so."""
    return Source(evidence=Evidence.ASSUMED, where=why)

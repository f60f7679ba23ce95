"""Reasons why the answer to a refresh is out of date."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class OutOfDate(StrEnum):
    """The reason why an intent's answer is out of date."""

    OVERTAKEN = "overtaken"  # a signal came first: the answer predates it. Any other outcome replaces this mark
    REVOKED = "revoked"  # a revocation: discarded, and a late answer is kept to be revoked at the provider
    MOVED = "moved"  # its grant has another generation: discarded
    DELETED = "deleted"  # its tenant was deleted: no answer is awaited or kept


#: The `outcome` of an out-of-date intent, for people.
OUTDATED: Mapping[OutOfDate, str] = {
    OutOfDate.OVERTAKEN: "overtaken by a signal",
    OutOfDate.REVOKED: "revoked",
    OutOfDate.MOVED: "generation moved",
    OutOfDate.DELETED: "tenant deleted",
}


def outdated(by: OutOfDate) -> dict[str, str]:
    """Return the columns of an intent whose answer is out of date."""
    return {"out_of_date": by, "outcome": OUTDATED[by]}

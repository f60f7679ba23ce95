"""One thing that was looked at, how it is, and what to say of it: what, why, and the next command."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class State(StrEnum):
    OK = "ok"
    WRONG = "wrong"  # something does not work, or soon will not
    UNKNOWN = "unknown"  # no fault of the installation's, and worth a look


class Finding(NamedTuple):
    """A row of the answer."""

    what: str
    state: State
    says: str


def ok(what: str, says: str) -> Finding:
    return Finding(what, State.OK, says)


def wrong(what: str, says: str) -> Finding:
    return Finding(what, State.WRONG, says)


def unknown(what: str, says: str) -> Finding:
    return Finding(what, State.UNKNOWN, says)

"""A finding of one check: its subject, its state, and a sentence with cause and next command."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class State(StrEnum):
    OK = "ok"
    WRONG = "wrong"  # something does not work, or soon will not work
    UNKNOWN = "unknown"  # not a fault of the installation, but worth a look


class Finding(NamedTuple):
    """A row of the report."""

    what: str
    state: State
    says: str


def ok(what: str, says: str) -> Finding:
    return Finding(what, State.OK, says)


def wrong(what: str, says: str) -> Finding:
    return Finding(what, State.WRONG, says)


def unknown(what: str, says: str) -> Finding:
    return Finding(what, State.UNKNOWN, says)

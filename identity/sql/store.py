"""What identity needs of a database: the one seam for writes, and reads. `pipeline.db.database` implements it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from sqlalchemy import Connection

from identity.errors import Unavailable, Unconfirmed

T = TypeVar("T")


class CommitUnknown(Exception):
    """The COMMIT's outcome is not known: the caller re-reads by its own key before it does anything."""


def write_idempotent(store: Store, fn: Callable[[Connection], T]) -> T:
    """Write, and after a lost commit once more: *fn* must find by its own key what an earlier run committed.

    Raises Unconfirmed if that is not confirmed either, whatever kept it from that: the first may have been made.
    """
    try:
        return store.write(fn)
    except CommitUnknown:
        pass
    try:
        return store.write(fn)
    except (CommitUnknown, Unavailable) as error:
        raise Unconfirmed("the ledger does not confirm commits") from error


class Store(Protocol):
    """A ledger database.

    `write(fn)` runs *fn* inside one transaction, possibly more than once, so *fn* touches only its connection: ids,
    time, randomness and ciphertext come in as arguments; bells, wake-ups and replies follow the return. It raises
    Unavailable when no turn could be had in time, CommitUnknown when the commit's outcome is not known, and whatever
    *fn* raises (its writes are then undone).
    """

    def write(self, fn: Callable[[Connection], T]) -> T: ...

    def read(self, fn: Callable[[Connection], T]) -> T: ...

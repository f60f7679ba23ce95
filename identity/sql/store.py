"""Identity's interface to a database: the single seam for writes, and reads. `pipeline.db.database` implements it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from sqlalchemy import Connection

from identity.errors import Unavailable, Unconfirmed

T = TypeVar("T")


class CommitUnknown(Exception):
    """The COMMIT's outcome is unknown: the caller re-reads by its own key before it does anything else."""


def write_idempotent(store: Store, fn: Callable[[Connection], T]) -> T:
    """Write, and retry once after a lost commit: *fn* must find by its own key what an earlier run committed.

    Raises Unconfirmed if the retry is not confirmed either, for any reason, since the first may have been committed.
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
    time, randomness and ciphertext are passed in; bells, wake-ups and replies follow the return. It raises Unavailable
    if the writer's turn did not come in time, CommitUnknown if the commit's outcome is unknown, and whatever *fn*
    raises, after a rollback.
    """

    def write(self, fn: Callable[[Connection], T]) -> T: ...

    def read(self, fn: Callable[[Connection], T]) -> T: ...

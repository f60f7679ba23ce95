"""A ledger that goes away right after a commit, whose outcome is known to whoever asked for it, or is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection

from identity.errors import Unavailable
from identity.sql.store import CommitUnknown
from pipeline.db.database import Database

T = TypeVar("T")


class Leaving:
    """A ledger that answers no read after the next write, until it is told to; or does not confirm that write."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.engine = database.engine
        self.check_fit, self.close = database.check_fit, database.close
        self.in_commit = database.in_commit
        self.leaves = self.loses_a_commit = False
        self._away = False

    def write(self, fn: Callable[[Connection], T], *, until: float | None = None, ahead: bool = False) -> T:
        outcome = self._database.write(fn, until=until, ahead=ahead)
        self._away = self.leaves
        if self.loses_a_commit:
            self.loses_a_commit = False
            raise CommitUnknown("the connection broke after COMMIT")
        return outcome

    def read(self, fn: Callable[[Connection], T], *, ahead: bool = False) -> T:
        if self._away:
            raise Unavailable("the ledger's server does not answer")
        return self._database.read(fn, ahead=ahead)

    def back(self) -> None:
        self._away = self.leaves = False

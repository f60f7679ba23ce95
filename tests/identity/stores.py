"""A store for these tests: one transaction a call, on SQLite or PostgreSQL."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, QueuePool, create_engine, event

from identity.errors import Unavailable
from identity.sql.store import CommitUnknown

T = TypeVar("T")


class EngineStore:
    """`identity.sql.store.Store` without its promises about commits that fail."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._turn = threading.Lock() if engine.dialect.name == "sqlite" else nullcontext()

    def write(self, fn: Callable[[Connection], T]) -> T:
        with self._turn, self.engine.begin() as connection:
            return fn(connection)

    def read(self, fn: Callable[[Connection], T]) -> T:
        with self.engine.connect() as connection:
            return fn(connection)


def open_store(url: str) -> EngineStore:
    """A store on a migrated ledger. Its connections are kept: a new one takes longer than most of what is asked."""
    if not url.startswith("sqlite"):
        return EngineStore(create_engine(url, pool_size=20))
    engine = create_engine(url, poolclass=QueuePool, pool_size=20)

    @event.listens_for(engine, "connect")
    def _prepare(raw: Any, _record: Any) -> None:
        raw.execute("pragma journal_mode = wal")
        raw.execute("pragma synchronous = off")
        raw.execute("pragma foreign_keys = on")
        raw.execute("pragma busy_timeout = 5000")

    return EngineStore(engine)


class FailingStore:
    """Fails the writes it is told to, each in one of three ways."""

    def __init__(self, inner: EngineStore, faults: dict[int, str]) -> None:
        self._inner = inner
        self._faults = faults
        self.writes = 0

    def write(self, fn: Callable[[Connection], T]) -> T:
        self.writes += 1
        match self._faults.get(self.writes):
            case "no turn":
                raise Unavailable("no turn could be had")
            case "commit lost":
                raise CommitUnknown("the connection broke in COMMIT")
            case "commit unseen":
                self._inner.write(fn)
                raise CommitUnknown("the connection broke after COMMIT")
            case _:
                return self._inner.write(fn)

    def read(self, fn: Callable[[Connection], T]) -> T:
        return self._inner.read(fn)


class OvertakenStore:
    """Has *first* done before its next write, or within it: before that changes the intent."""

    def __init__(self, inner: EngineStore, first: Callable[[], None], *, within: bool) -> None:
        self._inner = inner
        self._first = [first]
        self._within = within

    def read(self, fn: Callable[[Connection], T]) -> T:
        return self._inner.read(fn)

    def write(self, fn: Callable[[Connection], T]) -> T:
        if not self._within:
            self._overtake()
        with self._inner.engine.begin() as connection:

            @event.listens_for(connection, "before_cursor_execute")
            def _look(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
                if statement.startswith("UPDATE refresh_intents"):
                    self._overtake()

            return fn(connection)

    def _overtake(self) -> None:
        while self._first:
            self._first.pop()()


class StandsStill:
    """After its first commit, its process stands still for a minute: that began a minute ago by *monotonic*."""

    def __init__(self, inner: EngineStore) -> None:
        self._inner = inner
        self._passed = 60.0

    def monotonic(self) -> float:
        return time.monotonic() - self._passed

    def write(self, fn: Callable[[Connection], T]) -> T:
        outcome = self._inner.write(fn)
        self._passed = 0
        return outcome

    def read(self, fn: Callable[[Connection], T]) -> T:
        return self._inner.read(fn)

"""What a schedule holds in its hands: the refresh lock, each process's way to the ledger, and a furnished database."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, StaticPool, create_engine, insert

from identity.errors import Unavailable
from identity.refresh.lock import Busy, Held, Unreachable
from identity.sql.metadata import ledger_numbers, metadata
from identity.sql.store import CommitUnknown, Store
from identity.token_endpoint.budget import RefreshBudget
from tests.identity.stores import EngineStore
from tests.identity.world import World

T = TypeVar("T")
BUDGET = RefreshBudget(wait=timedelta(seconds=50))


class Shelf:
    """The refresh lock of all processes, in the schedule's hands: a coordinator's `RefreshLock`."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.away = False
        self.owner: tuple[str, Any] | None = None  # its name, and until when

    def acquire(self, account: str) -> Held | Busy | Unreachable:
        if self.away:
            return Unreachable()
        if self.owner is not None and self.owner[1] > self.world.clock.now:
            return Busy()
        name = self.world.id()
        self.owner = (name, self.world.clock.now + BUDGET.lock_ttl)
        return Shelved(self, name)  # type: ignore[return-value]  # what the coordinator asks of a held lock

    def wait(self, account: str, *, within: timedelta) -> bool:
        self.world.clock.advance(min(within, timedelta(seconds=10)))  # nobody releases while we stand here
        return True


class Shelved:
    """A lock that was taken."""

    def __init__(self, shelf: Shelf, name: str) -> None:
        self.shelf, self.name = shelf, name

    def renew(self) -> bool:
        return self._ours()

    def release(self) -> None:
        if self._ours():
            self.shelf.owner = None

    def _ours(self) -> bool:
        return self.shelf.owner is not None and self.shelf.owner[0] == self.name


class Ledger:
    """One process's way to the ledger: its next write may fail in one of three ways."""

    def __init__(self, inner: Store, committed: Callable[[], None]) -> None:
        self.inner = inner
        self.committed = committed
        self.fault: str | None = None

    def write(self, fn: Callable[[Connection], T]) -> T:
        fault, self.fault = self.fault, None
        if fault == "no turn":
            raise Unavailable("no turn could be had")
        if fault == "commit lost":
            raise CommitUnknown("the connection broke in COMMIT")
        result = self.inner.write(fn)
        self.committed()
        if fault == "commit unseen":
            raise CommitUnknown("the connection broke after COMMIT")
        return result

    def read(self, fn: Callable[[Connection], T]) -> T:
        return self.inner.read(fn)


def in_memory(image: bytes | None = None) -> Engine:
    """A database of one connection."""
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    if image is not None:
        with engine.connect() as connection:
            raw: Any = connection.connection.driver_connection
            raw.deserialize(image)
    return engine


@functools.cache
def furnished() -> bytes:
    """The small world before anything happens in it, as a file's bytes: making it anew takes longer than a schedule."""
    engine = in_memory()
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(insert(ledger_numbers), {"only": 1, "value": 0})
    World(store=EngineStore(engine)).build()
    with engine.connect() as connection:
        raw: Any = connection.connection.driver_connection
        image = bytes(raw.serialize())
    engine.dispose()
    return image

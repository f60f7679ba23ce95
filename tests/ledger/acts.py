"""What tests do to a ledger: two transactions at once, and listening to its engine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, event, text

from identity.store import Store

T = TypeVar("T")

_WAITING = text("select count(*) from pg_locks where locktype in ('transactionid', 'advisory') and not granted")


def until_awaited(store: Store, write: Callable[[Connection], T], *, by: threading.Thread) -> T:
    """What *write* comes to in a transaction that is open until another, which *by* makes, waits for it or ends.

    For PostgreSQL: SQLite has one writer anyway.
    """

    def slowly(c: Connection) -> T:
        outcome = write(c)
        by.start()
        while by.is_alive() and not c.execute(_WAITING).scalar_one():
            by.join(0.01)
        return outcome

    outcome = store.write(slowly)
    by.join()
    return outcome


@contextmanager
def listening(engine: Engine, name: str, fn: Callable[..., Any]) -> Iterator[None]:
    """Have *fn* hear an event of *engine*, which other tests have after this one."""
    event.listen(engine, name, fn)
    try:
        yield
    finally:
        event.remove(engine, name, fn)

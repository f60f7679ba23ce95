"""One cache of compiled statements for all the engines of a test session.

SQLAlchemy keeps one an engine, which is right for a process that has one. Here thousands of tests open one each, and
would spend a third of their time on compiling the same statements again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, event


class _Compiled(dict[Any, Any]):
    """Keyed as SQLAlchemy keys it, but for the dialect's instance: one of these is for one kind of database."""

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get(key[1:], default)

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key[1:], value)


@contextmanager
def compiled_once() -> Iterator[None]:
    """Every engine that connects in here compiles what none has compiled before."""
    caches: defaultdict[str, _Compiled] = defaultdict(_Compiled)

    def share(connection: Connection) -> None:
        connection.execution_options(compiled_cache=caches[connection.dialect.name])

    event.listen(Engine, "engine_connect", share)
    try:
        yield
    finally:
        event.remove(Engine, "engine_connect", share)

"""Which sessions at PostgreSQL a process keeps: those that it uses, that live, and one for as long as it does."""

from __future__ import annotations

import math
import time
from typing import Any

import psycopg
from sqlalchemy import Engine, event
from sqlalchemy.exc import DBAPIError, DisconnectionError, InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry


class KeptSessions:
    """Looks after the pool of *engine*.

    A connection that nobody used for *believed* seconds answers before it is used; one that does not is replaced. To
    ask each, as `pool_pre_ping` does, costs every transaction a round trip. A server that went away a moment ago takes
    those along that are under way, which no question beforehand could prevent; after the first of them all others are
    asked.

    What a burst has opened is ended by the server after *given_back* seconds, since nothing here would look at it
    again: `idle_session_timeout`, with which *engine* connects. One session stays: by it others see that the process
    runs, under which no tables may change.
    """

    def __init__(self, engine: Engine, *, believed: float, given_back: float) -> None:
        self._engine = engine
        self._believed = believed
        self._given_back = given_back
        self._lost = -math.inf  # when a connection was last found dead
        self._stays: Any = None
        event.listen(engine, "connect", self._have_one_stay)
        event.listen(engine, "checkin", self._note)
        event.listen(engine, "checkout", self._ask)
        event.listen(engine, "close", self._forget)

    def learn(self, error: DBAPIError) -> None:
        """Something went wrong with a connection."""
        if error.connection_invalidated:
            self._lost = time.monotonic()

    def _have_one_stay(self, raw: Any, record: ConnectionPoolEntry) -> None:
        if self._stays is None:
            raw.execute("set idle_session_timeout = 0")
            raw.commit()
            self._stays = raw

    def _forget(self, raw: Any, record: ConnectionPoolEntry) -> None:
        if raw is self._stays:
            self._stays = None

    def _note(self, raw: Any, record: ConnectionPoolEntry) -> None:
        record.info["used"] = time.monotonic()

    def _ask(self, raw: Any, record: ConnectionPoolEntry, proxy: object) -> None:
        used = record.info.get("used")  # None: it was opened just now
        if used is None:
            return
        now = time.monotonic()
        if raw is not self._stays and used < now - self._given_back:
            raise DisconnectionError("its server ended it, idle")  # of the others that tells nothing
        if used > max(self._lost, now - self._believed):
            return
        try:
            self._engine.dialect.do_ping(raw)
        except psycopg.Error as error:
            raise InvalidatePoolError from error  # SQLAlchemy connects anew, and believes no older one

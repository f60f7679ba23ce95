"""Pool hygiene for PostgreSQL: ping after idling, drop dead sessions, pin one session as a liveness mark."""

from __future__ import annotations

import select
import time
from typing import Any

import psycopg
from sqlalchemy import Engine, event
from sqlalchemy.exc import DisconnectionError, InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry


class KeptSessions:
    """Looks after the pool of *engine*.

    A connection unused for *believed* seconds is pinged before use, and replaced if it is dead. Pinging every time, as
    `pool_pre_ping` does, costs each transaction a round trip. A server that has just gone away breaks the transactions
    under way, which no ping could prevent; after the first such error SQLAlchemy trusts no older connection.

    Connections opened in a burst are ended by the server after *given_back* seconds, as nothing here would look at them
    again: *engine* connects with that `idle_session_timeout`. One session stays open. It shows others that the process
    is running, so that no migration changes tables under it. If it is lost, the next one that is used takes its place.
    """

    def __init__(self, engine: Engine, *, believed: float, given_back: float) -> None:
        self._engine = engine
        self._believed = believed
        self._given_back = given_back
        self._stays: Any = None
        self._stays_idle = False
        event.listen(engine, "connect", self._have_one_stay)
        event.listen(engine, "checkin", self._note)
        event.listen(engine, "checkout", self._ask)
        event.listen(engine, "close", self._forget)

    def _have_one_stay(self, raw: Any, record: ConnectionPoolEntry) -> None:
        if self._stays is None:
            self._have_stay(raw)

    def _have_stay(self, raw: Any) -> None:
        raw.execute("set idle_session_timeout = 0")
        raw.commit()
        self._stays, self._stays_idle = raw, False

    def _none_stays(self) -> bool:
        """True if the session that should stay is gone, or was ended idle: then its socket has something to read."""
        stays = self._stays
        if stays is None:
            return True
        if not self._stays_idle:
            return False
        socket = select.poll()
        try:
            socket.register(stays, select.POLLIN)
        except psycopg.Error:  # closed just now
            return True
        return bool(socket.poll(0))

    def _forget(self, raw: Any, record: ConnectionPoolEntry) -> None:
        if raw is self._stays:
            self._stays = None

    def _note(self, raw: Any, record: ConnectionPoolEntry) -> None:
        record.info["used"] = time.monotonic()
        if raw is self._stays:
            self._stays_idle = True

    def _ask(self, raw: Any, record: ConnectionPoolEntry, proxy: object) -> None:
        if raw is self._stays:
            self._stays_idle = False
        used = record.info.get("used")  # None: just opened
        if used is None:
            return
        now = time.monotonic()
        if raw is not self._stays and used < now - self._given_back:
            raise DisconnectionError("its server ended it, idle")  # says nothing about other connections
        try:
            if self._none_stays():
                self._have_stay(raw)
            elif used <= now - self._believed:
                self._engine.dialect.do_ping(raw)
        except psycopg.Error as error:
            raise InvalidatePoolError from error  # SQLAlchemy reconnects and trusts no older connection

"""Connection pool of kept-alive connections, each used by one thread at a time.

httpcore's own pool inspects all its connections under one lock whenever a request begins or ends, and thirty threads
queue for it. It may also close a connection that it has just handed to another thread (encode/httpcore#1110), whose
call then gets no answer. Here a request inspects only the connection it takes (docs/decisions/0021).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import httpcore

from identity.http.deadline import Deadline, Monotonic


class KeptConnection(Protocol):
    """The parts of `httpcore.HTTPConnection` that are used here."""

    def handle_request(self, request: httpcore.Request) -> httpcore.Response: ...

    def has_expired(self) -> bool:
        """True if the other end has closed it meanwhile."""
        ...

    def is_idle(self) -> bool: ...

    def is_closed(self) -> bool:
        """True if it is closed, or could never be opened; httpcore calls that idle as well."""
        ...

    def close(self) -> None: ...


class _Idle(NamedTuple):
    since: float
    origin: httpcore.Origin
    connection: KeptConnection


class KeptConnections:
    """A pool of at most *size* connections in use, and as many idle for up to *keep_alive* seconds; 0 keeps none."""

    def __init__(
        self,
        connect: Callable[[httpcore.Origin], KeptConnection],
        *,
        size: int,
        keep_alive: float,
        monotonic: Monotonic,
    ) -> None:
        self._connect = connect
        self._size = size
        self._keep_alive = keep_alive
        self._monotonic = monotonic
        self._room = threading.Semaphore(size)
        self._lock = threading.Lock()  # never held while waiting
        self._idle: deque[_Idle] = deque()  # most recently used last
        self._used: set[KeptConnection] = set()
        self._closed = False

    @contextmanager
    def one_for(self, origin: httpcore.Origin, deadline: Deadline) -> Iterator[KeptConnection]:
        """Lend a connection to *origin*, perhaps not opened yet, exclusively until the block ends.

        It is kept if a whole answer was read. Raises httpcore.PoolTimeout, and RuntimeError once the pool is closed.
        """
        if not (self._room.acquire(blocking=False) or self._room.acquire(timeout=max(deadline.left(), 0))):
            raise httpcore.PoolTimeout("no connection was free in time")
        try:
            connection = self._take(origin)
            try:
                yield connection
            finally:
                self._give_back(origin, connection)
        finally:
            self._room.release()

    def close(self) -> None:
        """Close every connection, including those in use."""
        with self._lock:
            self._closed = True
            connections = [*(idle.connection for idle in self._idle), *self._used]
            self._idle.clear()
        for connection in connections:
            connection.close()

    def _take(self, origin: httpcore.Origin) -> KeptConnection:
        while True:
            with self._lock:
                if self._closed:
                    raise RuntimeError("these connections are closed")
                newest = next((idle for idle in reversed(self._idle) if idle.origin == origin), None)
                if newest is None:
                    connection = self._connect(origin)
                else:
                    self._idle.remove(newest)
                    connection = newest.connection
                self._used.add(connection)
            if newest is None:
                return connection
            if self._monotonic() < newest.since + self._keep_alive and not connection.has_expired():
                return connection
            self._forget(connection)

    def _give_back(self, origin: httpcore.Origin, connection: KeptConnection) -> None:
        if not self._keep_alive or not connection.is_idle() or connection.is_closed():
            self._forget(connection)
            return
        now, surplus = self._monotonic(), []
        with self._lock:
            self._used.discard(connection)
            if self._closed:
                surplus.append(connection)
            else:
                self._idle.append(_Idle(now, origin, connection))
            while self._idle and (len(self._idle) > self._size or self._idle[0].since + self._keep_alive <= now):
                surplus.append(self._idle.popleft().connection)
        for one in surplus:
            one.close()

    def _forget(self, connection: KeptConnection) -> None:
        with self._lock:
            self._used.discard(connection)
        connection.close()

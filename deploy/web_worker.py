"""A threaded Gunicorn worker on which slow or silent clients cannot occupy threads or connections for ever.

Gunicorn's own worker reads the rest of a request in a thread without a time limit, and waits in its single event loop
for answered clients to hang up. A handful of clients that send a byte now and then, or nothing, could end all service.
It also never closes an idle keep-alive connection early, so idle connections can use up all its slots.

In addition, health probes are answered without a thread when none is free. All threads may be in a COMMIT that waits
for a standby. If the process were restarted for that, its waiting sessions would remain, and the new one would get
stuck again.
"""

from __future__ import annotations

import logging
import selectors
import socket
import struct
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any

from gunicorn.http import get_parser
from gunicorn.http.errors import NoMoreData
from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.gthread import ThreadWorker

from webhooks.arrival import note_arrival

log = logging.getLogger(__name__)

_MOST = 65536  # bytes read from a client that was answered, as in Gunicorn
_SPARE = 64  # connection slots kept free for newcomers, so that a health probe gets through

_TELLS_EACH = 60.0  # seconds

_PROBE = b"GET /healthz "
_WELL = b"200 OK", b'{"status":"up"}\n'
_FULL = b"503 Service Unavailable\r\nRetry-After: 5", b'{"title":"Service Unavailable","status":503}\n'


class Unreader(SocketUnreader):  # type: ignore[misc]  # Gunicorn has no types
    """A client's input, read with a deadline. After it, only bytes that have already arrived are returned."""

    deadline = 0.0
    late = False  # the rest of the request may still arrive, so no new request may be parsed

    def chunk(self, size_hint: int | None = None) -> bytes:
        wait, before = max(0.0, self.deadline - time.monotonic()), self.sock.gettimeout()
        self.sock.settimeout(wait if before is None else min(wait, before))
        try:
            return bytes(super().chunk(size_hint))
        except (TimeoutError, BlockingIOError):
            if before is not None and time.monotonic() < self.deadline:
                raise  # the caller's own, shorter timeout
            self.late = True
            raise NoMoreData from None  # as if the client had hung up
        finally:
            self.sock.settimeout(before)


class Worker(ThreadWorker):  # type: ignore[misc]
    """The web's `worker_class`."""

    seconds = 20.0  # for a whole request, once in a thread. GitHub gives up after 10, Linear after 5, Slack after 3
    silence = 5.0  # seconds for a new connection to send its first byte; reused ones are a proxy's, or close sooner
    goodbye = 2.0  # seconds for an answered client to hang up, as in Gunicorn

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._handed = 0  # connections in a thread or waiting for one
        self._places = self.worker_connections - _SPARE
        self._refused = _Refused()

    def enqueue_req(self, conn: Any) -> None:
        """Hand a connection to a thread. Runs in the event loop, like every method but `handle`."""
        if self._handed >= self.cfg.threads and not self.cfg.is_ssl:
            if not (conn.initialized or conn.data_ready):
                conn.sock.setblocking(False)
                self._watch(conn, self.on_pending_socket_readable)  # wait for its first bytes, to see what it asks for
                return
            begins = _begins(conn.sock)
            well, full = begins.startswith(_PROBE), self._handed >= self._places
            if well or full:
                _say(conn.sock, *(_WELL if well else _FULL))
                self._watch(conn, self._on_answered_readable)
                if begins and not well:  # not a client that hung up
                    self._refused.note(begins)
                return
        # Hundreds of requests may wait for a thread, longer than their senders do, so note the time of arrival. A
        # connection without input is handed over only if a thread is free, and waits there.
        conn.came = time.monotonic() if conn.initialized or conn.data_ready else None
        self._handed += 1
        super().enqueue_req(conn)

    def finish_request(self, conn: Any, fs: Any) -> None:
        """Count a thread as free again."""
        self._handed -= 1
        super().finish_request(conn, fs)

    def _watch(self, conn: Any, readable: Callable[[Any, socket.socket], None]) -> None:
        """Wait for input, as Gunicorn does for a connection that has sent nothing."""
        conn.set_timeout()
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(readable, conn))

    def _on_answered_readable(self, conn: Any, client: socket.socket) -> None:
        """Read what arrived after the loop's answer: closing a socket with unread input would discard that answer."""
        try:
            if client.recv(_MOST):
                return
        except BlockingIOError:
            return
        except OSError:
            pass  # the client is gone
        self.poller.unregister(client)
        self.pending_conns.remove(conn)
        self.nr_conns -= 1
        conn.close()

    def murder_keepalived(self, force: bool = False) -> None:
        """Close expired idle connections, and the longest idle ones early if slots are scarce.

        Slots are scarce if idle connections hold more than half of them, or if hardly any are free.
        """
        idle = self.keepalived_conns
        _let_go(idle, max(self.nr_conns - self._places, len(idle) - self.worker_connections // 2))
        super().murder_keepalived(force)

    def murder_pending(self) -> None:
        """Close connections that have sent nothing.

        Gunicorn would give them its long timeout, and accept nobody once a thousand are open. This runs at least once a
        second, so it sees a connection with its full timeout and shortens it.
        """
        latest = time.monotonic() + self.silence
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, latest)
        _let_go(self.pending_conns, self.nr_conns - (self.worker_connections - _SPARE // 2))
        super().murder_pending()

    def handle(self, conn: Any) -> Any:
        """Serve one request in a thread. Return true if the connection is kept for another."""
        note_arrival(conn.came)
        if self.cfg.is_ssl:  # TLS has to be set up before the parser; normally a proxy terminates it
            return super().handle(conn)
        if conn.parser is None:  # created here so that it uses our unreader
            conn.parser = get_parser(self.cfg, conn.sock, conn.client)
            conn.parser.unreader = Unreader(conn.sock)
            # For clients that do not read the response.
            conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(self.seconds))
        unreader = conn.parser.unreader
        unreader.deadline = time.monotonic() + self.seconds
        kept = super().handle(conn)
        if kept and not unreader.late:
            return kept
        _see_off(conn.sock, patience=0.0 if unreader.late else self.goodbye)
        return False


def _let_go(connections: Iterable[Any], number: int) -> None:
    """Expire the first *number* of the connections, which have waited longest."""
    for conn in islice(connections, max(0, number)):
        conn.timeout = 0.0


def _timeval(seconds: float) -> bytes:
    """Return a struct timeval for socket(7): seconds and microseconds."""
    return struct.pack("ll", int(seconds), int(seconds % 1 * 1_000_000))


class _Refused:
    """Counter of requests that the loop refused, and that the application therefore never counted."""

    def __init__(self) -> None:
        self._untold = 0
        self._told = -_TELLS_EACH

    def note(self, begins: bytes) -> None:
        """Count a refused request by its first bytes, and log the number at most once a minute."""
        from webhooks.metrics import count_unseen  # after the fork, like the application

        count_unseen(begins, 503)
        self._untold += 1
        if (now := time.monotonic()) - self._told >= _TELLS_EACH:
            log.warning(
                "%d request(s) were answered with 503 at once: every thread is busy, and as many requests wait for one "
                "as may. Look at what commits wait for",
                self._untold,
                extra={"action": "web.full"},
            )
            self._untold, self._told = 0, now


def _begins(connection: socket.socket) -> bytes:
    """Peek at the first bytes of a request, leaving them unread."""
    try:
        return connection.recv(32, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError:  # already read, or gone
        return b""


def _say(connection: socket.socket, status: bytes, body: bytes) -> None:
    """Answer immediately, whatever else the client sends."""
    head = b"HTTP/1.1 %b\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    with suppress(OSError):
        connection.setblocking(False)
        connection.send(head % (status, len(body)) + body)
        connection.shutdown(socket.SHUT_WR)


def _see_off(connection: socket.socket, *, patience: float) -> None:
    """Wait in this thread until the client has its answer and hangs up, so that the event loop need not."""
    deadline, left = time.monotonic() + patience, _MOST
    with suppress(OSError):  # already gone, or silent
        connection.shutdown(socket.SHUT_WR)
        while left > 0 and (wait := deadline - time.monotonic()) > 0:
            connection.settimeout(wait)
            if not (piece := connection.recv(4096)):
                break
            left -= len(piece)
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)  # ends any pending read

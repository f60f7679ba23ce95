"""Gunicorn's worker of threads, of which nobody holds one for ever by sending slowly, or by not reading or hanging up.

A worker of threads waits in a thread for the rest of a request, without a limit, and in its one loop for whoever was
answered to hang up. So a handful of clients that send a byte now and then, or nothing, would end all service. Nor does
it end a connection that is kept and idle before its time, and with all places taken by such it accepts nobody.

And whoever asks whether the process is well is answered without a thread where none is free: all may stand in a COMMIT
that waits for a standby, and a process that is ended for it leaves its waiting sessions behind, and begins again.
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

_MOST = 65536  # bytes that are read of who was answered, as Gunicorn has it
_SPARE = 64  # places for connections that are freed for whoever comes, so that one who asks for health is heard

_TELLS_EACH = 60.0  # seconds

_PROBE = b"GET /healthz "
_WELL = b"200 OK", b'{"status":"up"}\n'
_FULL = b"503 Service Unavailable\r\nRetry-After: 5", b'{"title":"Service Unavailable","status":503}\n'


class Unreader(SocketUnreader):  # type: ignore[misc]  # Gunicorn has no types
    """What a client sends, waited for until a deadline. After it only what is there already is taken."""

    deadline = 0.0
    late = False  # what is left of the request may still come: nothing that follows is a request of its own

    def chunk(self, size_hint: int | None = None) -> bytes:
        wait, before = max(0.0, self.deadline - time.monotonic()), self.sock.gettimeout()
        self.sock.settimeout(wait if before is None else min(wait, before))
        try:
            return bytes(super().chunk(size_hint))
        except (TimeoutError, BlockingIOError):
            if before is not None and time.monotonic() < self.deadline:
                raise  # whoever set that timeout knows what it is for
            self.late = True
            raise NoMoreData from None  # as of one who hung up
        finally:
            self.sock.settimeout(before)


class Worker(ThreadWorker):  # type: ignore[misc]
    """`worker_class` of the web."""

    seconds = 20.0  # for a whole request, once a thread has it. GitHub gives up after 10, Linear after 5, Slack after 3
    silence = 5.0  # for who connects and has sent nothing yet; who was answered once is a proxy, or is closed sooner
    goodbye = 2.0  # seconds for who was answered to hang up, as Gunicorn has it

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._handed = 0  # connections that a thread has, or that wait for one
        self._places = self.worker_connections - _SPARE
        self._refused = _Refused()

    def enqueue_req(self, conn: Any) -> None:
        """Hand it to a thread. In the loop, as all but `handle`."""
        if self._handed >= self.cfg.threads and not self.cfg.is_ssl:
            if not (conn.initialized or conn.data_ready):
                conn.sock.setblocking(False)
                self._watch(conn, self.on_pending_socket_readable)  # then what it asks for can be seen
                return
            begins = _begins(conn.sock)
            well, full = begins.startswith(_PROBE), self._handed >= self._places
            if well or full:
                _say(conn.sock, *(_WELL if well else _FULL))
                self._watch(conn, self._on_answered_readable)
                if begins and not well:  # and not who hung up
                    self._refused.note(begins)
                return
        # Some hundreds may wait for a thread, for longer than their senders do. Who has sent nothing yet is waited for
        # in a thread, which is free.
        conn.came = time.monotonic() if conn.initialized or conn.data_ready else None
        self._handed += 1
        super().enqueue_req(conn)

    def finish_request(self, conn: Any, fs: Any) -> None:
        """A thread is free."""
        self._handed -= 1
        super().finish_request(conn, fs)

    def _watch(self, conn: Any, readable: Callable[[Any, socket.socket], None]) -> None:
        """As Gunicorn has one wait that sends nothing."""
        conn.set_timeout()
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(readable, conn))

    def _on_answered_readable(self, conn: Any, client: socket.socket) -> None:
        """Take what the loop's answer did not wait for: closed with something unread, that answer would be lost."""
        try:
            if client.recv(_MOST):
                return
        except BlockingIOError:
            return
        except OSError:
            pass  # gone
        self.poller.unregister(client)
        self.pending_conns.remove(conn)
        self.nr_conns -= 1
        conn.close()

    def murder_keepalived(self, force: bool = False) -> None:
        """Close who is idle for too long, and of more than half of all places, or of all, who is it for the longest."""
        idle = self.keepalived_conns
        _let_go(idle, max(self.nr_conns - self._places, len(idle) - self.worker_connections // 2))
        super().murder_keepalived(force)

    def murder_pending(self) -> None:
        """Close who has sent nothing: Gunicorn would wait as for who was answered, and at a thousand accept nobody.

        Asked each second at least, so a connection is met with its whole time to wait, and given the shorter one.
        """
        latest = time.monotonic() + self.silence
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, latest)
        _let_go(self.pending_conns, self.nr_conns - (self.worker_connections - _SPARE // 2))
        super().murder_pending()

    def handle(self, conn: Any) -> Any:
        """One request, in a thread: whether the connection is kept for another."""
        note_arrival(conn.came)
        if self.cfg.is_ssl:  # which the connection sets up before it makes a parser: a proxy ends TLS for us
            return super().handle(conn)
        if conn.parser is None:  # made here, and not by the connection, since it reads by this unreader
            conn.parser = get_parser(self.cfg, conn.sock, conn.client)
            conn.parser.unreader = Unreader(conn.sock)
            # Whoever reads nothing of what is sent to them.
            conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(self.seconds))
        unreader = conn.parser.unreader
        unreader.deadline = time.monotonic() + self.seconds
        kept = super().handle(conn)
        if kept and not unreader.late:
            return kept
        _see_off(conn.sock, patience=0.0 if unreader.late else self.goodbye)
        return False


def _let_go(connections: Iterable[Any], number: int) -> None:
    """Have the time of so many be over: the first, who wait for the longest."""
    for conn in islice(connections, max(0, number)):
        conn.timeout = 0.0


def _timeval(seconds: float) -> bytes:
    """As socket(7) wants it: seconds and microseconds."""
    return struct.pack("ll", int(seconds), int(seconds % 1 * 1_000_000))


class _Refused:
    """What the loop refused: the application counts no request that it never saw."""

    def __init__(self) -> None:
        self._untold = 0
        self._told = -_TELLS_EACH

    def note(self, begins: bytes) -> None:
        """Count a request that begins so, and tell each minute of how many there were."""
        from webhooks.metrics import count_unseen  # after the fork, as the application itself

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
    """How its request begins, which stays to be read."""
    try:
        return connection.recv(32, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError:  # it was read ahead, or is gone
        return b""


def _say(connection: socket.socket, status: bytes, body: bytes) -> None:
    """Answer at once, whatever the client sends besides."""
    head = b"HTTP/1.1 %b\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    with suppress(OSError):
        connection.setblocking(False)
        connection.send(head % (status, len(body)) + body)
        connection.shutdown(socket.SHUT_WR)


def _see_off(connection: socket.socket, *, patience: float) -> None:
    """Let the client have its answer and hang up, here, so that the one loop has nothing left to wait for."""
    deadline, left = time.monotonic() + patience, _MOST
    with suppress(OSError):  # gone already, or silent
        connection.shutdown(socket.SHUT_WR)
        while left > 0 and (wait := deadline - time.monotonic()) > 0:
            connection.settimeout(wait)
            if not (piece := connection.recv(4096)):
                break
            left -= len(piece)
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)  # whoever reads from it now is told that this is the end

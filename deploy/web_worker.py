"""Gunicorn's worker of threads, of which nobody holds one for ever by sending slowly, or by not reading or hanging up.

A worker of threads waits in a thread for the rest of a request, without a limit, and in its one loop for whoever was
answered to hang up. So a handful of clients that send a byte now and then, or nothing, would end all service.
"""

from __future__ import annotations

import socket
import struct
import time
from contextlib import suppress
from typing import Any

from gunicorn.http import get_parser
from gunicorn.http.errors import NoMoreData
from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.gthread import ThreadWorker

_MOST = 65536  # bytes that are read of who was answered, as Gunicorn has it


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

    seconds = 20.0  # for a whole request, from its first byte. GitHub gives up after 10, Linear after 5, Slack after 3
    silence = 5.0  # for who connects and has sent nothing yet; who was answered once is a proxy, or is closed sooner
    goodbye = 2.0  # seconds for who was answered to hang up, as Gunicorn has it

    def murder_pending(self) -> None:
        """Close who has sent nothing: there is room for a thousand, and Gunicorn would wait as for who was answered.

        Asked each second at least, so a connection is met with its whole time to wait, and given the shorter one.
        """
        latest = time.monotonic() + self.silence
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, latest)
        super().murder_pending()

    def handle(self, conn: Any) -> Any:
        """One request, in a thread: whether the connection is kept for another."""
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


def _timeval(seconds: float) -> bytes:
    """As socket(7) wants it: seconds and microseconds."""
    return struct.pack("ll", int(seconds), int(seconds % 1 * 1_000_000))


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

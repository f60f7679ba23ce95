"""A TCP proxy on loopback that loses, delays and cuts what passes, for faults between two real programs."""

import contextlib
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from enum import StrEnum

from tests.waiting import PATIENCE

_CHUNK = 65536
# Closing with this set sends a reset instead of an orderly end.
_RESET = struct.pack("ii", 1, 0)


class Mode(StrEnum):
    """What happens to bytes that arrive from now on, on new connections and on those that are open."""

    PASS = "pass"
    DELAY = "delay"  # what the server says arrives late
    DROP_RESPONSE = "drop_response"  # the server hears and acts, its answer is swallowed, the client waits
    CUT_RESPONSE = "cut_response"  # the server hears and acts, and as it answers the client's connection is reset
    RESET = "reset"  # a new connection is accepted and reset, an open one is reset at the client's next byte
    BLACKHOLE = "blackhole"  # accepted, and nothing passes either way


class _Connection:
    """A client's connection and ours to the server, served by one thread."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        server.settimeout(None)
        self.client, self.server = client, server
        self.talking = [client, server]
        self.is_cut = False
        self.is_swallowed = False

    def end(self, speaker: socket.socket) -> None:
        """*speaker* has said all; the other side is told, unless it is to go on waiting."""
        self.talking.remove(speaker)
        if speaker is self.client:
            self.server.shutdown(socket.SHUT_WR)
        elif not self.is_swallowed:
            self.client.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        """Have the serving thread reset it, from another thread."""
        self.is_cut = True
        with contextlib.suppress(OSError):
            self.client.shutdown(socket.SHUT_RD)  # wakes the thread, sends nothing

    def close(self) -> None:
        _close(self.client, reset=self.is_cut)
        _close(self.server, reset=self.is_cut)


def _close(connection: socket.socket, *, reset: bool) -> None:
    if reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    connection.close()


class Proxy:
    """Listens on a port of its own and passes on to *upstream*; the mode can be changed at any time."""

    def __init__(self, upstream: tuple[str, int]) -> None:
        self.upstream = upstream
        self.dropped = 0  # answers that the server made and the client never saw
        self._mode, self._delay = Mode.PASS, 0.0
        self._times: int | None = None
        self._open: set[_Connection] = set()
        self._changed = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host, self.port = self._listener.getsockname()
        threading.Thread(target=self._accept, name=f"proxy:{self.port}", daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def set(self, mode: Mode, *, delay: timedelta = timedelta(0), times: int | None = None) -> None:
        """From now on do *mode*; after it happened *times* times, pass again."""
        with self._changed:
            self._mode, self._delay, self._times = mode, delay.total_seconds(), times

    def wait_dropped(self) -> None:
        """Return once the server has answered in vain: by then it has acted."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.dropped > 0, 10):
                raise TimeoutError("no answer was dropped")

    def cut(self) -> None:
        """Reset every open connection."""
        with self._changed:
            connections = list(self._open)
        for connection in connections:
            connection.cut()

    def close(self) -> None:
        """Refuse new connections and reset the open ones."""
        # close() alone does not wake the thread that waits in accept().
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _take(self, *among: Mode) -> Mode:
        """The mode in force, spending one of its times if it is *among* those that happen here."""
        with self._changed:
            mode = self._mode
            if mode not in among:
                return mode
            if self._times is not None:
                self._times -= 1
                if self._times <= 0:
                    self._mode, self._times = Mode.PASS, None
            if mode in (Mode.DROP_RESPONSE, Mode.CUT_RESPONSE):
                self.dropped += 1
                self._changed.notify_all()
            return mode

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._take(Mode.RESET) is Mode.RESET:
                _close(client, reset=True)
                continue
            try:
                server = socket.create_connection(self.upstream, timeout=PATIENCE)
            except OSError:
                _close(client, reset=True)
                continue
            connection = _Connection(client, server)
            with self._changed:
                self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), name=f"proxy:{self.port}", daemon=True).start()

    def _serve(self, connection: _Connection) -> None:
        """Pass bytes until both ends are done, or one of them is to be cut."""
        with contextlib.suppress(OSError):
            while connection.talking and not connection.is_cut:
                ready, _, _ = select.select(connection.talking, [], [])
                if connection.client in ready:
                    self._request(connection)
                if connection.server in ready and not connection.is_cut:
                    self._response(connection)
        with self._changed:
            self._open.discard(connection)
        connection.close()

    def _request(self, connection: _Connection) -> None:
        data = connection.client.recv(_CHUNK)
        mode = self._take(Mode.RESET) if data else Mode.PASS
        if mode is Mode.RESET:
            connection.is_cut = True
        elif not data:
            connection.end(connection.client)
        elif mode is not Mode.BLACKHOLE:
            connection.server.sendall(data)

    def _response(self, connection: _Connection) -> None:
        data = connection.server.recv(_CHUNK)
        if not data:
            connection.end(connection.server)
            return
        if connection.is_swallowed:  # the rest of an answer is not another answer
            return
        mode = self._take(Mode.DROP_RESPONSE, Mode.CUT_RESPONSE, Mode.DELAY)
        if mode is Mode.CUT_RESPONSE:
            connection.is_cut = True
        elif mode is Mode.DROP_RESPONSE:
            connection.is_swallowed = True
        elif mode is not Mode.BLACKHOLE:
            if mode is Mode.DELAY:
                time.sleep(self._delay)
            connection.client.sendall(data)


@contextmanager
def proxy(host: str, port: int) -> Iterator[Proxy]:
    """A proxy in front of *host*:*port*, passing everything until told otherwise."""
    between = Proxy((host, port))
    try:
        yield between
    finally:
        between.close()

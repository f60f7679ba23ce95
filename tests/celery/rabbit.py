"""As much of RabbitMQ as takes and counts bells, over a real socket, and can be told to hang."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from struct import pack, unpack

_METHOD, _END = 1, b"\xce"
_START, _START_OK = (10, 10), (10, 11)
_TUNE, _OPEN, _OPEN_OK, _CLOSE, _CLOSE_OK = (10, 30), (10, 40), (10, 41), (10, 50), (10, 51)
_CHANNEL_OPEN, _CHANNEL_OPEN_OK, _CHANNEL_CLOSE, _CHANNEL_CLOSE_OK = (20, 10), (20, 11), (20, 40), (20, 41)
_EXCHANGE, _EXCHANGE_OK, _BIND, _BIND_OK = (40, 10), (40, 11), (50, 20), (50, 21)
_DECLARE, _DECLARE_OK, _PUBLISH, _ACK, _CONFIRM, _CONFIRM_OK = (
    (50, 10),
    (50, 11),
    (60, 40),
    (60, 80),
    (85, 10),
    (85, 11),
)
_NOT_FOUND = 404
_ANSWERS = {
    _START_OK: (_TUNE, pack(">HIH", 0, 131_072, 0)),
    _OPEN: (_OPEN_OK, b"\0"),
    _CLOSE: (_CLOSE_OK, b""),
    _CHANNEL_OPEN: (_CHANNEL_OPEN_OK, pack(">I", 0)),
    _CHANNEL_CLOSE: (_CHANNEL_CLOSE_OK, b""),
    _CONFIRM: (_CONFIRM_OK, b""),
    _EXCHANGE: (_EXCHANGE_OK, b""),
    _BIND: (_BIND_OK, b""),
}


class Rabbit:
    """Takes messages into queues that there are. While it *hangs* it reads, and answers nothing."""

    def __init__(self, *queues: str) -> None:
        self.queues = Counter(dict.fromkeys(queues, 0))
        self.hangs = False
        self.connections = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"amqp://guest:guest@127.0.0.1:{self._listening.getsockname()[1]}//"

    def serve(self) -> None:
        with suppress(OSError):  # it was closed
            while True:
                client, _ = self._listening.accept()
                self.connections += 1
                threading.Thread(target=self._talk, args=(client,), daemon=True).start()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _talk(self, client: socket.socket) -> None:
        with client, suppress(OSError, EOFError):
            _read(client, len(b"AMQP\0\0\x09\x01"))
            self._say(client, 0, _START, b"\0\x09" + pack(">I", 0) + _long(b"PLAIN AMQPLAIN") + _long(b"en_US"))
            published = 0
            while True:
                kind, channel, size = unpack(">BHI", _read(client, 7))
                said = _read(client, size + 1)[:-1]
                if kind != _METHOD:
                    continue
                method, arguments = unpack(">HH", said[:4]), said[4:]
                if method == _PUBLISH:
                    if (queue := _second(arguments)) in self.queues:
                        self.queues[queue] += not self.hangs
                    published += 1
                    self._say(client, channel, _ACK, pack(">QB", published, 0))
                elif method == _DECLARE:
                    self._declare(client, channel, _short(arguments[2:]), passive=bool(arguments[3 + arguments[2]] & 1))
                elif method in _ANSWERS:
                    self._say(client, channel, *_ANSWERS[method])

    def _declare(self, client: socket.socket, channel: int, queue: str, *, passive: bool) -> None:
        if not passive:
            self.queues.setdefault(queue, 0)
        if queue in self.queues:
            name = pack(">B", len(queue)) + queue.encode()
            self._say(client, channel, _DECLARE_OK, name + pack(">II", self.queues[queue], 1))
        else:
            self._say(client, channel, _CHANNEL_CLOSE, pack(">HBHH", _NOT_FOUND, 0, *_DECLARE))

    def _say(self, client: socket.socket, channel: int, method: tuple[int, int], arguments: bytes) -> None:
        if not self.hangs:
            payload = pack(">HH", *method) + arguments
            client.sendall(pack(">BHI", _METHOD, channel, len(payload)) + payload + _END)


def _read(client: socket.socket, size: int) -> bytes:
    read = b""
    while len(read) < size:
        if not (some := client.recv(size - len(read))):
            raise EOFError
        read += some
    return read


def _long(text: bytes) -> bytes:
    return pack(">I", len(text)) + text


def _short(at: bytes) -> str:
    return at[1 : 1 + at[0]].decode()


def _second(arguments: bytes) -> str:
    """The routing key: behind a number and the exchange's name."""
    return _short(arguments[3 + arguments[2] :])


@contextmanager
def rabbit(*queues: str) -> Iterator[Rabbit]:
    """One that serves until the end of the block."""
    one = Rabbit(*queues)
    threading.Thread(target=one.serve, daemon=True).start()
    try:
        yield one
    finally:
        one.close()

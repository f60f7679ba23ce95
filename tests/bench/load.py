"""Signed deliveries from one thread over so many connections, each sending its next when it has its answer."""

from __future__ import annotations

import hmac
import json
import secrets
import selectors
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.bench.ground import TENANTS, WEBHOOK_KEY

TOKEN = 32  # characters, each delivery's own: its id and its text
PADDING = "x" * 9_850  # to 10 kB in all: a pull_request event of GitHub's has some 8 kB to 25 kB


@dataclass(kw_only=True)
class Load:
    """What a stretch of load came to."""

    seconds: float
    accepted: list[float] = field(default_factory=list)  # seconds from the request's first byte to the answer's last
    tokens: list[str] = field(default_factory=list)  # of the accepted: by which what became of each is found
    refused: int = 0  # answered otherwise, or not at all
    unanswered: int = 0  # still waiting at the end
    processor: dict[str, float] = field(default_factory=dict)  # seconds of it that each server took meanwhile

    @property
    def rate(self) -> float:
        return len(self.accepted) / self.seconds


def deliveries(number: int, port: int) -> list[bytes]:
    """Whole requests, every body its own, signed, in turn from each of the tenants' installations."""
    made = []
    for index in range(number):
        token = secrets.token_hex(TOKEN // 2)
        text = f"{token} {PADDING}"
        document = {"author": "1001", "text": token, "body": text, "installation": {"id": index % TENANTS}}
        body = json.dumps(document).encode()
        signature = hmac.digest(WEBHOOK_KEY.encode(), body, "sha256").hex()
        head = (
            f"POST /webhooks/github/gh HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
            f"X-GitHub-Event: pull_request\r\nX-GitHub-Delivery: {token}\r\n"
            f"X-Hub-Signature-256: sha256={signature}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        made.append(head.encode() + body)
    return made


def send(requests: list[bytes], port: int, *, connections: int, seconds: float, accepts: int = 202) -> Load:
    """Keep *connections* busy for *seconds*, or until there are no more *requests*. *accepts*: the expected status."""
    load = Load(seconds=seconds)
    selector = selectors.DefaultSelector()
    left = iter(requests)
    for _ in range(connections):
        _Connection(selector, port, accepts).next(left)
    began = time.perf_counter()
    while (now := time.perf_counter()) < began + seconds and selector.get_map():
        for key, _ in selector.select(timeout=began + seconds - now):
            connection: _Connection = key.data
            outcome = connection.more()
            if outcome is None:
                continue
            if outcome:
                load.accepted.append(time.perf_counter() - connection.sent)
                load.tokens.append(connection.token)
            else:
                load.refused += 1
            connection.next(left)
    load.seconds = time.perf_counter() - began
    load.unanswered = len(selector.get_map())
    for key in list(selector.get_map().values()):
        key.data.close()
    selector.close()
    return load


class _Connection:
    """One keep-alive connection, opened anew when the server has closed it."""

    def __init__(self, selector: selectors.BaseSelector, port: int, accepts: int) -> None:
        self._selector = selector
        self._port = port
        self._accepted = f"HTTP/1.1 {accepts}".encode()
        self._socket: socket.socket | None = None
        self._answer = b""
        self.sent = 0.0
        self.token = ""

    def next(self, left: Iterator[bytes]) -> None:
        """Send the next request, if there is one."""
        request = next(left, None)
        if request is None:
            self.close()
            return
        self._answer, self.sent = b"", time.perf_counter()
        self.token = request.partition(b"X-GitHub-Delivery: ")[2][:TOKEN].decode()
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port))
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(self._socket, selectors.EVENT_READ, self)
        self._socket.sendall(request)  # some kB: they fit the socket's buffer

    def more(self) -> bool | None:
        """Read what has come. None: not all of it yet; True: accepted."""
        assert self._socket is not None
        try:
            data = self._socket.recv(65_536)
        except ConnectionError:
            data = b""
        self._answer += data
        head, end, body = self._answer.partition(b"\r\n\r\n")
        fields = {
            name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in head.split(b"\r\n"))
        }
        whole = bool(end) and len(body) >= int(fields.get(b"content-length", 0))
        if data and not whole:
            return None
        if not data or fields.get(b"connection", b"").lower() == b"close":
            self.close()
        return whole and head.startswith(self._accepted)

    def close(self) -> None:
        if self._socket is not None:
            self._selector.unregister(self._socket)
            self._socket.close()
            self._socket = None

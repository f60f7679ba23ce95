"""An upstream that answers after SECONDS, and keeps what it was asked: `python -m tests.bench.upstream PORT SECONDS`.

`GET /_seen` tells the number of calls since the last `POST /_forget`, and their rates: of all of them, and of those in
the middle, between a fifth and four fifths of what has come. `GET /_calls` tells of each of them when it came and with
which headers.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from tests.servers.process import free_port

if TYPE_CHECKING:  # the child is to be up at once
    from tests.bench.ground import Processes

ANSWER = b'{"id":"1"}'
TOLD = ("authorization", "x-aswhom-attempt", "x-began")


class Seen:
    """The calls since somebody last forgot them."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, float, bytes]] = []  # perf_counter, clock, head

    def note(self, head: bytes) -> None:
        self.calls.append((time.perf_counter(), time.time(), head))

    def told(self) -> dict[str, float]:
        """The number of calls, and their rates a second."""
        times = [at for at, _, _ in self.calls]
        middle = times[len(times) // 5 : len(times) * 4 // 5]
        return {"calls": len(times), "rate": _rate(times), "steady": _rate(middle)}


def _rate(times: list[float]) -> float:
    return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else 0.0


class Exchange(asyncio.Protocol):
    """HTTP/1.1 as far as these measurements speak it: keep-alive, bodies with a Content-Length."""

    def __init__(self, seen: Seen, seconds: float) -> None:
        self._seen = seen
        self._seconds = seconds
        self._left = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._left += data
        while (end := self._left.find(b"\r\n\r\n")) >= 0:
            head = self._left[:end]
            length = 0
            for line in head.split(b"\r\n")[1:]:
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            if len(self._left) < end + 4 + length:
                return
            self._left = self._left[end + 4 + length :]
            self._answer(head)

    def _answer(self, head: bytes) -> None:
        body, seconds = ANSWER, 0.0
        match head.split(b" ", 2)[1]:
            case b"/_seen":
                body = json.dumps(self._seen.told()).encode()
            case b"/_calls":
                calls = [{"at": at, **_headers(asked)} for _, at, asked in self._seen.calls]
                body = json.dumps(calls).encode()
            case b"/_forget":
                self._seen.calls.clear()
            case _:
                self._seen.note(head)
                seconds = self._seconds
        answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        if seconds:  # one connection has one call at a time: answers keep their order
            asyncio.get_running_loop().call_later(seconds, self._transport.write, answer + body)
        else:
            self._transport.write(answer + body)


def _headers(head: bytes) -> dict[str, str]:
    """What tells whose call it was: the credential, our attempt, and when a peer's task began."""
    fields = (line.partition(": ") for line in head.decode("latin-1").split("\r\n")[1:])
    return {name.lower(): value for name, _, value in fields if name.lower() in TOLD}


@dataclass(frozen=True, kw_only=True)
class SeenCall:
    """A call as the upstream saw it."""

    at: float  # the clock, in seconds
    credential: str
    attempt: str  # by our header; a peer has none
    began: float  # by the peer's header: when its task began


class Upstream:
    """A running one."""

    def __init__(self, processes: Processes, environment: dict[str, str], *, seconds: float = 0) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._http = httpx.Client(base_url=self.url, trust_env=False)
        command = [sys.executable, "-m", "tests.bench.upstream", str(port), str(seconds)]
        processes.serve(command, environment, f"{self.url}/_seen")

    def forget(self) -> None:
        self._http.post("/_forget")

    def count(self) -> int:
        return int(self._http.get("/_seen").json()["calls"])

    def calls(self) -> list[SeenCall]:
        """Those since it was told to forget, in their order."""
        return [
            SeenCall(
                at=call["at"],
                credential=call.get("authorization", ""),
                attempt=call.get("x-aswhom-attempt", ""),
                began=float(call.get("x-began", 0)),
            )
            for call in self._http.get("/_calls", timeout=60).json()
        ]

    def rate(self, calls: int, *, seconds: float, steady: bool = False) -> float:
        """Calls a second, from the first to the last, once there were *calls* of them; *steady*: of the middle ones."""
        deadline = time.monotonic() + seconds
        while (seen := self._http.get("/_seen").json())["calls"] < calls:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{seen['calls']} of {calls} calls came within {seconds} s")
            time.sleep(0.05)
        return float(seen["steady" if steady else "rate"])

    def close(self) -> None:
        self._http.close()


async def serve(port: int, seconds: float) -> None:
    seen = Seen()
    server = await asyncio.get_running_loop().create_server(lambda: Exchange(seen, seconds), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2])))

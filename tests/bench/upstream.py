"""An upstream that answers at once, and below `/slowly` after 200 ms: `python -m tests.bench.upstream PORT`.

It counts what it was asked, and when. `GET /_seen` tells the number of calls since the last `POST /_forget`, and the
rates: of all of them, and of those in the middle, between a fifth and four fifths of what has come.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import httpx

from tests.bench.ground import Processes
from tests.servers.process import free_port

ANSWER = b'{"id":"1"}'
SLOWLY, LATENCY = "/slowly", 0.2  # seconds


class Seen:
    """The calls since somebody last forgot them."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def note(self) -> None:
        self.times.append(time.perf_counter())

    def told(self) -> dict[str, float]:
        """The number of calls, and their rates a second."""
        middle = self.times[len(self.times) // 5 : len(self.times) * 4 // 5]
        return {"calls": len(self.times), "rate": _rate(self.times), "steady": _rate(middle)}


def _rate(times: list[float]) -> float:
    return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else 0.0


class Exchange(asyncio.Protocol):
    """HTTP/1.1 as far as these measurements speak it: keep-alive, bodies with a Content-Length."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
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
            self._answer(head.split(b" ", 2)[1])

    def _answer(self, path: bytes) -> None:
        body = ANSWER
        if path == b"/_seen":
            body = json.dumps(self._seen.told()).encode()
        elif path == b"/_forget":
            self._seen.times.clear()
        else:
            self._seen.note()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        after = (
            LATENCY if path == SLOWLY.encode() else 0.0
        )  # one connection has one call at a time: answers keep their order
        asyncio.get_running_loop().call_later(after, self._transport.write, head + body)


class Upstream:
    """A running one."""

    def __init__(self, processes: Processes, environment: dict[str, str]) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._http = httpx.Client(base_url=self.url, trust_env=False)
        command = [sys.executable, "-m", "tests.bench.upstream", str(port)]
        processes.serve(command, environment, f"{self.url}/_seen")

    def forget(self) -> None:
        self._http.post("/_forget")

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


async def serve(port: int) -> None:
    seen = Seen()
    server = await asyncio.get_running_loop().create_server(lambda: Exchange(seen), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))

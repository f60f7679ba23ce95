"""A total deadline for one HTTP exchange, enforced at every socket call.

httpx's timeouts apply to single reads and writes, so an answer that trickles in can last for ever. Here the timeout
that travels with a request is a `Deadline`. httpcore passes it unchanged to our streams, which clamp each call to the
time that is left.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from concurrent.futures import TimeoutError as LookupTimeout
from typing import Any, Self

import httpcore

from identity.http.addresses import AddressPolicy

Monotonic = Callable[[], float]


class Prohibited(httpcore.ConnectError):
    """The address policy forbids connecting there."""


class Deadline(float):
    """A timeout for httpcore: the seconds left when it was made. `left()` returns the seconds left now.

    It also records whether any byte of the request was handed to the socket, and refuses the first one after
    `send_before`.
    """

    _monotonic: Monotonic
    _end: float
    _send_before: float | None
    sent: bool

    def __new__(cls, seconds: float, *, monotonic: Monotonic, send_before: float | None = None) -> Self:
        made = super().__new__(cls, seconds)
        made._monotonic = monotonic
        made._end = monotonic() + seconds
        made._send_before = send_before
        made.sent = False
        return made

    def left(self) -> float:
        """Return the seconds that are left; zero or less once the deadline has passed."""
        return self._end - self._monotonic()

    def begin_sending(self) -> None:
        """Mark the request as sent, just before its first byte. Raises httpcore.ConnectTimeout if it is too late."""
        if self.sent:
            return
        if self._send_before is not None and self._monotonic() >= self._send_before:
            raise httpcore.ConnectTimeout("too late to send")
        self.sent = True


def _clamp(timeout: float | None, late: type[Exception]) -> float | None:
    if not isinstance(timeout, Deadline):
        return timeout
    left = timeout.left()
    if left <= 0:
        raise late("the deadline has passed")
    return left


class DeadlineStream(httpcore.NetworkStream):
    """A connection whose reads and writes end with the exchange's deadline; no request begins once *closed* is set."""

    def __init__(self, inner: httpcore.NetworkStream, closed: threading.Event) -> None:
        self._inner = inner
        self._closed = closed

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, _clamp(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if isinstance(timeout, Deadline):
            if self._closed.is_set() and not timeout.sent:
                raise RuntimeError("the client is closed")
            timeout.begin_sending()
        # In pieces: one write of a large body is many sends, and each would get the whole timeout.
        for start in range(0, len(buffer), 65536):
            self._inner.write(buffer[start : start + 65536], _clamp(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        try:
            left = _clamp(timeout, httpcore.ConnectTimeout)
        except httpcore.ConnectTimeout:
            self.close()  # as every stream does when its handshake fails, because httpcore drops it
            raise
        return DeadlineStream(self._inner.start_tls(ssl_context, server_hostname, left), self._closed)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class GuardedBackend(httpcore.NetworkBackend):
    """Network backend that resolves a name, checks every address, and connects to the checked address itself."""

    def __init__(self, policy: AddressPolicy, *, lookups: int) -> None:
        self._policy = policy
        self._inner = httpcore.SyncBackend()
        self._closed = threading.Event()
        # getaddrinfo has no timeout. It runs in other threads, so that a dead resolver cannot block a caller.
        self._lookups = ThreadPoolExecutor(max_workers=lookups, thread_name_prefix="resolve")

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        addresses = self._resolve(host, port, _clamp(timeout, httpcore.ConnectTimeout))
        if refusal := self._policy.prohibits(host, port, addresses):
            raise Prohibited(refusal)
        for last, address in enumerate(addresses, start=1 - len(addresses)):
            try:
                left = _clamp(timeout, httpcore.ConnectTimeout)
                stream = self._inner.connect_tcp(address, port, left, local_address, socket_options)
                return DeadlineStream(stream, self._closed)
            except httpcore.ConnectError:
                if last == 0:
                    raise
        raise httpcore.ConnectError(f"{host} has no address")

    def close(self) -> None:
        """Stop waiting for lookups, and let no request begin on a connection opened meanwhile."""
        self._closed.set()
        self._lookups.shutdown(wait=False, cancel_futures=True)

    def _resolve(self, host: str, port: int, timeout: float | None) -> list[str]:
        lookup = self._lookups.submit(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        try:
            found = lookup.result(timeout)
        except CancelledError:
            raise RuntimeError("the client was closed before the name was looked up") from None
        except LookupTimeout:
            lookup.cancel()
            raise httpcore.ConnectTimeout(f"no answer about the name {host} in time") from None
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"the name {host} does not resolve") from error
        return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))

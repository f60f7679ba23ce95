"""The guarded client: deadlines, caps and addresses in one place, for token endpoints and upstreams alike.

An exchange ends in one of three ways, which differ in what a retry may assume:

- `Answer`    a whole answer within the deadline and the cap;
- `NotSent`   certainly no byte of the request left;
- `NoAnswer`  it may have arrived and taken effect.
"""

from __future__ import annotations

import ssl
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache, partial
from pathlib import Path
from types import TracebackType
from typing import Self

import httpcore
import httpx

from identity.http.addresses import AddressPolicy
from identity.http.connection_pool import KeptConnections
from identity.http.deadline import Deadline, GuardedBackend, Monotonic, Prohibited

_MEGABYTE = 1 << 20
_ENDING = "this process is ending, and its client is closed"
_OURS = (Prohibited, httpcore.PoolTimeout)  # these say nothing about the other end
#: Errors that an exchange may end with; httpcore's have no common base class.
_FAULTS = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.UnsupportedProtocol,
)


@dataclass(frozen=True, kw_only=True)
class HttpRequest:
    """A request to send. Headers and body may hold secrets, so they are not in the repr."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A whole answer. Header names are lower case."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    elapsed: timedelta


@dataclass(frozen=True, kw_only=True)
class NotSent:
    """Nothing left this machine; a retry repeats nothing."""

    reason: str
    untried: bool = False  # for a local reason, which says nothing about the other end: it was not contacted
    final: bool = False  # permanently: a retry is pointless
    prohibited: bool = False  # its host's name resolved to an address that we do not connect to


@dataclass(frozen=True, kw_only=True)
class NoAnswer:
    """The request was sent, at least in part, and no whole answer came; the outcome is unknown."""

    reason: str


Outcome = Answer | NotSent | NoAnswer


class Client:
    """Sends single requests: no redirects, no cookies, no proxies from the environment. One for all threads.

    httpx builds the requests and httpcore sends them; httpx's own client doubles the time with features not wanted
    here.

    Open it after any fork. *pool_size* is the number of threads that send at once. *ca_file* holds authorities in PEM
    that are trusted besides the public ones.
    """

    def __init__(
        self,
        *,
        policy: AddressPolicy,
        pool_size: int = 64,
        keep_alive: timedelta = timedelta(seconds=20),
        ca_file: Path | None = None,
        user_agent: str = "aswhom",
        monotonic: Monotonic = time.monotonic,
    ) -> None:
        self.policy = policy
        self._monotonic = monotonic
        self._headers = httpx.Headers(
            {"accept": "*/*", "accept-encoding": "gzip", "connection": "keep-alive", "user-agent": user_agent}
        )
        self._closed = threading.Event()
        self._backend = GuardedBackend(policy, lookups=max(4, pool_size // 8))
        connect = partial(httpcore.HTTPConnection, ssl_context=_trusting(ca_file), network_backend=self._backend)
        kept = partial(KeptConnections, connect, size=pool_size, monotonic=monotonic)
        self._reusing = kept(keep_alive=keep_alive.total_seconds())
        self._fresh = kept(keep_alive=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection. Later requests are not sent."""
        self._closed.set()
        self._backend.close()  # first: a request that has just begun must be on a connection that is closed below
        self._reusing.close()
        self._fresh.close()

    def send(
        self,
        request: HttpRequest,
        *,
        within: timedelta,
        send_before: float | None = None,
        cap: int = 8 * _MEGABYTE,
        fresh: bool = False,
    ) -> Outcome:
        """Send *request* and read the whole answer, of at most *cap* bytes, *within* that time from now.

        *send_before* is a time of the monotonic clock after which the first byte no longer leaves. *fresh* uses a new
        connection: on a reused one, a server that has just closed it makes the outcome needlessly unknown.
        """
        began = self._monotonic()
        try:
            url = httpx.URL(request.url)
        except httpx.InvalidURL as error:
            return NotSent(reason=f"the URL is not one: {error}", untried=True)
        port = url.port or (443 if url.scheme == "https" else 80)
        host = url.raw_host.decode("ascii")  # as the name service is asked: `host` may be in another alphabet
        if refusal := self.policy.prohibits_url(url.scheme, host, port, userinfo=bool(url.userinfo)):
            return NotSent(reason=refusal, untried=True)
        if self._closed.is_set():
            return NotSent(reason=_ENDING, untried=True)
        if send_before is not None and began >= send_before:
            return NotSent(reason=f"{url.host}: too late to send", untried=True)
        deadline = Deadline(within.total_seconds(), monotonic=self._monotonic, send_before=send_before)
        connections = self._fresh if fresh else self._reusing
        try:
            written = self._written(request, url, deadline)
            with connections.one_for(written.url.origin, deadline) as connection:
                answer = connection.handle_request(written)
                try:
                    headers = httpx.Headers(answer.headers)
                    body = _body(answer, headers, cap)
                finally:
                    answer.close()
        except UnicodeEncodeError:  # not chained: its text quotes the character
            return NotSent(reason=f"{url.host}: a header of the request is not ASCII", untried=True)
        # Closed since the check above: the pool, the connection in use, or the lookup threads.
        except (RuntimeError, httpcore.ConnectionNotAvailable):
            if not self._closed.is_set():
                raise
            return NoAnswer(reason=_ENDING) if deadline.sent else NotSent(reason=_ENDING, untried=True)
        except (*_FAULTS, _Unusable, zlib.error) as error:
            return _ending(error, deadline, url.host)
        elapsed = timedelta(seconds=self._monotonic() - began)
        return Answer(status=answer.status, headers=dict(headers.items()), body=body, elapsed=elapsed)

    def _written(self, request: HttpRequest, url: httpx.URL, deadline: Deadline) -> httpcore.Request:
        headers = self._headers.copy()
        headers.update(request.headers)
        written = httpx.Request(request.method, url, headers=headers, content=request.body)
        return httpcore.Request(
            written.method,
            httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=written.headers.raw,
            content=request.body,
            extensions={"timeout": dict.fromkeys(("connect", "read", "write"), deadline)},
        )


@cache
def _trusting(ca_file: Path | None) -> ssl.SSLContext:
    """Return a context that trusts certifi's authorities and those of *ca_file*.

    Loading costs as much as 100 requests.
    """
    context = httpx.create_ssl_context(trust_env=False)
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context


class _Unusable(Exception):
    """The answer breaks a limit."""


def _ending(error: Exception, deadline: Deadline, host: str) -> NotSent | NoAnswer:
    """Map an error to its outcome, by whether a byte had left."""
    reason = f"{host}: {_said(error)}"
    if deadline.sent:
        return NoAnswer(reason=reason)
    return NotSent(reason=reason, untried=isinstance(error, _OURS), prohibited=isinstance(error, Prohibited))


def _said(error: Exception) -> str:
    """Return an error's text, or only its name where the text may quote a token.

    A protocol error quotes the header that could not be sent, or the line of the answer that could not be read.
    """
    name, text = type(error).__name__, str(error)
    quotes = isinstance(error, httpcore.LocalProtocolError) or (
        isinstance(error, httpcore.RemoteProtocolError) and ("'" in text or '"' in text)
    )
    return name if quotes or not text else text


def _body(answer: httpcore.Response, headers: httpx.Headers, cap: int) -> bytes:
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "", "gzip"):
        raise _Unusable(f"the answer is encoded as {encoding[:20]!r}, which was not asked for")
    chunks = answer.iter_stream()
    body = bytearray()
    for chunk in _inflated(chunks, cap) if encoding == "gzip" else chunks:
        body += chunk
        if len(body) > cap:
            raise _Unusable(f"the answer has more than {cap} bytes")
    return bytes(body)


def _inflated(chunks: Iterator[bytes], cap: int) -> Iterator[bytes]:
    """Yield the chunks decompressed, at most *cap* + 1 bytes at a time: a small answer can unpack to gigabytes."""
    inflate = zlib.decompressobj(wbits=31)
    for chunk in chunks:
        yield inflate.decompress(chunk, cap + 1)
    if not inflate.eof:
        raise _Unusable("the compressed answer is cut short")

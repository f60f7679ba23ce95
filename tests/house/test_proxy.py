"""The proxy does to bytes what its mode says."""

import socket
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from time import monotonic

import httpx
import pytest

from tests.servers.proxy import Mode, Proxy, proxy

SHORT = 0.5  # seconds, for what is not answered


class _Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.heard.append(self.path)  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Resets are what the tests are about."""


@pytest.fixture
def heard() -> list[str]:
    """What reached the server."""
    return []


@pytest.fixture
def between(heard: list[str]) -> Iterator[Proxy]:
    """A proxy in front of a server that remembers."""
    with _Server(("127.0.0.1", 0), _Echo) as server:
        server.heard = heard  # type: ignore[attr-defined]
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        with proxy("127.0.0.1", server.server_port) as between:
            yield between
        server.shutdown()
        thread.join()


@pytest.fixture
def client(between: Proxy) -> Iterator[httpx.Client]:
    """A client with one kept-alive connection through the proxy."""
    with httpx.Client(base_url=between.url, timeout=10, trust_env=False) as client:
        assert client.get("/warm").text == "ok"
        yield client


def test_a_dropped_response_was_acted_upon(between: Proxy, client: httpx.Client, heard: list[str]) -> None:
    between.set(Mode.DROP_RESPONSE, times=1)
    with pytest.raises(httpx.ReadTimeout):
        client.get("/lost", timeout=SHORT)
    between.wait_dropped()
    assert client.get("/next").text == "ok"
    assert heard == ["/warm", "/lost", "/next"]
    assert between.dropped == 1


def test_a_cut_response_was_acted_upon(between: Proxy, client: httpx.Client, heard: list[str]) -> None:
    between.set(Mode.CUT_RESPONSE, times=1)
    with pytest.raises(httpx.ReadError):
        client.get("/cut")
    assert client.get("/next").text == "ok"
    assert heard == ["/warm", "/cut", "/next"]


@pytest.mark.parametrize("mode", [Mode.RESET, Mode.BLACKHOLE])
def test_what_is_reset_or_swallowed_on_the_way_was_never_heard(
    mode: Mode, between: Proxy, client: httpx.Client, heard: list[str]
) -> None:
    between.set(mode)
    with pytest.raises((httpx.ReadError, httpx.ReadTimeout, httpx.RemoteProtocolError)):
        client.get("/kept-alive", timeout=SHORT)
    with pytest.raises(httpx.TransportError):  # the reset may come while connecting, writing or reading
        client.get("/new", timeout=SHORT)
    between.set(Mode.PASS)
    assert client.get("/after").text == "ok"
    assert heard == ["/warm", "/after"]


def test_a_delayed_answer_arrives_late(between: Proxy, client: httpx.Client) -> None:
    between.set(Mode.DELAY, delay=timedelta(seconds=0.2), times=1)
    began = monotonic()
    assert client.get("/late").text == "ok"
    assert monotonic() - began >= 0.2


def test_an_open_connection_is_reset_when_cut(between: Proxy) -> None:
    with socket.create_connection((between.host, between.port), timeout=5) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert raw.recv(12) == b"HTTP/1.1 200"
        between.cut()
        with pytest.raises(ConnectionResetError):
            _read_to_the_end(raw)


def _read_to_the_end(raw: socket.socket) -> None:
    while raw.recv(4096):
        pass


def test_a_closed_proxy_refuses(between: Proxy) -> None:
    between.close()
    with pytest.raises(httpx.ConnectError):
        httpx.get(between.url, trust_env=False)

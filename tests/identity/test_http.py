"""The guarded client against real sockets that misbehave, and the addresses it must not reach."""

from __future__ import annotations

import gzip
import re
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import chain, count, repeat
from typing import Any

import httpcore
import pytest

from identity.http.addresses import AddressPolicy
from identity.http.client import Answer, Client, HttpRequest, NoAnswer, NotSent
from identity.http.deadline import Deadline, DeadlineStream
from tests.waiting import PATIENCE

HEAD = b"HTTP/1.1 200 OK\r\n"
SHORT, LONG = timedelta(seconds=0.5), timedelta(seconds=20)  # what runs out, and what does not
Speak = Callable[[socket.socket], None]
REFUSED = re.compile("not public|not https|nor https|does not resolve|missing")


@contextmanager
def server(speak: Speak, *, requests: int = 1) -> Iterator[str]:
    """A server that reads a request's head and does as it is told, so many times a connection; its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    closing = threading.Event()

    def serve(peer: socket.socket) -> None:
        with peer, suppress(OSError):
            for _ in range(requests):
                received = b""
                while b"\r\n\r\n" not in received:
                    if not (piece := peer.recv(65536)):
                        return
                    received += piece
                speak(peer)

    def accept() -> None:
        while not closing.is_set():
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(peer,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        closing.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def drip(data: bytes) -> Speak:
    """Send *data* a byte at a time, half a minute long: each byte resets a timeout that counts only silence."""

    def speak(peer: socket.socket) -> None:
        for byte in data:
            peer.sendall(bytes([byte]))
            time.sleep(0.1)

    return speak


def say(data: bytes) -> Speak:
    return lambda peer: peer.sendall(data)


def say_without_end(head: bytes, more: bytes) -> Speak:
    def speak(peer: socket.socket) -> None:
        peer.sendall(head)
        while True:  # until the other end has closed
            peer.sendall(more)

    return speak


def whole(body: bytes, *headers: bytes) -> bytes:
    extra = b"".join(header + b"\r\n" for header in headers)
    return HEAD + extra + b"content-length: %d\r\n\r\n" % len(body) + body


def get(url: str) -> HttpRequest:
    return HttpRequest(method="GET", url=url)


def test_an_answer_comes_whole(http: Client) -> None:
    with server(say(whole(b"hello", b"X-Kind: a"))) as url:
        answer = http.send(get(url), within=LONG)
    assert isinstance(answer, Answer)
    assert (answer.status, answer.body, answer.headers["x-kind"]) == (200, b"hello", "a")
    assert answer.elapsed < LONG


@pytest.mark.parametrize(
    "speak",
    [
        pytest.param(drip(whole(b"x" * 300)), id="headers drip"),
        pytest.param(
            lambda peer: drip(b"x" * 300)(say_then(peer, HEAD + b"content-length: 300\r\n\r\n")), id="body drips"
        ),
        pytest.param(
            lambda peer: drip(b"1\r\nx\r\n" * 50)(say_then(peer, HEAD + b"transfer-encoding: chunked\r\n\r\n")),
            id="chunks drip",
        ),
        pytest.param(drip(b"HTTP/1.1 100 Continue\r\n\r\n" * 20), id="informational answers drip"),
        pytest.param(lambda peer: time.sleep(30), id="silence"),
    ],
)
@pytest.mark.parametrize("fresh", [True, False])
def test_the_deadline_is_total(http: Client, speak: Speak, fresh: bool) -> None:
    with server(speak) as url:
        began = time.monotonic()
        outcome = http.send(get(url), within=SHORT, fresh=fresh)
        took = time.monotonic() - began
    assert isinstance(outcome, NoAnswer)
    assert took < 25


def say_then(peer: socket.socket, data: bytes) -> socket.socket:
    peer.sendall(data)
    return peer


def test_a_handshake_that_is_too_late_to_begin_closes_its_connection() -> None:
    class Inner(httpcore.NetworkStream):
        closed = False

        def close(self) -> None:
            self.closed = True

    inner, deadline = Inner(), Deadline(1.0, monotonic=iter((0.0, 2.0)).__next__)
    with pytest.raises(httpcore.ConnectTimeout):
        DeadlineStream(inner, threading.Event()).start_tls(ssl.create_default_context(), timeout=deadline)
    assert inner.closed


def sip(peer: socket.socket) -> None:
    """Read a little at a time: each piece that goes resets a timeout that counts only silence."""
    for _ in range(300):
        peer.recv(65_536)
        time.sleep(0.1)


@pytest.mark.parametrize("speak", [pytest.param(lambda peer: time.sleep(30), id="not at all"), sip])
def test_a_body_nobody_reads_ends_with_the_deadline(http: Client, speak: Speak) -> None:
    with server(speak) as url:
        began = time.monotonic()
        outcome = http.send(HttpRequest(method="POST", url=url, body=b"x" * 30_000_000), within=SHORT)
    assert isinstance(outcome, NoAnswer)
    assert time.monotonic() - began < 25


@pytest.mark.parametrize(
    "speak",
    [
        pytest.param(say(b""), id="closed at once"),
        pytest.param(say(HEAD), id="cut in the headers"),
        pytest.param(say(HEAD + b"content-length: 10\r\n\r\nabc"), id="cut in the body"),
        pytest.param(say(HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\nab"), id="cut in a chunk"),
        pytest.param(say(b"SSH-2.0-OpenSSH\r\n\r\n"), id="another protocol"),
        pytest.param(say_without_end(HEAD + b"x: ", b"y" * 65_536), id="endless header"),
        pytest.param(say(whole(b"x" * 2000)), id="larger than the cap"),
        pytest.param(say(whole(gzip.compress(b"x" * 50_000_000), b"content-encoding: gzip")), id="gzip bomb"),
        pytest.param(say(whole(gzip.compress(b"hello")[:-6], b"content-encoding: gzip")), id="gzip cut short"),
        pytest.param(say(whole(b"hello", b"content-encoding: gzip")), id="not gzip"),
        pytest.param(say(whole(b"hello", b"content-encoding: br")), id="encoding not asked for"),
    ],
)
def test_what_is_not_a_whole_answer_is_no_answer(http: Client, speak: Speak) -> None:
    with server(speak) as url:
        outcome = http.send(get(url), within=LONG, cap=1000)
    assert isinstance(outcome, NoAnswer)
    assert "timed out" not in outcome.reason


@pytest.mark.parametrize(
    "value", ["Bearer canary ", " Bearer canary", "Bearer\ncanary", "Bearer canary\x00", "Bearer canaryé"]
)
def test_a_header_that_cannot_be_sent_is_not_quoted(http: Client, value: str) -> None:
    with server(say(whole(b"hello"))) as url:
        outcome = http.send(HttpRequest(method="GET", url=url, headers={"authorization": value}), within=LONG)
    assert isinstance(outcome, NotSent)
    assert "canary" not in outcome.reason
    assert "é" not in outcome.reason


@pytest.mark.parametrize(
    "data", [b"canary HTTP\r\n\r\n", HEAD + b"canary\r\n\r\n", HEAD + b"content-length: canary\r\n\r\n"]
)
def test_a_line_of_an_answer_that_cannot_be_read_is_not_quoted(http: Client, data: bytes) -> None:
    with server(say(data)) as url:
        outcome = http.send(get(url), within=LONG)
    assert isinstance(outcome, NoAnswer)
    assert "canary" not in outcome.reason


def test_a_compressed_answer_is_read(http: Client) -> None:
    with server(say(whole(gzip.compress(b"hello"), b"content-encoding: gzip"))) as url:
        answer = http.send(get(url), within=LONG)
    assert isinstance(answer, Answer)
    assert answer.body == b"hello"


def test_a_refused_connection_was_not_sent(http: Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert isinstance(http.send(get(f"http://127.0.0.1:{port}"), within=LONG), NotSent)


def test_nothing_is_tried_after_send_before(http: Client) -> None:
    asked = threading.Event()
    with server(lambda peer: asked.set()) as url:
        outcome = http.send(get(url), within=timedelta(seconds=20), send_before=time.monotonic())
    assert isinstance(outcome, NotSent)
    assert outcome.untried
    assert not asked.is_set()


def test_nothing_leaves_after_a_send_before_that_passed_on_the_way() -> None:
    policy = AddressPolicy(allow_hosts=frozenset({"127.0.0.1"}))
    moments = chain((0.0, 0.0), repeat(10.0))  # it begins in time, and whatever comes next takes ten seconds
    asked = threading.Event()
    with Client(policy=policy, monotonic=moments.__next__) as http, server(lambda peer: asked.set()) as url:
        outcome = http.send(get(url), within=timedelta(seconds=20), send_before=5.0)
    assert isinstance(outcome, NotSent)
    assert not outcome.untried
    assert not asked.is_set()


def test_a_redirect_is_an_answer_like_another(http: Client) -> None:
    moved = b"HTTP/1.1 307 Moved\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"
    with server(say(moved)) as url:
        answer = http.send(get(url), within=LONG)
    assert isinstance(answer, Answer)
    assert answer.status == 307


def test_no_cookie_is_kept(http: Client) -> None:
    seen: list[bytes] = []

    def speak(peer: socket.socket) -> None:
        peer.sendall(whole(b"", b"set-cookie: tenant=acme; path=/"))
        seen.append(peer.recv(65536))
        peer.sendall(whole(b""))

    with server(speak) as url:
        http.send(get(url), within=LONG)
        http.send(get(url), within=LONG)
    assert len(seen) == 1  # the second request came on the same connection
    assert b"cookie" not in seen[0].lower()


def test_a_fresh_request_never_reuses_a_connection(http: Client) -> None:
    connections: list[socket.socket] = []

    def speak(peer: socket.socket) -> None:
        connections.append(peer)
        peer.sendall(whole(b""))
        peer.recv(1)

    with server(speak) as url:
        for _ in range(3):
            assert isinstance(http.send(get(url), within=LONG, fresh=True), Answer)
    assert len(connections) == 3


def test_many_threads_share_one_client(http: Client) -> None:
    with server(say(whole(b"hello")), requests=1000) as url, ThreadPoolExecutor(32) as pool:
        sent = [pool.submit(http.send, get(url), within=timedelta(minutes=1)) for _ in range(400)]
        # httpcore's own pool may close a connection that another thread was just given (encode/httpcore#1110).
        assert [outcome for outcome in (each.result() for each in sent) if not isinstance(outcome, Answer)] == []


def test_waiting_for_a_connection_counts_too() -> None:
    policy = AddressPolicy(allow_hosts=frozenset({"127.0.0.1"}))
    asked, over = threading.Event(), threading.Event()

    def speak(peer: socket.socket) -> None:
        asked.set()
        over.wait(PATIENCE)

    with Client(policy=policy, pool_size=1) as narrow, server(speak) as url, ThreadPoolExecutor(1) as pool:
        held = pool.submit(narrow.send, get(url), within=timedelta(seconds=30))
        assert asked.wait(PATIENCE)
        began = time.monotonic()
        outcome = narrow.send(get(url), within=timedelta(seconds=0.3))
        assert time.monotonic() - began < 20
        over.set()
        assert isinstance(outcome, NotSent)
        assert outcome.untried, "it says nothing of the other end"
        assert isinstance(held.result(), NoAnswer)


def test_a_request_hides_its_headers_and_body() -> None:
    request = HttpRequest(method="POST", url="https://x", headers={"authorization": "canary"}, body=b"canary")
    assert "canary" not in repr(request)


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/",
        "https://localhost/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[64:ff9b::7f00:1]/",
        "https://[64:ff9b:1::7f00:1]/",
        "https://[2002:7f00:1::]/",
        "https://[2001:0:7f00:1::]/",
        "https://169.254.169.254/latest/meta-data",
        "https://10.0.0.1/",
        "https://172.16.0.1/",
        "https://192.168.1.1/",
        "https://100.64.0.1/",
        "https://[fe80::1]/",
        "https://[fd00::1]/",
        "https://0.0.0.0/",
        "https://224.0.0.1/",
        "http://8.8.8.8/",
        "http://127.0.0.1:9/",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "https://",
        "nonsense",
        "https://no-such-host.invalid/",
    ],
)
def test_an_address_that_is_not_public_is_not_reached(url: str) -> None:
    with Client(policy=AddressPolicy(), pool_size=2) as client:
        outcome = client.send(get(url), within=LONG)
    assert isinstance(outcome, NotSent)
    assert REFUSED.search(outcome.reason), outcome.reason  # and not because nobody listens there


def test_an_allowed_host_is_allowed_on_its_port_alone() -> None:
    policy = AddressPolicy(allow_hosts=frozenset({"127.0.0.1:8080"}))
    assert policy.allows_by_name("127.0.0.1", 8080)
    assert not policy.allows_by_name("127.0.0.1", 8081)
    assert policy.prohibits("127.0.0.1", 8081, ["127.0.0.1"])


def test_one_private_address_spoils_a_name() -> None:
    policy = AddressPolicy()
    assert policy.prohibits("api.example", 443, ["8.8.8.8"]) is None
    assert policy.prohibits("api.example", 443, ["8.8.8.8", "127.0.0.1"])


def test_a_client_that_is_closed_under_a_request_that_has_its_connection_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = Client(policy=AddressPolicy(allow_hosts=frozenset({"127.0.0.1"})))
    with server(say(whole(b"hello")), requests=2) as url:
        assert isinstance(client.send(get(url), within=LONG), Answer)
        handle = httpcore.HTTPConnection.handle_request

        def late(connection: httpcore.HTTPConnection, request: httpcore.Request) -> httpcore.Response:
            client.close()
            return handle(connection, request)

        monkeypatch.setattr(httpcore.HTTPConnection, "handle_request", late)
        outcome = client.send(get(url), within=LONG)
    assert outcome == NotSent(reason="this process is ending, and its client is closed", untried=True)


def test_a_client_that_is_closed_while_a_connection_opens_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, connect = threading.Event(), httpcore.SyncBackend.connect_tcp
    client = Client(policy=AddressPolicy(allow_hosts=frozenset({"127.0.0.1"})))

    def late(*args: Any, **keywords: Any) -> httpcore.NetworkStream:
        stream = connect(*args, **keywords)
        client.close()
        return stream

    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", late)
    with server(lambda peer: asked.set()) as url:
        outcome = client.send(get(url), within=LONG)
    assert outcome == NotSent(reason="this process is ending, and its client is closed", untried=True)
    assert not asked.is_set()


def test_a_client_that_is_closed_while_a_name_waits_to_be_looked_up_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    looking, answered = threading.Semaphore(0), threading.Event()

    def look(*args: Any, **keywords: Any) -> list[Any]:
        looking.release()
        answered.wait(60)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", look)
    client = Client(policy=AddressPolicy(allow_hosts=frozenset({"http://a.test:1"})), pool_size=8)
    with ThreadPoolExecutor(8) as pool:
        sent = [pool.submit(client.send, get("http://a.test:1/"), within=LONG) for _ in range(8)]
        for _ in range(4):  # as many as are looked up at once
            assert looking.acquire(timeout=60)
        backlog = client._backend._lookups._work_queue  # nothing else says that the others wait
        while backlog.qsize() < 4:
            assert not answered.wait(0.01)
        client.close()
        answered.set()
        outcomes = [each.result() for each in sent]
    assert Counter(type(outcome) for outcome in outcomes) == {NotSent: 8}


@pytest.mark.parametrize("at", [0, 1, 2], ids=["before", "after it was looked at", "before the name is looked up"])
def test_a_client_that_is_closed_sends_nothing_and_says_so(at: int) -> None:
    """A process that ends closes it, perhaps under a thread that is about to ask."""
    times = count()

    def tick() -> float:
        if next(times) == at:
            client.close()
        return 0.0

    client = Client(policy=AddressPolicy(allow_hosts=frozenset({"localhost"})), monotonic=tick)
    outcome = client.send(get("http://localhost:1/"), within=SHORT)
    assert isinstance(outcome, NotSent)
    assert outcome.untried

"""Behind a real server: lying lengths, endless bodies, and a broker that hangs."""

from __future__ import annotations

import gzip
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from tests.waiting import eventually
from tests.webhooks.parts import FORM, JSON, github_headers, slack_headers

OPENED = b'{"action":"opened","issue":{"number":7}}'
PATIENCE = 60.0  # seconds until an answer that does not come is a failure, on however busy a machine


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The web's worker with four threads; the path of its socket."""
    with serving("deploy.web_worker.Worker") as path:
        yield path


@pytest.fixture(scope="module")
def hasty() -> Iterator[str]:
    """The same in a hurry."""
    with serving("tests.webhooks.served.Hasty") as path:
        yield path


@contextmanager
def serving(worker: str, *more: str) -> Iterator[str]:
    """Gunicorn with four threads of that class of worker; the path of its socket."""
    with tempfile.TemporaryDirectory(prefix="aswhom-") as folder:
        path = f"{folder}/web"
        environment = os.environ | {"HANGS": hanging(path), "BEGAN": began(path)}
        options = ["--worker-class", worker, "--threads", "4", "--bind", f"unix:{path}", "--graceful-timeout", "1"]
        options += ["--keep-alive", "75", *more]
        command = [sys.executable, "-m", "gunicorn", *options, "--no-control-socket", "tests.webhooks.served:app"]
        process = subprocess.Popen(command, cwd=Path(__file__).parents[2], env=environment, stderr=subprocess.DEVNULL)
        try:
            eventually(lambda: process.poll() is not None or listens(path), "the server started")
            assert process.poll() is None, "the server ended"
            yield path
        finally:
            process.terminate()
            process.wait(60)


def listens(path: str) -> bool:
    """Whether a server accepts connections; its socket's file is there a moment earlier."""
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(path) == 0


def hanging(path: str) -> str:
    """The file that is there once somebody hangs in the broker of the server at *path*."""
    return f"{path}.hangs"


def began(path: str) -> str:
    """The file that says since when the sender of each command waits, at the server at *path*."""
    return f"{path}.began"


def head(body: bytes, *extra: str, length: int | None = None, delivery: str = "d-1") -> bytes:
    """The head of a signed request; without *length* it names none."""
    headers = {**github_headers(body, delivery=delivery), "Content-Type": JSON, "Host": "localhost"}
    lines = [f"{name}: {value}" for name, value in headers.items()] + list(extra)
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return "\r\n".join(["POST /webhooks/github/gh HTTP/1.1", *lines, "", ""]).encode()


def answer(path: str, *parts: bytes, hang_up: bool = False) -> tuple[int, dict[str, object]]:
    """Status and document, of a server that answers at all."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(path)
        try:
            for part in parts:
                connection.sendall(part)
        except (BrokenPipeError, ConnectionResetError):
            pass  # answered and closed before everything was sent
        if hang_up:
            connection.shutdown(socket.SHUT_WR)
        status, rest = answer_on(connection)
        return status, json.loads(rest)


def answer_on(connection: socket.socket) -> tuple[int, bytes]:
    """Status and body of the next answer, which is read to its end."""
    received = b""
    while b"\r\n\r\n" not in received:
        piece = connection.recv(65536)
        assert piece, "no answer"
        received += piece
    top, _, rest = received.partition(b"\r\n\r\n")
    length = next(int(line[15:]) for line in top.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    while len(rest) < length:
        rest += connection.recv(65536)
    return int(top.split()[1]), rest


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def test_a_broker_that_hangs_delays_no_answer(server: str) -> None:
    """The broker never comes back, so that an answer which waited for it would not come either."""
    for number in range(12):  # more than there are threads
        body = OPENED.replace(b"7", b"%d" % (100 + number))
        status, document = answer(server, head(body, length=len(body), delivery=f"bell-{number}"), body)
        assert (status, document["outcome"]) == (202, "accepted")
    eventually(Path(hanging(server)).exists, "somebody hangs in the broker", seconds=PATIENCE)


def test_a_chunked_body_is_read_to_its_end(server: str) -> None:
    body = OPENED.replace(b"7", b"201")
    pieces = [chunk(body[:10]), chunk(body[10:]), b"0\r\n\r\n"]
    status, document = answer(server, head(body, "Transfer-Encoding: chunked", delivery="chunked"), *pieces)
    assert (status, document["outcome"]) == (202, "accepted")


def test_an_endless_chunked_body_is_refused_at_the_cap(server: str) -> None:
    pieces = [chunk(b"x" * 50_000) for _ in range(40)]
    status, document = answer(server, head(b"", "Transfer-Encoding: chunked"), *pieces)
    assert (status, document["type"]) == (413, "urn:aswhom:problem:too-large")


def test_a_length_that_says_less_cuts_the_body_and_its_signature(server: str) -> None:
    status, document = answer(server, head(OPENED, length=len(OPENED) - 5), OPENED)
    assert (status, document["type"]) == (401, "urn:aswhom:problem:signature-refused")


def test_a_length_that_says_more_is_no_delivery(server: str) -> None:
    status, document = answer(server, head(OPENED, length=len(OPENED) + 5), OPENED, hang_up=True)
    # Not `malformed`, which says that it was signed.
    assert (status, document["type"]) == (400, "urn:aswhom:problem:incomplete")


def test_a_giant_is_refused_by_its_length_before_it_is_sent(server: str) -> None:
    status, document = answer(server, head(OPENED, length=25_000_000))
    assert (status, document["type"]) == (413, "urn:aswhom:problem:too-large")


GIANT = b"0" * 20_000_000


def sends_all_of_it(path: str, *parts: bytes) -> tuple[int, dict[str, object]]:
    """What a client gets that writes everything before it reads anything, and to which a reset is a failure."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(path)
        for part in parts:
            connection.sendall(part)
        status, body = answer_on(connection)
        return status, json.loads(body)


def test_a_sender_that_writes_all_of_a_giant_before_it_reads_is_told_so_too(server: str) -> None:
    status, document = sends_all_of_it(server, head(GIANT, length=len(GIANT)), GIANT)
    assert (status, document["type"]) == (413, "urn:aswhom:problem:too-large")


def test_a_sender_of_a_chunked_giant_is_told_so_too(server: str) -> None:
    pieces = [chunk(GIANT[:500_000]) for _ in range(40)]
    status, document = sends_all_of_it(server, head(GIANT, "Transfer-Encoding: chunked"), *pieces, chunk(b""))
    assert (status, document["type"]) == (413, "urn:aswhom:problem:too-large")


def test_a_sender_to_no_address_of_ours_is_told_so_too(server: str) -> None:
    body = GIANT[:150_000]
    request = head(body, length=len(body)).replace(b"/webhooks/github/gh", b"/webhooks/nobody/gh")
    assert sends_all_of_it(server, request, body)[0] == 404


def test_httpx_sees_the_refusal_and_may_go_on(server: str) -> None:
    with httpx.Client(
        transport=httpx.HTTPTransport(uds=server), base_url="http://localhost", timeout=PATIENCE
    ) as client:
        headers = {**github_headers(GIANT, delivery="d-1"), "Content-Type": JSON}
        assert client.post("/webhooks/github/gh", content=GIANT, headers=headers).status_code == 413
        assert client.get("/health/live").status_code < 500


def test_a_compressed_bomb_is_refused_unread(server: str) -> None:
    bomb = gzip.compress(b"0" * 6_000_000, compresslevel=1)  # more than a body may be
    status, document = answer(server, head(bomb, "Content-Encoding: gzip", length=len(bomb)), bomb)
    assert (status, document["type"]) == (415, "urn:aswhom:problem:encoded")


ASK = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n%b\r\n"
SOON = 20.0  # seconds: far more than all who hold a server up are given, far less than for ever


def connected(path: str, stack: ExitStack) -> socket.socket:
    connection = stack.enter_context(socket.socket(socket.AF_UNIX))
    connection.settimeout(SOON)
    connection.connect(path)
    return connection


@pytest.mark.parametrize(
    "begun",
    [
        ASK[:20],
        head(OPENED, length=100) + OPENED[:1],
        head(OPENED, "Transfer-Encoding: chunked") + b"64\r\n{",
    ],
    ids=["head", "body", "chunk"],
)
def test_who_stops_in_the_middle_of_a_request_holds_no_thread_for_long(hasty: str, begun: bytes) -> None:
    with ExitStack() as stack:
        slow = [connected(hasty, stack) for _ in range(8)]  # more than there are threads
        for connection in slow:
            connection.sendall(begun)
        asking = connected(hasty, stack)
        asking.sendall(ASK % b"")
        assert answer_on(asking)[0] == 200
        for connection in slow:  # told so, or not; and the connection, which may still bring the rest, serves no other
            while connection.recv(65536):
                pass


def test_chunks_that_stop_coming_are_no_wrong_signature(hasty: str) -> None:
    with ExitStack() as stack:
        slow = connected(hasty, stack)
        slow.sendall(head(OPENED, "Transfer-Encoding: chunked") + b"64\r\n{")
        status, body = answer_on(slow)
        assert (status, json.loads(body)["type"]) == (400, "urn:aswhom:problem:incomplete")


def test_who_reads_nothing_of_their_answers_holds_no_thread_for_long(hasty: str) -> None:
    with ExitStack() as stack:
        for _ in range(8):
            deaf = connected(hasty, stack)
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.settimeout(0.2)
            with suppress(TimeoutError):  # nobody takes any more: its answers lie in the way
                deaf.sendall((ASK % b"") * 20_000)
        asking = connected(hasty, stack)
        asking.sendall(ASK % b"")
        assert answer_on(asking)[0] == 200


def test_a_byte_now_and_then_buys_no_time(hasty: str) -> None:
    with ExitStack() as stack:
        slow = [connected(hasty, stack) for _ in range(4)]
        for connection in slow:
            connection.sendall(head(OPENED, length=100_000))
        asking = connected(hasty, stack)
        asking.sendall(ASK % b"")
        eventually(lambda: _answered(asking, slow), "the server answers", seconds=SOON)
        assert answer_on(asking)[0] == 200


def _answered(asking: socket.socket, slow: list[socket.socket]) -> bool:
    """Whether the one has its answer; the slow send another byte each."""
    for connection in slow:
        with suppress(OSError):  # seen off
            connection.sendall(b"0")
    return bool(select.select([asking], [], [], 0)[0])


def test_what_follows_a_request_that_came_too_late_is_no_request(hasty: str) -> None:
    """The rest of a body is not read as a request by a server that has given it up."""
    with ExitStack() as stack:
        late = connected(hasty, stack)
        late.sendall(head(OPENED, length=len(ASK % b"") + 1) + b"{")
        answer = late.recv(65536)
        assert answer.startswith(b"HTTP/1.1 400")
        with suppress(OSError):  # closed already
            late.sendall(ASK % b"")
        rest = b""
        with suppress(ConnectionResetError):
            while piece := late.recv(65536):
                rest += piece
        assert b"HTTP/1.1" not in rest


@pytest.fixture
def small() -> Iterator[str]:
    """With four threads that wait for minutes, and sixteen places for connections beside those that are freed."""
    with serving("tests.webhooks.served.Patient", "--worker-connections", "80") as path:
        yield path


PROBE = ASK.replace(b"/readyz", b"/healthz") % b"Connection: close\r\n"


def kept(path: str, stack: ExitStack) -> socket.socket:
    """A connection that was answered, and is kept."""
    connection = connected(path, stack)
    connection.sendall(ASK % b"")
    assert answer_on(connection)[0] == 200
    return connection


def test_connections_that_are_kept_and_idle_take_no_place_from_whoever_comes(small: str) -> None:
    with ExitStack() as stack:
        idle = [kept(small, stack) for _ in range(120)]  # more than there are places at all
        assert answer(small, PROBE) == (200, {"status": "up"})
        assert idle[0].recv(1) == b"", "the one that was idle for the longest was closed"
        idle[-1].sendall(ASK % b"")
        assert answer_on(idle[-1])[0] == 200


def test_connections_that_are_kept_and_idle_are_no_load(small: str) -> None:
    with ExitStack() as stack:
        for _ in range(30):
            kept(small, stack)
        busy = [connected(small, stack) for _ in range(4)]
        for connection in busy:
            connection.sendall(head(OPENED, length=len(OPENED)))
        waits = connected(small, stack)
        waits.sendall(ASK % b"")
        assert answer(small, PROBE) == (200, {"status": "up"})  # and what came before was looked at
        for connection in busy:
            connection.sendall(OPENED)
        assert answer_on(waits)[0] == 200


def test_silent_connections_take_no_place_from_whoever_comes(small: str) -> None:
    with ExitStack() as stack:
        for _ in range(120):
            connected(small, stack)
        assert answer(small, PROBE) == (200, {"status": "up"})


def test_the_process_is_well_while_no_thread_is_free_and_the_line_for_one_is_full(small: str) -> None:
    with ExitStack() as stack:
        taken, before = 0, 0
        while taken < 16:  # the one that saw the server listen may not be let go yet, and then holds a place
            waits = connected(small, stack)
            waits.sendall(head(OPENED, length=100))
            assert answer(small, PROBE) == (200, {"status": "up"})  # and what came before was looked at
            if select.select([waits], [], [], 0)[0]:
                before += 1
            else:
                taken += 1
        # Who is refused so gets that answer, however much of the request is still on its way.
        assert sends_all_of_it(small, head(GIANT, length=len(GIANT)), GIANT)[0] == 503
        silent = connected(small, stack)  # and asks a moment later
        eventually(lambda: answer(small, ASK % b"")[0] == 503, "more is refused at once", seconds=SOON)
        silent.sendall(PROBE)
        assert answer_on(silent)[0] == 200
    eventually(lambda: refused(small) == before + 1, "the alerts see what the application did not", seconds=SOON)


def test_a_command_waits_for_its_answer_since_it_came_and_not_since_a_thread_is_free(small: str) -> None:
    """Slack gave up on it meanwhile, and it was typed again: stored late, it would be done twice."""
    body = b"command=%2Faswhom&text=hi&team_id=T1&user_id=U1&trigger_id=1.1.a"
    headers = {**slack_headers(body, at=datetime.now(UTC)), "Content-Type": FORM, "Host": "localhost"}
    lines = [*(f"{name}: {value}" for name, value in headers.items()), f"Content-Length: {len(body)}"]
    command = "\r\n".join(["POST /webhooks/slack/sl HTTP/1.1", *lines, "", ""]).encode() + body
    with ExitStack() as stack:
        again = kept(small, stack)
        busy = [connected(small, stack) for _ in range(4)]
        for connection in busy:
            connection.sendall(head(OPENED, length=len(OPENED)))
        assert answer(small, PROBE) == (200, {"status": "up"})  # so they were accepted, and have the threads
        first = connected(small, stack)
        for waits in (again, first):
            waits.sendall(command)
        for _ in range(3):  # and by then the loop has looked at what came before, whichever it saw first
            assert answer(small, PROBE) == (200, {"status": "up"})
        released = time.monotonic()
        for connection in busy:
            connection.sendall(OPENED)
            assert answer_on(connection)[0] == 202
        assert [answer_on(waits)[0] for waits in (again, first)] == [200, 200]
    since = [float(line) for line in Path(began(small)).read_text().splitlines()]
    assert len(since) == 2
    assert max(since) < released


def refused(path: str) -> float | None:
    """How many deliveries were answered with 503, as Prometheus is told; None: it is refused itself, for now."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(path)
        connection.sendall((ASK % b"Connection: close\r\n").replace(b"/readyz", b"/metrics"))
        _, page = answer_on(connection)
    sample = 'aswhom_http_requests_total{method="POST",route="/webhooks/<source>/<connection>",status="503"} '
    lines = page.decode().splitlines()
    return next((float(line.removeprefix(sample)) for line in lines if line.startswith(sample)), None)


def test_who_was_answered_and_does_not_hang_up_holds_up_nobody_else(hasty: str) -> None:
    with ExitStack() as stack:
        lingering = [connected(hasty, stack) for _ in range(20)]
        for connection in lingering:
            connection.sendall(ASK % b"Connection: close\r\n")
        assert [answer_on(connection)[0] for connection in lingering] == [200] * 20
        asking = connected(hasty, stack)
        asking.sendall(ASK % b"")
        assert answer_on(asking)[0] == 200


def test_connections_that_are_kept_and_idle_hold_no_thread(server: str) -> None:
    """So they may be kept for longer than a proxy does."""
    with ExitStack() as stack:
        idle: list[socket.socket] = []
        for _ in range(20):  # five times as many as there are threads; each asks at once: who is silent is closed
            idle.append(connected(server, stack))
            idle[-1].sendall(ASK % b"")
            assert answer_on(idle[-1])[0] == 200
        for connection in idle:
            connection.sendall(ASK % b"")
            assert answer_on(connection)[0] == 200


def test_who_connects_and_sends_nothing_is_not_kept_as_long_as_who_was_answered(hasty: str) -> None:
    with ExitStack() as stack:
        kept, silent = connected(hasty, stack), connected(hasty, stack)
        kept.sendall(ASK % b"")
        assert answer_on(kept)[0] == 200
        assert silent.recv(1) == b"", "it was closed"
        kept.sendall(ASK % b"")
        assert answer_on(kept)[0] == 200


def test_a_connection_that_is_in_time_is_kept(hasty: str) -> None:
    with ExitStack() as stack:
        connection = connected(hasty, stack)
        for _ in range(3):
            connection.sendall(ASK % b"")
            assert answer_on(connection)[0] == 200

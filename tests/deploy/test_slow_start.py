"""A start that takes longer than anybody thought: `aswhom up` says why, and what it has to say once it is up."""

from __future__ import annotations

from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from deploy.settings import load
from deploy.up import Up, _say_when_ready
from tests.deploy.conftest import Cli
from tests.servers.process import free_port


class Slow(Up):
    """Of which nothing runs, and which is ready the second time that it is asked, or *ends* instead."""

    def __init__(self, cli: Cli, port: int, *, ends: bool = False) -> None:
        self.settings = load(data_dir=cli.data_dir, listen=f"127.0.0.1:{port}")
        super().__init__(self.settings)
        self.asked: list[tuple[timedelta | None, timedelta]] = []
        self._ends = ends

    def wait_ready(
        self, *, within: timedelta | None = timedelta(seconds=60), every: timedelta = timedelta(milliseconds=100)
    ) -> bool:
        self.asked.append((within, every))
        return len(self.asked) > 1 and not self._ends

    @property
    def running(self) -> bool:
        return True


def _said(slow: Slow) -> list[str]:
    said: list[str] = []
    _say_when_ready(slow, slow.settings, said.append, unrecorded=True, slow=timedelta(seconds=60))
    return said


def test_a_slow_start_is_told_and_so_is_everything_once_it_is_up(cli: Cli) -> None:
    cli.json("hold", "set", "--why", "an upgrade")
    slow = Slow(cli, free_port())
    late, held, up, way, held_again = _said(slow)
    assert ("not ready after 60 s" in late, "web does not answer" in late) == (True, True)
    assert ("`aswhom hold release` ends it" in held, held_again) == (True, held)
    assert "Aswhom is up at" in up
    assert "/console/link/" in way
    assert slow.asked == [(timedelta(seconds=60), timedelta(milliseconds=100)), (None, timedelta(seconds=2))]


def test_a_slow_start_that_ends_is_not_said_to_be_up(cli: Cli) -> None:
    (late,) = _said(Slow(cli, free_port(), ends=True))
    assert "not ready after" in late


@pytest.mark.parametrize(
    ("body", "says"),
    [(b'{"detail": "the disk is full"}', "web answers 503: the disk is full"), (b"<html>", "its log above says why")],
)
def test_what_the_web_says_of_itself_is_passed_on(cli: Cli, body: bytes, says: str) -> None:
    class NotReady(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(503)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Not into the tests' output."""

    with HTTPServer(("127.0.0.1", 0), NotReady) as server:
        answering = Thread(target=server.handle_request)
        answering.start()
        late, *_ = _said(Slow(cli, server.server_port))
        answering.join()
    assert says in late

"""The key set as an upstream's copy of the verifier fetches it: an issuer that hangs stops no verification."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.client import BadStatusLine, HTTPException
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import OKPKey
from joserfc.jws import JWSRegistry

from identity.capability.verifier import TYPE, PublishedKeys, Reason, Refused, Unfetched, Verifier, fetch
from tests.waiting import eventually

KEY_SET = {"keys": [{**OKPKey.generate_key("Ed25519").as_dict(private=False), "kid": "one"}]}
LONG = 30.0  # seconds: more than any of this takes


class Hanging:
    """An issuer that answers when it is let."""

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.asked = threading.Semaphore(0)
        self.fetched = self.ended = self.looked = 0
        self.clock = 1000.0
        self.document: Mapping[str, Any] = KEY_SET
        self.fails: Exception | None = None
        self.keys = PublishedKeys(
            url="https://aswhom.example/jwks",
            fetch=self.fetch,
            patience=timedelta(milliseconds=10),
            longest=timedelta(hours=1),  # whoever waits for it waits until the fetch has ended
            monotonic=self.look,
        )

    def look(self) -> float:
        """The time. Each caller looks first while it holds the lock under which it sees a fetch under way."""
        self.looked += 1
        return self.clock

    def rotated(self) -> None:
        """It was asked twenty minutes ago, has signed with another key since, and hangs."""
        self.answers.set()
        assert self.keys.key("one") is not None
        self.answers.clear()
        self.clock += 1200
        self.document = {"keys": [*KEY_SET["keys"], {**KEY_SET["keys"][0], "kid": "two"}]}
        self.keys.patience, self.looked = timedelta(seconds=LONG), 0

    def fetch(self, url: str) -> Mapping[str, Any]:
        self.fetched += 1
        self.asked.release()
        self.answers.wait(LONG)
        self.ended += 1
        if self.fails is not None:
            raise self.fails
        return self.document


def test_while_the_issuer_hangs_a_key_that_is_known_is_answered() -> None:
    issuer = Hanging()
    issuer.answers.set()
    assert issuer.keys.key("one") is not None
    issuer.answers.clear()
    issuer.document = {"keys": []}  # withdrawn meanwhile
    issuer.clock += 301
    with ThreadPoolExecutor(8) as threads:
        answers = [threads.submit(issuer.keys.key, "one") for _ in range(8)]
        assert all(answer.result(timeout=LONG) is not None for answer in answers)
        with pytest.raises(Refused, match="no answer has come yet"):
            issuer.keys.key("made-up")
    # The unknown one waited a moment, and not for the other's fetch to end: strangers' tokens must not take threads.
    assert (issuer.fetched, issuer.ended) == (2, 1)
    issuer.answers.set()
    eventually(lambda: issuer.keys.key("one") is None)


def test_after_a_rotation_a_burst_at_a_service_that_was_idle_waits_for_the_one_fetch() -> None:
    issuer = Hanging()
    issuer.rotated()
    with ThreadPoolExecutor(16) as threads:
        answers = [threads.submit(issuer.keys.key, "two") for _ in range(16)]
        eventually(lambda: issuer.looked >= 16)
        issuer.answers.set()
        assert all(answer.result(timeout=LONG) is not None for answer in answers)
    assert issuer.fetched == 2


def test_of_those_who_bring_an_unknown_key_only_some_wait_for_a_fetch() -> None:
    issuer = Hanging()
    issuer.keys = replace(issuer.keys, waiters=3)
    issuer.rotated()
    with ThreadPoolExecutor(9) as threads:
        answers = [threads.submit(issuer.keys.key, "two") for _ in range(9)]
        try:
            eventually(lambda: sum(answer.done() for answer in answers) == 5)
        finally:
            issuer.answers.set()
    assert [isinstance(answer.exception(), Refused) for answer in answers].count(True) == 5


def test_before_there_is_any_key_set_all_wait_for_the_one_fetch() -> None:
    issuer = Hanging()
    with ThreadPoolExecutor(8) as threads:
        answers = [threads.submit(issuer.keys.key, "one") for _ in range(8)]
        assert issuer.asked.acquire(timeout=LONG)
        issuer.answers.set()
        assert all(answer.result(timeout=LONG) is not None for answer in answers)
    assert issuer.fetched == 1


def test_a_fetch_that_no_thread_is_to_be_had_for_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service at its limit refuses one request, and not every one from then on."""
    issuer = Hanging()
    issuer.answers.set()
    with monkeypatch.context() as at_the_limit:
        at_the_limit.setattr(threading.Thread, "start", lambda _: _refuse())
        with pytest.raises(Refused, match="no thread can be started"):
            issuer.keys.key("one")
    issuer.clock += 10
    assert issuer.keys.key("one") is not None


def _refuse() -> None:
    raise RuntimeError("can't start new thread")


def test_nobody_waits_for_ever_for_a_fetch_that_does_not_end() -> None:
    """As of a thread that stayed behind at a fork: nothing will ever say that it has ended."""
    issuer = Hanging()
    issuer.keys.longest = timedelta(milliseconds=20)
    with pytest.raises(Refused, match="no answer has come yet"):
        issuer.keys.key("one")
    issuer.answers.set()
    issuer.clock += 1
    assert issuer.keys.key("one") is not None
    assert issuer.fetched == 2


@pytest.mark.parametrize(
    ("fails", "why"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "Connection refused"),
        (Unfetched("its address answers 503"), "its address answers 503"),
        (OSError("https://user:secret@aswhom.example/jwks is away"), "OSError"),
        (BadStatusLine("secret"), "BadStatusLine"),
        (ValueError("secret"), "ValueError"),
        (OSError(5, "x" * 10_000), "x" * 200),
    ],
    ids=["no connection", "status", "its address", "what came", "its value", "at length"],
)
def test_a_token_of_an_unknown_key_is_refused_with_why_the_keys_are_not_newer(fails: Exception, why: str) -> None:
    issuer = Hanging()
    issuer.answers.set()
    head = {"alg": "Ed25519", "typ": TYPE, "kid": "next"}
    token = jwt.encode(head, {}, OKPKey.generate_key("Ed25519"), registry=JWSRegistry(algorithms=["Ed25519"]))
    verifier = Verifier(issuer="https://aswhom.example", audience="https://invoices.example", keys=issuer.keys)

    def refusal() -> str:
        with pytest.raises(Refused) as refused:
            verifier.verify(token, now=datetime.now(UTC), request_sha256=None)
        assert refused.value.reason == Reason.KEY
        return refused.value.description

    unknown = "no published key of that algorithm has its kid"
    assert refusal() == unknown
    issuer.fails = fails
    assert refusal() == unknown, "the key set was fetched just now"
    issuer.clock += 10
    for _ in range(2):  # and nobody fetches again before the pause is over
        assert refusal() == (
            f"no key that is known here has its kid, and the key set could not be fetched anew ({why}): "
            "make sure that its address answers this host, then try again"
        )
    assert issuer.keys.key("one") is not None
    issuer.fails = None
    issuer.clock += 10
    assert refusal() == unknown


def test_a_fetch_of_ones_own_that_breaks_off_leaves_a_traceback_and_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    died: list[type[BaseException]] = []
    monkeypatch.setattr(threading, "excepthook", lambda of: died.append(of.exc_type))
    issuer = Hanging()
    issuer.answers.set()
    issuer.fails = KeyError("a bug")
    with pytest.raises(Refused, match="broke off, with a traceback"):
        issuer.keys.key("one")
    eventually(lambda: died == [KeyError])


@contextmanager
def answering(*parts: bytes, drips: bool = False) -> Iterator[str]:
    """A server that gives one connection these bytes, and then the last ones again and again until it is left."""
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                for part in parts:
                    connection.sendall(part)
                while drips and not ended.wait(0.02):
                    try:
                        connection.sendall(parts[-1])
                    except OSError:
                        return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/jwks?x=1"
        ended.set()
        thread.join(LONG)


def test_a_key_set_is_fetched_past_the_environments_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    body = json.dumps(KEY_SET).encode()
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body), body) as url:
        assert fetch(url) == KEY_SET


def test_a_key_set_that_is_elsewhere_is_none() -> None:
    with (
        answering(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n") as url,
        pytest.raises(Unfetched, match="answers 302"),
    ):
        fetch(url)


@pytest.mark.parametrize(
    "parts",
    [(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b" "), (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x")],
    ids=["body", "head"],
)
@pytest.mark.timeout(60)
def test_an_answer_that_drips_ends_in_time(parts: tuple[bytes, ...]) -> None:
    """Each byte comes soon, and the last one never."""
    with answering(*parts, drips=True) as url, pytest.raises((OSError, HTTPException, ValueError)):
        fetch(url, within=timedelta(seconds=0.3))


def test_a_file_is_no_key_set() -> None:
    with pytest.raises(Unfetched, match="over HTTP"):
        fetch("file:///etc/passwd")

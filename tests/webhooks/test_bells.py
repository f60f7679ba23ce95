"""Bells ring after the answer, one thread at a time."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Event, Thread

from flask import Flask, Response

from identity.model import AccessPattern
from pipeline.model import Bell
from tests.webhooks.parts import MemoryRing
from webhooks.bells import Bells


def bell(job: str) -> Bell:
    return Bell(job=job, tenant="t", pattern=AccessPattern.SERVICE)


class Frozen(MemoryRing):
    """A ring whose broker does not answer until it is thawed."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.thawed = Event(), Event()

    def jobs(self, bells: Sequence[Bell]) -> bool:
        self.entered.set()
        assert self.thawed.wait(60)
        return super().jobs(bells)


def test_nothing_rings_before_the_response_is_closed() -> None:
    ring, response = MemoryRing(), Response("sent")
    Bells(ring).ring_after(response, bells=[bell("a")])
    assert ring.rung == []
    response.close()
    assert ring.rung == ["a"]


def test_a_response_without_bells_rings_nothing() -> None:
    ring, response = MemoryRing(), Response("sent")
    Bells(ring).ring_after(response)
    response.close()
    assert ring.rung == []


def test_a_hanging_broker_holds_one_thread_and_the_rest_leave_their_bells_with_it() -> None:
    ring = Frozen()
    bells = Bells(ring)

    def answer(name: str) -> None:
        response = Response("sent")
        bells.ring_after(response, bells=[bell(name)])
        response.close()

    first = Thread(target=answer, args=("first",))
    first.start()
    assert ring.entered.wait(60)
    for number in range(5):
        answer(f"later-{number}")  # returns at once
    assert ring.rung == []
    ring.thawed.set()
    first.join(60)
    assert ring.rung == ["first", *(f"later-{number}" for number in range(5))]


def test_bells_of_many_threads_are_each_rung_once() -> None:
    ring = MemoryRing()
    bells = Bells(ring)

    def answer(thread: int) -> None:
        for number in range(200):
            response = Response("sent")
            bells.ring_after(response, bells=[bell(f"{thread}-{number}")])
            response.close()

    threads = [Thread(target=answer, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(ring.rung) == sorted(f"{thread}-{number}" for thread in range(8) for number in range(200))


def test_the_app_answers_before_it_rings(app: Flask, ring: MemoryRing) -> None:
    from tests.webhooks.parts import JSON, github_headers

    body = b'{"action":"opened","issue":{"number":7}}'
    environ = {"headers": github_headers(body), "content_type": JSON}
    response = app.test_client().post("/webhooks/github/gh", data=body, buffered=False, **environ)
    assert b"".join(response.iter_encoded())
    assert ring.rung == []
    response.close()
    assert ring.rung == ["job-dlv-1-0"]

"""Fixtures of this folder: a broker for one test, and children that never outlive it."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.ring import CeleryRing
from tests.celery.rig import Child, Server, publisher


@pytest.fixture
def broker() -> Iterator[Server]:
    """A Valkey of this test's own, to be killed, frozen and filled with junk."""
    directory = Path(tempfile.mkdtemp(prefix="aswhom-celery-"))
    server = Server(directory)
    try:
        server.start()
        yield server
    finally:
        server.send(signal.SIGCONT)
        server.kill()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def ring(broker: Server) -> Iterator[CeleryRing]:
    with closing(CeleryRing(publisher(broker.url))) as ring:
        yield ring


@pytest.fixture
def child(broker: Server, tmp_path: Path) -> Iterator[Callable[..., Child]]:
    """Makes worker and beat processes; all share one record of what was handled."""
    made: list[Child] = []

    def make(name: str = "worker", **environment: str) -> Child:
        made.append(Child(broker, tmp_path, name, **environment))
        return made[-1]

    yield make
    for one in made:
        one.end()

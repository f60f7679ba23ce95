"""Fixtures of this folder: a broker for one test, and children that never outlive it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.broker.ring import CeleryRing
from tests.celery.rig import Child, publisher
from tests.servers.valkey import Valkey


@pytest.fixture
def broker(own_valkey: Valkey) -> Valkey:
    """A Valkey of this test's own, to be killed, frozen and filled with junk."""
    return own_valkey


@pytest.fixture
def ring(broker: Valkey) -> Iterator[CeleryRing]:
    with closing(CeleryRing(publisher(broker.url))) as ring:
        yield ring


@pytest.fixture
def child(broker: Valkey, tmp_path: Path) -> Iterator[Callable[..., Child]]:
    """Makes worker and beat processes; all share one record of what was handled."""
    made: list[Child] = []

    def make(name: str = "worker", **environment: str) -> Child:
        made.append(Child(broker, tmp_path, name, **environment))
        return made[-1]

    yield make
    for one in made:
        one.end()

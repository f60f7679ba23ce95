"""What ringing costs where the broker is a RabbitMQ, which may take a message and never confirm it."""

from __future__ import annotations

import time
from contextlib import closing

from identity.model import AccessPattern
from pipeline.broker.ring import CeleryRing
from tests.celery.rabbit import rabbit
from tests.celery.rig import bells, count, publisher
from tests.servers.process import free_port

SOON = 10  # seconds; who is not bounded does not come back at all


def test_bells_are_rung_and_counted() -> None:
    with rabbit("service") as broker, closing(CeleryRing(publisher(broker.url))) as ring:
        assert ring.unheard("hybrid") == 0, "there is no such queue yet"
        assert ring.jobs(bells("j1", "j2", "j3"))
        assert ring.unheard("service") == 3
        assert broker.queues == {"service": 3}, "counting makes none"
        assert ring.jobs(bells("j4", pattern=AccessPattern.HYBRID))
        assert broker.queues == {"service": 3, "hybrid": 1}, "no worker has declared it yet"
        assert broker.connections == 1


def test_a_broker_that_confirms_nothing_costs_one_stall_and_is_rung_again_when_it_does() -> None:
    """As a quorum queue without its majority, and a node that is frozen: the connection stays."""
    now = [100.0]
    with rabbit("service") as broker, closing(CeleryRing(publisher(broker.url), monotonic=lambda: now[0])) as ring:
        assert ring.jobs(bells("j1"))
        broker.hangs = True
        failed, skipped = count("failed"), count("skipped")
        for rings in (True, False):
            began = time.monotonic()
            assert not (ring.jobs(bells("j2")) if rings else ring.unheard("service"))
            assert not ring.jobs(bells("j3"))
            assert time.monotonic() - began < SOON
            now[0] += 10
        assert (count("failed"), count("skipped")) == (failed + 2, skipped + 2)
        broker.hangs = False
        assert ring.unheard("service") == 1
        assert ring.jobs(bells("j4"))
        assert broker.queues["service"] == 2


def test_the_next_address_is_taken_where_the_first_does_not_answer() -> None:
    gone = f"amqp://guest:guest@127.0.0.1:{free_port()}//"
    with rabbit("service") as broker, closing(CeleryRing(publisher(f"{gone};{broker.url}"))) as ring:
        assert ring.unheard("service") == 0
        assert ring.jobs(bells("j1"))
        assert broker.queues == {"service": 1}

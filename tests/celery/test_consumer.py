"""How soon a worker comes back to a broker that was away, and what it tells it of messages."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.consumer import Consumer
from pipeline.ring import JOB, REVOCATION
from tests.celery.rig import publisher


class Connection:
    """Notes how it is asked to connect."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}

    def ensure_connection(self, *_: Any, **how: Any) -> Connection:
        self.asked = how
        return self


def test_the_pause_between_attempts_to_reconnect_is_capped_at_three_seconds() -> None:
    consumer = Consumer.__new__(Consumer)
    consumer.app = SimpleNamespace(conf=publisher("redis://127.0.0.1:1/0").conf)  # type: ignore[assignment]
    connection = Connection()
    assert consumer.ensure_connected(connection) is connection
    assert connection.asked["interval_start"] == 0.5
    assert connection.asked["interval_step"] == 0.5
    assert connection.asked["interval_max"] == 3


@pytest.mark.parametrize(("broker", "keeps"), [("redis://127.0.0.1:1/0", False), ("amqp://127.0.0.1:1", True)])
def test_what_a_broker_keeps_is_acknowledged_and_nothing_else(broker: str, keeps: bool) -> None:
    app = publisher(broker)
    assert {queue.no_ack for queue in app.conf.task_queues} == {not keeps}
    of = "celery.worker.request:Request" if keeps else "pipeline.consumer:Request"
    assert {app.tasks[name].Request for name in (JOB, REVOCATION)} == {of}

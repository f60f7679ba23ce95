"""How soon a worker comes back to a broker that was away."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from pipeline.consumer import Consumer
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

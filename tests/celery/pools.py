"""Pools that begin no task, or not every one, as beyond a control group's limit of processes; and a loop that hangs."""

from __future__ import annotations

import threading
from itertools import count
from typing import Any

from pipeline.broker.consumer import Consumer
from pipeline.broker.pool import TaskPool


class NoThreads(TaskPool):
    """`RIG_CONF={"worker_pool": "tests.celery.pools:NoThreads"}`."""

    def on_apply(self, *_args: Any, **_options: Any) -> Any:
        raise RuntimeError("can't start new thread")


class EverySecond(TaskPool):
    """Begins one task, and not the next."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._asked = count()

    def on_apply(self, *args: Any, **options: Any) -> Any:
        if next(self._asked) % 2:
            raise RuntimeError("can't start new thread")
        return super().on_apply(*args, **options)


class StandsStill(Consumer):
    """`RIG_CONF={"worker_consumer": "tests.celery.pools:StandsStill"}`: its loop hangs in its first second."""

    def on_ready(self) -> None:
        super().on_ready()
        self.hub.call_later(1, threading.Event().wait)


class Hasty(Consumer):
    """Fails for good after a second."""

    FAILS_FOR = 1.0
    PAUSE = 0.05


class Prompt(Consumer):
    """Starts again at once."""

    PAUSE = 0.01

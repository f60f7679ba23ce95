"""Celery's own ways to revoke, by id and by stamp: what *backlog* is measured beside."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from celery import Celery

from tests.bench.ground import Ground, Processes

PREFIX, QUEUE = "peer:", "peer"
REPLY = 300.0  # seconds that the workers may take to answer a revocation
# As Celery comes, but for its pool: threads, as many as ours has.
_COMMAND = (
    "celery --quiet --app tests.bench.peer:celery worker --pool threads --concurrency 32 --queues peer --loglevel ERROR"
)


class Tasks:
    """Tasks in a queue, each in the name of a grant, by which it is stamped too."""

    def __init__(self, ground: Ground, processes: Processes, upstream: str) -> None:
        self._processes = processes
        self._environment = {**ground.environment, "PEER_BROKER_URL": ground.broker.url, "PEER_UPSTREAM": upstream}
        self._ground = ground
        self.celery = Celery(broker=ground.broker.url, set_as_current=False)
        self.celery.conf.broker_transport_options = {"global_keyprefix": PREFIX}
        self.ids: list[str] = []  # of the tasks that are going to be revoked
        self.workers = 0

    def queue(self, number: int, *, mine: str, others: Sequence[str]) -> None:
        """Put in *number* tasks, every other one of the grant *mine*."""
        with self.celery.connection_for_write() as connection, connection.Producer() as producer:
            for place in range(number):
                grant = mine if place % 2 == 0 else others[place // 2 % len(others)]
                stamp: dict[str, Any] = {"stamped_headers": ["grant"], "grant": grant}
                sent = self.celery.send_task("peer.call_as", (grant,), queue=QUEUE, producer=producer, **stamp)
                if grant == mine:
                    self.ids.append(sent.id)

    def work(self, workers: int) -> list[subprocess.Popen[str]]:
        self.workers = workers
        return [
            self._processes.start([*shlex.split(_COMMAND), "--hostname", f"peer-{number}@%h"], self._environment)[0]
            for number in range(workers)
        ]

    def waiting(self) -> int:
        """Tasks that no worker has taken yet."""
        with self._ground.broker.client() as client:
            return int(client.llen(f"{PREFIX}{QUEUE}"))

    def answered(self, revoke: Callable[..., Any]) -> float:
        """Seconds until every worker has answered."""
        began = time.perf_counter()
        replies = revoke(reply=True, timeout=REPLY, limit=self.workers)
        seconds = time.perf_counter() - began
        if len(replies or ()) < self.workers:
            raise TimeoutError(f"{len(replies or ())} of {self.workers} workers answered within {REPLY:.0f} s")
        return seconds


def _by_ids(tasks: Tasks, _grant: str) -> float:
    return tasks.answered(lambda **how: tasks.celery.control.revoke(tasks.ids, **how))


def _by_stamp(tasks: Tasks, grant: str) -> float:
    return tasks.answered(lambda **how: tasks.celery.control.revoke_by_stamped_headers({"grant": grant}, **how))


PEERS: Mapping[str, Callable[[Tasks, str], float]] = {
    "control.revoke(ids)": _by_ids,
    "revoke_by_stamped_headers": _by_stamp,
}

"""jobs: one-step jobs through real workers, beside a bare Celery task that makes the same call."""

from __future__ import annotations

import secrets
import shlex
import signal
import time
from datetime import UTC, datetime, timedelta

from celery import Celery
from sqlalchemy import func, select

from pipeline.states import JobState
from pipeline.tables import jobs
from tests.bench.figures import Sheet
from tests.bench.ground import Ground, Ledger, Processes, at_once
from tests.bench.upstream import Upstream

WORKERS = 2  # processes of 32 threads, as `aswhom up` starts them
JOBS, TASKS = 400, 2_000  # a round
ACCEPTING = 4  # threads that accept the jobs
AHEAD = timedelta(seconds=3)  # when they fall due, from before their acceptance
PEER = "bare Celery task"
_FLAGS = "--disable-prefetch --without-gossip --without-mingle --without-heartbeat --loglevel WARNING"
_PEER = f"celery --quiet --app tests.bench.peer:celery worker --pool custom --concurrency 32 --queues peer {_FLAGS}"


def measure(ground: Ground, rounds: int) -> Sheet:
    sheet = Sheet(f"jobs: one step, one call, through {WORKERS} workers of 32 threads; the upstream answers at once")
    with ground.ledgers() as ledgers, ground.processes() as processes:
        upstream = Upstream(processes, ground.environment)
        for ledger in ledgers.values():
            ledger.receive(upstream.url)
            for number in range(WORKERS):
                processes.listed("worker", ledger.environment(), number=number + 1)
            processes.listed("housekeeping", ledger.environment())
        peer = Peer(ground, processes, upstream)
        for turn in range(rounds + 1):  # the first warms up
            rates = {PEER: peer.rate()} | {name: _rate(ledger, upstream) for name, ledger in ledgers.items()}
            for name, rate in rates.items():
                if turn:
                    sheet.add(
                        name if name == PEER else f"Aswhom, {name}", rate, "/s", peer=None if name == PEER else PEER
                    )
        upstream.close()
    return sheet


class Peer:
    """Celery workers on our pool, with as many processes and threads."""

    def __init__(self, ground: Ground, processes: Processes, upstream: Upstream) -> None:
        environment = {
            **ground.environment,
            "CELERY_CUSTOM_WORKER_POOL": "pipeline.pool:TaskPool",
            "PEER_BROKER_URL": ground.broker.url,
            "PEER_UPSTREAM": upstream.url,
        }
        command = shlex.split(_PEER)
        self._workers = [
            processes.start([*command, "--hostname", f"peer-{number}@%h"], environment)[0] for number in range(WORKERS)
        ]
        self._upstream = upstream
        self._client = Celery(broker=ground.broker.url, set_as_current=False)
        self._client.conf.broker_transport_options = {"global_keyprefix": "peer:"}

    def rate(self) -> float:
        """Tasks a second of tasks that were queued before the workers went on."""
        self._signal(signal.SIGSTOP)
        try:
            with self._client.connection_for_write() as connection, connection.Producer() as producer:
                for number in range(TASKS):
                    document = {"text": str(number)}
                    self._client.send_task("peer.call", (document,), queue="peer", producer=producer)
            self._upstream.forget()
        finally:
            self._signal(signal.SIGCONT)
        return self._upstream.rate(TASKS, seconds=60)

    def _signal(self, number: signal.Signals) -> None:
        for worker in self._workers:
            worker.send_signal(number)


def _rate(ledger: Ledger, upstream: Upstream) -> float:
    """Jobs a second, by the upstream's clock, of jobs that fall due all at once."""
    due = datetime.now(UTC) + AHEAD

    def accept(_: int) -> None:
        for _ in range(JOBS // ACCEPTING):
            key = secrets.token_hex(8)
            ledger.house.accept(ledger.house.delivery(key, text=key), now=due)

    at_once(ACCEPTING, accept)
    assert datetime.now(UTC) < due, "accepting took longer than the jobs waited"
    upstream.forget()
    rate = upstream.rate(JOBS, seconds=60)
    unfinished = select(func.count()).where(jobs.c.state != JobState.DONE)
    while ledger.database.read(lambda c: c.execute(unfinished).scalar_one()):
        time.sleep(0.05)
    return rate

"""jobs: one-step jobs through real workers, beside a bare Celery task that makes the same call; then jobs that wait.

The latter make three calls of 200 ms. Beside them stands what so many connections could do at the most: their number by
the latency. Where the processor is full before that, the row of what was busy says so.
"""

from __future__ import annotations

import secrets
import shlex
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from celery import Celery
from sqlalchemy import func, select, update

from pipeline.authoring.declared_workflow import Workflow
from pipeline.states import JobState
from pipeline.tables import jobs, workflow_settings
from tests.bench.figures import Sheet
from tests.bench.ground import Ground, Ledger, Processes, at_once, processor_time
from tests.bench.thrice import CALLS, say_thrice
from tests.bench.upstream import Upstream
from tests.ledger.house import say_it

WORKERS, THREADS = 2, 32  # processes and the threads of each, as `aswhom up` starts them
JOBS, TASKS = 400, 2_000  # a round
WAITING = 10  # jobs of three slow calls a round, for every thread
LATENCY = 0.2  # seconds that a slow call takes
ACCEPTING = 4  # threads that accept the jobs
FINISHED = 60  # seconds after the last call in which the last job is to be done
AHEAD = timedelta(hours=1)  # when they would fall due, if they were not let go once all are there
PEER = "bare Celery task"
_FLAGS = "--disable-prefetch --without-gossip --without-mingle --without-heartbeat --loglevel WARNING"
_PEER = f"celery --quiet --app tests.bench.peer:celery worker --pool custom --concurrency 32 --queues peer {_FLAGS}"


def measure(ground: Ground, rounds: int) -> Sheet:
    sheet = Sheet(
        f"jobs: one call that is answered at once, through {WORKERS} workers of {THREADS} threads; then three slow ones"
    )
    _measure_quick(ground, rounds, sheet)
    for workers in range(1, WORKERS + 1):
        _measure_waiting(ground, rounds, sheet, workers)
    return sheet


def _measure_quick(ground: Ground, rounds: int, sheet: Sheet) -> None:
    with ground.ledgers() as ledgers, ground.processes() as processes:
        upstream = Upstream(processes, ground.environment)
        for ledger in ledgers.values():
            ledger.receive(upstream.url)
            for number in range(WORKERS):
                processes.listed("worker", ledger.environment(), number=number + 1)
            processes.listed("housekeeping", ledger.environment())
        peer = Peer(ground, processes, upstream)
        for turn in range(rounds + 1):  # the first warms up
            rates = {PEER: peer.rate()}
            for name, ledger in ledgers.items():
                _let_go(ledger, say_it, JOBS, upstream)
                rates[name] = upstream.rate(JOBS, seconds=60)
                _finished(ledger)
            for name, rate in rates.items():
                if turn:
                    sheet.add(
                        name if name == PEER else f"Aswhom, {name}", rate, "/s", peer=None if name == PEER else PEER
                    )
        upstream.close()


def _measure_waiting(ground: Ground, rounds: int, sheet: Sheet, workers: int) -> None:
    """Jobs of three calls of 200 ms through so many workers, one ledger's after the other's."""
    connections = workers * THREADS
    most = f"{connections} connections ÷ {LATENCY * 1000:.0f} ms"
    with ground.ledgers() as ledgers, ground.processes() as processes:
        upstream = Upstream(processes, ground.environment, seconds=LATENCY)
        running: dict[str, list[int]] = {}
        for name, ledger in ledgers.items():
            ledger.receive(upstream.url)
            _switch_on(ledger, say_thrice)
            environment = ledger.environment(ASWHOM_WORKFLOWS=say_thrice.function.__module__)
            running[name] = [
                processes.listed("worker", environment, number=number + 1).pid for number in range(workers)
            ]
            processes.listed("housekeeping", environment)
        for turn in range(rounds + 1):  # the first warms up
            for name, ledger in ledgers.items():
                calls = connections * WAITING * CALLS
                _let_go(ledger, say_thrice, connections * WAITING, upstream)
                busy, before = Busy(), sum(map(processor_time, running[name]))
                rate = upstream.rate(calls, seconds=180, steady=True)
                share = busy.share()
                _finished(ledger)
                a_call = (sum(map(processor_time, running[name])) - before) / calls
                if turn:
                    of = f"Aswhom, {name}, {workers} × {THREADS} threads"
                    sheet.add(most, connections / LATENCY, "calls/s")
                    sheet.add(of, rate, "calls/s", peer=most)
                    sheet.add(f"{of}, processor busy", share * 100, "%")
                    sheet.add(f"{of}, a worker's processor, a call", a_call * 1000, "ms")
        upstream.close()


def _switch_on(ledger: Ledger, workflow: Workflow) -> None:
    row = {"tenant_id": "acme", "workflow": workflow.name, "enabled": True, "config": {}}
    ledger.database.write(lambda c: c.execute(workflow_settings.insert(), row).rowcount)


class Busy:
    """The share of the machine's processors that was at work since then, by anybody."""

    def __init__(self) -> None:
        self._idle, self._whole = self._read()

    def share(self) -> float:
        idle, whole = self._read()
        return 1 - (idle - self._idle) / max(1, whole - self._whole)

    @staticmethod
    def _read() -> tuple[int, int]:
        fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return fields[3] + fields[4], sum(fields)  # idle and waiting for disks, of all (proc(5))


class Peer:
    """Celery workers on our pool, with as many processes and threads."""

    def __init__(self, ground: Ground, processes: Processes, upstream: Upstream) -> None:
        environment = {
            **ground.environment,
            "CELERY_CUSTOM_WORKER_POOL": "pipeline.broker.pool:TaskPool",
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


def _let_go(ledger: Ledger, workflow: Workflow, number: int, upstream: Upstream) -> None:
    """Accept so many jobs, and then let all of them fall due at once."""
    later, house = datetime.now(UTC) + AHEAD, ledger.house
    house.workflow = workflow

    def accept(_: int) -> None:
        for _ in range(number // ACCEPTING):
            key = secrets.token_hex(8)
            house.accept(house.delivery(key, text=key), due=later)

    at_once(ACCEPTING, accept)
    upstream.forget()
    due = update(jobs).where(jobs.c.state == JobState.QUEUED).values(due_at=datetime.now(UTC))
    ledger.database.write(lambda c: c.execute(due).rowcount)


def _finished(ledger: Ledger) -> None:
    """Wait until the last job is done. Raises RuntimeError with what the others are, if they stay that."""
    others = select(jobs.c.state, jobs.c.reason, func.count()).where(jobs.c.state != JobState.DONE)
    others = others.group_by(jobs.c.state, jobs.c.reason)
    deadline = time.monotonic() + FINISHED
    while left := ledger.database.read(lambda c: c.execute(others).all()):
        if time.monotonic() > deadline:
            raise RuntimeError(f"after {FINISHED} s there are jobs that are not done: {[tuple(row) for row in left]}")
        time.sleep(0.05)

"""backlog: a revocation while workers are busy with very many pending jobs, half of them of one grant.

Beside it, with as many tasks in the same Valkey, Celery's own two ways to revoke. What ran anyway is told by the
upstream: calls of any revoked grant that came after its revocation had been answered, and that its receipt does not
list as in flight.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import ColumnElement, Connection, func, select

from deploy import process as deployed
from deploy.settings import Settings
from identity.model import Scope
from pipeline.authoring.registry import Registry
from pipeline.broker.ring import CeleryRing
from pipeline.revocation import declaration
from pipeline.revocation.declaration import Stage
from pipeline.revocation.tables import revocations
from pipeline.states import JobState
from pipeline.tables import jobs
from tests.bench.admins import Admins
from tests.bench.backlog_peers import PEERS, Tasks
from tests.bench.figures import Sheet, percentile
from tests.bench.ground import Ground, Ledger, Processes
from tests.bench.queued import queue
from tests.bench.revoke import declare, effective
from tests.bench.upstream import SeenCall, Upstream
from tests.ledger.house import account_scope
from tests.servers.process import free_port

WORKERS = 2  # processes of 32 threads, as `aswhom up` starts them
BYSTANDERS = 128  # people of other tenants, who share the other half of the jobs
REVOKED = 100  # of them, one by one, before the great one; the others by the API
BETWEEN = 0.05  # seconds between these
TAKES = 0.05  # seconds that the upstream takes
BUSY = 200  # calls, before the first revocation
LONG = (0.02, 0.05)  # seconds; a chunk's aim is to stay below the first
PATIENCE = 900.0


def measure(ground: Ground, rounds: int) -> Sheet:
    sheet = Sheet(f"backlog: {ground.pending:,} pending, half of them of one grant, which is revoked under way")
    for _ in range(rounds):
        for kind in ground.kinds:
            with ground.ledgers() as ledgers, ground.processes() as processes:
                _ours(ledgers[kind], processes, sheet)
        for name, revoke in PEERS.items():
            with ground.processes() as processes:
                _theirs(name, revoke, ground, processes, sheet)
        with ground.ledgers() as ledgers:
            for ledger in ledgers.values():
                _flat(ledger, ground.pending, sheet)
    sheet.notes += [
        f"{REVOKED} other grants are revoked first, one by one: they are the percentiles. The great one is apart.",
        f"Between them {BYSTANDERS - REVOKED} more are revoked by the API, to whose web process nobody else comes.",
        f"Ran anyway: calls of all {BYSTANDERS + 1} revoked grants.",
        "A chunk is timed by the revocations worker's own histogram, without its commit.",
        "The peers: Celery's thread pool, no result backend; answered: both workers have replied.",
    ]
    return sheet


def _ours(ledger: Ledger, processes: Processes, sheet: Sheet) -> None:
    ground, kind = ledger.ground, ledger.kind
    upstream = Upstream(processes, ground.environment, seconds=TAKES)
    ledger.receive(upstream.url)
    tenants = [f"tenant-{number}" for number in range(BYSTANDERS)]
    for tenant in tenants:
        ledger.house.connect(tenant, f"{tenant}.ada")
    half = ground.pending // 2
    queue(ledger, {"acme": half, **dict.fromkeys(tenants, half // BYSTANDERS)})
    ring, port = _ring(ledger), free_port()
    admins = Admins(ledger, processes, tenants[REVOKED:])
    workers = [processes.listed("worker", ledger.environment(), number=number + 1) for number in range(WORKERS)]
    processes.listed("revocations", ledger.environment(ASWHOM_REVOCATIONS_METRICS_PORT=str(port)))
    processes.listed("housekeeping", ledger.environment())
    _wait(lambda: upstream.count() >= BUSY, "the workers to be busy")
    before = sum(memory(worker.pid) for worker in workers)
    took, answered = [], dict[str, Answered]()
    for tenant in tenants[:REVOKED]:
        time.sleep(BETWEEN)
        seconds, made = _revoke(ledger, account_scope(f"{tenant}.ada", tenant), tenant)
        answered[f"{tenant}.ada"] = Answered(revocation=made, at=time.time())
        took.append(seconds)
        ring.revocations([made])
    by_http = []
    for tenant in tenants[REVOKED:]:
        time.sleep(BETWEEN)
        seconds, made = admins.revoke(account_scope(f"{tenant}.ada", tenant), tenant)
        answered[f"{tenant}.ada"] = Answered(revocation=made, at=time.time())
        by_http.append(seconds)
    admins.close()
    _wait(lambda: not ledger.database.read(_cancelling), "the jobs of these to be cancelled")
    began = time.monotonic()
    last, made = _revoke(ledger, account_scope(), "acme")
    answered["acme.ada"] = Answered(revocation=made, at=time.time())
    ring.revocations([made])
    _wait(lambda: not ledger.database.read(_cancelling), "the jobs to be cancelled")
    cancelled = time.monotonic() - began
    _wait(lambda: ledger.database.read(lambda c: declaration.load(c, made)).receipt is not None, "the receipt")
    receipt = time.monotonic() - began
    row = ledger.database.read(lambda c: declaration.load(c, made))
    _wait(lambda: not ledger.database.read(_without_receipt), "the receipts of the others")
    assert not ledger.database.read(_unfinished), "jobs of revoked grants that have not ended, and could still run"
    busy, anyway = ran_anyway(upstream.calls(), answered, in_flight=_in_flight(ledger, answered))
    for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1)):
        sheet.add(f"{kind}: revocation effective, {name}", percentile(took, share) * 1000, "ms")
    for name, share in (("p50", 0.5), ("max", 1)):
        sheet.add(f"{kind}: POST /v1/revocations answered, {name}", percentile(by_http, share) * 1000, "ms")
    sheet.add(f"{kind}: the great grant's revocation effective", last * 1000, "ms")
    sheet.add(f"{kind}: the grant's jobs cancelled", row.cancelled_jobs, "jobs")
    sheet.add(f"{kind}: all of them cancelled after", cancelled, "s")
    sheet.add(f"{kind}: the receipt after", receipt, "s")
    sheet.add(f"{kind}: revoked grants that had called before", busy, "")
    sheet.add(f"{kind}: ran anyway", anyway, "jobs")
    sheet.add(f"{kind}: memory of the workers, growth", sum(memory(one.pid) for one in workers) - before, "MB")
    chunks, long = _chunks(port)
    sheet.add(f"{kind}: chunks", chunks, "")
    for limit, number in long.items():
        sheet.add(f"{kind}: chunks longer than {limit * 1000:.0f} ms", number, "")
    upstream.close()


def _theirs(
    name: str, revoke: Callable[[Tasks, str], float], ground: Ground, processes: Processes, sheet: Sheet
) -> None:
    upstream = Upstream(processes, ground.environment, seconds=TAKES)
    tasks = Tasks(ground, processes, upstream.url)
    tasks.queue(ground.pending, mine="grant-0", others=[f"grant-{number + 1}" for number in range(BYSTANDERS)])
    workers = tasks.work(WORKERS)
    _wait(lambda: upstream.count() >= BUSY, "the peer's workers to be busy")
    before = sum(memory(worker.pid) for worker in workers)
    upstream.forget()
    asked = time.time()
    seconds = revoke(tasks, "grant-0")
    answered = time.time()
    growth = sum(memory(worker.pid) for worker in workers) - before
    _wait(lambda: tasks.waiting() == 0, "the peer's queue to be empty")
    calls = -1
    while calls != (calls := upstream.count()):
        time.sleep(1)
    of_it = [call for call in upstream.calls() if call.credential == "Bearer grant-0"]
    sheet.add(f"{name}: answered after", seconds, "s")
    sheet.add(f"{name}: ran until then", sum(asked < call.began <= answered for call in of_it), "jobs")
    sheet.add(f"{name}: ran anyway", sum(call.began > answered for call in of_it), "jobs")
    sheet.add(f"{name}: memory of the workers, growth", growth, "MB")
    upstream.close()


def _flat(ledger: Ledger, pending: int, sheet: Sheet) -> None:
    """The revocation's commit over ten times as many pending jobs each time, up to five times *pending*."""
    queued, size = 0, 1_000
    while size <= 5 * pending:
        queue(ledger, dict.fromkeys(("acme", "globex"), (size - queued) // 2))
        effective(ledger, sheet, name=f"{ledger.kind}, {size:,} pending")
        queued, size = size, size * 10


def _revoke(ledger: Ledger, scope: Scope, tenant: str) -> tuple[float, str]:
    began = time.perf_counter()
    made = declare(ledger, scope, tenant=tenant)
    return time.perf_counter() - began, made


@dataclass(frozen=True, kw_only=True)
class Answered:
    """A revocation that has been answered."""

    revocation: str
    at: float  # the clock, in seconds, as in the upstream's calls


def _in_flight(ledger: Ledger, answered: Mapping[str, Answered]) -> frozenset[str]:
    """The attempts that the receipts list as in flight."""
    loads = [partial(declaration.load, revocation=one.revocation) for one in answered.values()]
    return frozenset(call["attempt"] for load in loads for call in ledger.database.read(load).receipt["in_flight"])


def ran_anyway(
    calls: Iterable[SeenCall], answered: Mapping[str, Answered], *, in_flight: Collection[str]
) -> tuple[int, int]:
    """Count the grants that called before they were revoked, and the calls that should not have come afterwards.

    *answered*: the revocations by the grant's principal. *in_flight*: the attempts that their receipts list.
    """
    before, late = set(), 0
    for call in calls:
        principal = call.credential.partition("token-")[2].rpartition("-")[0]
        if (one := answered.get(principal)) is None:  # no call of a step
            continue
        if call.at <= one.at:
            before.add(principal)
        elif call.attempt not in in_flight:
            late += 1
    return len(before), late


def _cancelling(c: Connection) -> int:
    return _count(c, revocations.c.state.in_(declaration.REACHING))


def _without_receipt(c: Connection) -> int:
    return _count(c, revocations.c.state != Stage.QUIESCED)


def _unfinished(c: Connection) -> int:
    """Jobs that could still run: every job is of a revoked grant."""
    return _count(c, jobs.c.state.not_in([JobState.DONE, JobState.CANCELLED]))


def _count(c: Connection, where: ColumnElement[bool]) -> int:
    return int(c.execute(select(func.count()).where(where)).scalar_one())


def _ring(ledger: Ledger) -> CeleryRing:
    given = {name.removeprefix("ASWHOM_").lower(): value for name, value in ledger.environment().items()}
    settings = Settings(**{name: value for name, value in given.items() if name in Settings.model_fields})  # type: ignore[arg-type]
    return CeleryRing(deployed.celery_app(settings, Registry((ledger.house.workflow,))))


def _chunks(port: int) -> tuple[int, dict[float, int]]:
    """How many chunks the revocations worker took, and how many of them took longer than each of LONG."""
    page = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    (family,) = (one for one in text_string_to_metric_families(page) if one.name == "aswhom_revocation_chunk_seconds")
    within = {sample.labels.get("le", sample.name): sample.value for sample in family.samples}
    number = within["aswhom_revocation_chunk_seconds_count"]
    return int(number), {limit: int(number - within[str(limit)]) for limit in LONG}


def memory(pid: int) -> float:
    """Megabytes of a process that are in memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


def _wait(reached: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not reached():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {PATIENCE:.0f} s for {what}")
        time.sleep(0.01)

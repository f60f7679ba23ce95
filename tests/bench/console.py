"""The console: the server's time for each page, over a million jobs and a hundred thousand accounts."""

from __future__ import annotations

import time

from identity.console.roles import Held, Role
from tests.bench.figures import Sheet, percentile
from tests.bench.ground import Ground, Ledger
from tests.bench.population import fill
from tests.console.console_app import ConsoleApp, Visit

LOOKS = 10

PAGES = {
    "overview": "",
    "overview, one tenant": "?tenant=tenant-7",
    "jobs": "jobs",
    "jobs, a page in the middle": "jobs?after={middle}",
    "jobs of a tenant": "jobs?tenant=tenant-7",
    "jobs, dead": "jobs?state=dead",
    "jobs of a tenant, dead": "jobs?state=dead&tenant=tenant-7",
    "jobs, waiting": "jobs?state=waiting",
    "jobs, waiting for a word": "jobs?wait=unknown",
    "jobs of a tenant, waiting": "jobs?state=waiting&tenant=tenant-3",
    "jobs, running (none)": "jobs?state=running",
    "jobs of a rare workflow": "jobs?workflow=rare",
    "jobs of nobody": "jobs?user=nobody",
    "a job": "jobs/job_{half}",
    "dead letters": "dead",
    "queues": "queues",
    "deliveries": "deliveries",
    "deliveries, unrecognised": "deliveries?outcome=unrecognised",
    "a delivery": "deliveries/del_{half}",
    "accounts": "accounts",
    "accounts that are lost": "accounts?state=needs_reconnect",
    "an account": "accounts/acc-{tenth}",
    "connections": "connections",
    "a connection": "connections/gh",
    "approvals that are open": "approvals",
    "approvals": "approvals?state=",
    "approvals of a tenant, denied": "approvals?state=denied&tenant=tenant-7",
    "an approval": "approvals/apr_{tenth}",
    "revocations": "revocations",
    "revocations of a tenant": "revocations?tenant=tenant-7",
    "revocations, stuck": "revocations?stuck=1",
    "a revocation": "revocations/rev_1",
    "schedules": "schedules",
    "audit": "audit",
    "audit of a job": "audit?job=job_{half}",
    "audit of a user": "audit?principal=p-7",
    "audit of an agent": "audit?agent=tester",
    "audit of nobody": "audit?principal=nobody",
    "audit of an account of nobody": "audit?account=nobody",
    "what revoking a tenant would stop": "revoke?kind=tenant&key=tenant-7",
}


def measure(ground: Ground, rounds: int) -> Sheet:
    jobs = ground.jobs
    sheet = Sheet(f"console: the server's time for each page, {jobs:,} jobs and {jobs // 10:,} accounts")
    sheet.notes.append(f"Flask's test client, {LOOKS} looks a round after one that is not counted")
    with ground.ledgers() as ledgers:
        for ledger in ledgers.values():
            console = ConsoleApp(ledger.database, built=True)
            fill(ledger.url, jobs)
            for _ in range(rounds):
                _look(sheet, ledger, console, jobs)
            console.close()
    return sheet


def _look(sheet: Sheet, ledger: Ledger, console: ConsoleApp, jobs: int) -> None:
    client = console.app.test_client()
    client.set_cookie("aswhom-console", console.session(Held(role=Role.OWNER, tenant=None)).reveal())
    visit = Visit(client)
    middle = visit.sees("/console/jobs?state=dead").partition("after=")[2].partition('"')[0]
    for name, template in PAGES.items():
        path = "/console/" + template.format(middle=middle, half=jobs // 20 * 10, tenth=jobs // 20)
        visit.sees(path)
        took, used = [], []
        for _ in range(LOOKS):
            began, before = time.perf_counter(), time.process_time()
            visit.sees(path)
            took.append((time.perf_counter() - began) * 1000)
            used.append((time.process_time() - before) * 1000)
        sheet.add(f"{ledger.kind}: {name}", percentile(took, 0.5), "ms")
        sheet.add(f"{ledger.kind}: {name}, the longest of {LOOKS}", max(took), "ms")
        sheet.add(f"{ledger.kind}: {name}, processor", percentile(used, 0.5), "ms")

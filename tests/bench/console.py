"""The console: the server's time for each page, over a million jobs and a hundred thousand accounts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime

from sqlalchemy import create_engine, text

from identity.console_roles import Held, Role
from tests.bench.figures import Sheet, percentile
from tests.bench.ground import Ground, Ledger
from tests.console.town import Town, Visit

JOBS, ACCOUNTS, LOOKS = 1_000_000, 100_000, 5

#: What a table's row number i of so many is, column by column; the newest is the last.
_AT = ":now - (cast(:most as bigint) - i) * 1000000"
_TENANT = "'tenant-' || (i % 50)"
_UNFINISHED = "i % 100 > 2 and (i % 50 = 3 or i > cast(:most as bigint) - 5000)"
_ROWS: Mapping[str, tuple[int, Mapping[str, str]]] = {
    "tenants": (50, {"id": _TENANT, "name": _TENANT, "created_at": "0"}),
    "principals": (
        ACCOUNTS,
        {"id": "'p-' || i", "tenant_id": _TENANT, "kind": "'user'", "name": "'p-' || i", "created_at": "0"},
    ),
    "accounts": (
        ACCOUNTS,
        {
            "id": "'acc-' || i",
            "tenant_id": _TENANT,
            "connection_id": "'gh'",
            "principal_id": "'p-' || i",
            "provider": "'github'",
            "credential": "'authorization_code'",
            "state": "case when i % 200 = 0 then 'needs_reconnect' else 'active' end",
            "created_at": _AT,
            "updated_at": "0",
        },
    ),
    "grants": (
        ACCOUNTS,
        {
            "account_id": "'acc-' || i",
            "generation": "1",
            "consented": "1",
            "token_type": "'bearer'",
            "scopes": "'[]'",
            "obtained_at": "0",
        },
    ),
    "deliveries": (
        JOBS,
        {
            "id": "'del_' || i",
            "source": "'github'",
            "connection_id": "'gh'",
            "tenant_id": _TENANT,
            "delivery_id": "'d' || i",
            "body_sha256": "'x'",
            "event": "'pull_request'",
            "outcome": "case when i % 1000 = 5 then 'unrecognised' when i % 3 = 0 then 'ignored' else 'accepted' end",
            "body": ":empty",
            "received_at": _AT,
        },
    ),
    "jobs": (
        JOBS,
        {
            "id": "'job_' || i",
            "tenant_id": _TENANT,
            "agent_id": "'tester'",
            "delivery_id": "'del_' || i",
            "workflow": "case when i % 5000 = 7 then 'rare' else 'say_it' end",
            "pattern": "'hybrid'",
            "user_id": "'p-' || (i % 100000 + 1)",
            "event": "'{}'",
            "config_sha256": "'none'",
            "scopes_sha256": "'set-' || (i % 50)",
            "state": f"case when i % 100 = 1 then 'dead' when i % 100 = 2 then 'cancelled' when {_UNFINISHED} then "
            "case when i % 50 = 3 then 'waiting' else 'queued' end else 'done' end",
            "wait": "case when i % 50 = 3 and i % 100 > 2 then 'consent' end",
            "reason": "case when i % 100 = 1 then 'the provider answers ' || (i % 7 * 100) end",
            "accepted": "i",
            "due_at": _AT,
            "fence": "1",
            "runs_spent": "0",
            "created_at": _AT,
            "finished_at": f"case when not ({_UNFINISHED}) then {_AT} end",
        },
    ),
    "job_scopes": (
        50,
        {"kind": "'tenant'", "key": _TENANT, "scopes_sha256": "'set-' || (i % 50)", "on_revoke": "'stop'"},
    ),
    "audit": (
        JOBS,
        {
            "id": "'aud_' || i",
            "at": _AT,
            "number": "i",
            "kind": "case when i % 2 = 0 then 'attempt.opened' else 'attempt.closed' end",
            "tenant_id": _TENANT,
            "agent_id": "'tester'",
            "principal_id": "'p-' || (i % 100000 + 1)",
            "job_id": "'job_' || i",
            "action": "'github.Say'",
            "outcome": "'effect'",
            "detail": "'{}'",
        },
    ),
}
_NUMBERS = {
    "SQLite": "with recursive n(i) as (select 1 union all select i + 1 from n where i < :most)",
    "PostgreSQL": "with n(i) as (select generate_series(cast(1 as bigint), cast(:most as bigint)))",
}

PAGES = {
    "overview": "",
    "overview, one tenant": "?tenant=tenant-7",
    "jobs": "jobs",
    "jobs, a page in the middle": "jobs?after={middle}",
    "jobs of a tenant": "jobs?tenant=tenant-7",
    "jobs, dead": "jobs?state=dead",
    "jobs of a tenant, dead": "jobs?state=dead&tenant=tenant-7",
    "jobs, waiting": "jobs?state=waiting",
    "jobs, running (none)": "jobs?state=running",
    "jobs of a rare workflow": "jobs?workflow=rare",
    "jobs of nobody": "jobs?user=nobody",
    "a job": "jobs/job_500000",
    "dead letters": "dead",
    "queues": "queues",
    "deliveries": "deliveries",
    "deliveries, unrecognised": "deliveries?outcome=unrecognised",
    "a delivery": "deliveries/del_500000",
    "accounts": "accounts",
    "accounts that are lost": "accounts?state=needs_reconnect",
    "an account": "accounts/acc-50000",
    "revocations": "revocations",
    "schedules": "schedules",
    "audit": "audit",
    "audit of a job": "audit?job=job_500000",
    "audit of nobody": "audit?principal=nobody",
    "what revoking a tenant would stop": "revoke?kind=tenant&key=tenant-7",
}


def measure(ground: Ground, rounds: int) -> Sheet:
    sheet = Sheet("console: the server's time for each page, 1,000,000 jobs and 100,000 accounts")
    sheet.notes.append(f"Flask's test client, {LOOKS} looks a round after one that is not counted")
    with ground.ledgers() as ledgers:
        for ledger in ledgers.values():
            town = Town(ledger.database, built=True)
            _fill(ledger)
            for _ in range(rounds):
                _look(sheet, ledger, town)
            town.close()
    return sheet


def _fill(ledger: Ledger) -> None:
    now = int(datetime.now(UTC).timestamp() * 1_000_000)
    engine = create_engine(ledger.url)
    with engine.begin() as connection:
        connection.execute(text("insert into pinned_configuration (sha256, document) values ('none', '{}')"))
        connection.execute(text("insert into agents (id, name, created_at) values ('tester', 'tester', 0)"))
        for table, (most, columns) in _ROWS.items():
            values = ", ".join(columns.values())
            rows = f"insert into {table} ({', '.join(columns)}) {_NUMBERS[ledger.kind]} select {values} from n"
            bound = {"most": most, "now": now, "empty": b""}
            connection.execute(text(rows), {name: value for name, value in bound.items() if f":{name}" in rows})
        connection.execute(text("analyze"))
    engine.dispose()


def _look(sheet: Sheet, ledger: Ledger, town: Town) -> None:
    client = town.app.test_client()
    client.set_cookie("aswhom-console", town.session(Held(role=Role.OWNER, tenant=None)).reveal())
    visit = Visit(client)
    middle = visit.sees("/console/jobs?state=dead").partition("after=")[2].partition('"')[0]
    for name, path in PAGES.items():
        visit.sees(f"/console/{path.format(middle=middle)}")
        took, used = [], []
        for _ in range(LOOKS):
            began, before = time.perf_counter(), time.process_time()
            visit.sees(f"/console/{path.format(middle=middle)}")
            took.append((time.perf_counter() - began) * 1000)
            used.append((time.process_time() - before) * 1000)
        sheet.add(f"{ledger.kind}: {name}", percentile(took, 50), "ms")
        sheet.add(f"{ledger.kind}: {name}, processor", percentile(used, 50), "ms")

"""A ledger with as many jobs as is asked for, and all that hangs on them, filled by the database itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime

from sqlalchemy import create_engine, text

from tests.ledger.approval_case import SHOWN

_TENANTS = 50
_AT = ":now - (cast(:most as bigint) - i) * 1000000"
_TENANT = "'tenant-' || (i % 50)"
_UNFINISHED = "i % 100 > 2 and (i % 50 = 3 or i > cast(:most as bigint) - 5000)"
#: What a table's row number i is, column by column, the newest last; and how many jobs there are a row, None: 50 rows.
_ROWS: Mapping[str, tuple[int | None, Mapping[str, str]]] = {
    "tenants": (None, {"id": _TENANT, "name": _TENANT, "created_at": "0"}),
    "principals": (
        10,
        {"id": "'p-' || i", "tenant_id": _TENANT, "kind": "'user'", "name": "'p-' || i", "created_at": "0"},
    ),
    "accounts": (
        10,
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
        10,
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
        1,
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
        1,
        {
            "id": "'job_' || i",
            "tenant_id": _TENANT,
            "agent_id": "'tester'",
            "delivery_id": "'del_' || i",
            "workflow": "case when i % 5000 = 7 then 'rare' else 'say_it' end",
            "pattern": "'hybrid'",
            "user_id": "'p-' || (i % :accounts + 1)",
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
    "steps": (
        10,
        {
            "id": "'job_' || (i * 10) || '.1'",
            "job_id": "'job_' || (i * 10)",
            "position": "1",
            "action": "'github.Say'",
            "occurrence": "1",
            "named": "'user'",
            "principal_id": "'p-' || i",
            "pattern": "'delegated'",
            "reason": "'named by the workflow'",
            "request_hash": "'hash'",
            "parameters": "'{}'",
            "state": "'done'",
            "opened_at": _AT,
        },
    ),
    "attempts": (
        10,
        {
            "id": "'att_' || i",
            "step_id": "'job_' || (i * 10) || '.1'",
            "job_id": "'job_' || (i * 10)",
            "number": "1",
            "purpose": "'call'",
            "state": "'effect'",
            "opened": "i * 2",
            "closed": "i * 2 + 1",
            "tenant_id": _TENANT,
            "connection_id": "'gh'",
            "agent_id": "'tester'",
            "principal_id": "'p-' || i",
            "account_id": "'acc-' || i",
            "generation": "1",
            "fence": "1",
            "opened_at": _AT,
            "send_before": _AT,
            "settled_by": _AT,
            "closed_at": _AT,
            "status": "200",
        },
    ),
    "approvals": (
        10,
        {
            "id": "'apr_' || i",
            "tenant_id": _TENANT,
            "job_id": "'job_' || (i * 10)",
            "position": "1",
            "action": "'github.Say'",
            "request_hash": "'hash'",
            "policy_version": "1",
            "principal_id": "'p-' || i",
            "needs": "'[]'",
            "shown": ":shown",
            "digest": "'digest'",
            "state": "case when i % 1000 = 1 then 'open' when i % 3 = 0 then 'denied' else 'approved' end",
            "asked": "i",
            "created_at": _AT,
            "expires_at": ":now + 1000000000",
            "told_state": "case when i % 1000 = 1 then 'open' when i % 3 = 0 then 'denied' else 'approved' end",
        },
    ),
    "revocations": (
        100,
        {
            "id": "'rev_' || i",
            "number": "i",
            "kind": "'user'",
            "key": "'p-' || i",
            "tenant_id": _TENANT,
            "source": "'api'",
            "requested_by": "'api:bot'",
            "reason": "'left'",
            "state": "'quiesced'",
            "effective_at": _AT,
            "moved_at": _AT,
            "cancelled_jobs": "0",
            "stopped_jobs": "0",
            "quiesced_at": _AT,
        },
    ),
    "job_scopes": (
        None,
        {"kind": "'tenant'", "key": _TENANT, "scopes_sha256": "'set-' || (i % 50)", "on_revoke": "'stop'"},
    ),
    "audit": (
        1,
        {
            "id": "'aud_' || i",
            "at": _AT,
            "number": "i",
            "kind": "case when i % 2 = 0 then 'attempt.opened' else 'attempt.closed' end",
            "tenant_id": _TENANT,
            "agent_id": "'tester'",
            "principal_id": "'p-' || (i % :accounts + 1)",
            "job_id": "'job_' || i",
            "action": "'github.Say'",
            "outcome": "'effect'",
            "detail": "'{}'",
        },
    ),
}
_NUMBERS = {
    "sqlite": "with recursive n(i) as (select 1 union all select i + 1 from n where i < :most)",
    "postgresql": "with n(i) as (select generate_series(cast(1 as bigint), cast(:most as bigint)))",
}


def fill(url: str, jobs: int) -> None:
    """Fill a furnished ledger with so many *jobs*, deliveries and audit records, and a tenth as many accounts."""
    now = int(datetime.now(UTC).timestamp() * 1_000_000)
    engine = create_engine(url)
    numbers = _NUMBERS[engine.dialect.name]
    with engine.begin() as connection:
        connection.execute(text("insert into pinned_configuration (sha256, document) values ('none', '{}')"))
        connection.execute(text("insert into agents (id, name, created_at) values ('tester', 'tester', 0)"))
        for table, (every, columns) in _ROWS.items():
            most = _TENANTS if every is None else jobs // every
            rows = f"insert into {table} ({', '.join(columns)}) {numbers} select {', '.join(columns.values())} from n"
            bound = {"most": most, "now": now, "empty": b"", "accounts": jobs // 10, "shown": json.dumps(SHOWN)}
            connection.execute(text(rows), {name: value for name, value in bound.items() if f":{name}" in rows})
    # As it is in use: PostgreSQL's autovacuum has been there, so that what an index has is read from it alone.
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("vacuum analyze" if engine.dialect.name == "postgresql" else "analyze"))
    engine.dispose()

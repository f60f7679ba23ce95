"""Rows of the ledger written by hand, where it is not what wrote them that is tested."""

from __future__ import annotations

from datetime import datetime
from typing import Any


def step_row(job: str, step: str, state: str, opened_at: datetime, **more: Any) -> dict[str, Any]:
    """The first step of *job*."""
    return {
        "id": step,
        "job_id": job,
        "position": 1,
        "action": "github.Say",
        "occurrence": 1,
        "named": "user",
        "reason": "named by the workflow",
        "request_hash": "hash",
        "parameters": {},
        "state": state,
        "opened_at": opened_at,
        **more,
    }


def attempt_row(step: dict[str, Any], state: str, **more: Any) -> dict[str, Any]:
    """The first call of *step*, opened when that was."""
    now = step["opened_at"]
    return {
        "id": f"{step['id']}.1",
        "step_id": step["id"],
        "job_id": step["job_id"],
        "number": 1,
        "purpose": "call",
        "state": state,
        "opened": 1,
        "tenant_id": "acme",
        "connection_id": "gh",
        "agent_id": "a",
        "principal_id": "acme.ada",
        "account_id": "x",
        "generation": 1,
        "fence": 1,
        "opened_at": now,
        "send_before": now,
        "settled_by": now,
        **more,
    }

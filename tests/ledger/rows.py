"""Rows of the ledger written by hand, where it is not what wrote them that is tested."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from identity.model import ScopeKind


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


def revocation_row(id: str, number: int, at: datetime, **more: Any) -> dict[str, Any]:
    """A revocation that took effect then and has its receipt."""
    return {
        "id": id,
        "number": number,
        "kind": ScopeKind.USER,
        "key": "globex.ada",
        "source": "test",
        "requested_by": "test",
        "reason": "test",
        "state": "quiesced",
        "effective_at": at,
        "moved_at": at,
        "collected_at": at,
        "cancelled_jobs": 0,
        "stopped_jobs": 0,
        "revision": 1,
        "open_ends": 0,
        **more,
    }


def revocations_of_one_moment(at: datetime, *, many: int = 7, **more: Any) -> list[dict[str, Any]]:
    """In the order in which they took effect; their ids, which are random, sort the other way round."""
    return [revocation_row(f"rev-{999 - number}", number, at, **more) for number in range(1, many + 1)]


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

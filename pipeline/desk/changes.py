"""The audit row of an operator's change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from identity import audit
from identity.audit import Act, AsWhom


def record_change(connection: Connection, kind: str, tenant: str | None, detail: Mapping[str, Any], act: Act) -> None:
    """Record a change; the outcome of *kind* `schedule.paused` is `paused`. Tenant None: the platform's."""
    outcome = kind.rpartition(".")[2]
    audit.record_act(connection, kind, AsWhom(tenant=tenant), act, outcome=outcome, detail=detail)

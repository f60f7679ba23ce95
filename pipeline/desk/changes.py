"""The audit row of what a person changed by hand."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from identity import audit
from identity.audit import AsWhom


def record(
    connection: Connection,
    kind: str,
    tenant: str | None,
    detail: Mapping[str, Any],
    *,
    audit_id: str,
    by: str,
    now: datetime,
) -> None:
    """That *by* did it, where *kind* is `schedule.paused`, say; tenant None: it is the platform's."""
    outcome = kind.rpartition(".")[2]
    audit.record(
        connection, kind, AsWhom(tenant=tenant), id=audit_id, at=now, outcome=outcome, reason=f"by {by}", detail=detail
    )

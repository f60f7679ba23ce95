"""The audit row of what a person changed by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from identity import audit
from identity.audit import Act, AsWhom


def record_change(connection: Connection, kind: str, tenant: str | None, detail: Mapping[str, Any], act: Act) -> None:
    """Where *kind* is `schedule.paused`, say, the outcome is `paused`; tenant None: it is the platform's."""
    outcome = kind.rpartition(".")[2]
    audit.record_act(connection, kind, AsWhom(tenant=tenant), act, outcome=outcome, detail=detail)

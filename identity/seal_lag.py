"""How far the audit's seal is behind: a sealer that stopped is seen by it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from identity import metrics
from identity.audit_chain import oldest_unsealed


def measure(connection: Connection, *, now: datetime) -> None:
    """Set the gauge; housekeeping alone does."""
    oldest = oldest_unsealed(connection)
    metrics.UNSEALED_SECONDS.set(0.0 if oldest is None else max((now - oldest).total_seconds(), 0.0))

"""Every table that the code declares: each of these modules adds its own to the shared metadata."""

from __future__ import annotations

import identity.agents.tables
import identity.audit.tables
import identity.capability.tables
import identity.connect_sessions.tables
import identity.console.tables
import identity.hold_tables
import identity.minting.tables
import identity.refresh.tables
import identity.withdrawals.tables  # noqa: F401 - adds its tables, like the imports above
import pipeline.approvals.tables
import pipeline.revocation.tables
import pipeline.tables  # noqa: F401 - adds its tables
from identity.sql.metadata import metadata

__all__ = ["metadata"]

"""The table of the hold."""

from __future__ import annotations

from sqlalchemy import Column, Integer, String, Table, Text

from identity.sql.columns import Instant
from identity.sql.metadata import metadata

# One row while the installation is held, none otherwise.
holds = Table(
    "holds",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # always 1: there is one installation
    Column("since", Instant, nullable=False),
    Column("by", String(200), nullable=False),
    Column("why", Text, nullable=False),
)

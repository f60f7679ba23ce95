"""The table of mints: tokens for one repository, each recorded before it is requested."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, ForeignKey, Index, String, Table, Text

from identity.sql.columns import Instant
from identity.sql.metadata import metadata

mints = Table(
    "mints",
    metadata,
    Column("id", String(64), primary_key=True),  # also the id of the withdrawal that holds the token
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("consented", BigInteger, nullable=False),
    Column("repository", Text, nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("opened", BigInteger, nullable=False),  # ledger number
    Column("started_at", Instant, nullable=False),
    Column("outcome", String(200)),  # NULL: in flight, or its process died
    Column("finished_at", Instant),
    Column("settled", BigInteger),  # ledger number at which its outcome was known; NULL: not yet
    Index("ix_mints_started_at", "started_at"),
    Index("ix_mints_settled", "settled"),
)

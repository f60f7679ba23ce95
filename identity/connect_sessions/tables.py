"""The tables of connect sessions and of return targets."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, ForeignKey, Index, LargeBinary, String, Table, Text, false

from identity.sql.columns import Instant
from identity.sql.metadata import metadata

connect_sessions = Table(
    "connect_sessions",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("state_hash", String(64), nullable=False, unique=True),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("connection_id", ForeignKey("provider_connections.id"), nullable=False),
    Column("principal_id", ForeignKey("principals.id"), nullable=False),
    Column("started", BigInteger, nullable=False),  # ledger number: becomes the grant's `consented`
    Column("scopes", JSON, nullable=False),
    Column("verifier_sealed", LargeBinary, nullable=False),
    Column("browser_hash", String(64)),  # set when a browser goes on from the page, compared at the callback
    Column("expires_at", Instant, nullable=False),
    Column("finished_at", Instant),
    # `used` until known, `awaiting` until confirmed, then `connected` or a reason of identity.connect.reasons
    Column("outcome", String(64)),
    Column("result", JSON),  # shown on the result page; never a credential
    Column("return_to", Text),  # a registered address to which the last page leads
    Column("any_account", Boolean, nullable=False, server_default=false()),  # another login may replace it
    Column("confirm", Boolean, nullable=False, server_default=false()),  # the product must confirm the person
    Column("code_hash", String(64)),  # of the code carried to that product
    Column("nonce_hash", String(64)),  # of the product's nonce in the asking browser's session
    Column("created_at", Instant, nullable=False),
    Index("ix_connect_sessions_expires", "expires_at"),
)

# Addresses to which the last page of a connect may lead, exact, registered by an operator.
return_targets = Table(
    "return_targets",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("tenant_id", ForeignKey("tenants.id")),  # NULL: for the people of every tenant
    Column("url", Text, nullable=False),
    Column("created_at", Instant, nullable=False),
)

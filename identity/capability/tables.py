"""The tables of capabilities: audiences, signing keys, and issued capabilities."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, ForeignKey, Index, LargeBinary, String, Table, Text

from identity.sql.columns import Instant, partial_index
from identity.sql.metadata import metadata

# Services that accept capabilities. Only the hash of a secret is stored.
audiences = Table(
    "capability_audiences",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("uri", Text, nullable=False),
    Column("tenant_id", ForeignKey("tenants.id")),  # NULL: it accepts capabilities of every tenant
    Column("connection_id", ForeignKey("provider_connections.id"), unique=True),  # NULL: no step goes there directly
    Column("algorithm", String(16), nullable=False),
    Column("passes_to", JSON, nullable=False),  # ids of audiences for which it may exchange tokens
    Column("secret_sha256", String(64), nullable=False),
    Column("former_sha256", String(64)),  # still accepted until `former_until`: the overlap of a rotation
    Column("former_until", Instant),
    Column("created_at", Instant, nullable=False),
    Column("removed_at", Instant),
    partial_index("ix_capability_audiences_uri", "uri", unique=True, where="removed_at IS NULL"),
)

# A key is published at once, signs from `use_from` until its successor does, and stays published until all it signed
# has expired. These times determine its state; nothing has to update one.
keys = Table(
    "capability_keys",
    metadata,
    Column("kid", String(64), primary_key=True),  # RFC 7638
    Column("algorithm", String(16), nullable=False),
    Column("public", JSON, nullable=False),
    Column("private_sealed", LargeBinary, nullable=False),
    Column("use_from", Instant, nullable=False),
    Column("withdrawn_at", Instant),  # effective at once: neither published nor used
    Column("created_at", Instant, nullable=False),
)

capabilities = Table(
    "capabilities",
    metadata,
    Column("jti", String(64), primary_key=True),
    Column("audience_id", String(64), nullable=False),
    Column("uri", Text, nullable=False),
    # The five scopes and the job's number, by which a spend is decided.
    Column("tenant_id", String(64), nullable=False),
    Column("connection_id", String(64), nullable=False),
    Column("agent_id", String(64), nullable=False),
    Column("principal_id", String(64), nullable=False),
    Column("accepted", BigInteger, nullable=False),
    Column("actors", JSON, nullable=False),
    Column("job_id", String(64), nullable=False),
    Column("step_id", String(64), nullable=False),
    Column("action", String(100), nullable=False),
    Column("resource", Text, nullable=False),
    Column("limit_amount", String(32)),  # exact, as written
    Column("limit_currency", String(16)),
    Column("request_sha256", String(64), nullable=False),
    Column("approved_by", JSON, nullable=False),
    Column("parent_jti", String(64), unique=True),  # the capability that was exchanged for it
    Column("issued_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("spent_sha256", String(64)),  # the request of the first spend, or "not said"
    Column("spent_at", Instant),
    Column("exchanged_sha256", String(64)),  # fingerprint of the exchange
    Column("closed_at", Instant),
    Column("outcome", String(16)),  # effect, no_effect, superseded
    Index("ix_capabilities_step", "step_id"),
    Index("ix_capabilities_expires", "expires_at"),
)

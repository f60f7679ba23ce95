"""The tables of capabilities: who takes them, the keys that sign them, and each that was issued."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, ForeignKey, Index, LargeBinary, String, Table, Text

from identity.sql.columns import Instant, partial_index
from identity.tables import metadata

# Services that take capabilities. The secret itself is nowhere: what is stored only recognises it.
audiences = Table(
    "capability_audiences",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("uri", Text, nullable=False),
    Column("tenant_id", ForeignKey("tenants.id")),  # NULL: capabilities of every tenant may be for it
    Column("connection_id", ForeignKey("provider_connections.id"), unique=True),  # NULL: no step goes there directly
    Column("algorithm", String(16), nullable=False),
    Column("passes_to", JSON, nullable=False),  # ids of the audiences that it may exchange a token for
    Column("secret_sha256", String(64), nullable=False),
    Column("former_sha256", String(64)),  # still accepted until `former_until`: the overlap of a rotation
    Column("former_until", Instant),
    Column("created_at", Instant, nullable=False),
    Column("removed_at", Instant),
    partial_index("ix_capability_audiences_uri", "uri", unique=True, where="removed_at IS NULL"),
)

# A key is published from the beginning, signs from `use_from` until the next one does, and is published on until what
# it signed has expired: all of that follows from these times, so nothing has to move a state.
keys = Table(
    "capability_keys",
    metadata,
    Column("kid", String(64), primary_key=True),  # RFC 7638
    Column("algorithm", String(16), nullable=False),
    Column("public", JSON, nullable=False),
    Column("private_sealed", LargeBinary, nullable=False),
    Column("use_from", Instant, nullable=False),
    Column("withdrawn_at", Instant),  # at once: neither published nor used
    Column("created_at", Instant, nullable=False),
)

capabilities = Table(
    "capabilities",
    metadata,
    Column("jti", String(64), primary_key=True),
    Column("audience_id", String(64), nullable=False),
    Column("uri", Text, nullable=False),
    # The five scopes it was issued under, and the job's number: by them a spend is judged.
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
    Column("limit_amount", String(32)),  # exact, as it is written
    Column("limit_currency", String(16)),
    Column("request_sha256", String(64), nullable=False),
    Column("approved_by", JSON, nullable=False),
    Column("parent_jti", String(64), unique=True),  # the one it was exchanged for
    Column("issued_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("spent_sha256", String(64)),  # the request of the first spend, or that none was said
    Column("spent_at", Instant),
    Column("exchanged_sha256", String(64)),  # what it was exchanged for
    Column("closed_at", Instant),
    Column("outcome", String(16)),  # effect, no_effect, superseded
    Index("ix_capabilities_step", "step_id"),
    Index("ix_capabilities_expires", "expires_at"),
)

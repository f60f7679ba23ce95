"""The tables of the agents' API: keys, and the workloads whose tokens replace one."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, ForeignKey, Index, Integer, String, Table, Text, UniqueConstraint

from identity.sql.columns import Instant, partial_index
from identity.sql.metadata import metadata

# Keys that agents call the API with. Only a digest that recognises the key is stored, never the key.
api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("agent_id", ForeignKey("agents.id"), nullable=False),
    Column("role", String(16), nullable=False),
    Column("tools", JSON(none_as_null=True)),  # patterns of the tools it may execute; NULL: all
    Column("users", JSON(none_as_null=True)),  # patterns of the names of users it may act as; NULL: all of its tenant
    Column("name", String(200), nullable=False),
    Column("secret_sha256", String(64), nullable=False, unique=True),
    Column("issued", BigInteger, nullable=False),  # ledger number: a later revocation of its tenant or agent ends it
    Column("made_by", String(200), nullable=False),
    Column("held_by", String(64)),  # the user holding it, who must not approve its requests; NULL: nobody named
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant),
    Column("revoked_at", Instant),
    Column("api_rate", Integer),  # requests a minute; NULL: the setting's, or only its agent's if that has one
    Index("ix_api_keys_tenant", "tenant_id"),
    # For retention.
    partial_index("ix_api_keys_expires", "expires_at", where="expires_at is not null"),
    partial_index("ix_api_keys_revoked", "revoked_at", where="revoked_at is not null"),
)

# Workloads whose tokens replace an agent's key, by issuer, audience and subject.
workloads = Table(
    "workloads",
    metadata,
    Column("key_id", ForeignKey("api_keys.id"), primary_key=True),
    Column("issuer", String(500), nullable=False),
    Column("audience", String(500), nullable=False),
    Column("subject", String(500), nullable=False),
    Column("jwks_url", Text, nullable=False),
    UniqueConstraint("issuer", "subject", "audience"),
)

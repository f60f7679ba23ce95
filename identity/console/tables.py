"""The console's tables: roles, sessions, and links that sign in once."""

from __future__ import annotations

from sqlalchemy import JSON, Column, ForeignKey, Index, String, Table, Text, UniqueConstraint

from identity.sql.columns import Instant
from identity.sql.metadata import metadata

# A sign-in with this claim has this role: `email` is ada@acme.example, or `groups` has platform-admins.
console_roles = Table(
    "console_roles",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("claim", String(64), nullable=False),
    Column("value", String(200), nullable=False),
    Column("role", String(16), nullable=False),
    Column("tenant_id", ForeignKey("tenants.id")),  # NULL: every tenant and the platform
    Column("made_by", String(200), nullable=False),
    Column("created_at", Instant, nullable=False),
    UniqueConstraint("claim", "value", "role", "tenant_id"),
)

# Sessions. Only the hash of the browser's token is stored.
console_sessions = Table(
    "console_sessions",
    metadata,
    Column("token_sha256", String(64), primary_key=True),
    Column("subject", String(255), nullable=False),  # the provider's, or the link's
    Column("issuer", String(500)),  # of the subject; NULL for a link
    Column("name", Text, nullable=False),  # for people, and in the audit
    Column("roles", JSON, nullable=False),  # as of sign-in: [[role, tenant or null], …]
    Column("via", String(16), nullable=False),  # openid, link
    Column("created_at", Instant, nullable=False),
    Column("seen_at", Instant, nullable=False),  # approximate time of the last request
    Column("expires_at", Instant, nullable=False),
    Index("ix_console_sessions_expires", "expires_at"),
)

# Links that sign an owner in once: for the first run, and for people with shell access.
console_links = Table(
    "console_links",
    metadata,
    Column("token_sha256", String(64), primary_key=True),
    Column("made_by", String(200), nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
)

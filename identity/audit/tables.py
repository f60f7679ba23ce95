"""The tables of the audit: its rows, the seals that chain them, prunings, and handovers of the signing key.

All are append-only: triggers refuse changes and removals other than pruning (migrations 0014 and 0019).
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Index,
    String,
    Table,
    Text,
)

from identity.sql.columns import Instant
from identity.sql.metadata import metadata

# A new column is NULL in existing rows, and NULL values are not part of a row's digest: old seals still hold.
audit = Table(
    "audit",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("at", Instant, nullable=False),
    Column("number", BigInteger, nullable=False),  # ledger number
    Column("kind", String(64), nullable=False),
    Column("tenant_id", String(64), nullable=False),
    Column("agent_id", String(64)),
    Column("principal_id", String(64)),  # acted as
    Column("pattern", String(16)),
    Column("on_behalf_of", String(64)),
    Column("account_id", String(64)),
    Column("generation", BigInteger),
    Column("job_id", String(64)),
    Column("step_id", String(64)),
    Column("attempt_id", String(64)),
    Column("action", String(100)),
    Column("outcome", String(64)),
    Column("reason", Text),
    Column("detail", JSON, nullable=False),
    Index("ix_audit_job", "job_id"),
    Index("ix_audit_number", "number"),
    Index("ix_audit_tenant_number", "tenant_id", "number"),
    Index("ix_audit_agent", "agent_id", "number"),
    Index("ix_audit_principal", "principal_id", "number"),
    Index("ix_audit_on_behalf_of", "on_behalf_of", "number"),
)

# Written by the single sealer: dense numbers and a chain of digests over the rows of `audit`.
audit_seals = Table(
    "audit_seals",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("audit_id", String(64), nullable=False, unique=True),
    Column("digest", String(64), nullable=False),
    Column("sealed_at", Instant, nullable=False),
    Column("signature", String(100)),  # only on the last seal of each batch
)

# The newest row is a signed statement of where the chain begins; it permits the removal of the rows before that.
audit_prunings = Table(
    "audit_prunings",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("digest", String(64), nullable=False),
    Column("at", Instant, nullable=False),
    Column("signature", String(100), nullable=False),
)

# One row a rotation of the signing key: the new key's statement about its predecessor (identity.keys.trusted_keys).
signing_handovers = Table(
    "signing_handovers",
    metadata,
    Column("kid", String(64), primary_key=True),
    Column("former", String(64), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("pruned", BigInteger, nullable=False),
    Column("number", BigInteger, nullable=False),  # ledger number
    Column("at", Instant, nullable=False),
    Column("signature", String(100), nullable=False),
)

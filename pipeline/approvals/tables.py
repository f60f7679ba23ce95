"""The tables of approvals: the questions, and the answers."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, ForeignKey, Index, Integer, String, Table, Text

from identity.sql.columns import Instant, partial_index
from identity.sql.metadata import metadata

# One row each time a step asks. It is bound to everything in it: a step that differs in anything is another question.
approvals = Table(
    "approvals",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("action", String(100), nullable=False),
    Column("request_hash", String(64), nullable=False),
    Column("policy_version", Integer, nullable=False),
    Column("principal_id", ForeignKey("principals.id"), nullable=False),  # the principal the step acts as
    Column("needs", JSON, nullable=False),  # rule, quorum, and approvers by their ids; each must be met
    Column("shown", JSON, nullable=False),  # exactly what an approver is shown
    Column("digest", String(64), nullable=False),  # of `shown`: an answer names what it was given to
    Column("state", String(16), nullable=False),
    Column("reason", Text),  # why it ended as it did
    Column("asked", BigInteger, nullable=False),  # ledger number
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("decided_at", Instant),
    Column("used_at", Instant),  # when the step first opened with it
    Column("told_state", String(16)),  # the newest state that workflows were told of
    Index("ix_approvals_step", "job_id", "position"),
    Index("ix_approvals_created", "created_at", "id"),
    Index("ix_approvals_tenant", "tenant_id", "created_at", "id"),
    Index("ix_approvals_state", "state", "created_at", "id"),
    Index("ix_approvals_state_of_tenant", "state", "tenant_id", "created_at", "id"),
    partial_index("ix_approvals_expiring", "state", "expires_at", where="state = 'open'"),
    partial_index("ix_approvals_untold", "created_at", where="told_state is null or told_state <> state"),
)

approval_votes = Table(
    "approval_votes",
    metadata,
    Column("approval_id", ForeignKey("approvals.id"), primary_key=True),
    Column("principal_id", ForeignKey("principals.id"), primary_key=True),  # who answered
    Column("answer", String(8), nullable=False),  # yes, no
    Column("through", String(16), nullable=False),  # page, slack, console, cli
    Column("said_as", String(200), nullable=False),  # their identity there: a login, an operator
    Column("number", BigInteger, nullable=False),  # ledger number
    Column("at", Instant, nullable=False),
)

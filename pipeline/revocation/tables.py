"""The tables of revocations and narrowings, their effects, and the signals behind them."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    false,
    or_,
)

from identity.model import Scope
from identity.sql.columns import Instant, partial_index
from identity.sql.metadata import metadata

#: The `kind` of a row that narrowed an account and revoked nothing. No scope has it, so no rule finds the row.
NARROWING = "narrowing"

revocations = Table(
    "revocations",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("number", BigInteger, nullable=False),  # the ledger number that `revoked` takes
    Column("kind", String(16), nullable=False),
    Column("key", String(200), nullable=False),
    Column("tenant_id", String(64)),
    Column("source", String(64), nullable=False),  # github.github_app_authorization, cli, api …
    Column("signal_id", String(200)),  # a delivery or security event that asked for it
    Column("requested_by", String(200), nullable=False),
    # Every name of the person who asked, and of those who may hold their API key: none approves a compensation.
    # NULL: only `requested_by` is known.
    Column("barred", JSON(none_as_null=True)),
    Column("reason", Text, nullable=False),
    Column("state", String(16), nullable=False),  # effective, cancelling, draining, quiesced
    Column("effective_at", Instant, nullable=False),
    Column("moved_at", Instant, nullable=False),  # the last progress of `advance`
    Column("cancelled_jobs", Integer, nullable=False, default=0),
    Column("stopped_jobs", Integer, nullable=False, default=0),
    Column("quiesced_at", Instant),
    Column("collected_at", Instant),  # when every credential under its scope had been taken; NULL: some may be left
    Column("doubt", String(16)),  # whether its signal was a replay: open, alive, dead, unknown; NULL: no doubt
    Column("receipt", JSON),  # the newest
    Column("signature", Text),
    Column("revision", Integer, nullable=False, default=0, server_default="0"),  # receipts issued so far
    # parts of the receipt that may still be settled
    Column("open_ends", Integer, nullable=False, default=0, server_default="0"),
    Column("narrowing", JSON(none_as_null=True)),  # of a narrowing: the scopes that the account had, keeps, and lost
    # of a narrowing: calls in flight that needed one; NULL: not looked up yet
    Column("calls", JSON(none_as_null=True)),
    # a scope's newest revocation, and its first after a consent
    Index("ix_revocations_scope", "kind", "key", "number"),
    Index("ix_revocations_effective", "effective_at", "id"),
    Index("ix_revocations_tenant", "tenant_id", "effective_at", "id"),
    partial_index("ix_revocations_unfinished", "moved_at", where="state <> 'quiesced'"),
    partial_index("ix_revocations_uncollected", "revision", where="collected_at is null"),
    partial_index("ix_revocations_open_ends", "moved_at", where="open_ends > 0"),
)


def is_of_any(scopes: Iterable[Scope]) -> ColumnElement[bool]:
    """Match revocations of exactly these scopes, each looked up by `ix_revocations_scope`."""
    columns = revocations.c
    return or_(false(), *((columns.kind == scope.kind) & (columns.key == scope.key) for scope in scopes))


# The jobs a revocation reached, one page per commit; a page never changes, so a receipt can name its digest.
revocation_pages = Table(
    "revocation_pages",
    metadata,
    Column("revocation_id", ForeignKey("revocations.id"), primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),  # ledger number
    Column("cancelled", JSON, nullable=False),  # ids of jobs cancelled in that commit
    Column("stopping", JSON, nullable=False),  # ids of running jobs that were told to stop
    Column("sha256", String(64), nullable=False),
)

# The follow-up to effects of jobs that a revocation cancelled: at most one per step.
compensations = Table(
    "compensations",
    metadata,
    Column("step_id", ForeignKey("steps.id"), primary_key=True),
    Column("revocation_id", ForeignKey("revocations.id"), nullable=False),
    Column("job_id", String(64)),  # the job that compensates; NULL: none does
    Column("reason", Text),  # why none does
    Column("created_at", Instant, nullable=False),
    Index("ix_compensations_revocation", "revocation_id"),
)

# A signal to more accounts than one transaction reaches: the accounts affected when it was accepted, some per row. All
# rows of a delivery are deleted once its last accounts were reached.
signal_chunks = Table(
    "signal_chunks",
    metadata,
    Column("delivery_id", ForeignKey("deliveries.id"), primary_key=True),
    # position of its first account among all that are affected
    Column("place", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, nullable=False),  # ledger number of the acceptance
    Column("revocation_id", String(64), nullable=False),  # prefix of the ids of its revocations
    Column("signal", JSON, nullable=False),
    Column("seen", Boolean, nullable=False),  # the same bytes came before
    Column("accounts", JSON, nullable=False),  # tenant and principal of each
    Column("became", JSON(none_as_null=True)),  # number of accounts by outcome; NULL: still to be reached
)

# Verified Security Event Tokens. The key is the replay guard: a transmitter's `jti` is taken once (RFC 8417 §2.2).
security_events = Table(
    "security_events",
    metadata,
    Column("transmitter_id", ForeignKey("transmitters.id"), primary_key=True),
    Column("jti", String(200), primary_key=True),
    Column("tenant_id", ForeignKey("tenants.id")),  # NULL: no known tenant
    Column("events", JSON, nullable=False),  # the event types it names
    Column("outcome", String(32), nullable=False),  # signal, ignored
    Column("reason", Text, nullable=False),
    Column("token", LargeBinary, nullable=False),  # as it was signed
    Column("received_at", Instant, nullable=False),
)

"""The tables of the pipeline. They share identity's metadata, so one migration history covers both."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
    or_,
    text,
)

from identity.sql.columns import Instant, is_one, partial_index
from identity.sql.metadata import metadata
from pipeline.states import AttemptState, JobState

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("source", String(32), nullable=False),
    Column("connection_id", ForeignKey("provider_connections.id"), nullable=False),
    Column("tenant_id", ForeignKey("tenants.id")),  # NULL: verified, but of no tenant (a ping, an unknown installation)
    Column("delivery_id", String(200), nullable=False),  # the sender's id
    Column("body_sha256", String(64), nullable=False),
    Column("event", String(100), nullable=False),
    Column("outcome", String(32), nullable=False),  # accepted, ignored, unrecognised, refused, signal
    Column("reason", Text),  # for people
    Column("left_out", String(16)),  # what it should have started: unlisted, unreached, misread
    Column("body", LargeBinary, nullable=False),  # empty after pruning
    Column("received_at", Instant, nullable=False),
    UniqueConstraint("connection_id", "delivery_id"),
    Index("ix_deliveries_received", "received_at", "id"),
    Index("ix_deliveries_tenant", "tenant_id", "received_at", "id"),
    partial_index("ix_deliveries_bad", "received_at", "id", where="outcome in ('unrecognised', 'refused')"),
    partial_index("ix_deliveries_bodies", "received_at", where="length(body) > 0"),
)

# Replay guard for senders that do not sign their delivery id: one row per body, reusable after the window.
delivery_bodies = Table(
    "delivery_bodies",
    metadata,
    Column("connection_id", String(64), primary_key=True),
    Column("body_sha256", String(64), primary_key=True),
    Column("delivery_id", String(64), nullable=False),
    Column("seen_at", Instant, nullable=False),
    Index("ix_delivery_bodies_seen", "seen_at"),
)

# Signals that a sender was asked to send again.
redeliveries = Table(
    "redeliveries",
    metadata,
    Column("connection_id", String(64), primary_key=True),
    Column("delivery_id", String(200), primary_key=True),  # the sender's id
    Column("asked_at", Instant, nullable=False),
)

# Configuration pinned with jobs, stored once by content.
pinned_configuration = Table(
    "pinned_configuration",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("document", JSON, nullable=False),
)

TRIGGERED_BY = 200  # characters
_IS_REPLAYABLE = "state = 'dead' and pruned_at is null"

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("agent_id", ForeignKey("agents.id"), nullable=False),
    Column("delivery_id", ForeignKey("deliveries.id")),
    Column("request_id", String(64)),  # of the request to the agents' API
    Column("connection_id", ForeignKey("provider_connections.id")),  # that the delivery came through
    Column("workflow", String(100), nullable=False),
    Column("pattern", String(16), nullable=False),  # also names the queue
    Column("user_id", ForeignKey("principals.id")),  # the principal that USER stands for
    Column("triggered_by", String(TRIGGERED_BY)),  # the event's sender, by the provider's permanent id: `github:1001`
    Column("triggered_login", String(TRIGGERED_BY)),  # the sender's login at that time
    # All names of the people who replayed it, started it by hand, or may hold the API key that asked for it.
    Column("replayed_by", JSON(none_as_null=True)),
    Column("event", JSON, nullable=False),
    Column("config_sha256", ForeignKey("pinned_configuration.sha256"), nullable=False),
    Column("scopes_sha256", String(64)),  # its set in `job_scopes`
    Column("state", String(16), nullable=False),
    Column("wait", String(16)),
    Column("reason", Text),
    Column("accepted", BigInteger, nullable=False),  # ledger number
    Column("due_at", Instant, nullable=False),
    Column("expires_at", Instant),  # of a wait
    # the account key (consent), the once key (once), the approval, or the step whose upstream is away
    Column("waits_for", String(200)),
    Column("lacks", JSON(none_as_null=True)),  # the scopes that a consent wait is for
    Column("waiting_step", JSON(none_as_null=True)),  # the step it waits to open: `Intent.unopened`
    Column("rung_until", Instant),  # set while a bell is outstanding
    Column("claimed_until", Instant),
    Column("fence", BigInteger, nullable=False, default=0),
    Column("runs_spent", Integer, nullable=False, default=0),
    Column("revocation_id", String(64)),  # the revocation that cancelled or stops it
    Column("created_at", Instant, nullable=False),
    Column("finished_at", Instant),
    Column("pruned_at", Instant),  # when its steps were forgotten; it cannot be replayed after that
    partial_index("ix_jobs_unpruned", "finished_at", "id", where="finished_at is not null and pruned_at is null"),
    partial_index("ix_jobs_due", "pattern", "tenant_id", "due_at", where="state = 'queued'"),
    partial_index("ix_jobs_rung", "pattern", "tenant_id", "rung_until", where="rung_until is not null"),
    # The claim's expiry is not indexed: each opening moves it, and without an index on it PostgreSQL can make a
    # heap-only (HOT) update that touches no index.
    partial_index("ix_jobs_claimed", "id", where="state = 'running' or state = 'stopping'"),
    partial_index("ix_jobs_waiting", "wait", "due_at", "tenant_id", where="state = 'waiting'"),
    partial_index("ix_jobs_waits_for", "waits_for", where="waits_for is not null"),
    # For lists, newest first: of all tenants and of one; of failed jobs and of unclaimed jobs.
    Index("ix_jobs_created", "created_at", "id"),
    Index("ix_jobs_tenant", "tenant_id", "created_at", "id"),
    # SQLite uses such an index for a query that states one side of the `or`; it would not with `in`.
    partial_index("ix_jobs_bad", "state", "created_at", "id", where="state = 'dead' or state = 'cancelled'"),
    partial_index(
        "ix_jobs_bad_of_tenant", "tenant_id", "state", "created_at", "id", where="state = 'dead' or state = 'cancelled'"
    ),
    # Replayable jobs, without the many that retention has forgotten. Without statistics SQLite prefers the index that
    # covers most columns of a condition, so these include them all.
    partial_index("ix_jobs_dead", "state", "pruned_at", "created_at", "id", "pattern", where=_IS_REPLAYABLE),
    partial_index(
        "ix_jobs_dead_of_tenant", "tenant_id", "state", "pruned_at", "created_at", "id", where=_IS_REPLAYABLE
    ),
    # The tenant is in the index, so that filtering by it reads no rows.
    partial_index(
        "ix_jobs_open", "state", "created_at", "id", "tenant_id", where="state = 'queued' or state = 'waiting'"
    ),
    Index("ix_jobs_delivery", "delivery_id"),
    # Finds the jobs of a revocation; finished jobs, however many, are not in it.
    partial_index("ix_jobs_unfinished", "scopes_sha256", "accepted", where="finished_at is null"),
)

# Written exactly as in `ix_jobs_due` and `ix_jobs_claimed`: a generic plan could not use the index for a parameter.
IS_QUEUED = is_one(jobs.c.state, JobState.QUEUED)
IS_CLAIMED = or_(is_one(jobs.c.state, JobState.RUNNING), is_one(jobs.c.state, JobState.STOPPING))

# Sets of scopes, stored once by content: jobs of the same workflow and user share one. They help to find the jobs of a
# revocation and never decide whether a step may open.
job_scopes = Table(
    "job_scopes",
    metadata,
    Column("kind", String(16), primary_key=True),
    Column("key", String(200), primary_key=True),
    Column("scopes_sha256", String(64), primary_key=True),
    Column("on_revoke", String(16), nullable=False),  # skip: the job goes on without the steps that need this scope
)

steps = Table(
    "steps",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("action", String(100), nullable=False),
    Column("occurrence", Integer, nullable=False),
    Column("named", String(16), nullable=False),  # user, service or policy: the principal as the author named it
    Column("principal_id", ForeignKey("principals.id")),
    Column("pattern", String(16)),
    Column("reason", Text, nullable=False),  # of the decision or the refusal
    # the policy version that decided; 0: only facts did
    Column("policy_version", Integer, nullable=False, server_default=text("0")),
    Column("request_hash", String(64), nullable=False),
    Column("parameters", JSON, nullable=False),
    Column("once_key", String(200)),
    # the step whose result this is; for a refused step, the owner of its once key; for a failed one, its wait in vain
    # for its upstream (`upstream_of`)
    Column("adopted_from", String(64)),
    Column("state", String(16), nullable=False),
    Column("result", JSON),
    Column("external_id", String(200)),
    Column("error", Text),
    Column("opened_at", Instant, nullable=False),
    Column("closed_at", Instant),
    UniqueConstraint("job_id", "position"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("step_id", ForeignKey("steps.id"), nullable=False),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("number", Integer, nullable=False),  # within its step, from 1
    Column("purpose", String(16), nullable=False),  # call, probe or read_before
    Column("state", String(16), nullable=False),
    Column("opened", BigInteger, nullable=False),  # ledger numbers
    Column("closed", BigInteger),
    # The five scopes it was opened under, by which a revocation finds its calls in flight.
    Column("tenant_id", String(64), nullable=False),
    Column("connection_id", String(64), nullable=False),
    Column("agent_id", String(64), nullable=False),
    Column("principal_id", String(64), nullable=False),
    Column("account_id", String(64), nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("opened_at", Instant, nullable=False),
    Column("send_before", Instant, nullable=False),
    Column("settled_by", Instant, nullable=False),  # send_before plus the call's deadline
    Column("closed_at", Instant),
    Column("status", Integer),
    Column("upstream_request_id", String(200)),
    Column("error", Text),  # for people
    Column("counts_as", String(16)),  # if not as an ordinary try: unsent, unspent
    Index("ix_attempts_step", "step_id", "number", unique=True),
    Index("ix_attempts_job", "job_id"),  # without it, deleting a job makes its foreign key scan every attempt
    partial_index("ix_attempts_open", "settled_by", where="state = 'open'"),
    Index("ix_attempts_account", "account_id", "opened"),
    # A revocation's calls in flight: not closed, closed after it, or unknown from any time.
    Index("ix_attempts_closed", "closed"),
    partial_index("ix_attempts_unknown", "opened", where="state = 'unknown'"),
)

IS_OPEN = is_one(attempts.c.state, AttemptState.OPEN)  # written as in `ix_attempts_open`

once_keys = Table(
    "once_keys",
    metadata,
    Column("tenant_id", ForeignKey("tenants.id"), primary_key=True),
    Column("action", String(100), primary_key=True),
    Column("key", String(200), primary_key=True),
    Column("request_hash", String(64), nullable=False),
    Column("step_id", String(64), nullable=False),  # the owner
    Column("job_id", String(64), nullable=False),
    Column("taken_at", Instant, nullable=False),
)

# The result of an agent's Idempotency-Key, written in the transaction that produced it.
idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("tenant_id", ForeignKey("tenants.id"), primary_key=True),
    Column("agent_id", ForeignKey("agents.id"), primary_key=True),
    Column("key", String(200), primary_key=True),
    Column("request_hash", String(64), nullable=False),
    Column("made_id", String(64), nullable=False),  # the job, the revocation or the connect session
    Column("made_at", Instant, nullable=False),
    Index("ix_idempotency_keys_made", "made_at"),
    Index("ix_idempotency_keys_made_id", "made_id"),
)

# The extent to which retention has deleted whole rows: one row for jobs, one for deliveries.
forgotten = Table(
    "forgotten",
    metadata,
    Column("what", String(16), primary_key=True),  # jobs, deliveries
    Column("since", Instant, nullable=False),  # when the first of them was deleted
    # everything that ended, or arrived, at or after this time is still there
    Column("before", Instant, nullable=False),
)

schedules = Table(
    "schedules",
    metadata,
    Column("id", String(200), primary_key=True),  # tenant:name
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("name", String(100), nullable=False),  # for one declared in code, its workflow's name
    Column("workflow", String(100), nullable=False),
    Column("origin", String(16), nullable=False),  # code, tenant
    Column("cron", String(100), nullable=False),
    Column("zone", String(64), nullable=False),
    Column("catch_up", String(16), nullable=False),  # skip, once, all
    Column("at_most", Integer, nullable=False),  # the most slots that one catch-up fires
    Column("jitter_seconds", Integer, nullable=False),
    Column("paused", Boolean, nullable=False, default=False),
    Column("next_at", Instant, nullable=False),  # the next slot plus this schedule's share of the jitter
    Column("last_slot", Instant),  # the newest slot examined, whether fired or skipped
    Column("fault", Text),  # why the last slot could not be fired
    Column("removed_at", Instant),  # the row stays so that its slots cannot fire again
    UniqueConstraint("tenant_id", "name"),
    partial_index("ix_schedules_due", "next_at", where="removed_at is null"),
)

slots = Table(
    "slots",
    metadata,
    Column("schedule_id", ForeignKey("schedules.id"), primary_key=True),
    Column("slot", Instant, primary_key=True),
    Column("job_id", String(64), nullable=False),
    Column("fired_at", Instant, nullable=False),
    Index("ix_slots_fired", "fired_at"),
)

workflow_settings = Table(
    "workflow_settings",
    metadata,
    Column("tenant_id", ForeignKey("tenants.id"), primary_key=True),
    Column("workflow", String(100), primary_key=True),
    Column("enabled", Boolean, nullable=False, default=True),
    Column("config", JSON, nullable=False),
)

heartbeats = Table(
    "heartbeats",
    metadata,
    Column("duty", String(64), primary_key=True),
    Column("host", String(200), primary_key=True),
    Column("at", Instant, nullable=False),  # on the ledger's clock
    Column("host_at", Instant),  # on the host's clock, which may be wrong
    Column("error", Text),  # of the last tick; None: it succeeded
    Column("last_error", Text),  # of the last tick that failed
    Column("failed_at", Instant),  # when `last_error` occurred
)

"""Metrics of the pipeline. Labels come from closed sets: never a tenant, user or job id.

Only housekeeping sets the gauges about the ledger; in every other process they show no number.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import Counter, Gauge, Histogram

from identity.measuring import show_no_number
from identity.model import AccessPattern
from pipeline.states import ENDED, JobState

_CALL = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_CLAIMED = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_QUIESCE = (0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)

BUILD = Gauge(
    "aswhom_build_info", "1, of the build that this process runs", ["version", "revision"], multiprocess_mode="max"
)
JOBS = Counter("aswhom_jobs_finished", "Jobs that reached a terminal state", ["pattern", "outcome"])
CLAIMS = Counter("aswhom_claims", "What a bell found to claim", ["pattern", "outcome"])
CLAIM_WAIT_SECONDS = Histogram(
    "aswhom_claim_wait_seconds", "From when a job was due until a worker claimed it", ["pattern"], buckets=_CLAIMED
)
STEPS = Counter("aswhom_steps", "Steps that closed", ["action", "pattern", "outcome"])
STEP_SECONDS = Histogram(
    "aswhom_step_seconds", "From the opening of an attempt to its close", ["action", "pattern"], buckets=_CALL
)
ATTEMPTS = Counter("aswhom_attempts", "HTTP tries of steps", ["action", "outcome"])
DUPLICATE_EFFECTS = Counter(
    "aswhom_duplicate_effects", "Calls of which an answer or a search told an effect after it was ruled out"
)
DEAD = Counter("aswhom_dead_letters", "Jobs that are dead until a person replays them", ["pattern"])
MISCONFIGURED = Counter(
    "aswhom_misconfigured_runs",
    "Runs that met an operator's mistake; the job is tried again until it is mended",
    ["pattern"],
)
for _pattern in AccessPattern:  # Prometheus sees no increase when a series first appears at one
    for _state in ENDED:
        JOBS.labels(str(_pattern), str(_state))
    DEAD.labels(str(_pattern))
    MISCONFIGURED.labels(str(_pattern))
REVOCATION_EFFECTIVE_SECONDS = Histogram(
    "aswhom_revocation_effective_seconds",
    "From a request that asks for a revocation, or from its delivery, to the commit that makes it effective for all",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 30, 120, 600),
)
SIGNAL_UNREACHED_SECONDS = Gauge(
    "aswhom_signal_unreached_seconds",
    "Age of the oldest delivery whose signal has accounts left to reach",
    multiprocess_mode="mostrecent",
)
REVOCATION_SECONDS = Histogram(
    "aswhom_revocation_seconds", "From a revocation's commit until nothing of it is in flight", buckets=_QUIESCE
)
REVOCATION_UNFINISHED_SECONDS = Gauge(
    "aswhom_revocation_unfinished_seconds",
    "How long the oldest revocation that has no receipt yet has been effective",
    multiprocess_mode="mostrecent",
)
REVOCATION_CHUNK_SECONDS = Histogram(
    "aswhom_revocation_chunk_seconds",
    "One transaction that cancels jobs of a revocation, without its commit",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5),
)

REDELIVERIES = Counter(
    "aswhom_redeliveries",
    "Deliveries that failed at GitHub: asked for again, or lost since it keeps them no longer",
    ["outcome"],
)
REDELIVERIES.labels("lost")
WITHDRAWALS = Gauge(
    "aswhom_withdrawals",
    "Revoked credentials that are still to end at their provider: pending, or stuck until an operator acts",
    ["state"],
    multiprocess_mode="mostrecent",
)
BELLS = Counter("aswhom_bells", "Doorbells by what became of them: rung, failed (a question too), skipped", ["outcome"])
BELLS_AGAIN = Counter(
    "aswhom_bells_rung_again", "Bells rung for jobs whose bell nobody answered in time: lost, or behind slow work"
)
BELLS_LYING = Gauge(
    "aswhom_bells_lying", "Bells that lie in a queue of the broker", ["queue"], multiprocess_mode="mostrecent"
)
# livesum: the only gauge here that is summed over processes, and no web process has it.
THREADS = Gauge(
    "aswhom_worker_threads", "Threads of this worker, and those that are busy", ["state"], multiprocess_mode="livesum"
)
UNREADABLE = Counter("aswhom_unreadable_messages", "Items in a queue that are no bell, and were taken out and dropped")
CONSUMER_FAILURES = Counter(
    "aswhom_consumer_failures", "Times that a worker's consumer failed by no fault of the broker or of a message"
)
CONSUMER_LISTENED = Gauge(
    "aswhom_consumer_listened_timestamp_seconds",
    "When the broker last answered this worker's question for bells, or no thread was free to ask for, or it began",
    multiprocess_mode="mostrecent",
)
CONSUMER_TRIED = Gauge(
    "aswhom_consumer_tried_timestamp_seconds",
    "When this worker last listened, or tried to reach a broker that is away",
    multiprocess_mode="mostrecent",
)
# An exiting process takes its counters with it, so this shows only if scraped during the grace period. The alert uses
# `process_start_time_seconds`, which every restart changes.
WATCHDOG_EXITS = Counter("aswhom_watchdog_exits", "Processes that left because a task overstayed, or as they were deaf")
SLOTS = Counter("aswhom_beat_slots", "Jobs that a schedule's slot started here")
SLOTS_LEFT_OUT = Counter("aswhom_beat_slots_left_out", "Times that a catch-up left out missed slots", ["catch_up"])
BEAT_FAILURES = Counter("aswhom_beat_failures", "Ticks of the schedule that failed and were tried again")

# mostrecent: web processes share a directory, and these gauges must not be summed over them.
QUEUE_DEPTH = Gauge("aswhom_queue_depth", "Jobs due now", ["pattern"], multiprocess_mode="mostrecent")
OLDEST_DUE_SECONDS = Gauge(
    "aswhom_oldest_due_seconds", "How long the oldest due job has been due", ["pattern"], multiprocess_mode="mostrecent"
)
JOBS_WAITING = Gauge("aswhom_jobs_waiting", "Jobs that wait, by what for", ["wait"], multiprocess_mode="mostrecent")
JOBS_DEAD = Gauge("aswhom_jobs_dead", "Dead jobs that nobody replayed yet", ["pattern"], multiprocess_mode="mostrecent")
UNKNOWN_ATTEMPTS = Gauge(
    "aswhom_attempts_unknown", "Calls whose outcome nobody knows yet", multiprocess_mode="mostrecent"
)
UNANSWERED_CALLS = Gauge(
    "aswhom_calls_unanswered", "Calls that only a person's word settles", multiprocess_mode="mostrecent"
)
UNSEALED_SECONDS = Gauge(
    "aswhom_audit_unsealed_seconds",
    "How long the oldest audit record that is not sealed has been there",
    multiprocess_mode="mostrecent",
)
CONNECTIONS_PAUSED = Gauge(
    "aswhom_connections_paused",
    "Provider connections that fetch no tokens until an operator acts, by provider",
    ["provider"],
    multiprocess_mode="mostrecent",
)
STREAMS_SILENT = Gauge(
    "aswhom_streams_silent",
    "Transmitters of security events that said last that their stream is paused or disabled",
    ["status"],
    multiprocess_mode="mostrecent",
)
HELD = Gauge("aswhom_held", "1 while the installation is held: nothing goes out", multiprocess_mode="mostrecent")
BEAT_SILENT_SECONDS = Gauge(
    "aswhom_beat_silent_seconds", "Since any beat left a heartbeat", multiprocess_mode="mostrecent"
)
SCHEDULE_LATE_SECONDS = Gauge(
    "aswhom_schedule_late_seconds", "How long the most overdue schedule has been due", multiprocess_mode="mostrecent"
)
RETENTION_BEHIND_SECONDS = Gauge(
    "aswhom_retention_behind_seconds",
    "For how long there has been something of a kind that was to be forgotten, and was not yet",
    ["what"],
    multiprocess_mode="mostrecent",
)
DATA_FREE_BYTES = Gauge("aswhom_data_free_bytes", "Room on the disk of the data directory")
SCHEDULES_FAULTY = Gauge(
    "aswhom_schedules_faulty", "Schedules whose last slot could not be fired", multiprocess_mode="mostrecent"
)
show_no_number(
    CONSUMER_LISTENED,
    CONSUMER_TRIED,
    REVOCATION_UNFINISHED_SECONDS,
    SIGNAL_UNREACHED_SECONDS,
    UNKNOWN_ATTEMPTS,
    UNANSWERED_CALLS,
    UNSEALED_SECONDS,
    STREAMS_SILENT,
    HELD,
    BEAT_SILENT_SECONDS,
    SCHEDULE_LATE_SECONDS,
    SCHEDULES_FAULTY,
    DATA_FREE_BYTES,
)
# Histograms and counters: a gauge over all accounts would mean nothing, and one per account is not allowed.
BUDGET_LEFT = Histogram(
    "aswhom_budget_left",
    "The share of an account's rate limit that an answer said was left",
    ["provider", "endpoints"],
    buckets=(0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1),
)
BUDGET_REQUESTS = Counter(
    "aswhom_budget_requests",
    "Requests that drew on a rate limit: passes, waits, unwatched, unconfigured",
    ["provider", "endpoints", "outcome"],
)
BUDGET_PAUSES = Counter(
    "aswhom_budget_pauses", "Refusals by which an upstream asked for a pause", ["provider", "endpoints"]
)
UPSTREAM_WAITS = Counter(
    "aswhom_upstream_waits",
    "Steps that were sent back since an upstream's host is away, or has its share of a worker's threads",
    ["provider", "why"],
)
DUTY_SECONDS = Histogram("aswhom_duty_seconds", "Ticks of housekeeping's duties", ["duty", "outcome"], buckets=_CALL)
DUTY_STUCK = Gauge("aswhom_duty_stuck", "1 while a duty is past its deadline", ["duty"], multiprocess_mode="mostrecent")


def count_end(pattern: str, to: JobState | None, *, jobs: int = 1) -> None:
    """Count *jobs* ended by a committed move; *to* is the state that this very move set, None if it changed nothing."""
    if to in ENDED:
        JOBS.labels(pattern, str(to)).inc(jobs)
    if to is JobState.DEAD:
        DEAD.labels(pattern).inc(jobs)


def show_build(version: str, revision: str) -> None:
    BUILD.labels(version, revision).set(1)


def show_room(free: Callable[[], float]) -> None:
    """Call *free* at each scrape. Only for a process with its own metrics page; multiprocess files cannot call it."""
    DATA_FREE_BYTES.set_function(free)

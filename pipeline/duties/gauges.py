"""The gauges about the ledger, set only by housekeeping."""

from __future__ import annotations

from datetime import timedelta

from identity.measuring import measuring
from identity.model import AccessPattern
from identity.providers import PROFILES
from identity.sql.store import Store
from identity.transmitters import ENABLED, STREAM_STATUSES
from pipeline import metrics
from pipeline.states import Wait
from pipeline.views import troubles

_GAUGES = (
    metrics.QUEUE_DEPTH,
    metrics.OLDEST_DUE_SECONDS,
    metrics.JOBS_DEAD,
    metrics.JOBS_WAITING,
    metrics.UNKNOWN_ATTEMPTS,
    metrics.UNANSWERED_CALLS,
    metrics.CONNECTIONS_PAUSED,
    metrics.UNSEALED_SECONDS,
    metrics.REVOCATION_UNFINISHED_SECONDS,
    metrics.SIGNAL_UNREACHED_SECONDS,
    metrics.STREAMS_SILENT,
    metrics.HELD,
)


def measure(store: Store) -> None:
    """Set all gauges."""
    with measuring(*_GAUGES):
        _set(store.read(troubles.look))


def _set(found: troubles.Troubles) -> None:
    for pattern in map(str, AccessPattern):
        metrics.QUEUE_DEPTH.labels(pattern).set(found.due.get(pattern, 0))
        metrics.OLDEST_DUE_SECONDS.labels(pattern).set(found.due_for.get(pattern, timedelta()).total_seconds())
        metrics.JOBS_DEAD.labels(pattern).set(found.dead_by.get(pattern, 0))
    for wait in map(str, Wait):
        metrics.JOBS_WAITING.labels(wait).set(found.waiting.get(wait, 0))
    metrics.UNKNOWN_ATTEMPTS.set(found.unknown)
    metrics.UNANSWERED_CALLS.set(found.unanswered)
    for provider in PROFILES:
        metrics.CONNECTIONS_PAUSED.labels(provider).set(found.paused.get(provider, 0))
    metrics.UNSEALED_SECONDS.set(found.unsealed.total_seconds())
    metrics.REVOCATION_UNFINISHED_SECONDS.set(found.revoking.total_seconds())
    metrics.SIGNAL_UNREACHED_SECONDS.set(found.unreached.total_seconds())
    for status in STREAM_STATUSES:
        if status != ENABLED:
            metrics.STREAMS_SILENT.labels(status).set(found.silent.get(status, 0))
    metrics.HELD.set(found.hold is not None)

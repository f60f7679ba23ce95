"""Contradictions between settings that are each valid: durations that must fit into one another."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.broker.watchdog import TaskLimits
from pipeline.duties.retention import Retention
from pipeline.execution.services import StepSettings
from pipeline.execution.worker import WorkerSettings


def contradictions(steps: StepSettings, jobs: WorkerSettings, limits: TaskLimits) -> Iterator[str]:
    """Yield each contradiction as a sentence: the settings, the problem and the remedy."""
    call = steps.send_within + steps.call_deadline
    if jobs.claim_for < steps.send_within:
        yield (
            f"ASWHOM_WORKER_HOLD ({jobs.claim_for.total_seconds():g} s) is shorter than ASWHOM_SEND_WITHIN "
            f"({steps.send_within.total_seconds():g} s): a claim would lapse before its first call could be sent. "
            "Lengthen the one or shorten the other"
        )
    if limits.task <= steps.yield_after + call:
        yield (
            f"ASWHOM_TASK_LIMIT ({limits.task.total_seconds():g} s) is not longer than ASWHOM_YIELD_AFTER, "
            f"ASWHOM_SEND_WITHIN and ASWHOM_CALL_DEADLINE together ({(steps.yield_after + call).total_seconds():g} s): "
            "the watchdog would end processes whose runs are in order. Lengthen the limit"
        )
    if steps.backoff > steps.backoff_cap:
        yield (
            f"ASWHOM_STEP_BACKOFF ({steps.backoff.total_seconds():g} s) is longer than ASWHOM_STEP_BACKOFF_CAP "
            f"({steps.backoff_cap.total_seconds():g} s): shorten the first or lengthen the cap"
        )


_LEAST_OF_DELIVERIES = 30  # days; GitHub redelivers for three, and others can be resent by hand for this long


def contradictions_of_retention(kept: Retention) -> Iterator[str]:
    """Yield each contradiction between retention settings as a sentence."""
    if kept.jobs and not kept.steps:
        yield (
            f"ASWHOM_KEEP_JOBS ({kept.jobs} days) forgets nothing where ASWHOM_KEEP_STEPS is 0: a job goes once its "
            "steps are forgotten. Give that a number of days too, or leave both at 0"
        )
    if 0 < kept.deliveries < _LEAST_OF_DELIVERIES:
        yield (
            f"ASWHOM_KEEP_DELIVERIES ({kept.deliveries} days) is shorter than senders send the same delivery again: a "
            f"repetition would start its jobs a second time. Take {_LEAST_OF_DELIVERIES} days at least, or 0"
        )

"""Settings that are each in order and cannot be had together: durations that must hold one another."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.services import StepSettings
from pipeline.watchdog import Limits
from pipeline.worker import WorkerSettings


def contradictions(steps: StepSettings, jobs: WorkerSettings, limits: Limits) -> Iterator[str]:
    """Each as a sentence that names the settings, what is wrong between them, and what to do."""
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

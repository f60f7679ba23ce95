"""A job that ended before its end: which steps took effect, which did not, which are unknown, what was compensated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.ledger.paging import Row
from pipeline.states import AttemptState, JobState, StepState

_ENDED = (JobState.CANCELLED, JobState.DEAD)


def end_in_the_middle(job: Row, steps: Sequence[Row], followed: Sequence[Row]) -> Iterator[str]:
    """Sentences about a cancelled or dead job that had begun, or a done one that went on without a step."""
    skipped = [step for step in steps if step["state"] == StepState.SKIPPED]
    if job["state"] in _ENDED and steps:
        yield "It ended before its end:"
        for step in steps:
            yield f"  step {step['position']}, {step['action']}, {_what_became_of(step, job)}."
    elif skipped:
        yield "It went on without some of its steps:"
        for step in skipped:
            yield f"  step {step['position']}, {step['action']}, was skipped: {step['error'] or step['reason']}."
    for one in followed:
        yield _compensation(one)


def _what_became_of(step: Row, job: Row) -> str:
    states = {attempt["state"] for attempt in step["attempts"] if attempt["purpose"] == "call"}
    match step["state"]:
        case StepState.DONE if step["adopted_from"]:
            return "was done once by another job, and is that job's"
        case StepState.DONE if not step["attempts"]:
            return "is over"
        case StepState.DONE:
            return f"took effect, as {step['kind']} {step['principal']}"
        case StepState.SKIPPED:
            return f"was skipped: {step['error'] or step['reason']}"
        case _ if states & {AttemptState.UNKNOWN, AttemptState.OPEN}:
            return f"was sent, and whether it took effect is unknown: look, then `aswhom jobs resolve {job['id']}`"
        case StepState.REFUSED:
            return f"was refused and never sent: {step['error'] or step['reason']}"
        case _:
            return "took no effect"


def _compensation(one: Row) -> str:
    step = f"Step {one['position']}"
    if one["job_id"] is None:
        return f"{step} was not compensated: {one['reason']}."
    match one["by_state"]:
        case JobState.DONE:
            return f"{step} was compensated by {one['job_id']}."
        case JobState.DEAD | JobState.CANCELLED:
            return f"{step} was not compensated: {one['job_id']} is {one['by_state']}, `aswhom jobs show` says why."
    return f"{step} is being compensated by {one['job_id']}."

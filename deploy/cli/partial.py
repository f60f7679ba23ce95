"""What is not over about a job: the calls in doubt, and of one that ended before its end what each step came to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pipeline.ledger.paging import Row
from pipeline.states import AttemptState, JobState, StepState, Wait

_ENDED = (JobState.CANCELLED, JobState.DEAD)


class Doubt(NamedTuple):
    """A call whose outcome a person may say."""

    action: str
    call: str


def in_doubt(steps: Sequence[Row]) -> list[Doubt]:
    calls = [(step, one) for step in steps for one in step["attempts"]]
    return [Doubt(step["action"], one["id"]) for step, one in calls if one["state"] == AttemptState.UNKNOWN]


def resolving(job: Row, steps: Sequence[Row]) -> str:
    """The command that settles the calls in doubt: it names them, so that it settles no later one."""
    return " ".join((f"`aswhom jobs resolve {job['id']}", *(f"--call {doubt.call}" for doubt in in_doubt(steps)))) + "`"


def what_it_asks(job: Row, steps: Sequence[Row]) -> Iterator[str]:
    """A sentence about a job that waits for a person's word about a call."""
    if job["state"] == JobState.WAITING and job["wait"] == Wait.UNKNOWN and (doubts := in_doubt(steps)):
        asked = ", ".join(sorted({doubt.action for doubt in doubts}))
        yield f"It asks what became of {asked}: look at the provider, then {resolving(job, steps)}."


def end_in_the_middle(job: Row, steps: Sequence[Row], followed: Sequence[Row]) -> Iterator[str]:
    """Sentences about a cancelled or dead job that had begun, or a done one that went on without a step."""
    skipped = [step for step in steps if step["state"] == StepState.SKIPPED]
    if job["state"] in _ENDED and steps:
        yield "It ended before its end:"
        for step in steps:
            yield f"  step {step['position']}, {step['action']}, {_what_became_of(step, resolving(job, steps))}."
    elif skipped:
        yield "It went on without some of its steps:"
        for step in skipped:
            yield f"  step {step['position']}, {step['action']}, was skipped: {step['error'] or step['reason']}."
    for one in followed:
        yield _compensation(one)


def _what_became_of(step: Row, resolving: str) -> str:
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
            return f"was sent, and whether it took effect is unknown: look, then {resolving}"
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

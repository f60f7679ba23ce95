"""Sentences about a job's unanswered calls, and about what each step of a stopped job did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.desk.unanswered import UnansweredCall, asked_about
from pipeline.jobs.awaited import consenting
from pipeline.ledger.paging import Record
from pipeline.states import CUT_SHORT, AttemptState, JobState, Purpose, StepState, Wait
from pipeline.views.wording import as_whom


def resolving(job: Record, steps: Sequence[Record]) -> str:
    """Return the command that settles one step's unanswered calls, by name, so that it settles no later call."""
    named = [f"--call {call.attempt['id']}" for call in asked_about(steps)]
    return " ".join((f"`aswhom jobs resolve {job['id']}", *named)) + "`"


def step_by_step(job: Record, calls: Sequence[UnansweredCall]) -> str:
    """Return the commands that settle unanswered calls, one per step."""
    steps = {call.step["position"]: call.step for call in calls}
    return "; ".join(f"step {place}, {step['action']}: {resolving(job, [step])}" for place, step in steps.items())


def what_it_asks(job: Record, steps: Sequence[Record]) -> Iterator[str]:
    """Yield a sentence about a job that waits for a person's consent, or for their answer about a call."""
    if job["state"] != JobState.WAITING:
        return
    if job["wait"] == Wait.CONSENT and (account := consenting(job["waits_for"])) is not None:
        if account.principal == f"{account.tenant}.service":
            yield f"It waits for the service's account: `aswhom accounts show {account}` says how it is had."
        else:
            yield f"It waits for a consent: `aswhom accounts reconnect {account}` prints the link for it."
    if job["wait"] == Wait.UNKNOWN and (calls := asked_about(steps)):
        yield f"It asks what became of {calls[0].step['action']}: look at the provider, then {resolving(job, steps)}."


def where_it_stopped(job: Record, steps: Sequence[Record], followed: Sequence[Record]) -> Iterator[str]:
    """Yield sentences about a cancelled or dead job that had begun, or a done one that skipped a step."""
    skipped = [step for step in steps if step["state"] == StepState.SKIPPED]
    if job["state"] in CUT_SHORT and steps:
        yield "It stopped before it finished:"
        for step in steps:
            yield f"  step {step['position']}, {step['action']}, {_what_became_of(step, resolving(job, [step]))}."
    elif skipped:
        yield "It went on without some of its steps:"
        for step in skipped:
            yield f"  step {step['position']}, {step['action']}, was skipped: {step['error'] or step['reason']}."
    for one in followed:
        yield _compensation(one)


def _what_became_of(step: Record, resolving: str) -> str:
    states = {attempt["state"] for attempt in step["attempts"] if attempt["purpose"] == Purpose.CALL}
    match step["state"]:
        case StepState.DONE if step["adopted_from"]:
            return "was done once by another job, and is that job's"
        case StepState.DONE if not step["attempts"]:
            return "is over"
        case StepState.DONE:
            return f"took effect, as {as_whom(step)}"
        case StepState.SKIPPED:
            return f"was skipped: {step['error'] or step['reason']}"
        case _ if AttemptState.UNKNOWN in states:
            return f"was sent, and whether it took effect is unknown: look, then {resolving}"
        case _ if AttemptState.OPEN in states:
            return "was sent, and may still be on its way"
        case StepState.REFUSED:
            return f"was refused and never sent: {step['error'] or step['reason']}"
        case _:
            return "took no effect"


def _compensation(one: Record) -> str:
    step = f"Step {one['position']}"
    if one["job_id"] is None:
        return f"{step} was not compensated: {one['reason']}."
    match one["by_state"]:
        case JobState.DONE:
            return f"{step} was compensated by {one['job_id']}."
        case JobState.DEAD | JobState.CANCELLED:
            return f"{step} was not compensated: {one['job_id']} is {one['by_state']}, `aswhom jobs show` says why."
    return f"{step} is being compensated by {one['job_id']}."

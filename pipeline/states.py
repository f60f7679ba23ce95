"""The states of jobs, steps and attempts, and the moves that each may make.

Comments name what brings about a state. docs/reference/states.md draws these tables; a test compares the two.
"""

from __future__ import annotations

from enum import StrEnum

from identity.sql.state_machine import Moves


class JobState(StrEnum):
    QUEUED = "queued"  # acceptance, a retry, a yield, a lapsed claim, a wake-up, a replay
    RUNNING = "running"  # a worker's claim
    STOPPING = "stopping"  # a revocation or an operator, during a run
    WAITING = "waiting"  # a run that parks
    DONE = "done"  # a run that completes
    CANCELLED = "cancelled"  # a revocation, an operator, or an opening refused by the rule
    DEAD = "dead"  # N spent runs, an error that would recur in every run, or an expired wait


CUT_SHORT = frozenset({JobState.CANCELLED, JobState.DEAD})  # ended before it was done; a person may replay it
ENDED = CUT_SHORT | {JobState.DONE}


class Wait(StrEnum):
    """The reason why a job waits."""

    TIME = "time"
    CONSENT = "consent"
    APPROVAL = "approval"
    ONCE = "once"
    UNKNOWN = "unknown"
    UPSTREAM = "upstream"


FOR_A_PERSON = frozenset({Wait.CONSENT, Wait.APPROVAL, Wait.UNKNOWN})  # waits for a person to act


class StepState(StrEnum):
    OPEN = "open"  # the opening transaction
    DONE = "done"  # the commit of its result
    REFUSED = "refused"  # policy, identity or scope; a replay opens it again
    FAILED = "failed"  # no effect, and no retry left; a replay opens it again
    UNKNOWN = "unknown"  # sent, outcome unknown; resolved by the action's recovery mode
    SKIPPED = "skipped"  # on_revoke=skip


class AttemptState(StrEnum):
    OPEN = "open"  # the commit of its intent
    EFFECT = "effect"  # the upstream did it
    NO_EFFECT = "no_effect"  # the upstream certainly did not
    UNKNOWN = "unknown"  # sent without an answer
    ADOPTED = "adopted"  # a probe found the effect of an unknown


class Purpose(StrEnum):
    """The purpose of an attempt."""

    CALL = "call"  # to have the step's effect
    PROBE = "probe"  # to find out whether an earlier call had that effect
    READ_BEFORE = "read_before"  # a call that only read, before a replay that reads anew


class CountsAs(StrEnum):
    """The exceptions to counting an attempt as an ordinary try of its step."""

    UNSENT = "unsent"  # withdrawn before it was sent
    UNSPENT = "unspent"  # sent, but free: the upstream is away or asked for a later retry


class ApprovalState(StrEnum):
    OPEN = "open"  # a run that parks for it
    APPROVED = "approved"  # the answer that completes every quorum
    DENIED = "denied"  # one approver's refusal
    EXPIRED = "expired"  # no answer in time, or the step did not open in time; counts as a refusal
    VOID = "void"  # the action to be done has changed, or an approver lost their authority


JOB_MOVES: Moves[JobState] = Moves(
    "job",
    {
        JobState.QUEUED: frozenset({JobState.RUNNING, JobState.CANCELLED}),
        JobState.RUNNING: frozenset(
            {JobState.QUEUED, JobState.STOPPING, JobState.WAITING, JobState.DONE, JobState.CANCELLED, JobState.DEAD}
        ),
        JobState.STOPPING: frozenset({JobState.CANCELLED, JobState.DONE}),
        JobState.WAITING: frozenset({JobState.QUEUED, JobState.CANCELLED, JobState.DEAD}),
        JobState.DONE: frozenset(),
        # Only a person brings these back, with `aswhom jobs replay`.
        JobState.CANCELLED: frozenset({JobState.QUEUED}),
        JobState.DEAD: frozenset({JobState.QUEUED}),
    },
)

STEP_MOVES: Moves[StepState] = Moves(
    "step",
    {
        StepState.OPEN: frozenset(
            {StepState.DONE, StepState.REFUSED, StepState.FAILED, StepState.UNKNOWN, StepState.SKIPPED}
        ),
        StepState.UNKNOWN: frozenset({StepState.DONE, StepState.FAILED, StepState.OPEN}),
        # These open again only with their job: `aswhom jobs replay`. Of those done, only reads do, and only in a job
        # that has had no effect. To DONE: a call turned out to have had its effect.
        StepState.DONE: frozenset({StepState.OPEN}),
        StepState.REFUSED: frozenset({StepState.OPEN, StepState.DONE}),
        StepState.FAILED: frozenset({StepState.OPEN, StepState.DONE}),
        StepState.SKIPPED: frozenset({StepState.OPEN, StepState.DONE}),
    },
)

ATTEMPT_MOVES: Moves[AttemptState] = Moves(
    "attempt",
    {
        AttemptState.OPEN: frozenset({AttemptState.EFFECT, AttemptState.NO_EFFECT, AttemptState.UNKNOWN}),
        AttemptState.UNKNOWN: frozenset({AttemptState.EFFECT, AttemptState.NO_EFFECT, AttemptState.ADOPTED}),
        AttemptState.EFFECT: frozenset(),
        AttemptState.NO_EFFECT: frozenset(),
        AttemptState.ADOPTED: frozenset(),
    },
)

APPROVAL_MOVES: Moves[ApprovalState] = Moves(
    "approval",
    {
        ApprovalState.OPEN: frozenset(
            {ApprovalState.APPROVED, ApprovalState.DENIED, ApprovalState.EXPIRED, ApprovalState.VOID}
        ),
        ApprovalState.APPROVED: frozenset({ApprovalState.EXPIRED, ApprovalState.VOID}),
        ApprovalState.DENIED: frozenset(),
        ApprovalState.EXPIRED: frozenset(),
        ApprovalState.VOID: frozenset(),
    },
)

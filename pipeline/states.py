"""The states of jobs, steps and attempts, and the moves each may make.

docs/reference/states.md draws these tables; a test compares the two.
"""

from __future__ import annotations

from enum import StrEnum

from identity.sql.state_machine import Moves


class JobState(StrEnum):
    QUEUED = "queued"  # acceptance, a retry, a yield, a lapsed claim, a wake-up, a replay
    RUNNING = "running"  # a worker's claim
    STOPPING = "stopping"  # a revocation or an operator, while it runs
    WAITING = "waiting"  # the run that parks
    DONE = "done"  # the run
    CANCELLED = "cancelled"  # a revocation, an operator, or an opening that the rule refused
    DEAD = "dead"  # N spent runs, an error that every run would meet again, or an expired wait


CUT_SHORT = frozenset({JobState.CANCELLED, JobState.DEAD})  # over before it was done: a person may have it replayed
ENDED = CUT_SHORT | {JobState.DONE}


class Wait(StrEnum):
    """Why a job waits."""

    TIME = "time"
    CONSENT = "consent"
    APPROVAL = "approval"
    ONCE = "once"
    UNKNOWN = "unknown"
    UPSTREAM = "upstream"


FOR_A_PERSON = frozenset({Wait.CONSENT, Wait.APPROVAL, Wait.UNKNOWN})  # what they wait for is somebody


class StepState(StrEnum):
    OPEN = "open"  # the opening transaction
    DONE = "done"  # the result's commit
    REFUSED = "refused"  # policy, identity or scope; a replay opens it again
    FAILED = "failed"  # no effect, and no retry left; a replay opens it again
    UNKNOWN = "unknown"  # sent, outcome not known; resolved by the action's recovery mode
    SKIPPED = "skipped"  # on_revoke=skip


class AttemptState(StrEnum):
    OPEN = "open"  # intent committed
    EFFECT = "effect"  # the upstream did it
    NO_EFFECT = "no_effect"  # the upstream certainly did not
    UNKNOWN = "unknown"  # sent, no answer
    ADOPTED = "adopted"  # an unknown whose effect a probe found


class Purpose(StrEnum):
    """What an attempt is for."""

    CALL = "call"  # to have the step's effect
    PROBE = "probe"  # to find out whether an earlier call had it


class CountsAs(StrEnum):
    """What an attempt counts as that is not simply one of its step's tries."""

    UNSENT = "unsent"  # it was taken back before it was sent
    UNSPENT = "unspent"  # it was sent: its upstream is away, or said when to come


class ApprovalState(StrEnum):
    OPEN = "open"  # the run that parks for it
    APPROVED = "approved"  # the answer that completes every quorum
    DENIED = "denied"  # one approver's no
    EXPIRED = "expired"  # nobody answered in time, or the step did not open in time: that is a no
    VOID = "void"  # what was asked is no longer what would be done, or an approver lost their authority


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
        # Only a person brings these back: `aswhom jobs replay`.
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
        StepState.DONE: frozenset(),
        # Open only with their job: `aswhom jobs replay`. Done: a call turns out to have had its effect after all.
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

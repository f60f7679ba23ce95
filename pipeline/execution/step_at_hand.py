"""The step at hand: what all attempts of a step have in common, and what makes its requests recognisable."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from typing import Any, Self
from uuid import UUID

from identity.capability.model import Audience
from identity.errors import BadInput
from identity.ids import following
from identity.model import Effect, ProviderConnection
from identity.policy.decision import Decision
from pipeline.action import Action, Call
from pipeline.bugs import log_bug
from pipeline.execution.interruption import AskOperator
from pipeline.ledger.calls import word_wanted
from pipeline.ledger.intents import Approved
from pipeline.ledger.jobs import ClaimedJob, upstream_of
from pipeline.marker import marker_of
from pipeline.run import StepSpec
from pipeline.states import Purpose
from pipeline.upstream import Written, write
from pipeline.workflow import SERVICE, USER, Who

log = logging.getLogger(__name__)

NAMES: Mapping[Who | None, str] = {None: "policy", USER: "user", SERVICE: "service"}


@dataclass(frozen=True, kw_only=True)
class EarlierAttempts:
    """What the earlier attempts of a step mean for the next."""

    former: int = (
        0  # which count for no limit: of before its job was replayed, taken back before they were sent, unspent
    )
    unspent: int = 0  # of those, which were sent since then: their upstream was away, or said when to come
    since: datetime | None = None  # when the first was opened that came to nothing by the upstream's doing
    otherwise: bool = False  # some asked for something else, and none of them had an effect
    resends: bool = False  # one of unknown outcome carried a capability that lives
    in_doubt: bool = False  # one that may have had the effect has no outcome


NONE_YET = EarlierAttempts()


def step_id(job: str, spec: StepSpec[Any]) -> str:
    """The id of a step that is not stored yet, by its place in its job alone.

    A ledger that was restored from a backup has lost the row, and its job comes to the step again: what follows from
    the id is then what the upstream was sent before.
    """
    return following("step", job, spec.position, spec.action.action_name(), spec.occurrence)


@dataclass(frozen=True, kw_only=True)
class StepAtHand:
    """What all attempts of a step have in common."""

    id: str
    job: ClaimedJob
    spec: StepSpec[Any]
    request_hash: str
    decision: Decision
    principal: str
    through: ProviderConnection
    opened_at: datetime
    request_changed: bool = False  # it asks for something else than before its job was replayed: `reopen_steps`
    may_skip: bool = False
    audience: Audience | None = None  # whom a capability is for, which the step runs by
    approval: Approved | None = None
    earlier: EarlierAttempts = NONE_YET  # until they are read, which is once it may be done

    @property
    def action(self) -> Action[Any]:
        return self.spec.action

    @property
    def name(self) -> str:
        return self.action.action_name()

    @property
    def position(self) -> int:
        return self.spec.position

    @property
    def named(self) -> str:
        """Whom the function named, as it is stored."""
        return NAMES[self.spec.named]

    @property
    def repeats(self) -> bool:
        """Whether an attempt of unknown outcome may simply be made again."""
        return self.earlier.resends or self.action.facts.effect is Effect.READ or self.action.facts.recovery.repeats

    @property
    def waited_out(self) -> bool:
        """Whether it has waited for its upstream for as long as it may: one clock, the ledger's, as its run began."""
        return self.job.wait_is_over and self.job.waits_for == upstream_of(self.id)

    def answered(self) -> Self:
        """The same after an answer that works: the ledger ended the wait for its upstream."""
        return replace(self, job=replace(self.job, waits_for=None, wait_is_over=False))

    def asks(self, why: str) -> AskOperator:
        """For a person's word: nothing else tells what became of its call."""
        return AskOperator(f"{why}: {word_wanted(self.action.facts.provider)}")

    def written(self, purpose: Purpose) -> Written:
        """What a call or a probe sends: the same at every attempt. Raises BadInput where the action has a bug there."""
        make = self.action.probe if purpose is Purpose.PROBE else self.action.request
        name = f"{self.name}.{make.__name__}"
        try:
            return write(make(self.call), api_url=self.through.api_url)
        except BadInput as fault:  # which says what to do
            raise BadInput(f"step {self.position}: {name}: {fault}{self._doubt}") from fault
        except Exception as bug:
            what = f"{name} has nothing that can be sent"
            log_bug(log, what, bug, action="step.unwritable")
            raise BadInput(f"step {self.position}: {what}: {type(bug).__name__}{self._doubt}") from bug

    @property
    def _doubt(self) -> str:
        """What a person is told whose job ends though a call of the step may have had its effect."""
        if not self.earlier.in_doubt:
            return ""
        wanted = word_wanted(self.action.facts.provider)
        return f"; {self.name} was sent before and no answer came: {wanted}"

    @property
    def call(self) -> Call:
        """What makes the step's requests recognisable: the same at every attempt to do the same.

        An upstream refuses a key that it knows with other parameters (https://docs.stripe.com/api/idempotent_requests).
        """
        asked = f"\x00{self.request_hash}" if self.earlier.otherwise else ""
        digest = sha256(f"{self.job.id}\x00{self.id}{asked}".encode()).digest()
        return Call(
            idempotency_key=digest.hex(),
            client_id=str(UUID(bytes=digest[:16], version=4)),
            marker=marker_of(digest),
            opened_at=self.opened_at,
        )

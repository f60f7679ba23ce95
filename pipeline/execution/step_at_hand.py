"""The state shared by all attempts of a step, and the identifiers that make its requests recognisable."""

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
from identity.policy.decision import Decision, Denied
from pipeline.action import Action, Call
from pipeline.authoring.uses import SERVICE, USER, Who
from pipeline.bugs import log_bug
from pipeline.execution.interruption import AskOperator
from pipeline.jobs.awaited import upstream_of
from pipeline.jobs.calls import word_wanted
from pipeline.jobs.claims import ClaimedJob
from pipeline.jobs.intents import Approved
from pipeline.marker import marker_of
from pipeline.run import StepSpec
from pipeline.states import Purpose
from pipeline.upstream import Written, write

log = logging.getLogger(__name__)

NAMES: Mapping[Who | None, str] = {None: "policy", USER: "user", SERVICE: "service"}


@dataclass(frozen=True, kw_only=True)
class EarlierAttempts:
    """Consequences of a step's earlier attempts for the next one."""

    tried: bool = False  # there are any
    counted: int = 0  # those that count against the limit, since the job's acceptance or replay
    unspent: int = 0  # those since then that were free: the upstream was away or asked for a later retry
    otherwise: bool = False  # earlier attempts asked for something else, and none of them had an effect
    resends: bool = False  # an attempt of unknown outcome carried a capability that is still valid
    in_doubt: bool = False  # an attempt that may have had the effect has no outcome


NONE_YET = EarlierAttempts()


def step_id(job: str, spec: StepSpec[Any]) -> str:
    """Return the id of a step that is not stored yet, derived only from its place in its job.

    A ledger restored from a backup may have lost the row, and the job then reaches the step again. Everything derived
    from this id then equals what was sent to the upstream before.
    """
    return following("step", job, spec.position, spec.action.action_name(), spec.occurrence)


@dataclass(frozen=True, kw_only=True)
class StepAtHand:
    """The state shared by all attempts of a step."""

    id: str
    job: ClaimedJob
    spec: StepSpec[Any]
    request_hash: str
    decision: Decision | Denied
    principal: str
    through: ProviderConnection
    opened_at: datetime
    request_changed: bool = False  # a replay of the job changed its request: `reopen_steps`
    may_skip: bool = False
    audience: Audience | None = None  # of the capability that the step uses, if any
    approval: Approved | None = None
    earlier: EarlierAttempts = NONE_YET  # not read before the step may be carried out

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
        """The principal as the function named it, in stored form."""
        return NAMES[self.spec.named]

    @property
    def repeats(self) -> bool:
        """True if an attempt of unknown outcome may simply be repeated."""
        return self.earlier.resends or self.action.facts.effect is Effect.READ or self.action.facts.recovery.repeats

    @property
    def waits(self) -> bool:
        """True if it waits for its upstream."""
        return self.job.waits_for == upstream_of(self.id)

    @property
    def waited_out(self) -> bool:
        """True if it has waited as long as it may for its upstream, by the ledger's clock when the run began."""
        return self.waits and self.job.wait_is_over

    def after_attempt(self, *, is_free: bool, ends_wait: bool) -> Self:
        """Return the step after an attempt of this run. *ends_wait*: its closing ended the step's wait."""
        job = replace(self.job, waits_for=None, wait_is_over=False) if ends_wait else self.job
        counted, unspent = self.earlier.counted + (not is_free), self.earlier.unspent + is_free
        return replace(self, job=job, earlier=replace(self.earlier, tried=True, counted=counted, unspent=unspent))

    def asks(self, why: str) -> AskOperator:
        """Return the request for a person's word, when nothing else can tell the call's outcome."""
        return AskOperator(f"{why}: {word_wanted(self.action.facts.provider)}")

    def written(self, purpose: Purpose) -> Written:
        """Return a call's or probe's request, the same at every attempt. Raises BadInput for a bug in the action."""
        make = self.action.probe if purpose is Purpose.PROBE else self.action.request
        name = f"{self.name}.{make.__name__}"
        try:
            return write(make(self.call), api_url=self.through.api_url)
        except BadInput as fault:  # its text says what to do
            raise BadInput(f"step {self.position}: {name}: {fault}{self._doubt}") from fault
        except Exception as bug:
            what = f"{name} has nothing that can be sent"
            log_bug(log, what, bug, action="step.unwritable")
            raise BadInput(f"step {self.position}: {what}: {type(bug).__name__}{self._doubt}") from bug

    @property
    def _doubt(self) -> str:
        """The warning for a job that ends although a call of the step may have had its effect."""
        if not self.earlier.in_doubt:
            return ""
        wanted = word_wanted(self.action.facts.provider)
        return f"; {self.name} was sent before and no answer came: {wanted}"

    @property
    def call(self) -> Call:
        """The identifiers of the step's requests; the same for every attempt at the same request.

        An upstream refuses a known key with other parameters (https://docs.stripe.com/api/idempotent_requests).
        """
        asked = f"\x00{self.request_hash}" if self.earlier.otherwise else ""
        digest = sha256(f"{self.job.id}\x00{self.id}{asked}".encode()).digest()
        return Call(
            idempotency_key=digest.hex(),
            client_id=str(UUID(bytes=digest[:16], version=4)),
            marker=marker_of(digest),
            opened_at=self.opened_at,
        )

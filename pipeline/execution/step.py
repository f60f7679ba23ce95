"""The steps of one run: stored results are returned, new steps decided, interrupted ones recovered."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from functools import partial
from hashlib import sha256
from typing import Any, TypeVar

from sqlalchemy import Row

from identity.capability import issued
from identity.model import AccessPattern, Effect, PrincipalKind
from identity.policy.decision import Denied
from pipeline.action import Recovery, Result, hash_of
from pipeline.authoring.declared_workflow import Workflow
from pipeline.authoring.uses import SKIP, STOP, on_revoke_of
from pipeline.execution.approval_wait import approved
from pipeline.execution.attempt import attempt, probe
from pipeline.execution.attempt_intent import intent_of, record_refusal
from pipeline.execution.decisions import Decisions
from pipeline.execution.interruption import RunAgain, RunEnded
from pipeline.execution.services import Services
from pipeline.execution.step_at_hand import NAMES, EarlierAttempts, StepAtHand, step_id
from pipeline.execution.stored_step import (
    came_out_since,
    left_out,
    may_change,
    new_result_of,
    raise_if_diverged,
    raise_if_ended,
    result_of,
)
from pipeline.jobs import pins
from pipeline.jobs.calls import may_have_acted
from pipeline.jobs.claims import ClaimedJob
from pipeline.jobs.intents import Adopted
from pipeline.ledger.clock import ledger_now
from pipeline.run import StepSpec
from pipeline.states import AttemptState, CountsAs, Purpose, StepState
from pipeline.steps import stored as ledger_steps

R = TypeVar("R", bound=Result)


class Known(Enum):
    """Knowledge about the outcomes of a step's earlier attempts."""

    SETTLED = auto()  # every attempt has an outcome
    CARRIED = auto()  # one has none, but its capability is still valid: sending it again is the same spend, done once
    UNSETTLED = auto()  # one has none, and sending it again may do it twice


class StepRunner:
    """Carries out the steps of one run of one job."""

    def __init__(self, services: Services, workflow: Workflow, job: ClaimedJob, stored: Mapping[int, Row[Any]]) -> None:
        self._services = services
        self._workflow = workflow
        self._job = job
        self._decisions = Decisions(services, workflow, job)
        self._stored = stored
        self._began = time.monotonic()
        self._new_steps = 0
        self._unreached = deque(sorted(stored))  # stored positions that the function has not come to

    def perform(self, spec: StepSpec[R]) -> R:
        action, position = spec.action, spec.position
        self._reach(position)
        name = action.action_name()
        declared = self._workflow.on_revoke.get(type(action), STOP)
        then = on_revoke_of(f"step {position}, {name},", declared, spec.on_revoke)
        stored = self._stored.get(position)
        request_hash = action.request_hash()
        if stored is not None:
            if not may_change(stored):
                raise_if_diverged(
                    stored,
                    action=name,
                    occurrence=spec.occurrence,
                    named=NAMES[spec.named],
                    request_hash=request_hash,
                )
            if stored.state == StepState.DONE:
                return result_of(action, stored.result, position=position)
            raise_if_ended(stored)
        self._yield_if_due(is_new=stored is None)
        self._new_steps += 1
        step = self._prepare(spec, request_hash=request_hash, stored=stored, may_skip=then is SKIP)
        came = self._carry_out(step, stored)
        if isinstance(came, Adopted):
            return result_of(action, came.result, position=position, owner=came.owner)
        return new_result_of(action, came, position=position)

    def _yield_if_due(self, *, is_new: bool) -> None:
        """Raise RunAgain if the run must end before the step it has reached."""
        if self._services.stopping():
            # A supervisor waits for the call on the wire, but not for further ones.
            raise RunAgain("its process was told to stop: yielded at a step boundary", delay=timedelta())
        worked = timedelta(seconds=time.monotonic() - self._began)
        if is_new and self._new_steps and worked > self._services.settings.yield_after:
            raise RunAgain("yielded after its time, at a step boundary", delay=timedelta())

    def sleep(self, position: int, occurrence: int, duration: timedelta) -> None:
        self._reach(position)
        request_hash = sha256(f"sleep {duration.total_seconds()}".encode()).hexdigest()
        stored = self._stored.get(position)
        if stored is not None and not may_change(stored):
            raise_if_diverged(
                stored, action="run.sleep", occurrence=occurrence, named=NAMES[None], request_hash=request_hash
            )
            if stored.state == StepState.DONE:
                return
        asleep = self._services.store.write(
            partial(
                ledger_steps.sleep,
                job=self._job,
                step=stored.id if stored else self._services.ids("step"),  # no upstream ever sees this id
                position=position,
                occurrence=occurrence,
                request_hash=request_hash,
                duration=duration,
            )
        )
        if asleep is not None:
            raise RunEnded(asleep.reason, moved=asleep.moved)

    def _reach(self, position: int) -> None:
        """Go on to *position*. Raises Diverged if the function passed over a stored step: positions only rise."""
        self.raise_if_left_out(before=position)
        if self._unreached and self._unreached[0] == position:
            self._unreached.popleft()

    def raise_if_left_out(self, *, before: int | None = None) -> None:
        """Raise Diverged if the function left out a stored step, *before* the one it goes on to or until its return."""
        while self._unreached and (before is None or self._unreached[0] < before):
            stored = self._stored[self._unreached[0]]
            if not self._may_be_left_out(stored):
                raise left_out(stored, binds=self._binds(stored), ends=before is None)
            self._unreached.popleft()

    def _binds(self, stored: Row[Any]) -> bool:
        """True if no replay allows the function to leave out the step.

        It had an effect, or may have had one, or it is a read of a job that something else binds.
        """
        if stored.action in self._workflow.reads and stored.state == StepState.DONE:
            return self._services.store.read(partial(pins.binds, job=self._job.id, reads=self._workflow.reads))
        if stored.action == "run.sleep" or stored.state in (StepState.DONE, StepState.UNKNOWN):
            return True
        return self._services.store.read(partial(may_have_acted, step=stored.id))

    def _may_be_left_out(self, stored: Row[Any]) -> bool:
        """True if the step had no effect, and a replay of its job allows something else in its place."""
        if may_change(stored):
            return True
        if stored.state != StepState.OPEN:
            return False
        if stored.action == "run.sleep":
            return any(came_out_since(before, stored) for before in self._stored.values())
        tried = self._services.store.read(partial(ledger_steps.attempts_of, step=stored.id))
        return all(row.state == AttemptState.NO_EFFECT and row.opened <= self._job.accepted for row in tried)

    def _prepare(
        self, spec: StepSpec[Any], *, request_hash: str, stored: Row[Any] | None, may_skip: bool
    ) -> StepAtHand:
        """Decide the principal and gather what the step's attempts have in common. Raises as `record_refusal` says."""
        ground = self._decisions.ground_for(spec.action.facts.provider)
        decision = self._decisions.of(spec.action, spec.named)
        step = StepAtHand(
            id=stored.id if stored is not None else step_id(self._job.id, spec),
            job=self._job,
            spec=spec,
            request_hash=request_hash,
            decision=decision,
            principal=self._job.user if decision.kind is PrincipalKind.USER and self._job.user else ground.service,
            through=ground.through,
            may_skip=may_skip,
            opened_at=stored.opened_at if stored is not None else datetime.now(UTC),
            request_changed=stored is not None
            and may_change(stored)
            and hash_of(stored.action, stored.parameters) != request_hash,
            audience=ground.audience if decision.pattern is AccessPattern.CAPABILITY else None,
        )
        if isinstance(decision, Denied):
            intent = intent_of(self._services, step, purpose=Purpose.CALL)
            raise record_refusal(self._services, intent, decision.reason)
        return step

    def _carry_out(self, step: StepAtHand, stored: Row[Any] | None) -> Any:
        tried: list[Row[Any]] = []
        if stored is not None:
            tried = self._services.store.read(partial(ledger_steps.attempts_of, step=step.id))
        step = replace(step, earlier=self._earlier(step, tried))  # what is approved covers the key in the request
        # A search has no effect, so it comes before any question to approvers, who would decide about a call that may
        # have been made. A capability names who approved, in a search as well.
        asks_first = step.audience is not None
        if asks_first:
            step = replace(step, approval=approved(self._services, step))
        known = self._recover(step, tried)
        step = replace(step, earlier=replace(step.earlier, resends=known is Known.CARRIED))
        if known is Known.UNSETTLED and not step.repeats and step.action.facts.recovery.searches:
            found = probe(self._services, step)
            if not isinstance(found, StepAtHand):
                return found
            step = found
        if not asks_first:
            step = replace(step, approval=approved(self._services, step))
        return attempt(self._services, step)

    def _earlier(self, step: StepAtHand, tried: list[Row[Any]]) -> EarlierAttempts:
        made_as = [row.counts_as for row in tried if row.opened > self._job.accepted]  # since the replay, if any
        return EarlierAttempts(
            tried=bool(tried),
            counted=made_as.count(None),
            unspent=made_as.count(CountsAs.UNSPENT),
            # `write_step` resets `opened_at` if a replay changes the request: it is then later than the first
            # attempt's.
            otherwise=bool(tried) and (step.request_changed or tried[0].opened_at < step.opened_at),
            in_doubt=bool(_without_outcome(tried)) and step.action.facts.effect is not Effect.READ,
        )

    def _recover(self, step: StepAtHand, tried: list[Row[Any]]) -> Known:
        """Settle earlier attempts. Raises RunAgain while one may still act, and asks if nothing can be looked up."""
        open_ended = _without_outcome(tried)
        # Searches must end before anything more is sent: their late findings would be held against it.
        searches = [row for row in tried if row.purpose == Purpose.PROBE and row.state == AttemptState.OPEN]
        if not open_ended and not searches:
            return Known.SETTLED
        now = self._services.store.read(ledger_now)
        for row in (*open_ended, *searches):
            if row.settled_by > now:
                # It may still be on the wire, in the hands of a paused worker.
                raise RunAgain("an earlier attempt is not settled yet", delay=row.settled_by - now)
            if row.state == AttemptState.OPEN:
                self._services.store.write(partial(ledger_steps.settle, attempt=row, now=now))
        if not open_ended:
            return Known.SETTLED
        elsewhere = sorted({row.connection_id for row in open_ended} - {step.through.id})
        if elsewhere and step.action.facts.effect is not Effect.READ:
            # Possibly another workspace, which knows neither that call's key nor, in a search, its effect.
            raise step.asks(
                f"{step.name} was sent through {', '.join(elsewhere)} and no answer came, and now goes through "
                f"{step.through.id}, where nothing tells what became of it"
            )
        if step.audience is not None:
            living = partial(
                issued.living,
                step=step.id,
                at=now + self._services.settings.send_within * 2,
                accepted=self._job.accepted,
                approved_by=step.approval.by if step.approval else (),
            )
            if self._services.store.read(living) is not None:
                return Known.CARRIED
        if step.action.facts.recovery is Recovery.ASK and step.action.facts.effect is not Effect.READ:
            raise step.asks(f"{step.name} was sent and no answer came")
        facts = step.action.facts
        if facts.repeats_for is not None and min(row.opened_at for row in open_ended) <= now - facts.repeats_for:
            raise step.asks(
                f"{step.name} was sent and no answer came, and {facts.provider} may have forgotten its key: "
                "sent again it might be done twice"
            )
        return Known.UNSETTLED


def _without_outcome(tried: list[Row[Any]]) -> list[Row[Any]]:
    """Return the calls whose effect is not known."""
    unsettled = (AttemptState.OPEN, AttemptState.UNKNOWN)
    return [row for row in tried if row.purpose == Purpose.CALL and row.state in unsettled]

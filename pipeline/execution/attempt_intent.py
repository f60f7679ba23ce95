"""The intent of a step's next attempt, and the refusal of its step."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from identity.model import Effect, LeaseRequest
from pipeline import metrics
from pipeline.execution.entitlement import wanted_capability
from pipeline.execution.interruption import Interruption, RunAgain, RunEnded
from pipeline.execution.services import Services
from pipeline.execution.step_at_hand import StepAtHand
from pipeline.jobs.intents import Ended, Intent, PolicyMoved
from pipeline.run import OnceUsed, StepRefused, UpstreamGone
from pipeline.states import Purpose, StepState
from pipeline.steps import refusals
from pipeline.upstream import Written


def intent_of(
    services: Services,
    step: StepAtHand,
    *,
    purpose: Purpose,
    written: Written | None = None,
    after_generation: int = 0,
    refresh_early: bool = True,
) -> Intent:
    """Return a new attempt's intent with new ids. *written* is the request; None: nothing will be sent."""
    return Intent(
        step=step.id,
        attempt=services.ids("att"),
        job=step.job,
        position=step.position,
        action=step.name,
        occurrence=step.spec.occurrence,
        named=step.named,
        decision=step.decision,
        principal=step.principal,
        provider=step.through.provider,
        connection=step.through.id,
        api_url=step.through.api_url,
        new_account=services.ids("acc"),
        request_hash=step.request_hash,
        parameters=step.action.model_dump(mode="json"),
        once=step.spec.once,
        request_changed=step.request_changed,
        purpose=purpose,
        again=step.earlier.tried,
        repeats_unknown=purpose is Purpose.PROBE or step.repeats,
        reads=step.action.facts.effect is Effect.READ,
        lease=LeaseRequest(
            tenant=step.job.tenant,
            connection=step.through.id,
            agent=step.job.agent,
            principal=step.principal,
            accepted=step.job.accepted,
            scopes=step.action.facts.scopes,
            refresh_early=refresh_early,
            after_generation=after_generation,
        ),
        send_within=services.settings.send_within,
        consent_wait=services.settings.consent_wait,
        deadline=services.settings.call_deadline,
        may_skip=step.may_skip,
        capability=wanted_capability(services, step, written),
        resends=step.earlier.resends,
        repeats_for=step.action.facts.repeats_for,
        approval=step.approval,
        request_sha256=None if written is None else written.sha256(),
    )


def record_refusal(
    services: Services, intent: Intent, reason: str, *, once_of: str | None = None
) -> StepRefused | RunAgain | RunEnded:
    """Record that the step is refused. Return the exception to raise: StepRefused, or the end of this run."""
    match services.store.write(partial(refusals.refuse, intent=intent, reason=reason, once_of=once_of)):
        case PolicyMoved():
            return policy_moved()
        case Ended(reason=why, moved=moved):
            return RunEnded(why, moved=moved)
    metrics.STEPS.labels(intent.action, "none", "refused").inc()
    return StepRefused(reason) if once_of is None else OnceUsed(reason)


def record_failure(services: Services, step: StepAtHand, intent: Intent, reason: str) -> Exception | Interruption:
    """Record that the step waited for its upstream in vain, without another attempt. Return the exception to raise.

    This is UpstreamGone, AskOperator if a call of the step is in doubt, or the end of this run.
    """
    if step.earlier.in_doubt:
        return step.asks(f"{step.name} was sent and no answer came, and {reason}")
    ended = services.store.write(partial(refusals.fail, intent=intent, reason=reason))
    if ended is not None:
        return RunEnded(ended.reason, moved=ended.moved)
    metrics.STEPS.labels(step.name, str(step.decision.pattern), str(StepState.FAILED)).inc()
    return UpstreamGone(f"{step.name} failed: {reason}")


def policy_moved() -> RunAgain:
    return RunAgain("the tenant's policy changed before the step opened", delay=timedelta())

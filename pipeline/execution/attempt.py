"""One attempt of a step: open it under the rule, send it before its time runs out, close it with its outcome."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, NoReturn

from structlog.contextvars import bound_contextvars

from identity.errors import AswhomError, GrantRevoked, ReauthRequired, Unavailable
from identity.http.client import NoAnswer, NotSent
from identity.model import Effect, LeaseRequest, NeedsRefresh
from identity.sql.store import CommitUnknown
from pipeline import metrics
from pipeline.action import Recovery, Response, Verdict
from pipeline.execution.account_inference import ask_to_reconnect, hold_back
from pipeline.execution.conclusion import conclude
from pipeline.execution.entitlement import header, mint_ahead, wanted_capability
from pipeline.execution.interruption import RunAgain, RunEnded
from pipeline.execution.opened_attempt import OpenedAttempt, close_call, close_probe
from pipeline.execution.services import Services
from pipeline.execution.step_at_hand import StepAtHand
from pipeline.ledger import openings, refusals
from pipeline.ledger.closings import close_unsent
from pipeline.ledger.intents import (
    Adopted,
    ApprovalMoved,
    Ended,
    Intent,
    OnceMismatch,
    Opened,
    OpenOutcome,
    PolicyMoved,
    Skipped,
)
from pipeline.run import OnceUsed, StepRefused, StepSkipped
from pipeline.states import AttemptState, Purpose, StepState
from pipeline.throttle.budget_use import BudgetUse
from pipeline.throttle.host_use import HostUse
from pipeline.upstream import Written

OPENINGS = 8  # of one attempt: refreshes and refused tokens in a row, before the job tries again later


def attempt(services: Services, step: StepAtHand, *, number: int) -> Any:
    """Carry out the step and return its result; Adopted: another job's, by the once key.

    Raises ActionFailed, StepRefused, BadInput or an Interruption.
    """
    with bound_contextvars(step=step.id):
        return _attempt(services, step, Purpose.CALL, number, close_call)


def probe(services: Services, step: StepAtHand, *, number: int) -> Any | None:
    """Search for the effect of an earlier attempt. Returns its result; None: it had no effect."""
    with bound_contextvars(step=step.id):
        made = _attempt(services, step, Purpose.PROBE, number, close_probe)
        return made.result if isinstance(made, Adopted) else made


def _attempt(
    services: Services, step: StepAtHand, purpose: Purpose, number: int, close: Callable[[OpenedAttempt], Any]
) -> Any:
    """Open, send and close, with a place under the host's breaker and a share of its budget: both given back."""
    host_use, budget_use = HostUse(services, step), BudgetUse(services, step)
    try:
        made = _open_and_send(services, step, purpose, number, host_use, budget_use)
        return close(made) if isinstance(made, OpenedAttempt) else made
    finally:
        budget_use.give_back()
        host_use.give_back()


def _open_and_send(
    services: Services, step: StepAtHand, purpose: Purpose, number: int, host_use: HostUse, budget_use: BudgetUse
) -> OpenedAttempt | Adopted:
    """Open the attempt and send it. If the token is too old, or is refused upstream, refresh it and open again."""
    written = step.written(purpose)  # before it opens: a request that cannot be written must leave no open attempt
    refresh_early, after_generation, forced = True, 0, False
    for _ in range(OPENINGS):
        intent = intent_of(
            services,
            step,
            purpose=purpose,
            number=number,
            written=written,
            after_generation=after_generation,
            refresh_early=refresh_early,
        )
        mint_ahead(services, step, intent.lease)
        host_use.take()
        budget_use.take()
        began = time.monotonic()
        match _open(services, intent):
            case Adopted() as adopted:
                metrics.STEPS.labels(step.name, str(step.decision.pattern), "adopted").inc()
                return adopted
            case NeedsRefresh(account=account, generation=generation):
                forced = after_generation >= generation
                host_use.give_back()  # a token endpoint may be slow: keep no place at the upstream meanwhile
                refresh_early = _refresh(services, account, generation, refused=forced) > generation
                continue
            case Opened() as opened:
                number += 1
                step = replace(
                    step, request_changed=False
                )  # the step is stored with this request, so a further opening does not change it
            case outcome:
                _end_by(services, step, intent, outcome)
        answer = _send(services, step, intent, opened, written, host_use, began=began)
        conclusion = conclude(step.action, step.call, purpose, answer)
        host_use.ended(answer, conclusion)
        made = OpenedAttempt(
            services=services,
            step=step,
            intent=intent,
            began=began,
            answer=answer,
            conclusion=conclusion,
            host_use=host_use,
            budget_use=budget_use,
        )
        if conclusion.verdict not in (Verdict.UNAUTHORIZED, Verdict.SUSPENDED):
            return made
        lease = opened.lease
        if lease is None:  # a capability is not renewed: the next attempt is issued another
            return replace(made, conclusion=replace(conclusion, verdict=Verdict.RETRY))
        if conclusion.verdict is Verdict.SUSPENDED:
            if not hold_back(services, lease, began=began):
                return replace(made, conclusion=replace(conclusion, verdict=Verdict.RETRY))
            made.close(AttemptState.NO_EFFECT, StepState.OPEN, error=conclusion.reason)
            step = step.answered()
            continue  # the next opening parks the job on the account
        made.close(AttemptState.NO_EFFECT, StepState.OPEN, error="the token was refused")
        step = step.answered()
        if forced:
            ask_to_reconnect(services, lease)
        # A refused token that was not the newest died by another worker's refresh; the next opening leases the newest.
        after_generation, forced = lease.generation, False
    raise Unavailable("the token was renewed again and again without success", retry_after=timedelta(seconds=30))


def _end_by(
    services: Services,
    step: StepAtHand,
    intent: Intent,
    outcome: Ended | Skipped | OnceMismatch | PolicyMoved | ApprovalMoved,
) -> NoReturn:
    """Raise what the run needs to know of an opening that was not made."""
    match outcome:
        case Ended(reason=reason, moved=moved):
            raise RunEnded(reason, moved=moved)
        case Skipped(reason=reason):
            metrics.STEPS.labels(step.name, str(step.decision.pattern), "skipped").inc()
            raise StepSkipped(reason)
        case OnceMismatch(owner=owner, done=once_of):
            reason = f"the once key {step.spec.once!r} was used by job {owner} with other parameters"
            raise record_refusal(services, intent, reason, once_of=once_of)
        case PolicyMoved():
            raise policy_moved()
        case ApprovalMoved():
            raise RunAgain("the approval does not hold any more", delay=timedelta())


def intent_of(
    services: Services,
    step: StepAtHand,
    *,
    purpose: Purpose,
    number: int,
    written: Written | None = None,
    after_generation: int = 0,
    refresh_early: bool = True,
) -> Intent:
    """A new attempt's intent, with ids of its own. *written* is the request; None: nothing will be sent."""
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
        number=number,
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
    )


def record_refusal(
    services: Services, intent: Intent, reason: str, *, once_of: str | None = None
) -> StepRefused | RunAgain | RunEnded:
    """Record that the step is refused. Returns what to raise: StepRefused for the workflow, or the end of this run."""
    match services.store.write(partial(refusals.refuse, intent=intent, reason=reason, once_of=once_of)):
        case PolicyMoved():
            return policy_moved()
        case Ended(reason=why, moved=moved):
            return RunEnded(why, moved=moved)
    metrics.STEPS.labels(intent.action, "none", "refused").inc()
    return StepRefused(reason) if once_of is None else OnceUsed(reason)


def policy_moved() -> RunAgain:
    return RunAgain("the tenant's policy changed before the step opened", delay=timedelta())


def _open(services: Services, intent: Intent) -> OpenOutcome:
    try:
        return services.store.write(partial(openings.open_attempt, intent=intent))
    except CommitUnknown:
        # Its commit may have happened, or may still happen, so nothing is sent by it.
        _close_unsent(services, intent)
        raise RunAgain("the opening's commit was not confirmed", delay=services.settings.backoff) from None


def _close_unsent(services: Services, intent: Intent) -> None:
    """Close an attempt that was certainly not sent, so that no person is asked about its outcome."""
    where = {"action": "attempt.not_taken_back", "attempt": intent.attempt}
    services.persistent.write(
        services.store,
        partial(close_unsent, intent=intent),
        what="the end of an attempt that was not sent",
        where=where,
    )


def _refresh(services: Services, account: str, generation: int, *, refused: bool) -> int:
    """The generation after a refresh. If it is refused, the next opening finds that in the account's state."""
    try:
        return services.coordinator.refresh(account, after_generation=generation, refused=refused)
    except (ReauthRequired, GrantRevoked):
        return generation + 1


def _send(
    services: Services,
    step: StepAtHand,
    intent: Intent,
    opened: Opened,
    written: Written,
    host_use: HostUse,
    *,
    began: float,
) -> Response | NotSent | NoAnswer:
    send_before = began + intent.send_within.total_seconds()
    try:
        shown = header(services, step, intent, opened, send_before=send_before)
    except AswhomError:  # such as a vault key that this host does not have yet
        _close_unsent(services, intent)
        raise
    if isinstance(shown, NotSent):
        return replace(shown, untried=True)  # the upstream's host was not spoken to
    services.reached("before_call")
    host_use.sent()
    answer = services.upstream.send(
        written,
        authorization=shown,
        attempt=intent.attempt,
        idempotency_key=step.call.idempotency_key,
        deadline=intent.deadline,
        send_before=send_before,
        # A server may close a kept-alive connection just as we send. The outcome is then unknown, and for such an
        # action only a person can resolve it, so it gets a connection of its own.
        fresh=step.action.facts.recovery is Recovery.ASK and not step.repeats,
    )
    services.reached("after_call")
    return answer

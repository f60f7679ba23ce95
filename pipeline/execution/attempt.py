"""One attempt of a step: opened under the rule, sent before its time runs out, closed with its outcome."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any, NoReturn

from structlog.contextvars import bound_contextvars

from identity.errors import AswhomError, GrantRevoked, ReauthRequired, Unavailable
from identity.http.client import NoAnswer, NotSent
from identity.model import Leased, NeedsRefresh
from identity.sql.store import CommitUnknown
from pipeline import metrics
from pipeline.action import Recovery, Response, Verdict
from pipeline.execution.account_inference import ask_to_reconnect, hold_back
from pipeline.execution.attempt_intent import intent_of, policy_moved, record_refusal
from pipeline.execution.budget_use import BudgetUse
from pipeline.execution.conclusion import conclude
from pipeline.execution.entitlement import header, mint_ahead
from pipeline.execution.host_use import HostUse
from pipeline.execution.interruption import RunAgain, RunEnded
from pipeline.execution.opened_attempt import OpenedAttempt, close_call, close_probe
from pipeline.execution.services import Services
from pipeline.execution.step_at_hand import StepAtHand
from pipeline.jobs.intents import (
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
from pipeline.run import StepSkipped, UpstreamGone
from pipeline.states import AttemptState, Purpose, StepState
from pipeline.steps import failures, openings
from pipeline.steps.closings import close_unsent
from pipeline.upstream import Written

OPENINGS = 8  # per attempt: refreshes and refused tokens in a row, before the job tries again later


def attempt(services: Services, step: StepAtHand) -> Any:
    """Carry out the step and return its result; Adopted: another job's result, under the once key.

    Raises ActionFailed, StepRefused, BadInput or an Interruption.
    """
    with bound_contextvars(step=step.id):
        return _attempt(services, step, Purpose.CALL, close_call)


def probe(services: Services, step: StepAtHand) -> Any:
    """Search for the effect of an earlier attempt. Return its result; StepAtHand: it had none, so call this step."""
    with bound_contextvars(step=step.id):
        made = _attempt(services, step, Purpose.PROBE, close_probe)
        return made.result if isinstance(made, Adopted) else made


def _attempt(services: Services, step: StepAtHand, purpose: Purpose, close: Callable[[OpenedAttempt], Any]) -> Any:
    """Open, send and close, using the host's breaker and the budget; give back what is left of either."""
    host_use, budget_use = HostUse(services, step), BudgetUse(services, step)
    try:
        written = step.written(purpose)  # before it opens: a request that cannot be written must leave no open attempt
        unopened = _Attempt(
            services=services, purpose=purpose, written=written, host_use=host_use, budget_use=budget_use
        )
        made = unopened.carry_out(step)
        return close(made) if isinstance(made, OpenedAttempt) else made
    finally:
        budget_use.give_back()
        host_use.give_back()


@dataclass(frozen=True, kw_only=True)
class _Try:
    """One opening of an attempt, with what the earlier ones found."""

    step: StepAtHand
    refresh_early: bool = True
    refused: int = 0  # generation of the last token that the upstream refused; 0: none
    renewed: bool = False  # the refused token was the newest and was refreshed for that reason


@dataclass(frozen=True, kw_only=True)
class _Attempt:
    """An attempt, with what stays the same over its openings."""

    services: Services
    purpose: Purpose
    written: Written
    host_use: HostUse
    budget_use: BudgetUse

    def carry_out(self, step: StepAtHand) -> OpenedAttempt | Adopted:
        """Open the attempt and send it. If the token is too old, or is refused upstream, refresh it and open again."""
        current = _Try(step=step)
        for _ in range(OPENINGS):
            made = self._once(current)
            if not isinstance(made, _Try):
                return made
            current = made
        raise Unavailable("the token was renewed again and again without success", retry_after=timedelta(seconds=30))

    def _once(self, current: _Try) -> OpenedAttempt | Adopted | _Try:
        """Open and send once. Returns the next try if the token is too old or was refused."""
        step = current.step
        intent = intent_of(
            self.services,
            step,
            purpose=self.purpose,
            written=self.written,
            after_generation=current.refused,
            refresh_early=current.refresh_early,
        )
        mint_ahead(self.services, step, intent.lease)
        in_vain = self.host_use.take()
        if in_vain is None:
            self.budget_use.take()
        began = time.monotonic()
        match _open(self.services, intent) if in_vain is None else _fail(self.services, step, intent, in_vain):
            case Adopted() as adopted:
                metrics.STEPS.labels(step.name, str(step.decision.pattern), "adopted").inc()
                return adopted
            case NeedsRefresh(account=account, generation=generation):
                newest_refused = current.refused >= generation
                self.host_use.give_back()  # a token endpoint may be slow: keep no place at the upstream meanwhile
                refreshed = _refresh(self.services, account, generation, refused=newest_refused)
                return replace(current, refresh_early=refreshed > generation, renewed=newest_refused)
            case Opened() as opened:
                step = replace(step, request_changed=False)  # it is stored now: another opening does not change it
            case outcome:
                _end_by(self.services, step, intent, outcome)
        answer = self._send(step, intent, opened, began=began)
        conclusion = conclude(step.action, step.call, self.purpose, answer)
        made = OpenedAttempt(
            services=self.services,
            step=step,
            intent=intent,
            began=began,
            answer=answer,
            conclusion=conclusion,
            seen=self.host_use.ended(answer, conclusion),
            host_use=self.host_use,
            budget_use=self.budget_use,
        )
        if conclusion.verdict not in (Verdict.UNAUTHORIZED, Verdict.SUSPENDED):
            return made
        return _after_refusal(made, opened.lease, current)

    def _send(self, step: StepAtHand, intent: Intent, opened: Opened, *, began: float) -> Response | NotSent | NoAnswer:
        send_before = began + intent.send_within.total_seconds()
        try:
            shown = header(self.services, step, intent, opened, send_before=send_before)
        except AswhomError:  # for example, a vault key that this host does not have yet
            _close_unsent(self.services, intent)
            raise
        if isinstance(shown, NotSent):
            return replace(shown, untried=True)  # the upstream's host was not contacted
        self.services.reached("before_call")
        self.host_use.sent()
        answer = self.services.upstream.send(
            self.written,
            authorization=shown,
            attempt=intent.attempt,
            idempotency_key=step.call.idempotency_key,
            deadline=intent.deadline,
            send_before=send_before,
            # A server may close a kept-alive connection just as we send. The outcome is then unknown, and for such an
            # action only a person can resolve it, so it gets a fresh connection.
            fresh=step.action.facts.recovery is Recovery.ASK and not step.repeats,
        )
        self.services.reached("after_call")
        return answer


def _after_refusal(made: OpenedAttempt, lease: Leased | None, current: _Try) -> OpenedAttempt | _Try:
    """Close an attempt whose token or account was refused, and return the next try. Without one: retry it later."""
    suspended = made.conclusion.verdict is Verdict.SUSPENDED
    # A capability is not renewed: the next attempt is issued another.
    if lease is None or (suspended and not hold_back(made.services, lease, began=made.began)):
        return replace(made, conclusion=replace(made.conclusion, verdict=Verdict.RETRY))
    error = made.conclusion.reason if suspended else "the token was refused"
    made.close(AttemptState.NO_EFFECT, StepState.OPEN, error=error)
    following = replace(current, step=made.next_step())
    if suspended:
        return following  # its opening parks the job on the account
    if current.renewed:
        ask_to_reconnect(made.services, lease)
    # A refused token that was not the newest died by another worker's refresh; the next opening leases the newest.
    return replace(following, refused=lease.generation, renewed=False)


def _end_by(
    services: Services,
    step: StepAtHand,
    intent: Intent,
    outcome: Ended | Skipped | OnceMismatch | PolicyMoved | ApprovalMoved,
) -> NoReturn:
    """Raise the error with which an attempt that was not opened ends the step or the run."""
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


def _fail(
    services: Services, step: StepAtHand, intent: Intent, reason: str
) -> Adopted | Ended | OnceMismatch | PolicyMoved | Skipped:
    """Fail the step without another attempt: raise UpstreamGone, or AskOperator if a call of it is in doubt.

    Returned is an end that an opening would have given it.
    """
    if step.earlier.in_doubt:
        raise step.asks(f"{step.name} was sent and no answer came, and {reason}")
    ended = services.store.write(partial(failures.fail, intent=intent, reason=reason))
    if ended is not None:
        return ended
    metrics.STEPS.labels(step.name, str(step.decision.pattern), str(StepState.FAILED)).inc()
    raise UpstreamGone(f"{step.name} failed: {reason}")


def _open(services: Services, intent: Intent) -> OpenOutcome:
    try:
        return services.store.write(partial(openings.open_attempt, intent=intent))
    except CommitUnknown:
        # The commit may have happened, or may still happen, so nothing is sent under it.
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
    """Return the generation after a refresh. If the refresh is refused, the next opening sees the account's state."""
    try:
        return services.coordinator.refresh(account, after_generation=generation, refused=refused)
    except (ReauthRequired, GrantRevoked):
        return generation + 1

"""An opened attempt and its answer, and how they close in the ledger."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any

from identity.backoff import doubled, scattered
from identity.errors import BadInput
from identity.http.client import NoAnswer, NotSent
from pipeline import metrics
from pipeline.action import Response, Verdict
from pipeline.execution.budget_use import BudgetUse
from pipeline.execution.conclusion import Conclusion
from pipeline.execution.host_use import HostUse, Seen
from pipeline.execution.interruption import AskOperator, RunAgain, UpstreamAway
from pipeline.execution.retrying import Retry
from pipeline.execution.services import Services
from pipeline.execution.step_at_hand import StepAtHand
from pipeline.jobs.awaited import upstream_of
from pipeline.jobs.intents import Intent
from pipeline.run import ActionFailed, UpstreamGone
from pipeline.states import AttemptState, CountsAs, Purpose, StepState
from pipeline.steps.closings import Closing, close_attempt

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class OpenedAttempt:
    """One opened attempt, its answer and the conclusion."""

    services: Services
    step: StepAtHand
    intent: Intent
    began: float  # monotonic, before the opening
    answer: Response | NotSent | NoAnswer
    conclusion: Conclusion
    seen: Seen
    host_use: HostUse
    budget_use: BudgetUse

    def close(
        self,
        state: AttemptState,
        step_state: StepState,
        *,
        error: str | None = None,
        resolves: AttemptState | None = None,
        waited_for: str | None = None,
    ) -> bool:
        """Commit the outcome of the attempt and its step. Return False if either had ended before; that outcome stays.

        The breaker and the budget are told afterwards: a hanging Redis must not lose an outcome that is known here.
        """
        closing = Closing(
            attempt=self.intent.attempt,
            state=state,
            step_state=step_state,
            result=self.conclusion.result,
            external_id=self.conclusion.external_id,
            status=self.conclusion.status,
            upstream_request_id=self.conclusion.upstream_request_id,
            error=error,
            counts_as=CountsAs.UNSPENT if self.retry.is_free else None,
            ends_wait=self._ends_wait,
            resolves=resolves,
            waited_for=waited_for,
        )
        try:
            counts = commit(self.services, self.intent, closing)
        finally:
            self.budget_use.tell(self.answer, self.conclusion)
            self.host_use.tell(self.seen)
        log.info(
            "%s: %s",
            self.step.name,
            state,
            extra={
                "action": f"attempt.{state}",
                "attempt": closing.attempt,
                "principal": self.intent.principal,
                "pattern": str(self.step.decision.pattern),
                "status": closing.status,
                "upstream_request_id": closing.upstream_request_id,
            },
        )
        metrics.ATTEMPTS.labels(self.step.name, str(state)).inc()
        metrics.STEP_SECONDS.labels(self.step.name, str(self.step.decision.pattern)).observe(
            time.monotonic() - self.began
        )
        if counts and step_state is not StepState.OPEN:
            metrics.STEPS.labels(self.step.name, str(self.step.decision.pattern), str(step_state)).inc()
        return counts

    @property
    def tries(self) -> int:
        """Attempts that count against the limit, with this one."""
        return self.step.earlier.counted + 1

    @property
    def retry(self) -> Retry:
        """What follows if this attempt does not settle its step."""
        step, verdict, outage = self.step, self.conclusion.verdict, self.seen.meets_outage
        names_a_time = verdict is Verdict.RETRY and self.conclusion.retry_after is not None
        begins = outage or names_a_time or bool(step.spec.patience)
        return Retry(
            limit=self.services.settings.attempts,
            counted=step.earlier.counted,
            waits=(step.waits or begins) and not self._is_about_account,
            over=step.waited_out,
            outage=outage,
            excused=verdict in (Verdict.RETRY, Verdict.UNKNOWN) and not step.spec.patience,
        )

    @property
    def _is_about_account(self) -> bool:
        """True if a person may have to see to the account. That may take days, which are no time of the upstream's."""
        return self.conclusion.verdict in (Verdict.UNAUTHORIZED, Verdict.SUSPENDED)

    @property
    def _ends_wait(self) -> bool:
        return self.step.waits and self._is_about_account

    @property
    def why_no_more(self) -> str:
        """Why none follows, for a sentence that says how this attempt failed."""
        return "and its upstream did not come back in time" if self.retry.outage else f"after {self.tries} attempts"

    def next_step(self) -> StepAtHand:
        """Return the step for another attempt in this run."""
        return self.step.after_attempt(ends_wait=self._ends_wait)

    def again(self, reason: str, *, at_least: timedelta = timedelta()) -> RunAgain:
        """Return the RunAgain that requeues the job, with a delay that grows with every attempt."""
        settings = self.services.settings
        at_least = max(at_least, self.conclusion.retry_after or timedelta())
        wait, longest = upstream_of(self.step.id), settings.waits_at_most(self.step.spec.patience)
        if self.host_use.away is not None:
            reason = f"{reason}: {self.host_use.host} is away"
            delay = max(self.host_use.away, at_least)
            return UpstreamAway(reason, delay=delay, waits_for=wait, expires_in=longest)
        before = self.step.earlier.counted + self.step.earlier.unspent
        pause = scattered(doubled(settings.backoff, before, longest=settings.backoff_cap))
        waits_for = wait if self.retry.waits else None
        return RunAgain(reason, delay=max(pause, at_least), waits_for=waits_for, expires_in=longest)

    def overtaken(self) -> RunAgain:
        """Return the RunAgain that requeues the job after a closing that did not count."""
        what = "search for " if self.intent.purpose is Purpose.PROBE else "call of "
        return self.again(f"{what}{self.step.name}: it was settled, or its step ended, before its answer was written")


def close_call(opened: OpenedAttempt) -> Any:
    """Close a call and return the step's result.

    Raises ActionFailed or UpstreamGone, RunAgain for a further attempt, AskOperator, or BadInput for a bug. Also raises
    RunAgain if the closing does not count: the next run uses what is stored.
    """
    step, conclusion, intent = opened.step, opened.conclusion, opened.intent
    waited_for = None
    match conclusion.verdict:
        case Verdict.SUCCESS:
            counts = opened.close(AttemptState.EFFECT, StepState.DONE, resolves=AttemptState.ADOPTED)
            opened.services.reached("after_commit")
            if not counts:
                raise opened.overtaken()
            return conclusion.result
        case Verdict.UNKNOWN:
            opened.close(AttemptState.UNKNOWN, StepState.UNKNOWN, error=conclusion.reason)
            reason = f"{step.name} was sent and its outcome is not known: {conclusion.reason}"
            # A later run searches and ends it (`close_probe`), or sends it again while its capability is valid.
            searches = step.action.facts.recovery.searches
            if not opened.retry.follows and not searches:
                raise step.asks(f"{reason}, {opened.why_no_more}")
            raise opened.again(reason, at_least=intent.send_within + intent.deadline)
        case Verdict.FAILED:
            error = conclusion.reason
        case _:
            if opened.retry.follows:
                opened.close(AttemptState.NO_EFFECT, StepState.OPEN, error=conclusion.reason)
                raise opened.again(f"{step.name}: {conclusion.reason}")
            error = f"{conclusion.reason}, {opened.why_no_more}"
            waited_for = upstream_of(step.id) if opened.retry.outage else None
            if conclusion.bug:  # nothing was refused, so a workflow must not catch it
                if not opened.close(AttemptState.NO_EFFECT, StepState.OPEN, error=conclusion.reason):
                    raise opened.overtaken()
                raise BadInput(f"step {step.position}: {error}")
    # this attempt had no effect, but an earlier one may have had it, and nothing can tell any more
    if step.earlier.in_doubt:
        opened.close(AttemptState.NO_EFFECT, StepState.UNKNOWN, error=error)
        raise step.asks(f"{step.name} was sent and no answer came, and sent again it failed: {error}")
    resolves = AttemptState.NO_EFFECT if intent.reads else None  # a read leaves no call in doubt
    if not opened.close(
        AttemptState.NO_EFFECT, StepState.FAILED, error=error, resolves=resolves, waited_for=waited_for
    ):
        raise opened.overtaken()
    failed = ActionFailed if waited_for is None else UpstreamGone
    raise failed(f"{step.name} failed: {error}")


def close_probe(opened: OpenedAttempt) -> Any:
    """Close a search and return the result it found; StepAtHand: there is no effect, and that step may be called.

    Raises RunAgain or AskOperator if the search failed, and ActionFailed once the step was tried often enough. If the
    search was given up before its answer, the ledger accepts only a found effect; if its step has ended, not even that.
    Then this raises RunAgain.
    """
    step, conclusion = opened.step, opened.conclusion
    if conclusion.verdict is not Verdict.SUCCESS:
        opened.close(AttemptState.NO_EFFECT, StepState.UNKNOWN, error=conclusion.reason)
        if not opened.retry.follows:
            raise AskOperator(f"whether {step.name} had its effect cannot be looked up: {conclusion.reason}")
        raise opened.again(f"search for {step.name}: {conclusion.reason}")
    spent = opened.tries > opened.services.settings.attempts  # before this search
    if conclusion.result is None and spent and not opened.retry.follows:
        error = f"it was sent, and a search shows no effect of it, after {opened.tries} attempts"
        if opened.close(AttemptState.NO_EFFECT, StepState.FAILED, error=error, resolves=AttemptState.NO_EFFECT):
            raise ActionFailed(f"{step.name} failed: {error}")
    elif conclusion.result is None:
        if opened.close(AttemptState.NO_EFFECT, StepState.OPEN, resolves=AttemptState.NO_EFFECT):
            following = opened.next_step()
            return replace(following, earlier=replace(following.earlier, in_doubt=False))
    elif opened.close(AttemptState.NO_EFFECT, StepState.DONE, resolves=AttemptState.ADOPTED):
        return conclusion.result
    raise opened.overtaken()


def commit(services: Services, intent: Intent, closing: Closing) -> bool:
    """Commit the outcome and return whether it counts.

    Only this process knows the outcome, so an unavailable ledger is waited for. Raises Unavailable if that takes too
    long; housekeeping then settles the attempt.
    """
    write = partial(close_attempt, intent=intent, closing=closing)
    where = {"action": "attempt.close_not_stored", "attempt": closing.attempt}
    closed = services.persistent.write(services.store, write, what="the outcome of an attempt", where=where)
    if closed.duplicate:
        metrics.DUPLICATE_EFFECTS.inc()
    return closed.counts

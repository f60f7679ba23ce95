"""An attempt that was opened and what came of it: closed in the ledger as the answer says."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from identity.backoff import doubled, scattered
from identity.errors import BadInput
from identity.http.client import NoAnswer, NotSent
from pipeline import metrics
from pipeline.action import Response, Verdict
from pipeline.execution.conclusion import Conclusion
from pipeline.execution.interruption import AskOperator, RunAgain
from pipeline.execution.services import Services
from pipeline.execution.step_at_hand import StepAtHand
from pipeline.ledger.closings import Closing, close_attempt
from pipeline.ledger.intents import Intent
from pipeline.run import ActionFailed
from pipeline.states import AttemptState, CountsAs, Purpose, StepState
from pipeline.throttle.budget_use import BudgetUse
from pipeline.throttle.host_use import HostUse, upstream_away

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class OpenedAttempt:
    """One opened attempt and what came of it."""

    services: Services
    step: StepAtHand
    intent: Intent
    began: float  # monotonic, before the opening
    answer: Response | NotSent | NoAnswer
    conclusion: Conclusion
    host_use: HostUse
    budget_use: BudgetUse

    def close(
        self,
        state: AttemptState,
        step_state: StepState,
        *,
        error: str | None = None,
        resolves: AttemptState | None = None,
    ) -> bool:
        """Commit the attempt's outcome and its step's. False: it was settled, or the step ended, before: that stays.

        Whoever counts calls is told after that: a Redis that hangs must not make what is known here unknown.
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
            counts_as=CountsAs.UNSPENT if self.spends_none else None,
            upstream_works=self.host_use.works,
            resolves=resolves,
        )
        try:
            counts = commit(self.services, self.intent, closing)
        finally:
            self.budget_use.tell(self.answer, self.conclusion)
            self.host_use.tell()
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
        """The attempts that were sent since the job was accepted, by its replay if it had one, this one included."""
        return self.intent.number - self.step.earlier.former

    @property
    def spends_none(self) -> bool:
        """Whether it counts for no try: its upstream is away, or refused it and said when to come. Not for ever."""
        if self.host_use.meets_outage:
            return not self.step.waited_out
        told = self.conclusion.verdict is Verdict.RETRY and self.conclusion.retry_after is not None
        return told and not self._fails_for_long

    @property
    def goes_on(self) -> bool:
        """Whether there will be another attempt after one that did not settle the step."""
        if self.spends_none or (self.step.spec.patience and not self._fails_for_long):
            return True
        over = self._fails_for_long or self.step.waited_out
        made = self.tries + self.step.earlier.unspent if over else self.tries
        return made < self.services.settings.attempts

    @property
    def _fails_for_long(self) -> bool:
        """Whether as much time as an upstream has for coming back is over since its first attempt of no avail."""
        since = self.step.earlier.since
        waited = datetime.now(UTC) - since if since else timedelta(seconds=time.monotonic() - self.began)
        return waited >= self.services.settings.waits_at_most(self.step.spec.patience)

    def again(self, reason: str, *, at_least: timedelta = timedelta()) -> RunAgain:
        """The job's way back to the queue, later with every attempt."""
        settings = self.services.settings
        at_least = max(at_least, self.conclusion.retry_after or timedelta())
        if self.host_use.away is not None:
            return upstream_away(
                self.services,
                self.step,
                f"{reason}: {self.host_use.host} is away",
                delay=max(self.host_use.away, at_least),
                over=self.step.waited_out,
                in_doubt=self.conclusion.verdict is Verdict.UNKNOWN and self.intent.purpose is Purpose.CALL,
            )
        made = self.tries + self.step.earlier.unspent
        pause = scattered(doubled(settings.backoff, made - 1, longest=settings.backoff_cap))
        return RunAgain(reason, delay=max(pause, at_least))

    def overtaken(self) -> RunAgain:
        """The job's way back to the queue where its closing did not count."""
        what = "search for " if self.intent.purpose is Purpose.PROBE else "call of "
        return self.again(f"{what}{self.step.name}: it was settled, or its step ended, before its answer was written")


def close_call(opened: OpenedAttempt) -> Any:
    """The step's result. Raises ActionFailed, RunAgain for a further attempt, AskOperator, or BadInput for a bug.

    RunAgain also where the answer does not count: the next run goes by what is stored.
    """
    step, conclusion, intent = opened.step, opened.conclusion, opened.intent
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
            # A later run looks, and ends it: `close_probe`. While its capability lives it is sent again before that.
            searches = step.action.facts.recovery.searches
            if not opened.goes_on and not searches:
                raise step.asks(f"{reason}, after {opened.tries} attempts")
            raise opened.again(reason, at_least=intent.send_within + intent.deadline)
        case Verdict.FAILED:
            error = conclusion.reason
        case _:
            if opened.goes_on:
                opened.close(AttemptState.NO_EFFECT, StepState.OPEN, error=conclusion.reason)
                raise opened.again(f"{step.name}: {conclusion.reason}")
            error = f"{conclusion.reason}, after {opened.tries} attempts"
            if conclusion.bug:  # nobody refused it, which a workflow may catch
                if not opened.close(AttemptState.NO_EFFECT, StepState.OPEN, error=conclusion.reason):
                    raise opened.overtaken()
                raise BadInput(f"step {step.position}: {error}")
    if step.earlier.in_doubt:  # this attempt had no effect, but one before it may have had, and nothing tells any more
        opened.close(AttemptState.NO_EFFECT, StepState.UNKNOWN, error=error)
        raise step.asks(f"{step.name} was sent and no answer came, and sent again it failed: {error}")
    resolves = AttemptState.NO_EFFECT if intent.reads else None  # of what only reads, no call leaves anything in doubt
    if not opened.close(AttemptState.NO_EFFECT, StepState.FAILED, error=error, resolves=resolves):
        raise opened.overtaken()
    raise ActionFailed(f"{step.name} failed: {error}")


def close_probe(opened: OpenedAttempt) -> Any | None:
    """The result that the search found, None: the effect is not there, and the call may be made again.

    Raises RunAgain or AskOperator where the search itself failed, ActionFailed once the step was tried often enough.
    Of a search that was given up before its answer the ledger takes no word but that it found the effect, and of one
    whose step has ended not even that: RunAgain.
    """
    step, conclusion = opened.step, opened.conclusion
    if conclusion.verdict is not Verdict.SUCCESS:
        opened.close(AttemptState.NO_EFFECT, StepState.UNKNOWN, error=conclusion.reason)
        if not opened.goes_on:
            raise AskOperator(f"whether {step.name} had its effect cannot be looked up: {conclusion.reason}")
        raise opened.again(f"search for {step.name}: {conclusion.reason}")
    spent = opened.tries > opened.services.settings.attempts  # before this search
    if conclusion.result is None and spent and not opened.goes_on:
        error = f"it was sent, and a search shows no effect of it, after {opened.tries} attempts"
        if opened.close(AttemptState.NO_EFFECT, StepState.FAILED, error=error, resolves=AttemptState.NO_EFFECT):
            raise ActionFailed(f"{step.name} failed: {error}")
    elif conclusion.result is None:
        if opened.close(AttemptState.NO_EFFECT, StepState.OPEN, resolves=AttemptState.NO_EFFECT):
            return None
    elif opened.close(AttemptState.NO_EFFECT, StepState.DONE, resolves=AttemptState.ADOPTED):
        return conclusion.result
    raise opened.overtaken()


def commit(services: Services, intent: Intent, closing: Closing) -> bool:
    """Commit the outcome, and return whether it counts. Nobody else knows it: a ledger that is away is waited for.

    Raises Unavailable where that takes too long: housekeeping will settle the attempt.
    """
    write = partial(close_attempt, intent=intent, closing=closing)
    where = {"action": "attempt.close_not_stored", "attempt": closing.attempt}
    closed = services.persistent.write(services.store, write, what="the outcome of an attempt", where=where)
    if closed.duplicate:
        metrics.DUPLICATE_EFFECTS.inc()
    return closed.counts

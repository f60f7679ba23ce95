"""One step's use of its upstream's host: permitted before it opens, reported once its answer is stored."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from identity.backoff import spread
from identity.http.client import NoAnswer, NotSent
from pipeline import metrics
from pipeline.action import Response, Verdict
from pipeline.execution.conclusion import Conclusion
from pipeline.execution.interruption import RunAgain, UpstreamAway
from pipeline.execution.services import Services
from pipeline.execution.step_at_hand import StepAtHand
from pipeline.jobs.awaited import upstream_of
from pipeline.throttle.breaker import Errand
from pipeline.throttle.breaker_state import Passed
from pipeline.throttle.in_flight import Full, Slot

_ASKED_AGAIN = timedelta(seconds=1)  # the soonest retry after a host had its share of a process's threads
# statuses that may also be about one request, which fails or takes too long although the host is well
_MAY_BE_OWN = (500, 501, 504)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The meaning of one request's outcome for its host."""

    works: bool | None = None  # None: it says nothing about the host
    known: bool = False  # the breaker must be told that it works
    may_be_own: bool = False  # the request itself may have failed
    meets_outage: bool = False  # the failure means an outage, by what was known before the call


class HostUse:
    """The breaker and the share of threads of the host that one attempt's requests go to."""

    def __init__(self, services: Services, step: StepAtHand) -> None:
        self._services = services
        self._step = step
        self._errand = Errand.of(step.through, tenant=step.job.tenant, job=step.job.id)
        self._passed: Passed | None = None  # from the breaker; None: nothing to report to it
        self._call: Slot | None = None
        self.away: timedelta | None = None  # how long to leave the host alone; known once the breaker was told

    @property
    def host(self) -> str:
        return self._errand.host

    def take(self) -> str | None:
        """Ask before each opening; an earlier pass is kept. Raises UpstreamAway, or RunAgain if the host hangs.

        Return why the step fails by the calls of others: they found the host away for as long as the step may wait.
        """
        if self._passed is not None:
            return None
        errand, breakers = self._errand, self._services.breakers
        entered = self._services.in_flight.enter(errand.host, errand.tenant)
        if isinstance(entered, Full):
            metrics.UPSTREAM_WAITS.labels(errand.provider, "hangs" if entered.hangs else "burst").inc()
            why = "does not answer" if entered.hangs else "had no time to answer yet"
            reason = f"{self.host} has its share of the threads of a worker and {why}: {self._step.name} waits"
            raise RunAgain(reason, delay=breakers.line(errand, after=_ASKED_AGAIN))
        self._call = entered
        told = breakers.enter(errand)
        if isinstance(told, Passed):
            self._passed = told
            return None
        self._leave(sent=False)
        metrics.UPSTREAM_WAITS.labels(errand.provider, "away").inc()
        longest = self._services.settings.waits_at_most(self._step.spec.patience)
        if self._step.waited_out and breakers.away_for(errand) >= longest:
            return f"{self.host} is away, and did not come back in time"
        reason = f"{self._step.name} waits for {self.host}, which is away"
        raise UpstreamAway(reason, delay=told, waits_for=upstream_of(self._step.id), expires_in=longest)

    def sent(self) -> None:
        """Note that the request goes on the wire now."""
        if self._call is not None:
            self._services.in_flight.sent(self._call)

    def ended(self, answer: Response | NotSent | NoAnswer, conclusion: Conclusion) -> Seen:
        """Give back the share of threads, and return what to `tell` the breaker once the answer is stored."""
        ours = isinstance(answer, NotSent) and (answer.untried or answer.final)
        if self._passed is None or ours or (self._services.stopping() and not isinstance(answer, Response)):
            return Seen()  # a stopping process breaks off its own calls
        known = self._services.breakers.knows(self._errand, self._passed)
        status = answer.status if isinstance(answer, Response) else None
        self._leave(answered=status is not None)
        may_be_own = status in _MAY_BE_OWN or isinstance(answer, NoAnswer)
        works = status is not None and (status < 500 or conclusion.verdict not in (Verdict.RETRY, Verdict.UNKNOWN))
        meets_outage = not works and self._passed.meets_outage(may_be_own=may_be_own)
        return Seen(works=works, known=known, may_be_own=may_be_own, meets_outage=meets_outage)

    def tell(self, seen: Seen) -> None:
        """Report an outcome to the breaker. Redis may hang, so what must be stored is stored before.

        A pass whose outcome says nothing about the host is given back later.
        """
        if seen.works is None:
            return
        self._passed = None
        breakers, errand = self._services.breakers, self._errand
        if seen.works:
            if seen.known:
                breakers.answered(errand)
            return
        wait = breakers.failed(errand, may_be_own=seen.may_be_own)
        if wait is not None:
            metrics.UPSTREAM_WAITS.labels(errand.provider, "away").inc()
            self.away = wait + spread(wait)  # another job makes the next probe

    def give_back(self) -> None:
        """Give back the pass before waiting for something else, and at the end, whatever happened."""
        self._leave(sent=False)
        if self._passed is not None:
            passed, self._passed = self._passed, None
            if passed.known:  # otherwise it cannot have been a probe
                self._services.breakers.back(self._errand)

    def _leave(self, *, sent: bool = True, answered: bool = False) -> None:
        if self._call is not None:
            call, self._call = self._call, None
            self._services.in_flight.leave(call, sent=sent, answered=answered)

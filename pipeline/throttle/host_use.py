"""One step's way to its upstream's host: asked for before it opens, told once its answer is stored, else given back."""

from __future__ import annotations

from datetime import timedelta

from identity.backoff import spread
from identity.http.client import NoAnswer, NotSent
from pipeline import metrics
from pipeline.action import Response, Verdict
from pipeline.execution.conclusion import Conclusion
from pipeline.execution.interruption import RunAgain, UpstreamAway
from pipeline.execution.services import Services
from pipeline.execution.step_at_hand import StepAtHand
from pipeline.throttle.breaker import Errand
from pipeline.throttle.breaker_state import Passed
from pipeline.throttle.in_flight import Call, Full

_ASKED_AGAIN = timedelta(seconds=1)  # after a host had its share of a process's threads, at the soonest
_MAY_BE_OWN = (500, 501, 504)  # what is also said of one request, which fails or takes too long, however well a host is


class HostUse:
    """The breaker, and the share of threads, of the host that one attempt's requests go to."""

    def __init__(self, services: Services, step: StepAtHand) -> None:
        self._services = services
        self._step = step
        self._errand = Errand.of(step.through, tenant=step.job.tenant, job=step.job.id)
        self._passed: Passed | None = None  # what the breaker said; None: it is not to be told of this
        self._call: Call | None = None
        self._failed = self._may_be_own = self._known = False
        self.works = False  # the host, by its answer
        self.meets_outage = False  # by what was known before the call
        self.away: timedelta | None = None  # how long the host is to be left alone: known once the breaker was told

    @property
    def host(self) -> str:
        return self._errand.host

    def take(self) -> None:
        """Before each opening; what is taken already is kept. Raises UpstreamAway, or RunAgain if it hangs."""
        if self._passed is not None:
            return
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
            return
        self._leave(sent=False)
        metrics.UPSTREAM_WAITS.labels(errand.provider, "away").inc()
        reason = f"{self._step.name} waits for {self.host}, which is away"
        raise upstream_away(self._services, self._step, reason, delay=told, over=self._others_looked)

    def sent(self) -> None:
        """The request goes on the wire now."""
        if self._call is not None:
            self._services.in_flight.sent(self._call)

    def ended(self, answer: Response | NotSent | NoAnswer, conclusion: Conclusion) -> None:
        """What came of the request, as far as this process goes: nobody else is asked, for its answer is not stored.

        What says nothing of the host is given back later.
        """
        ours = isinstance(answer, NotSent) and (answer.untried or answer.final)
        self.works = False
        if self._passed is None or ours or (self._services.stopping() and not isinstance(answer, Response)):
            return  # a process that stops breaks off its own calls
        self._known = self._services.breakers.knows(self._errand, self._passed)
        status = answer.status if isinstance(answer, Response) else None
        self._leave(answered=status is not None)
        self._may_be_own = status in _MAY_BE_OWN or isinstance(answer, NoAnswer)
        self.works = status is not None and (status < 500 or conclusion.verdict not in (Verdict.RETRY, Verdict.UNKNOWN))
        self._failed = not self.works
        self.meets_outage = self._failed and self._passed.meets_outage(may_be_own=self._may_be_own)

    def tell(self) -> None:
        """Tell the breaker how it ended. It may be slow to listen: what is to be stored is stored before."""
        if self._passed is None or self._call is not None:
            return
        self._passed = None
        breakers, errand = self._services.breakers, self._errand
        if not self._failed:
            if self._known:
                breakers.answered(errand)
            return
        wait = breakers.failed(errand, may_be_own=self._may_be_own)
        if wait is not None:
            metrics.UPSTREAM_WAITS.labels(errand.provider, "away").inc()
            self.away = wait + spread(wait)  # the next probe is another's

    def give_back(self) -> None:
        """Before something else is waited for, and at the end, whatever it was."""
        self._leave(sent=False)
        if self._passed is not None:
            passed, self._passed = self._passed, None
            if passed.known:  # else it can have been no probe
                self._services.breakers.back(self._errand)

    @property
    def _others_looked(self) -> bool:
        """Whether a wait that is over ends here, though this run may not look: calls of others did all the time."""
        step = self._step
        return step.waited_out and self._services.breakers.away_for(self._errand) >= _longest_wait(self._services, step)

    def _leave(self, *, sent: bool = True, answered: bool = False) -> None:
        if self._call is not None:
            call, self._call = self._call, None
            self._services.in_flight.leave(call, sent=sent, answered=answered)


def upstream_away(
    services: Services, step: StepAtHand, reason: str, *, delay: timedelta, over: bool, in_doubt: bool = False
) -> UpstreamAway:
    """The wait for a step's upstream, or where it is *over* its end. *in_doubt*: a call of it is, as of just now."""
    asks = None
    if in_doubt or step.earlier.in_doubt:
        asks = step.asks(f"{step.name} was sent and no answer came, and its upstream did not come back in time").reason
    expires_in = _longest_wait(services, step)
    return UpstreamAway(reason, delay=delay, step=step.id, expires_in=expires_in, over=over, asks=asks)


def _longest_wait(services: Services, step: StepAtHand) -> timedelta:
    return services.settings.waits_at_most(step.spec.patience)

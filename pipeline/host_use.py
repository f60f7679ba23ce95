"""One step's way to its upstream's host: asked for before it opens, told of after the answer, else given back."""

from __future__ import annotations

from datetime import timedelta

from identity.backoff import spread
from identity.http import NoAnswer, NotSent
from pipeline import metrics
from pipeline.action import Response, Verdict
from pipeline.breaker import Errand
from pipeline.conclusion import Conclusion
from pipeline.interruption import RunAgain, UpstreamAway
from pipeline.services import Services
from pipeline.step_at_hand import StepAtHand

_ASKED_AGAIN = timedelta(seconds=1)  # after a host had its share of a process's threads, at the soonest
_MAY_BE_OWN = (500, 501)  # what a server also says of a request that it fails over, however well it is


class HostUse:
    """The breaker, and the share of threads, of the host that one attempt's requests go to."""

    def __init__(self, services: Services, step: StepAtHand) -> None:
        self._services = services
        self._step = step
        self._errand = Errand.of(step.through, tenant=step.job.tenant, job=step.job.id)
        self._taken = False

    def take(self) -> None:
        """Before each opening; what is taken already is kept. Raises UpstreamAway, or RunAgain if it hangs."""
        if self._taken:
            return
        errand, breakers = self._errand, self._services.breakers
        if not self._services.in_flight.enter(errand.host):
            metrics.UPSTREAM_WAITS.labels(errand.provider, "hangs").inc()
            reason = f"{errand.host} has half of the threads of a worker and does not answer: {self._step.name} waits"
            raise RunAgain(reason, delay=breakers.line(errand, after=_ASKED_AGAIN))
        self._taken = True
        wait = breakers.enter(errand)
        if wait is not None:
            self._leave()
            metrics.UPSTREAM_WAITS.labels(errand.provider, "away").inc()
            raise UpstreamAway(
                f"{self._step.name} waits for {errand.host}, which is away",
                delay=wait,
                step=self._step.id,
                expires_in=self._services.settings.waits_at_most(self._step.spec.patience),
            )

    def tell(self, answer: Response | NotSent | NoAnswer, conclusion: Conclusion) -> timedelta | None:
        """What came of the request: how long to wait, if the host is away. What was not tried is given back."""
        ours = isinstance(answer, NotSent) and (answer.untried or answer.final)
        if ours or (self._services.stopping() and not isinstance(answer, Response)):  # which breaks off its own calls
            return None
        status = answer.status if isinstance(answer, Response) else None
        self._leave(answered=status is not None)
        breakers, errand = self._services.breakers, self._errand
        if status is not None and (status < 500 or conclusion.verdict not in (Verdict.RETRY, Verdict.UNKNOWN)):
            breakers.answered(errand)
            return None
        wait = breakers.failed(errand, may_be_own=status in _MAY_BE_OWN)
        if wait is None:
            return None
        metrics.UPSTREAM_WAITS.labels(errand.provider, "away").inc()
        return wait + spread(wait)  # the next probe is another's

    def give_back(self) -> None:
        """Before something else is waited for, and at the end, whatever it was."""
        if self._taken:
            self._leave()
            self._services.breakers.back(self._errand)

    def _leave(self, *, answered: bool = False) -> None:
        self._taken = False
        self._services.in_flight.leave(self._errand.host, answered=answered)

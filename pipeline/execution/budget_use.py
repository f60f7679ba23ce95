"""One step's draw on its budget: taken before the step opens, then settled by the answer or given back."""

from __future__ import annotations

import logging
from datetime import timedelta

from identity.backoff import spread
from identity.http.client import NoAnswer, NotSent
from identity.model import AccountKey
from pipeline.action import Response, Verdict
from pipeline.bugs import log_bug
from pipeline.execution.conclusion import Conclusion
from pipeline.execution.interruption import RunAgain
from pipeline.execution.services import Services
from pipeline.execution.step_at_hand import StepAtHand
from pipeline.throttle.budget import Budget
from pipeline.throttle.limits import Limits

log = logging.getLogger(__name__)

_SPREAD = timedelta(seconds=1)  # jobs waiting for the same moment come back spread over this time


class BudgetUse:
    """The budget of one attempt's requests. An action whose facts name no endpoints draws on none."""

    def __init__(self, services: Services, step: StepAtHand) -> None:
        endpoints = step.action.facts.endpoints
        key = AccountKey(tenant=step.job.tenant, connection=step.through.id, principal=step.principal)
        self._budgets = services.budgets
        self._step = step
        self._taken = False
        self._budget = None
        if endpoints is not None:
            self._budget = Budget(provider=step.through.provider, account=key, endpoints=endpoints)

    def take(self) -> None:
        """Draw before each opening; an earlier draw is kept. Raises RunAgain if the budget is empty."""
        if self._budget is None or self._taken:
            return
        wait = self._budgets.enter(self._budget)
        if wait is not None:
            raise RunAgain(f"the rate limit of {self._step.name} is used up for now", delay=wait + spread(_SPREAD))
        self._taken = True

    def tell(self, answer: Response | NotSent | NoAnswer, conclusion: Conclusion) -> None:
        """Tell the budget the answer; a request that was not sent is given back later."""
        if self._budget is None or isinstance(answer, NotSent):
            return
        limits = self._read(answer) if isinstance(answer, Response) else Limits()
        refused = conclusion.verdict is Verdict.RETRY
        self._budgets.told(self._budget, limits, pause=conclusion.retry_after if refused else None)
        self._taken = False

    def _read(self, answer: Response) -> Limits:
        """Return the limits that the answer states. A bug in reading them must not lose the answer, not yet stored."""
        try:
            return self._step.action.limits(answer)
        except Exception as bug:  # noqa: BLE001 - any error
            what = f"the limits that {self._step.name} was told cannot be read"
            log_bug(log, what, bug, action="budget.unreadable")
            return Limits()

    def give_back(self) -> None:
        """Give back at the end what is still drawn, whatever happened."""
        if self._budget is not None and self._taken:
            self._taken = False
            self._budgets.give_back(self._budget)

"""The runtime of a worker in this process, among all the pretend upstreams: what a workflow's faults are tried in.

Time is made to pass in the ledger: what waits until a moment waits no longer, so nothing here waits for a clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Row, select

from deploy.demo.provision import Provision
from deploy.trial.passing import time_passes
from deploy.trial.trial import NEVER_OPEN, NoRing
from identity.secret import Secret
from pipeline.authoring.registry import Registry
from pipeline.db.database import DatabaseSettings
from pipeline.execution.services import StepSettings
from pipeline.runtime import Runtime
from pipeline.runtime_settings import Keys, RuntimeSettings
from pipeline.states import ENDED, FOR_A_PERSON, JobState
from pipeline.tables import jobs
from pipeline.throttle.budget import Budget, Budgets
from pipeline.throttle.limits import Left, Limits
from pipeline.upkeep import duties_of
from tests.killed import Killed
from tests.ledgers import TURN
from tests.sandbox.driver import Sandbox
from tests.tasks.hands import Hands

WORKFLOWS = (
    "tasks.devops_assistant",
    "tasks.daily_digest",
    "tasks.slack_mention",
    "tasks.billing_reconciliation",
    "tasks.crm_update",
    "tasks.support_tickets",
    "tasks.link_command",
    "tasks.merged_pull_request",
    "tasks.review_request",
    "tasks.slack_command",
    "tasks.ask_in_slack",
)
BASE_URL = "http://127.0.0.1:1"  # where callbacks would come back to: they are read from the redirect instead
ROUNDS = 80  # of a settlement: more than any fault here costs


class InProcessSystem(Hands):
    """One ledger with the world's tenants in it. Nothing runs but what a test lets run."""

    def __init__(
        self,
        sandbox: Sandbox,
        database_url: str,
        *,
        workflows: tuple[str, ...] = WORKFLOWS,
        base_url: str = BASE_URL,
        redis_url: Secret | None = None,
    ) -> None:
        """*database_url*: a migrated ledger, empty or furnished before."""
        self._then: dict[tuple[str, int], Callable[[], object]] = {}
        self._arrived: Counter[str] = Counter()
        self._last = ""
        self.ahead = timedelta()  # the runtime's clock
        registry = Registry.load(workflows)
        keys = Keys(vault={1: b"k" * 32}, signing=b"s" * 32)
        settings = RuntimeSettings(
            database=DatabaseSettings(url=database_url, turn_timeout=TURN),
            keys=keys,
            base_url=base_url,
            redis_url=redis_url,
            allow_hosts=frozenset({"127.0.0.1"}),
            steps=StepSettings(attempts=4, send_within=timedelta(seconds=30)),
            breaker=NEVER_OPEN,
        )
        runtime = Runtime(settings, registry, NoRing(), clock=self.clock, reached=self._reached)
        super().__init__(sandbox, runtime, registry)

    def furnish(self) -> None:
        """Register the world's tenants."""
        Provision(self.runtime, self.sandbox.world, now=datetime.now(UTC)).everything()

    def clock(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def close(self) -> None:
        self.runtime.close()

    def _reached(self, point: str) -> None:
        if point == "after_commit" and self._last == "after_answer_stored":
            point = "after_refresh_commit"  # steps and refreshes both call it `after_commit`
        self._last = point
        self._arrived[point] += 1
        then = self._then.pop((point, self._arrived[point]), None)
        if then is not None:
            then()

    def when(self, point: str, arrival: int, then: Callable[[], object]) -> None:
        """Call *then* at that arrival at a crash point, counted from 1; at arrival 0, now."""
        if arrival:
            self._then[point, arrival] = then
        else:
            then()

    def kill_at_next(self, point: str) -> None:
        """End the run that comes to that crash point next."""
        self.when(point, self._arrived[point] + 1, self.kill)

    def kill(self) -> None:
        """End this very run as kill -9 would."""
        raise Killed

    def use_up(self, budget: Budget) -> None:
        """An answer says that nothing is left of it for a minute."""
        nothing = Left(remaining=0, limit=10, resets_in=timedelta(minutes=1))
        budgets = Budgets(self.runtime.redis, prefix=self.runtime.settings.key_prefix)
        budgets.told(budget, Limits(left=nothing), pause=None)

    # Work

    def work_once(self) -> None:
        """Every job that is due gets one run; a run that is killed leaves everything as a dead process would."""
        due = select(jobs.c.id).where(jobs.c.state == JobState.QUEUED).order_by(jobs.c.accepted)
        for (job,) in self.rows(due):
            try:
                self.runtime.worker.handle(job)
            except Killed:
                return

    def settle(self, *, until: Callable[[], bool] = lambda: False) -> list[Row[Any]]:
        """Let time pass and work be done until every job has ended, or waits for a person; the jobs."""
        duties = {duty.name: duty for duty in duties_of(self.runtime)}
        for _ in range(ROUNDS):
            if until():
                break
            self.work_once()
            if all(job.state in ENDED or job.wait in FOR_A_PERSON for job in self.jobs()):
                break
            self._time_passes()
            for name in ("reclaim", "settle-attempts", "wake"):
                duties[name].run()
        return self.jobs()

    def _time_passes(self) -> None:
        """In the ledger, and for the budgets: their windows and pauses are over."""
        self.runtime.database.write(time_passes)
        if self.runtime.redis is not None:
            for key in self.runtime.redis.scan_iter(f"{self.runtime.settings.key_prefix}budget:*"):
                self.runtime.redis.delete(key)

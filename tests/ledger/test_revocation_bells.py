"""A worker whose job has ended rings for the revocation that waits for it, not for one that still reaches jobs."""

from __future__ import annotations

from typing import Any

from pipeline import revocation
from pipeline.revocation import Stage
from pipeline.revocation.revoker import Revoker
from pipeline.run import Run
from pipeline.states import JobState
from pipeline.workflow import Registry
from tests.ledger.acts import SIGNER, revoke
from tests.ledger.house import Say, account_scope
from tests.ledger.workers import Workers, declare
from tests.webhooks.parts import MemoryRing


def _stopped_under_way(workers: Workers, *, advance: bool) -> tuple[str, MemoryRing]:
    """Ada is revoked while a job of hers runs, and its next step is refused."""
    made = []

    def say_after(run: Run[Any], event: Any) -> None:
        made.append(revoke(workers.house, account_scope()))
        if advance:
            revoker = Revoker(workers.house.database, SIGNER, Registry([workers.house.workflow]), ids=workers.house.ids)
            assert not revoker.advance(made[0]), "the job is still running"
        run.do(Say(text="after"), as_=run.user)

    declare(workers, say_after)
    job, ring = workers.house.job(), MemoryRing()
    workers.worker(ring=ring).handle(job)
    assert workers.house.row(job).state == JobState.CANCELLED
    return made[0], ring


def test_who_waits_for_a_job_to_stop_is_rung_for_when_it_has(workers: Workers) -> None:
    made, ring = _stopped_under_way(workers, advance=True)
    assert ring.rung == [made]


def test_who_is_still_reaching_jobs_is_not_rung_for(workers: Workers) -> None:
    made, ring = _stopped_under_way(workers, advance=False)
    assert workers.house.database.read(lambda c: revocation.glance(c, made)).state == Stage.EFFECTIVE
    assert ring.rung == []

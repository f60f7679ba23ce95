"""Whom bells of revocations are rung for, and what one costs that nothing is open of any more."""

from __future__ import annotations

from functools import partial
from typing import Any

from pipeline.authoring.registry import Registry
from pipeline.revocation import declaration
from pipeline.revocation.declaration import Stage
from pipeline.revocation.receipt import outdate
from pipeline.run import Run
from pipeline.states import JobState
from tests.ledger.acts import SIGNER, revoke
from tests.ledger.house import House, Say, account_scope
from tests.ledger.plans import statements_of
from tests.ledger.revokers import quiet_revoker
from tests.ledger.workers import Workers, declare
from tests.webhooks.parts import MemoryRing


def _stopped_under_way(workers: Workers, *, advance: bool) -> tuple[str, MemoryRing]:
    """Ada is revoked while a job of hers runs, and its next step is refused."""
    made = []

    def say_after(run: Run[Any], event: Any) -> None:
        made.append(revoke(workers.house, account_scope()))
        if advance:
            revoker = quiet_revoker(
                workers.house.database, SIGNER, Registry([workers.house.workflow]), ids=workers.house.ids
            )
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
    assert workers.house.database.read(lambda c: declaration.load_without_receipt(c, made)).state == Stage.EFFECTIVE
    assert ring.rung == []


def test_a_bell_for_a_revocation_that_is_over_costs_one_look(house: House) -> None:
    """While nobody heard them, one may have been rung for thousands, all before that of a revocation that is new."""
    asked: list[str] = []

    def withdraw(of: str) -> bool:
        asked.append(of)
        return True

    revoker = quiet_revoker(house.database, SIGNER, withdraw=withdraw)
    made = revoke(house, account_scope())
    revoker.answer(made)
    assert asked == [made]
    looked = statements_of(partial(revoker.answer, made))
    assert len([statement for statement, _ in looked if "FROM revocations" in statement]) == len(looked) == 1
    house.database.write(lambda c: outdate(c, [made]))
    revoker.answer(made)
    assert asked == [made, made], "something of it is open again"

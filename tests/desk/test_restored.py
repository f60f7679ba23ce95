"""A ledger restored from a backup runs again what it has forgotten: an upstream hears the same keys as before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, delete, select, update

from identity.ids import following
from pipeline.authoring.registry import Registry
from pipeline.db.database import Database
from pipeline.run import Run
from pipeline.states import JobState
from pipeline.tables import attempts, jobs, steps
from tests.ledger.acts import SIGNER, done, open_, receipt_of, revoke, steps_of
from tests.ledger.house import House, Say, account_scope, intent_of
from tests.ledger.revokers import quiet_revoker
from tests.ledger.undoing import house_that_undoes
from tests.ledger.workers import Workers, declare


def says_twice(run: Run[Any], event: Any) -> None:
    for _ in range(2):
        run.do(Say(text="hello"), as_=run.user)


def kept(house: House, job: str) -> Mapping[str, Any]:
    """What a backup has of a job that was not begun."""
    return dict(house.row(job)._mapping)


def restore(house: House, backup: Mapping[str, Any]) -> None:
    """The job is as it was, and nothing that it did is known."""

    def put_back(c: Connection) -> None:
        for table in (attempts, steps):
            c.execute(delete(table).where(table.c.job_id == backup["id"]))
        c.execute(update(jobs).where(jobs.c.id == backup["id"]).values(dict(backup)))

    house.database.write(put_back)


def sent(workers: Workers) -> list[tuple[str, bytes]]:
    """The keys and the bodies, markers in them, that the upstream has heard."""
    keys = [head["idempotency-key"] for head in workers.provider.heads]
    return list(zip(keys, workers.provider.bodies, strict=True))


def test_what_a_restored_job_does_again_goes_out_with_the_keys_and_markers_of_before(workers: Workers) -> None:
    declare(workers, says_twice)
    job, other = workers.house.job(), workers.house.job()
    backup = kept(workers.house, job)
    workers.work(job)
    before = sent(workers)
    assert len(set(before)) == 2, "the same said twice is two things"
    restore(workers.house, backup)
    workers.work(job)
    assert workers.house.row(job).state == JobState.DONE
    assert sent(workers)[2:] == before
    workers.work(other)
    assert not set(sent(workers)[4:]) & set(before), "another job's are its own"


def test_a_step_that_is_stored_keeps_the_keys_that_follow_from_its_stored_id(workers: Workers) -> None:
    """From when such ids were drawn at random."""
    workers.provider.call = lambda token: (503, {}, b"{}")
    job = workers.house.job()
    workers.work(job)
    (step,) = steps_of(workers.house)

    def renamed(c: Connection) -> None:
        columns = dict(c.execute(select(steps).where(steps.c.id == step.id)).one()._mapping)
        (tried,) = (dict(row._mapping) for row in c.execute(select(attempts)).all())
        c.execute(delete(attempts))
        c.execute(delete(steps))
        c.execute(steps.insert().values(columns | {"id": "step_drawn"}))
        c.execute(attempts.insert().values(tried | {"step_id": "step_drawn"}))
        c.execute(update(jobs).values(due_at=jobs.c.created_at))

    workers.house.database.write(renamed)
    for _ in range(2):
        workers.work(job)
        workers.house.database.write(lambda c: c.execute(update(jobs).values(due_at=jobs.c.created_at)).rowcount)
    derived, *drawn = sent(workers)
    assert [drawn[0]] * 2 == drawn
    assert drawn[0] != derived
    assert [one.id for one in steps_of(workers.house)] == ["step_drawn"]


def test_the_job_that_undoes_a_step_has_an_id_that_follows_from_the_step(database: Database) -> None:
    undoing = house_that_undoes(database)
    stopped = undoing.claim(undoing.job())
    asked = intent_of(undoing, stopped)
    open_(undoing, asked)
    done(undoing, asked)
    made = revoke(undoing, account_scope())
    open_(undoing, intent_of(undoing, stopped, position=2))
    assert quiet_revoker(undoing.database, SIGNER, Registry([undoing.workflow])).advance(made)
    (one,) = receipt_of(undoing, made)["compensations"]
    assert one["by_job"] == following("job", "compensation", one["step"])

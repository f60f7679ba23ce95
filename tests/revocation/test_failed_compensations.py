"""A compensation whose own job ends without it: the next receipt says so, and why; nothing is open but by a replay."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from sqlalchemy import update

from pipeline.authoring.registry import Registry
from pipeline.db.database import Database
from pipeline.jobs import claims
from pipeline.jobs.intents import Intent
from pipeline.revocation import declaration
from pipeline.revocation.receipt import outdate
from pipeline.steps.replay import replay_job
from pipeline.tables import steps
from pipeline.views.operator_queries import compensation_of
from tests.ledger.acts import SIGNER, done, open_, receipt_of, revoke
from tests.ledger.house import House, account_scope, intent_of
from tests.ledger.revokers import quiet_revoker
from tests.ledger.undoing import house_that_undoes


def _stopped_after_a_step(house: House) -> tuple[Intent, str]:
    """A job's first step, which is done, and the revocation of Ada by which its second is refused."""
    stopped = house.claim(house.job())
    asked = intent_of(house, stopped)
    open_(house, asked)
    done(house, asked)
    made = revoke(house, account_scope())
    open_(house, intent_of(house, stopped, position=2))
    return asked, made


@pytest.mark.parametrize("ends", [claims.bury, claims.cancel], ids=["dead", "cancelled"])
def test_a_compensation_that_failed_is_on_the_next_receipt_with_its_reason(database: Database, ends: Any) -> None:
    house = house_that_undoes(database)
    _, made = _stopped_after_a_step(house)
    revoker = quiet_revoker(database, SIGNER, Registry([house.workflow]))
    assert revoker.advance(made)
    first = receipt_of(house, made)
    (pending,) = first["compensations"]
    assert (pending["outcome"], first["revision"]) == ("pending", 1)
    house.database.write(partial(ends, job=house.claim(pending["by_job"]), reason="the workspace is gone"))
    assert revoker.advance(made)
    second = receipt_of(house, made)
    failed = {**pending, "outcome": "failed", "reason": "the workspace is gone"}
    assert (second["compensations"], second["revision"]) == ([failed], 2)
    row = database.read(partial(declaration.load, revocation=made))
    assert row.open_ends == 0
    assert revoker.advance(made)
    assert database.read(partial(declaration.load, revocation=made)) == row


def test_a_failed_compensation_that_is_replayed_is_looked_at_again_whether_or_not_its_bell_is_heard(
    database: Database,
) -> None:
    house = house_that_undoes(database)
    _, made = _stopped_after_a_step(house)
    revoker = quiet_revoker(database, SIGNER, Registry([house.workflow]))
    told: list[tuple[str, int, int]] = []

    def tell() -> str:
        assert revoker.advance(made)
        (one,) = receipt_of(house, made)["compensations"]
        row = database.read(partial(declaration.load, revocation=made))
        told.append((one["outcome"], row.revision, row.open_ends))
        return str(one["by_job"])

    by = tell()
    database.write(partial(claims.bury, job=house.claim(by), reason="the workspace is gone"))
    tell()
    database.write(partial(replay_job, job=by, by="ops", at=datetime.now(UTC)))
    assert database.read(partial(declaration.load, revocation=made)).open_ends == 1, "housekeeping does not look at it"
    tell()
    database.write(partial(claims.finish, job=house.claim(by)))
    tell()
    assert told == [("pending", 1, 1), ("failed", 2, 0), ("pending", 3, 1), ("done", 4, 0)]


def test_what_is_to_follow_and_is_not_installed_where_the_revocation_is_carried_out_is_told(database: Database) -> None:
    house = house_that_undoes(database)
    asked, made = _stopped_after_a_step(house)
    assert quiet_revoker(database, SIGNER, Registry(())).advance(made)
    (one,) = receipt_of(house, made)["compensations"]
    assert (one["job"], one["action"], one["by_job"]) == (asked.job.id, "github.Say", None)
    assert one["outcome"] == "not compensated"
    assert one["reason"].startswith("say_it is not installed where the revocation was carried out")
    (shown,) = database.read(lambda c: compensation_of(c, asked.job.id))
    assert shown["reason"] == one["reason"]


def test_what_one_revocation_could_not_compensate_a_later_one_does_after_a_replay(database: Database) -> None:
    house = house_that_undoes(database)
    asked, first = _stopped_after_a_step(house)
    without = quiet_revoker(database, SIGNER, Registry(()))
    assert without.advance(first)
    said = receipt_of(house, first)
    database.write(partial(replay_job, job=asked.job.id, by="ops", at=datetime.now(UTC)))
    second = revoke(house, account_scope())
    revoker = quiet_revoker(database, SIGNER, Registry([house.workflow]))
    assert revoker.advance(second)
    (one,) = receipt_of(house, second)["compensations"]
    assert (one["step"], one["outcome"]) == (asked.step, "pending")
    (shown,) = database.read(lambda c: compensation_of(c, asked.job.id))
    assert (shown["revocation_id"], shown["job_id"]) == (second, one["by_job"])
    database.write(lambda c: outdate(c, [first]))
    assert without.advance(first)
    assert revoker.advance(first)
    assert receipt_of(house, first) == said, "what it said stays"
    assert database.read(lambda c: compensation_of(c, asked.job.id)) == [shown]


def test_a_step_that_only_slept_is_not_told_of_where_its_workflow_is_not_installed(database: Database) -> None:
    house = house_that_undoes(database)
    stopped = house.claim(house.job())
    asked = intent_of(house, stopped)
    open_(house, asked)
    done(house, asked)
    slept = update(steps).where(steps.c.id == asked.step).values(action="run.sleep")
    database.write(lambda c: c.execute(slept).rowcount)
    made = revoke(house, account_scope())
    open_(house, intent_of(house, stopped, position=2))
    assert quiet_revoker(database, SIGNER, Registry(())).advance(made)
    assert receipt_of(house, made)["compensations"] == []


def test_a_step_that_nothing_follows_is_not_told_of_where_its_workflow_is_installed(house: House) -> None:
    _, made = _stopped_after_a_step(house)
    assert quiet_revoker(house.database, SIGNER, Registry([house.workflow])).advance(made)
    assert receipt_of(house, made)["compensations"] == []


def test_what_a_revocation_has_yet_to_tell_another_does_not_take_from_it(database: Database) -> None:
    """Both reach the job, and the second comes to its step before the first has its receipt."""
    house = house_that_undoes(database)
    asked, first = _stopped_after_a_step(house)

    def replayed_and_revoked_again(point: str) -> None:
        if point == "before_withdrawals":
            database.write(partial(replay_job, job=asked.job.id, by="ops", at=datetime.now(UTC)))
            again = revoke(house, account_scope())
            assert quiet_revoker(database, SIGNER, Registry([house.workflow])).advance(again)
            assert receipt_of(house, again)["compensations"] == []

    assert quiet_revoker(database, SIGNER, Registry(()), reached=replayed_and_revoked_again).advance(first)
    (one,) = receipt_of(house, first)["compensations"]
    assert (one["step"], one["outcome"]) == (asked.step, "not compensated")

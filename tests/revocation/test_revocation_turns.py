"""Which revocation has its turn: housekeeping's ticks are short, and some revocations are open for long."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from typing import Any

import pytest
from sqlalchemy import update

from deploy.trial.trial import NoRing
from identity.errors import Unavailable
from pipeline.authoring.registry import Registry
from pipeline.db.database import DatabaseSettings
from pipeline.duties.reconcile import advance_revocations
from pipeline.revocation.declaration import Stage, load
from pipeline.revocation.tables import revocations
from pipeline.runtime import Runtime
from pipeline.runtime_settings import Keys, RuntimeSettings
from pipeline.upkeep import duties_of
from tests.ledger.acts import SIGNER, revoke
from tests.ledger.house import House, account_scope
from tests.ledger.revokers import quiet_revoker
from tests.ledgers import TURN


def test_what_a_tick_has_no_time_for_has_its_turn_at_the_next_one(house: House) -> None:
    made = [revoke(house, account_scope()) for _ in range(3)]
    later = datetime.now(UTC) - timedelta(minutes=1)
    _move(house, made[0], state="draining", moved_at=later - timedelta(minutes=1))
    _move(house, made[1], state="draining", moved_at=later)
    asked: list[str] = []

    def inquire(revocation: str) -> bool:
        asked.append(revocation)
        revoker.put_off(revocation)  # the provider says nothing yet
        return False

    revoker = quiet_revoker(house.database, SIGNER, inquire=inquire)
    for _ in range(3):
        advance_revocations(revoker, idle=timedelta(), monotonic=partial(next, count(step=6)))
    assert asked == [made[2], made[0], made[1]], "first whose jobs are to be reached, then who waits longest"
    assert revoker.unfinished(idle_seconds=0, limit=2) == [made[2], made[0]]
    with pytest.raises(Unavailable, match="revocations that could not go on: busy"):
        advance_revocations(quiet_revoker(house.database, SIGNER, inquire=_busy), idle=timedelta())


def _busy(revocation: str) -> bool:
    raise Unavailable("busy")


def test_housekeeping_goes_on_with_what_has_not_moved_for_five_seconds(house: House, ledger_url: str) -> None:
    settings = RuntimeSettings(
        database=DatabaseSettings(url=ledger_url, turn_timeout=TURN),
        keys=Keys(vault={1: b"k" * 32}, signing=b"s" * 32),
        base_url="http://127.0.0.1:1",
    )
    runtime = Runtime(settings, Registry([house.workflow]), NoRing())
    (duty,) = [duty for duty in duties_of(runtime) if duty.name == "revocations"]
    made = {seconds: revoke(house, account_scope()) for seconds in (6, 0)}
    for seconds, revocation in made.items():
        _move(house, revocation, moved_at=datetime.now(UTC) - timedelta(seconds=seconds))
    duty.run()
    runtime.close()
    assert {seconds: _stage(house, revocation) for seconds, revocation in made.items()} == {
        6: Stage.QUIESCED,
        0: Stage.EFFECTIVE,  # its bell may yet be answered
    }


def test_an_open_end_is_looked_at_ever_more_seldom(house: House) -> None:
    made, now = revoke(house, account_scope()), datetime.now(UTC)
    due: dict[tuple[timedelta, timedelta], bool] = {
        (timedelta(minutes=1), timedelta(seconds=14)): False,
        (timedelta(minutes=1), timedelta(seconds=17)): True,
        (timedelta(hours=5), timedelta(minutes=20)): False,
        (timedelta(hours=5), timedelta(minutes=40)): True,
        (timedelta(days=1), timedelta(minutes=50)): False,
        (timedelta(days=1), timedelta(minutes=65)): True,
    }
    for (quiesced, looked), expected in due.items():
        _move(house, made, state="quiesced", open_ends=1, quiesced_at=now - quiesced, moved_at=now - looked)
        found = quiet_revoker(house.database, SIGNER).unfinished(idle_seconds=5)
        assert found == ([made] if expected else []), (quiesced, looked)


def _stage(house: House, made: str) -> str:
    return str(house.database.read(partial(load, revocation=made)).state)


def _move(house: House, made: str, **values: Any) -> None:
    moved = update(revocations).where(revocations.c.id == made).values(values)
    house.database.write(lambda c: c.execute(moved).rowcount)

"""A ledger that was put back is held, gives no number twice, fires nothing again, and its audit says so."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, select, text, update

from identity.audit import Act
from identity.audit.chain import Verified
from identity.audit.export import export_lines, newest_number
from identity.audit.links import newest_checkpoint
from identity.audit.sealer import Sealer
from identity.audit.statements import sign
from identity.audit.tables import audit
from identity.audit.verification import verify
from identity.errors import BadInput
from identity.hold import find_hold
from identity.keys.trusted_keys import TrustedKeys
from identity.model import Scope, ScopeKind
from identity.sql.sequence import next_number
from pipeline.authoring.registry import Registry
from pipeline.authoring.timetable import CatchUp, Timetable
from pipeline.desk.restored import GAP, Restored, mark_restored
from pipeline.schedules.changes import NewSchedule, add_schedule
from pipeline.schedules.slots import SlotFirer
from pipeline.tables import schedules, workflow_settings
from pipeline.workflow import SERVICE, Tick, workflow
from tests.ledger.acts import SIGNER, receipt_of, revoke
from tests.ledger.house import House, Say, account_scope
from tests.ledger.revokers import quiet_revoker

NOW = datetime(2026, 11, 24, 12, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)


@workflow(agent="tester", event=Tick, uses={Say: SERVICE})
def hourly(run: Any, event: Tick) -> None:
    run.do(Say(text=event.slot), as_=run.service)


def _restored(house: House, **more: Any) -> Restored:
    act = Act(audit_id=house.ids("aud"), by="cli:root", now=NOW, why="the disk died")
    asked = {"seen": 0, "lost": None, "fire_missed": False} | more
    return house.database.write(partial(mark_restored, act=act, **asked))


def _record(house: House) -> Any:
    found = select(audit).where(audit.c.kind == "ledger.restored")
    return house.database.read(lambda c: c.execute(found).one())


def test_it_is_held_and_the_audit_says_by_whom_and_where_the_numbers_and_the_chain_ended(house: House) -> None:
    revoke(house, account_scope())
    Sealer(house.database, SIGNER).seal(now=NOW)
    ends_at = house.database.read(newest_checkpoint)
    assert ends_at is not None
    in_no_row = house.database.write(next_number)
    lost = sign(SIGNER, seq=ends_at.seq + 7, digest="d" * 64, at=NOW)
    done = _restored(house, lost=lost)
    assert (done.last, done.ends_at) == (in_no_row - 1, ends_at.seq)
    assert done.after == in_no_row + GAP, "it may have been given to somebody"
    standing = house.database.read(find_hold)
    assert standing is not None
    assert (standing.by, standing.why) == ("cli:root", "the disk died")
    record = _record(house)
    assert record.reason == "by cli:root: the disk died"
    assert (record.detail["last_number"], record.detail["chain_ends_at"]) == (done.last, ends_at.seq)
    assert record.detail["lost"] == {**lost.document(), "signature": lost.signature}
    assert record.number > done.after
    Sealer(house.database, SIGNER).seal(now=NOW)
    assert isinstance(verify(house.database, TrustedKeys(SIGNER.public_key(), [])), Verified)


def test_a_checkpoint_from_before_the_backup_says_nothing_of_what_was_lost(house: House) -> None:
    revoke(house, account_scope())
    Sealer(house.database, SIGNER).seal(now=NOW)
    before = house.database.read(newest_checkpoint)
    with pytest.raises(BadInput, match="says nothing of what was lost"):
        _restored(house, lost=before)
    assert house.database.read(find_hold) is None


def test_no_number_is_given_twice_whatever_the_exports_show(house: House) -> None:
    revoke(house, account_scope())
    Sealer(house.database, SIGNER).seal(now=NOW)
    lines = list(export_lines(house.database))
    shown = max(json.loads(line)["row"]["number"] for line in lines[1:])
    assert newest_number("audit.jsonl", lines) == shown
    done = _restored(house, seen=shown + GAP)
    assert house.database.write(next_number) > shown + 2 * GAP - 1
    assert done.after == shown + 2 * GAP
    with pytest.raises(BadInput, match="is not an export"):
        newest_number("audit.jsonl", lines[1:])


def test_numbers_go_on_after_the_rows_also_where_the_sequence_was_not_put_back(house: House) -> None:
    revoke(house, account_scope())
    newest = house.database.read(lambda c: c.execute(select(audit.c.number).order_by(audit.c.number.desc())).first())

    def lose(c: Connection) -> None:
        behind = "select setval('ledger_number_sequence', 1)" if c.dialect.name == "postgresql" else None
        c.execute(text(behind or "update ledger_numbers set value = 1"))

    house.database.write(lose)
    assert newest is not None
    assert _restored(house).last >= newest[0]
    assert house.database.write(next_number) > newest[0]


@pytest.mark.parametrize("kind", list(ScopeKind))
def test_what_the_ledger_does_not_know_is_revoked_and_has_its_receipt(house: House, kind: ScopeKind) -> None:
    """As `revoke --from` does."""
    made = revoke(house, Scope(kind=kind, key="acme/gone/acme.gone" if kind is ScopeKind.ACCOUNT else "gone"))
    assert quiet_revoker(house.database, SIGNER).advance(made)
    assert receipt_of(house, made)["cancelled_jobs"] == []


@pytest.mark.parametrize(("fire_missed", "fired"), [(False, 0), (True, 3)])
def test_slots_that_passed_since_the_backup_are_left_out_unless_they_are_wanted(
    house: House, fire_missed: bool, fired: int
) -> None:
    def fill(c: Connection) -> None:
        line = Timetable(cron="0 * * * *", zone="UTC")
        new = NewSchedule(
            tenant="acme", name="hourly", workflow=hourly, timetable=line, catch_up=CatchUp.ALL, jitter=HOUR / 10
        )
        add_schedule(c, new, now=NOW - 3 * HOUR)
        c.execute(workflow_settings.insert().values(tenant_id="acme", workflow="hourly", enabled=True, config={}))

    house.database.write(fill)
    done = _restored(house, fire_missed=fire_missed)
    assert done.schedules == (() if fire_missed else ("acme:hourly",))
    house.database.write(lambda c: c.execute(text("delete from holds")).rowcount)
    firer = SlotFirer(house.database, Registry([hourly]))
    assert len(firer.fire_due(NOW)) == fired
    assert len(firer.fire_due(NOW + HOUR)) == 1


def test_a_schedule_that_cannot_be_kept_keeps_nothing_else_from_being_marked(house: House) -> None:
    def fill(c: Connection) -> None:
        for name in ("a", "b"):
            line = Timetable(cron="0 * * * *", zone="UTC")
            add_schedule(c, NewSchedule(tenant="acme", name=name, workflow=hourly, timetable=line), now=NOW - HOUR)
        c.execute(update(schedules).where(schedules.c.name == "a").values(zone="Nowhere/Else"))

    house.database.write(fill)
    assert _restored(house).schedules == ("acme:b",)

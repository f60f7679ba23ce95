"""Deliveries that a workflow could not read: what is kept of that, and for whom it counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from pydantic import BaseModel
from sqlalchemy import select, update

from identity.audit import Act
from identity.tenants import Tenants
from pipeline.authoring.declared_workflow import Workflow
from pipeline.authoring.registry import Registry
from pipeline.deliveries.intake import Intake
from pipeline.deliveries.replay import Replayed, replay
from pipeline.ledger.paging import Turn
from pipeline.model import Acceptance, DeliveryOutcome
from pipeline.tables import deliveries, jobs, workflow_settings
from pipeline.views.operator_queries import any_job, left_out
from pipeline.views.tenant_views import deliveries_page
from pipeline.views.wording import started_by
from pipeline.workflow import Event, Trigger
from tests.ledger.house import House
from tests.ledger.replays import stored

NUMBER = "own cannot read it: the github pull_request body lacks or mistypes: number"


class Numbered(Event):
    number: int


def own(house: House, read: Any = Numbered.model_validate) -> Workflow:
    """A workflow beside the house's; by default it wants what the delivery lacks."""
    trigger = Trigger(source="github", event="pull_request", read=read)
    return replace(house.workflow, name="own", on=(trigger,), event=Numbered, user=None, triggered_by=None)


def turn_on(house: House, *names: str) -> None:
    def configure(c: Any) -> None:
        ours = workflow_settings.c.tenant_id == "acme"
        (row,) = c.execute(select(workflow_settings).where(ours)).mappings().all()
        c.execute(update(workflow_settings).where(ours).values(enabled=row["workflow"] in names))
        if "own" in names:
            c.execute(workflow_settings.insert().values({**row, "workflow": "own", "enabled": True}))

    house.database.write(configure)


def take(house: House, *workflows: Workflow, installation: str = "installation-acme") -> Acceptance:
    delivery = house.delivery("one", installation=installation)
    considered = Registry(workflows).consider("github", "pull_request", delivery.document)
    intake = Intake(house.database, house.vault, house.ids, clock=lambda: datetime.now(UTC))
    return intake.accept(
        delivery,
        [one.match for one in considered if one.match is not None],
        misfits=[one for one in considered if one.misfit],
        outcome=DeliveryOutcome.IGNORED,
        reason="no workflow wants it",
    )


def replay_by(house: House, told: Acceptance, *workflows: Workflow) -> Replayed:
    again = partial(
        replay,
        delivery=stored(house, told.delivery),
        considered=Registry(workflows).consider("github", "pull_request", house.delivery("one").document),
        installed=Registry(workflows),
        new_jobs=[house.ids("job") for _ in workflows],
        act=Act(audit_id=house.ids("aud"), by="cli:test", now=datetime.now(UTC)),
    )
    return house.database.write(again)


def kept_of(house: House) -> tuple[str, str | None]:
    row = house.database.read(lambda c: c.execute(select(deliveries.c.reason, deliveries.c.left_out)).one())
    return row.reason, row.left_out


def failed(house: House, *, misread: bool = False) -> list[str]:
    found = partial(deliveries_page, tenants=Tenants.of("acme"), turn=Turn(limit=9), failed=not misread)
    return [row["id"] for row in house.database.read(partial(found, misread=misread)).rows]


def test_one_that_started_a_job_is_found_by_what_it_did_not_start_until_that_is_replayed(house: House) -> None:
    turn_on(house, house.workflow.name, "own")
    told = take(house, own(house), house.workflow)
    assert (told.outcome, told.reason, told.misread) == ("accepted", f"1 job(s); {NUMBER}", {"own": NUMBER})
    assert failed(house) == [told.delivery]
    assert house.database.read(partial(left_out, since=datetime.now(UTC) - timedelta(hours=1))) == []

    def read(body: Mapping[str, Any]) -> Numbered:
        return Numbered(number=7)

    assert replay_by(house, told, own(house, read), house.workflow).settled
    started = house.database.read(
        lambda c: c.execute(select(jobs.c.workflow).order_by(jobs.c.workflow)).scalars().all()
    )
    assert (sorted(started), failed(house)) == (sorted(["own", house.workflow.name]), [])
    own_job = select(jobs.c.id).where(jobs.c.workflow == "own")
    said = house.database.read(lambda c: started_by(c, any_job(c, c.execute(own_job).scalar_one())))
    assert said.endswith("; its delivery replayed by cli:test")


@pytest.mark.parametrize(("on", "read_again"), [(True, False), (True, True), (False, False)])
def test_a_replay_of_what_others_took_keeps_the_mark_while_a_workflow_that_is_on_cannot_read_it(
    house: House, on: bool, read_again: bool
) -> None:
    turn_on(house, house.workflow.name, "own")
    told = take(house, own(house), house.workflow)
    house.database.write(lambda c: c.execute(update(jobs).values(state="dead")))
    if not on:
        of_it = workflow_settings.c.workflow == "own"
        house.database.write(lambda c: c.execute(update(workflow_settings).where(of_it).values(enabled=False)))

    def read(body: Mapping[str, Any]) -> Numbered:
        return Numbered(number=7)

    made = replay_by(house, told, own(house, read) if read_again else own(house), house.workflow).jobs
    kept = kept_of(house)
    said = f"replayed by cli:test: {len(made)} job(s)"
    if on and not read_again:
        assert (kept, failed(house)) == ((f"{said}; {NUMBER}", "misread"), [told.delivery])
    else:
        assert (kept, failed(house)) == ((said, None), [])


def test_a_replay_keeps_the_mark_for_a_workflow_that_reads_it_and_whose_configuration_does_not_fit(
    house: House,
) -> None:
    class Chosen(BaseModel):
        channel: str

    turn_on(house, house.workflow.name, "own")
    told = take(house, own(house), house.workflow)
    house.database.write(lambda c: c.execute(update(jobs).values(state="dead")))
    mended = replace(own(house, lambda body: Numbered(number=7)), config=Chosen)
    replayed = replay_by(house, told, mended, house.workflow)
    assert (len(replayed.jobs), replayed.settled) == (1, "")
    (reason,) = [fate.reason for fate in replayed.fates if fate.workflow == "own"]
    assert kept_of(house) == (f"replayed by cli:test: 1 job(s); {reason}", "misread")
    assert failed(house) == [told.delivery]


@pytest.mark.parametrize("on", [True, False])
def test_a_replay_that_starts_nothing_takes_off_the_mark_once_no_workflow_that_is_on_lacks_its_job(
    house: House, on: bool
) -> None:
    turn_on(house, house.workflow.name, "own")
    told = take(house, own(house), house.workflow)
    before = kept_of(house)
    of_it = workflow_settings.c.workflow == "own"
    house.database.write(lambda c: c.execute(update(workflow_settings).where(of_it).values(enabled=on)))
    replayed = replay_by(house, told, own(house), house.workflow)
    assert (replayed.jobs, bool(replayed.settled)) == ((), not on)
    assert kept_of(house) == (before if on else ("replayed by cli:test: 0 job(s)", None))
    assert failed(house) == ([told.delivery] if on else [])
    assert not replay_by(house, told, own(house), house.workflow).settled


@pytest.mark.parametrize("on", [True, False])
def test_what_only_one_workflow_could_not_read_leaves_the_list_once_that_is_off(house: House, on: bool) -> None:
    turn_on(house, "own")
    told = take(house, own(house))
    assert (told.outcome, failed(house, misread=True)) == ("unrecognised", [told.delivery])
    of_it = workflow_settings.c.workflow == "own"
    house.database.write(lambda c: c.execute(update(workflow_settings).where(of_it).values(enabled=on)))
    replayed = replay_by(house, told, own(house))
    assert (replayed.jobs, bool(replayed.settled)) == ((), not on)
    outcome = house.database.read(lambda c: c.execute(select(deliveries.c.outcome)).scalar_one())
    assert (outcome, failed(house, misread=True)) == (("unrecognised", [told.delivery]) if on else ("ignored", []))


@pytest.mark.parametrize("starts", [False, True])
def test_what_was_misread_stays_listed_where_a_workflow_that_is_on_is_not_installed(house: House, starts: bool) -> None:
    turn_on(house, house.workflow.name, "own")
    told = take(house, own(house), house.workflow)
    if starts:
        house.database.write(lambda c: c.execute(update(jobs).values(state="dead")))
    replayed = replay_by(house, told, house.workflow)
    assert (len(replayed.jobs), replayed.settled) == (int(starts), "")
    reason, left_out = kept_of(house)
    assert (left_out, failed(house, misread=True)) == ("misread", [told.delivery])
    assert not starts or "own is on for acme and not installed here" in reason
    of_it = workflow_settings.c.workflow == "own"
    house.database.write(lambda c: c.execute(update(workflow_settings).where(of_it).values(enabled=False)))
    assert replay_by(house, told, house.workflow).settled
    assert failed(house, misread=True) == []


def test_what_was_misread_is_listed_without_what_only_has_a_dead_job(house: House) -> None:
    turn_on(house, house.workflow.name)
    taken = take(house, house.workflow)
    house.database.write(lambda c: c.execute(update(jobs).values(state="dead")))
    assert (failed(house), failed(house, misread=True)) == ([taken.delivery], [])
    house.database.write(lambda c: c.execute(update(deliveries).values(left_out="misread")))
    assert failed(house, misread=True) == [taken.delivery]


@pytest.mark.parametrize(
    ("on", "installation", "outcome", "reason"),
    [
        (("own",), "installation-acme", "unrecognised", NUMBER),
        ((), "installation-acme", "ignored", "no workflow wants it"),
        (("own",), "strange", "ignored", "no tenant has installation strange"),
    ],
    ids=["on", "off", "nobody's"],
)
def test_one_that_starts_nothing_is_unrecognised_where_the_workflow_is_on(
    house: House, on: tuple[str, ...], installation: str, outcome: str, reason: str
) -> None:
    turn_on(house, *on)
    told = take(house, own(house), installation=installation)
    assert told.outcome == outcome
    assert told.reason.startswith(reason)
    kept = house.database.read(lambda c: c.execute(select(deliveries.c.outcome, deliveries.c.left_out)).one())
    assert tuple(kept) == (outcome, None)


def test_one_whose_other_workflow_is_off_is_unrecognised(house: House) -> None:
    turn_on(house, "own")
    told = take(house, own(house), house.workflow)
    assert (told.outcome, told.reason, told.jobs) == ("unrecognised", NUMBER, ())

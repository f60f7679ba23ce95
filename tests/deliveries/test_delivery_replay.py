"""Replaying deliveries: what is missing is started, once, and nothing is started twice."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from pydantic import BaseModel
from sqlalchemy import Connection, delete, select, text, update

from identity.audit.tables import audit
from identity.connections.installations import add_installation
from identity.errors import BadInput
from identity.tables import installations
from pipeline.authoring.registry import Registry
from pipeline.deliveries.acceptance import start_jobs
from pipeline.deliveries.replay import Replayed
from pipeline.deliveries.weighing import Does, Stored, Weighed, weigh
from pipeline.jobs import pins
from pipeline.states import AttemptState, JobState, StepState
from pipeline.steps.openings import open_attempt
from pipeline.tables import attempts, deliveries, jobs, steps, workflow_settings
from pipeline.workflow import ExternalUser, Trigger
from tests.ledger.house import House, Opened, intent_of
from tests.ledger.replays import considered, replayed, stored


def switch(house: House, *, on: bool) -> None:
    house.database.write(lambda c: c.execute(update(workflow_settings).values(enabled=on)).rowcount)


def look(house: House, delivery: Stored) -> Weighed:
    installed = Registry([house.workflow])
    return house.database.read(lambda c: weigh(c, delivery, considered(house), installed=installed))


def test_what_came_before_the_workflow_was_on_starts_when_it_is_replayed_and_only_then_once(house: House) -> None:
    switch(house, on=False)
    early = stored(house, house.accept(house.delivery("early")).delivery)
    assert replayed(house, early).fates[0].reason == "it is not switched on for tenant acme"
    switch(house, on=True)
    (fate,) = look(house, early).fates
    assert (fate.does, house.states()) == (Does.START, {})  # looking starts nothing
    first = replayed(house, early)
    assert len(first.jobs) == len(first.bells) == 1
    assert house.row(first.jobs[0]).delivery_id == early.id
    assert house.row(first.jobs[0]).user_id == "acme.ada"
    again = replayed(house, early)
    assert (again.jobs, again.fates[0].does) == ((), Does.NOTHING)
    rows = house.database.read(lambda c: c.execute(select(audit.c.kind, audit.c.tenant_id)).all())
    assert [tuple(row) for row in rows].count(("delivery.replayed", "acme")) == 1


def test_of_replays_at_the_same_time_one_starts_the_job(house: House) -> None:
    switch(house, on=False)
    early = stored(house, house.accept(house.delivery("early")).delivery)
    switch(house, on=True)
    made: list[str] = []
    threads = [threading.Thread(target=lambda: made.extend(replayed(house, early).jobs)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == len(house.states()) == 1


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_what_is_pruned_as_its_delivery_is_replayed_is_left_alone(house: House) -> None:
    """The jobs are held before they are weighed. SQLite has one writer anyway."""
    accepted, done = house.accept(house.delivery("one")), list[Replayed]()
    house.database.write(lambda c: c.execute(update(jobs).values(state=JobState.DEAD)).rowcount)
    delivery = stored(house, accepted.delivery)
    late = threading.Thread(target=lambda: done.append(replayed(house, delivery)))
    waiting = text("select count(*) from pg_locks where locktype = 'transactionid' and not granted")

    def prune_slowly(c: Connection) -> None:
        c.execute(update(jobs).values(pruned_at=datetime.now(UTC)))
        late.start()
        while late.is_alive() and not c.execute(waiting).scalar_one():
            late.join(0.01)

    house.database.write(prune_slowly)
    late.join()
    assert (done[0].jobs, done[0].fates[0].does) == ((), Does.NOTHING)
    assert house.states() == {accepted.jobs[0]: JobState.DEAD}


@pytest.mark.parametrize("state", [JobState.DEAD, JobState.DONE, JobState.QUEUED])
def test_a_dead_job_goes_again_and_one_that_is_done_or_under_way_is_left_alone(house: House, state: JobState) -> None:
    accepted = house.accept(house.delivery("one"))
    house.database.write(lambda c: c.execute(update(jobs).values(state=state)).rowcount)
    done = replayed(house, stored(house, accepted.delivery))
    again = state is JobState.DEAD
    assert done.jobs == (accepted.jobs if again else ())
    assert house.states() == {accepted.jobs[0]: JobState.QUEUED if again else state}


@pytest.mark.parametrize(
    ("reason", "revocation"), [("agent revoked: it went astray", "rev_1"), ("cancelled by cli:grace", None)]
)
def test_what_a_revocation_or_a_person_ended_stays_ended_unless_that_is_asked_for(
    house: House, reason: str, revocation: str | None
) -> None:
    accepted = house.accept(house.delivery("one"))
    ended = {"state": JobState.CANCELLED, "reason": reason, "revocation_id": revocation}
    house.database.write(lambda c: c.execute(update(jobs).values(ended)).rowcount)
    delivery = stored(house, accepted.delivery)
    done = replayed(house, delivery)
    assert (done.jobs, house.states()) == ((), {accepted.jobs[0]: JobState.CANCELLED})
    assert done.fates[0].does is Does.NOTHING
    assert reason in done.fates[0].reason
    assert f"aswhom jobs replay {accepted.jobs[0]}" in done.fates[0].reason
    assert replayed(house, delivery, cancelled=True).jobs == accepted.jobs
    assert house.states() == {accepted.jobs[0]: JobState.QUEUED}


def test_an_installation_that_was_said_later_makes_the_delivery_its_tenants(house: House) -> None:
    stray = house.accept(house.delivery("one", installation="late"))
    delivery = stored(house, stray.delivery, installation="late")
    assert replayed(house, delivery).fates[0].reason == "no tenant has installation late"
    now = datetime.now(UTC)
    house.database.write(lambda c: add_installation(c, owner="gh", external_id="late", tenant="globex", now=now))
    (job,) = replayed(house, delivery).jobs
    assert house.row(job).tenant_id == "globex"


def test_what_came_through_an_installation_that_is_gone_is_said_not_to_go_again(house: House) -> None:
    accepted = house.accept(house.delivery("one"))
    house.database.write(lambda c: c.execute(update(jobs).values(state=JobState.DEAD)).rowcount)
    house.database.write(lambda c: c.execute(delete(installations)).rowcount)
    done = replayed(house, stored(house, accepted.delivery))
    assert (done.jobs, done.fates[0].does) == ((), Does.NOTHING)
    assert "no tenant has installation installation-acme" in done.fates[0].reason
    assert house.states() == {accepted.jobs[0]: JobState.DEAD}


@pytest.mark.parametrize("begun", [True, False])
def test_a_delivery_stays_its_tenants_when_its_installation_becomes_anothers(house: House, begun: bool) -> None:
    switch(house, on=begun)
    accepted = house.accept(house.delivery("one"))
    house.database.write(lambda c: c.execute(update(jobs).values(state=JobState.DEAD)).rowcount)
    switch(house, on=True)
    moved = update(installations).where(installations.c.external_id == "installation-acme").values(tenant_id="globex")
    house.database.write(lambda c: c.execute(moved).rowcount)
    house.database.write(lambda c: c.execute(update(deliveries).values(left_out="misread")).rowcount)
    done = replayed(house, stored(house, accepted.delivery))
    assert (done.jobs, done.fates[0].does) == ((), Does.NOTHING)
    assert "it came as acme's, and its installation is another tenant's now" in done.fates[0].reason
    assert not done.settled
    assert set(house.states().values()) == ({JobState.DEAD} if begun else set())
    whose = house.database.read(lambda c: c.execute(select(deliveries.c.tenant_id)).scalar_one())
    assert whose == "acme"
    weighed = look(house, stored(house, accepted.delivery))
    assert (weighed.tenant, weighed.settles) == (None, "")


def unread(house: House, *names: str) -> list[Stored]:
    """Deliveries whose event could not be read on arrival. This version reads that all are the sender's `Ev1`."""
    ids = [house.accept(house.delivery(name, text=name)).delivery for name in names]
    house.database.write(lambda c: c.execute(update(deliveries).values(event="unreadable", outcome="unrecognised")))
    return [replace(stored(house, id), event="pull_request", delivery_id="Ev1") for id in ids]


def kept(house: House, delivery: Stored) -> tuple[str, str, str]:
    one = select(deliveries.c.event, deliveries.c.delivery_id, deliveries.c.outcome)
    row = house.database.read(lambda c: c.execute(one.where(deliveries.c.id == delivery.id)).one())
    return row.event, row.delivery_id, row.outcome


def test_what_is_read_only_now_gets_its_event_and_its_senders_id_and_a_copy_of_it_starts_nothing(house: House) -> None:
    switch(house, on=False)
    first, second = unread(house, "1.aa", "2.aa")
    reason = house.database.read(lambda c: c.execute(select(deliveries.c.reason).distinct()).scalar_one())
    switch(house, on=True)
    assert len(replayed(house, first).jobs) == 1
    assert kept(house, first) == ("pull_request", "Ev1", "accepted")
    copy = replayed(house, second)
    assert (copy.jobs, copy.settled) == ((), f"it is a repetition of {first.id}")
    assert (copy.fates[0].does, copy.fates[0].reason) == (Does.NOTHING, copy.settled)
    assert kept(house, second) == ("pull_request", "2.aa", "ignored")
    assert house.accept(house.delivery("Ev1")).outcome == "duplicate"
    assert len(house.states()) == 1
    details = house.database.read(lambda c: c.execute(select(audit.c.detail).order_by(audit.c.number)).scalars().all())
    were = [(one["event"], one["outcome"], one["reason"]) for one in details if one and "event" in one]
    assert were == [("unreadable", "unrecognised", reason)] * 2
    assert not replayed(house, second).settled, "it is settled once"


def test_what_came_again_by_the_id_that_is_read_only_now_is_not_started_a_second_time(house: House) -> None:
    switch(house, on=False)
    (unread_one,) = unread(house, "1.aa")
    switch(house, on=True)
    again = house.accept(house.delivery("Ev1"))
    assert replayed(house, unread_one).settled == f"it is a repetition of {again.delivery}"
    assert list(house.states()) == list(again.jobs)


@pytest.mark.parametrize("readable", [True, False])
def test_a_repetition_stays_listed_while_what_it_repeats_lacks_a_job(house: House, readable: bool) -> None:
    switch(house, on=False)
    (unread_one,) = unread(house, "1.aa")
    again = stored(house, house.accept(house.delivery("Ev1")).delivery)
    switch(house, on=True)
    (reads,) = considered(house)
    misfit = replace(reads, match=None, misfit=True, refusal="it cannot read it")
    copy = replayed(house, unread_one, by=[reads if readable else misfit])
    assert (copy.jobs, copy.settled) == ((), "")
    assert f"`aswhom deliveries replay {again.id}`" in copy.fates[0].reason
    assert kept(house, unread_one) == ("unreadable", "1.aa", "unrecognised")
    assert len(replayed(house, again).jobs) == 1
    assert replayed(house, unread_one).settled == f"it is a repetition of {again.id}"


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_what_comes_again_as_it_is_replayed_is_started_once(house: House) -> None:
    """Its id is taken by a transaction that the replay cannot see yet. SQLite has one writer anyway."""
    switch(house, on=False)
    first, second = unread(house, "1.aa", "2.aa")
    switch(house, on=True)
    refused: list[str] = []

    def replay_late() -> None:
        try:
            replayed(house, second)
        except BadInput as error:
            refused.append(str(error))

    late = threading.Thread(target=replay_late)
    waiting = text("select count(*) from pg_locks where not granted and pg_backend_pid() = any(pg_blocking_pids(pid))")

    def take_slowly(c: Connection) -> None:
        c.execute(update(deliveries).where(deliveries.c.id == first.id).values(delivery_id="Ev1"))
        late.start()
        while late.is_alive() and not c.execute(waiting).scalar_one():
            late.join(0.01)

    house.database.write(take_slowly)
    late.join()
    assert (refused, house.states()) == ([f"{second.id} was received again at this moment: replay it once more"], {})
    assert not replayed(house, second).settled, "the first has started nothing yet"
    assert len(replayed(house, first).jobs) == 1
    assert replayed(house, second).settled == f"it is a repetition of {first.id}"


def test_the_id_that_is_read_only_now_is_taken_before_any_job_is_written(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting for the id, it must not hold rows that the acceptance it waits for needs: that would be a deadlock."""
    switch(house, on=False)
    (unread_one,) = unread(house, "1.aa")
    switch(house, on=True)
    taken: list[tuple[str, str]] = []

    def start(connection: Connection, *arguments: Any, **more: Any) -> None:
        of_it = select(deliveries.c.event, deliveries.c.delivery_id).where(deliveries.c.id == unread_one.id)
        row = connection.execute(of_it).one()
        taken.append((row.event, row.delivery_id))
        start_jobs(connection, *arguments, **more)

    monkeypatch.setattr("pipeline.deliveries.replay.start_jobs", start)
    assert len(replayed(house, unread_one).jobs) == 1
    assert taken == [("pull_request", "Ev1")]


def test_a_signal_is_never_replayed(house: House) -> None:
    accepted = house.accept(house.delivery("one"))
    house.database.write(lambda c: c.execute(update(deliveries).values(outcome="signal")).rowcount)
    assert "never replayed" in replayed(house, stored(house, accepted.delivery)).fates[0].reason


def test_a_configuration_that_no_longer_fits_starts_nothing_and_says_how_to_mend_it(house: House) -> None:
    switch(house, on=False)
    early = stored(house, house.accept(house.delivery("early")).delivery)
    values = {"enabled": True, "config": {"gone": 1}}
    house.database.write(lambda c: c.execute(update(workflow_settings).values(values)).rowcount)
    done = replayed(house, early)
    assert done.jobs == ()
    assert "workflows enable --config" in done.fates[0].reason


class Words(BaseModel):
    text: str = "hello"


def configure(house: House, config: dict[str, Any]) -> None:
    house.database.write(lambda c: c.execute(update(workflow_settings).values(config=config)).rowcount)


def dead(house: House, step: StepState | None = None, attempt: AttemptState | None = None) -> Stored:
    """A delivery whose job died under the configuration there was, with a step or without; it was changed since."""
    house.workflow = replace(house.workflow, config=Words)
    delivery = stored(house, house.accept(house.delivery("one")).delivery)
    if step is not None:
        asked = intent_of(house, house.claim(next(iter(house.states()))))
        house.database.write(partial(open_attempt, intent=asked))
        house.database.write(lambda c: c.execute(update(steps).values(state=step)).rowcount)
        house.database.write(lambda c: c.execute(update(attempts).values(state=attempt)).rowcount)
    house.database.write(lambda c: c.execute(update(jobs).values(state=JobState.DEAD)).rowcount)
    configure(house, {"text": "mended"})
    return delivery


@pytest.mark.parametrize(
    ("step", "attempt", "config"),
    [
        (None, None, {"text": "mended"}),
        (StepState.FAILED, AttemptState.NO_EFFECT, {"text": "mended"}),
        (StepState.DONE, AttemptState.EFFECT, {}),
        (StepState.OPEN, AttemptState.OPEN, {}),
    ],
)
def test_a_dead_job_goes_again_under_the_present_configuration_unless_it_did_something_under_its_own(
    house: House, step: StepState | None, attempt: AttemptState | None, config: dict[str, Any]
) -> None:
    (fate,) = replayed(house, dead(house, step, attempt)).fates
    assert (fate.does, fate.config) == (Does.AGAIN, config)
    assert ("it keeps the configuration it began with" in fate.reason) is (not config)
    assert house.database.read(lambda c: pins.pinned(c, str(fate.job))) == config


def test_a_dead_job_stays_dead_while_the_configuration_it_would_have_does_not_fit(house: House) -> None:
    delivery = dead(house)
    configure(house, {"text": 1})
    done = replayed(house, delivery)
    assert (done.jobs, done.fates[0].does) == ((), Does.NOTHING)
    assert "workflows enable --config" in done.fates[0].reason


class Counted(Opened):
    words: int  # which events of an older version lack


@pytest.mark.parametrize(
    ("step", "attempt", "anew"),
    [(None, None, True), (StepState.DONE, AttemptState.EFFECT, False)],
)
def test_a_dead_job_whose_event_no_longer_fits_has_it_read_anew_unless_it_did_something_under_its_own(
    house: House, step: StepState | None, attempt: AttemptState | None, anew: bool
) -> None:
    delivery = dead(house, step, attempt)
    (job,) = house.states()
    had = house.row(job).event
    assert replayed(house, delivery).jobs == (job,)
    assert house.row(job).event == had, "it fits"
    house.database.write(lambda c: c.execute(update(jobs).values(state=JobState.DEAD)).rowcount)

    def read(body: Mapping[str, Any]) -> Counted:
        return Counted(**body, words=len(body["text"].split()))

    listens = Trigger(source="github", event="pull_request", read=read)
    house.workflow = replace(house.workflow, event=Counted, on=(listens,))
    done = replayed(house, delivery)
    assert done.jobs == (job,)
    assert ("its event is read anew" in done.fates[0].reason) is anew
    assert house.row(job).event == ({"author": "1001", "text": "hello", "words": 1} if anew else had)


@pytest.mark.parametrize("whose", ["user", "triggered_by"])
def test_a_dead_job_whose_event_has_another_user_or_sender_as_it_is_read_now_stays_dead(
    house: House, whose: str
) -> None:
    delivery = dead(house)

    def read(body: Mapping[str, Any]) -> Counted:
        return Counted(**body, words=len(body["text"].split()))

    def another(event: Any) -> ExternalUser:
        return ExternalUser(provider="github", id="1002", login="grace")

    listens = Trigger(source="github", event="pull_request", read=read)
    changed: dict[str, Any] = {whose: another}
    house.workflow = replace(house.workflow, event=Counted, on=(listens,), **changed)
    done = replayed(house, delivery)
    assert (done.jobs, done.fates[0].does) == ((), Does.NOTHING)
    assert "another user or sender" in done.fates[0].reason


def test_a_delivery_that_is_not_there_is_not_replayed(house: House) -> None:
    with pytest.raises(BadInput, match="there is no delivery"):
        replayed(house, Stored(id="nobody", connection="gh", event="a", delivery_id="1", installation=None))

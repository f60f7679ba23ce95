"""What a revocation means for the jobs it reaches: stop, skip or compensate; and what the receipt says afterwards."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from typing import Any

import pytest
from sqlalchemy import Connection, func, select, text

from deploy.trial.trial import NoRing
from identity.agents.api_keys import NewApiKey, Role, add_key
from identity.audit.tables import audit
from identity.console.sessions import Person, Via
from identity.errors import BadInput
from identity.model import PrincipalKind, Scope, ScopeKind
from identity.principals import ensure_principal, link_alias
from identity.secret import Secret
from pipeline.approvals.requesters import requesters, unheld_key
from pipeline.authoring.declared_workflow import Undone, Workflow
from pipeline.authoring.registry import Registry
from pipeline.db.database import Database, DatabaseSettings
from pipeline.deliveries.weighing import Does
from pipeline.desk.revocations import revoke_once
from pipeline.jobs import claims as ledger_jobs
from pipeline.jobs.intents import Adopted, Ended, Opened, Skipped
from pipeline.operators import names_of
from pipeline.revocation import declaration
from pipeline.revocation.compensation import compensable, compensate_step
from pipeline.revocation.tables import compensations, revocations
from pipeline.revoker import cancelling
from pipeline.revoker.cancelling import Chunk, ChunkSize, Cursor, cancel_chunk
from pipeline.revoker.preview import preview
from pipeline.revoker.revoker import Revoker
from pipeline.run import StepSkipped
from pipeline.runtime import Runtime
from pipeline.runtime_settings import Keys, RuntimeSettings
from pipeline.states import AttemptState, JobState, Purpose, StepState, Wait
from pipeline.steps.replay import replay_job
from pipeline.tables import attempts, jobs, steps
from pipeline.workflow import SERVICE, SKIP, USER, compensate, workflow
from tests.faults.revoker_points import REVOKER_POINTS
from tests.killed import Killed, killed_at
from tests.ledger.acts import SIGNER, close, done, open_, receipt_of, revoke
from tests.ledger.house import House, Said, Say, account_scope, say_it
from tests.ledger.house import Opened as Happened
from tests.ledger.house import intent_of as intent
from tests.ledger.replays import replayed, stored
from tests.ledger.resolutions import resolve
from tests.ledger.revokers import quiet_revoker
from tests.ledgers import MOSTLY_SQLITE, TURN, open_ledger

SERVICE_ACCOUNT = account_scope("acme.service")


def say_undone(say: Say, said: Said) -> Say:
    return Say(text=f"{say.text} ({said.id}) was undone")


def _declared(uses: Any, function: Any) -> Workflow:
    declared: Workflow = workflow(
        agent="tester", event=Happened, on=say_it.on, user=say_it.user, triggered_by=say_it.triggered_by, uses=uses
    )(function)
    return declared


def say_or_go_on(run: Any, event: Happened) -> None:
    try:
        run.do(Say(text=event.text), as_=run.user)
    except StepSkipped:
        return


def say_or_end(run: Any, event: Happened) -> None:
    run.do(Say(text=event.text), as_=run.user)


def _house(database: Database, declared: Workflow) -> House:
    house = House(database)
    house.workflow = declared
    house.build()
    return house


@pytest.fixture
def skipping(database: Database) -> House:
    return _house(database, _declared({Say: USER.on_revoke(SKIP)}, say_or_go_on))


@pytest.fixture
def compensating(database: Database) -> House:
    return _house(database, _declared({Say: USER.on_revoke(compensate(Say, say_undone))}, say_or_end))


def _revoker(house: House, **more: Any) -> Revoker:
    return quiet_revoker(house.database, SIGNER, Registry([house.workflow]), ids=house.ids, **more)


def _runtime(house: House, ledger_url: str) -> Runtime:
    settings = RuntimeSettings(
        database=DatabaseSettings(url=ledger_url, turn_timeout=TURN),
        keys=Keys(vault={1: b"k" * 32}, signing=b"s" * 32),
        base_url="http://127.0.0.1:1",
    )
    return Runtime(settings, Registry([house.workflow]), NoRing())


# skip


def test_a_job_that_can_do_without_goes_on_and_its_step_is_skipped(skipping: House, ledger_url: str) -> None:
    job = skipping.job()
    made = revoke(skipping, account_scope())
    assert _revoker(skipping).advance(made)
    assert skipping.row(job).state == JobState.QUEUED
    runtime = _runtime(skipping, ledger_url)
    runtime.worker.handle(job)
    runtime.close()
    assert skipping.row(job).state == JobState.DONE
    (step,) = skipping.database.read(lambda c: c.execute(select(steps)).all())
    assert (step.state, step.action) == (StepState.SKIPPED, "github.Say")
    assert skipping.database.read(lambda c: c.execute(select(func.count()).select_from(attempts)).scalar_one()) == 0
    receipt = receipt_of(skipping, made)
    assert (receipt["skipping_jobs"], receipt["cancelled_jobs"]) == (1, [])


def test_a_skip_that_the_workflow_does_not_catch_cancels_the_job(database: Database, ledger_url: str) -> None:
    house = _house(database, _declared({Say: USER.on_revoke(SKIP)}, say_or_end))
    job = house.job()
    revoke(house, account_scope())
    runtime = _runtime(house, ledger_url)
    runtime.worker.handle(job)
    runtime.close()
    assert house.row(job).state == JobState.CANCELLED
    house.database.write(partial(replay_job, job=job, by="ops", at=datetime.now(UTC)))
    states = house.database.read(lambda c: c.execute(select(steps.c.state)).scalars().all())
    assert states == [StepState.OPEN]  # accepted anew, it is asked for anew


@pytest.mark.parametrize("kind", [ScopeKind.TENANT, ScopeKind.AGENT])
def test_without_tenant_or_agent_nothing_goes_on(skipping: House, kind: ScopeKind) -> None:
    queued, running = skipping.job(), skipping.claim(skipping.job())
    made = revoke(skipping, Scope(kind=kind, key={"tenant": "acme", "agent": "tester"}[kind]))
    assert isinstance(open_(skipping, intent(skipping, running, may_skip=True)), Ended)
    assert _revoker(skipping).advance(made)
    assert set(receipt_of(skipping, made)["cancelled_jobs"]) == {queued, running.id}


def test_a_step_that_may_have_taken_effect_is_not_skipped(skipping: House) -> None:
    job = skipping.claim(skipping.job())
    asked = intent(skipping, job, may_skip=True)
    open_(skipping, asked)
    close(skipping, asked, AttemptState.UNKNOWN, StepState.UNKNOWN)
    revoke(skipping, account_scope())
    again = replace(asked, attempt=skipping.ids("att"), again=True, purpose=Purpose.PROBE, repeats_unknown=True)
    assert isinstance(open_(skipping, again), Ended)
    other = skipping.claim(skipping.job("accepted-later"))
    assert not isinstance(open_(skipping, intent(skipping, other, may_skip=True)), Skipped)  # it waits for consent


@pytest.mark.parametrize(
    "scope",
    [account_scope(), Scope(kind=ScopeKind.USER, key="acme.ada"), Scope(kind=ScopeKind.CONNECTION, key="gh")],
    ids=lambda scope: str(scope.kind),
)
def test_a_job_that_waits_for_the_consent_that_was_revoked_is_woken_to_go_on(skipping: House, scope: Scope) -> None:
    first = revoke(skipping, account_scope())
    assert _revoker(skipping).advance(first)
    job = skipping.claim(skipping.job())
    open_(skipping, intent(skipping, job))
    assert skipping.row(job.id).wait == Wait.CONSENT
    second = revoke(skipping, scope)
    assert _revoker(skipping).advance(second)
    assert skipping.row(job.id).state == JobState.QUEUED


def test_very_many_waits_are_ended_in_several_transactions(skipping: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancelling, "WAITS", 2)
    assert _revoker(skipping).advance(revoke(skipping, account_scope()))
    waiting = [skipping.claim(skipping.job(text=str(n))) for n in range(3)]
    for job in waiting:
        open_(skipping, intent(skipping, job))
    made = revoke(skipping, account_scope())
    woken = partial(skipping.row, waiting[0].id)
    assert not _revoker(skipping, stopping=lambda: woken().state == JobState.QUEUED).advance(made), "after the first"
    assert [skipping.row(job.id).state for job in waiting] == [JobState.QUEUED, JobState.QUEUED, JobState.WAITING]
    assert _revoker(skipping).advance(made)
    assert {skipping.row(job.id).state for job in waiting} == {JobState.QUEUED}


# compensate


def _interrupted(house: House, *, done_steps: int = 1, revoked: Callable[[], str] | None = None) -> tuple[str, str]:
    """A job that has said something as ada, and is stopped by her revocation: job and revocation."""
    job = house.claim(house.job())
    for position in range(1, done_steps + 1):
        asked = intent(house, job, position=position, occurrence=position)
        open_(house, asked)
        done(house, asked, {"id": "7"})
    made = revoke(house, account_scope()) if revoked is None else revoked()
    open_(house, intent(house, job, position=done_steps + 1))
    return job.id, made


def compensation_audited(house: House) -> list[tuple[str, str, str, Any]]:
    """What the audit has of compensations."""
    columns = audit.c
    told = select(columns.kind, columns.job_id, columns.step_id, columns.detail).where(
        columns.kind.startswith("compensation.")
    )
    return [tuple(row) for row in house.database.read(lambda c: c.execute(told).all())]


def test_what_a_cancelled_job_did_is_compensated_by_a_service_job_of_the_platform(compensating: House) -> None:
    job, made = _interrupted(compensating)
    assert _revoker(compensating).advance(made)
    (one,) = receipt_of(compensating, made)["compensations"]
    assert (one["job"], one["action"], one["outcome"]) == (job, "github.Say", "pending")
    assert compensation_audited(compensating) == [
        ("compensation.accepted", job, one["step"], {"revocation": made, "by_job": one["by_job"]})
    ]
    row = compensating.row(one["by_job"])
    with pytest.raises(BadInput, match=f"{job} was compensated by job {row.id}: .*new delivery"):
        compensating.database.write(partial(replay_job, job=job, by="ops", at=datetime.now(UTC)))
    (fate,) = replayed(compensating, stored(compensating, compensating.row(job).delivery_id), cancelled=True).fates
    assert (fate.does, f"compensated by job {row.id}" in fate.reason) == (Does.NOTHING, True)
    assert compensating.row(job).state == JobState.CANCELLED
    assert (row.workflow, row.agent_id, row.user_id) == ("say_or_end.compensation", "aswhom", None)
    among = ("acme.ada", "acme.grace")
    assert compensating.database.read(partial(requesters, job=row.id, among=among)) == {"acme.ada"}, "who asked for it"
    assert Undone.model_validate(row.event).result == {"id": "7"}
    claimed = compensating.claim(row.id)
    compensating.database.write(partial(ledger_jobs.finish, job=claimed))
    assert _revoker(compensating).advance(made)
    (one,) = receipt_of(compensating, made)["compensations"]
    assert one["outcome"] == "done"
    again = compensating.database.read(partial(declaration.load, revocation=made))
    assert (again.revision, again.open_ends) == (2, 0)
    assert _revoker(compensating).advance(made)
    assert compensating.database.read(partial(declaration.load, revocation=made)) == again


@pytest.mark.parametrize(
    ("subject", "name", "link"),
    [
        ("00u1", "grace@corp.example", ("console", "00u1", None)),
        ("00u1", "00u1 (Grace (Contractor))", ("console", "00u1", None)),
        ("00u1", "00u1 (Grace (Contractor))", ("github", "7", "Grace (Contractor)")),
        ("00u1", f"00u1 ({'g' * 200})", ("console", "00u1", None)),
        (None, "cli:Gracie", ("github", "7", "gracie")),
    ],
    ids=["a verified address", "parentheses", "the name given", "cut", "by a link"],
)
def test_whoever_revoked_does_not_approve_the_compensation(
    compensating: House, subject: str | None, name: str, link: tuple[str, str, str | None]
) -> None:
    person = Person(subject=subject or name, name=name, via=Via.OPENID if subject else Via.LINK, held=())
    _grace(compensating, *link)

    def revoked(id: str) -> None:
        barred = names_of(person.by, person.known_by)
        cause = declaration.Cause(source="console", by=person.by, reason="left", barred=barred)
        act = partial(revoke_once, scope=account_scope(), cause=cause, id=id, tenant="acme", now=datetime.now(UTC))
        compensating.database.write(act)

    assert _barred(compensating, revoked) == {"acme.ada", "acme.grace"}


@pytest.mark.parametrize("by", ["console:00u1 (Grace)", "api:acme.bot:key_1"])
def test_a_revocation_without_stored_names_bars_those_that_its_own_name_tells(compensating: House, by: str) -> None:
    """As made by a version that did not store them."""
    _grace(compensating, "console", "00u1", None)
    now = datetime.now(UTC)
    whose = partial(NewApiKey, tenant="acme", agent="acme.bot", role=Role.ADMIN, held_by="acme.grace")
    new = whose(id="key_1", tools=None, users=None, expires_at=None)
    compensating.database.write(partial(add_key, secret=Secret("awk_x"), new=new, by="cli:root", now=now))

    def revoked(id: str) -> None:
        cause = declaration.Cause(source="console", by=by, reason="left")
        act = partial(declaration.declare, scope=account_scope(), cause=cause, id=id, tenant="acme", now=now)
        compensating.database.write(act)

    assert _barred(compensating, revoked) == {"acme.ada", "acme.grace"}


def test_a_key_that_revokes_bars_its_holder_and_is_no_key_that_asked_for_a_step(compensating: House) -> None:
    _grace(compensating, "github", "7", None)

    def revoked(id: str) -> None:
        barred = ("cli:root", "acme.grace")
        cause = declaration.Cause(source="api", by="api:acme.bot:key_of_nobody", reason="left", barred=barred)
        act = partial(declaration.declare, scope=account_scope(), cause=cause, id=id, tenant="acme")
        compensating.database.write(partial(act, now=datetime.now(UTC)))

    assert _barred(compensating, revoked) == {"acme.ada", "acme.grace"}
    (job,) = compensating.database.read(lambda c: c.execute(select(compensations.c.job_id)).scalars().all())
    assert compensating.database.read(partial(unheld_key, job=job)) is None


def _grace(house: House, provider: str, external: str, login: str | None) -> None:
    """Another user, and the name by which a provider knows her."""
    now = datetime.now(UTC)

    def write(c: Connection) -> None:
        ensure_principal(c, id="acme.grace", tenant="acme", kind=PrincipalKind.USER, name="g", now=now)
        known = partial(link_alias, provider=provider, external_id=external, login=login, made_by="admin:test")
        known(c, tenant="acme", principal="acme.grace", now=now)

    house.database.write(write)


def _barred(house: House, revoked: Callable[[str], object]) -> frozenset[str]:
    """Those who may not approve the compensation that a revocation leads to."""

    def made() -> str:
        revoked(id := house.ids("rev"))
        return id

    _, id = _interrupted(house, revoked=made)
    assert _revoker(house).advance(id)
    (one,) = receipt_of(house, id)["compensations"]
    return house.database.read(partial(requesters, job=one["by_job"], among=("acme.ada", "acme.grace")))


def test_the_compensation_is_made_of_what_the_ledger_has(compensating: House) -> None:
    did: list[tuple[Any, Any]] = []

    class Run:
        def do(self, action: Any, *, as_: Any) -> None:
            did.append((action, as_))

    event = Undone(
        revocation="r", job="j", step="s", action="github.Say", parameters={"text": "hello"}, result={"id": "7"}
    )
    derived = Registry([compensating.workflow]).get("say_or_end.compensation")
    derived.function(Run(), event)  # type: ignore[arg-type]
    assert did == [(Say(text="hello (7) was undone"), SERVICE)]
    assert derived.uses == {Say: SERVICE}


@pytest.mark.parametrize(
    "scope", [Scope(kind=ScopeKind.TENANT, key="acme"), Scope(kind=ScopeKind.CONNECTION, key="gh")]
)
def test_where_no_service_is_left_the_receipt_says_what_was_not_compensated(compensating: House, scope: Scope) -> None:
    job = compensating.claim(compensating.job())
    asked = intent(compensating, job)
    open_(compensating, asked)
    done(compensating, asked, {"id": "7"})
    made = revoke(compensating, scope)
    open_(compensating, intent(compensating, job, position=2))
    assert _revoker(compensating).advance(made)
    (one,) = receipt_of(compensating, made)["compensations"]
    assert (one["outcome"], one["by_job"]) == ("not compensated", None)
    assert compensation_audited(compensating) == [
        ("compensation.refused", job.id, asked.step, {"revocation": made, "by_job": None})
    ]
    assert "acme" in one["reason"]


def test_a_crash_between_two_compensations_makes_each_of_them_once(compensating: House) -> None:
    _, made = _interrupted(compensating, done_steps=2)

    with pytest.raises(Killed):
        _revoker(compensating, reached=killed_at("after_compensation")).advance(made)
    assert _revoker(compensating).advance(made)
    assert _revoker(compensating).advance(made)
    followed = receipt_of(compensating, made)["compensations"]
    assert len({one["step"] for one in followed}) == len({one["by_job"] for one in followed}) == 2


@pytest.mark.parametrize("point", REVOKER_POINTS)
def test_a_revoker_that_dies_anywhere_leaves_the_rest_to_the_next_one(compensating: House, point: str) -> None:
    queued = compensating.job()
    job, made = _interrupted(compensating)

    with pytest.raises(Killed):
        _revoker(compensating, reached=killed_at(point)).advance(made)
    reached: set[str] = set()
    assert _revoker(compensating, reached=reached.add).advance(made)
    assert reached <= set(REVOKER_POINTS)
    receipt = receipt_of(compensating, made)
    assert set(receipt["cancelled_jobs"]) == {queued, job}
    assert len(receipt["compensations"]) == 1


def test_what_a_cancelled_job_has_of_another_is_not_undone_with_it(compensating: House) -> None:
    owner = intent(compensating, compensating.claim(compensating.job()), once="k")
    open_(compensating, owner)
    done(compensating, owner, {"id": "7"})
    compensating.database.write(partial(ledger_jobs.finish, job=owner.job))
    job = compensating.claim(compensating.job())
    assert isinstance(open_(compensating, intent(compensating, job, once="k")), Adopted)
    made = revoke(compensating, account_scope())
    open_(compensating, intent(compensating, job, position=2))
    assert _revoker(compensating).advance(made)
    receipt = receipt_of(compensating, made)
    assert (receipt["cancelled_jobs"], receipt["compensations"]) == ([job.id], [])


def test_what_a_replay_wants_again_is_not_undone_after_it(compensating: House) -> None:
    """The replay comes between the look at what is to be compensated and the lock."""
    job, made = _interrupted(compensating)
    workflows, database = Registry([compensating.workflow]), compensating.database
    (step,) = database.read(partial(compensable, among=[job], workflows=workflows))
    database.write(partial(replay_job, job=job, by="ops", at=datetime.now(UTC)))
    undo = partial(compensate_step, revocation=made, workflows=workflows, audit_id="aud-1", now=datetime.now(UTC))
    assert database.write(partial(undo, step=step, job=compensating.ids("job"))) is False
    assert database.read(lambda c: c.execute(select(compensations)).all()) == []


# the receipt follows


def test_an_unknown_call_of_a_cancelled_job_is_resolved_by_hand_and_the_receipt_follows(compensating: House) -> None:
    job = compensating.claim(compensating.job())
    asked = intent(compensating, job)
    open_(compensating, asked)
    close(compensating, asked, AttemptState.UNKNOWN, StepState.UNKNOWN)
    made = revoke(compensating, account_scope())
    open_(compensating, intent(compensating, job, position=2))
    assert _revoker(compensating).advance(made)
    first = receipt_of(compensating, made)
    assert [(call["ended"], call["outcome"]) for call in first["in_flight"]] == [("presumed ended", "unknown")]
    assert resolve(compensating, job.id, [asked.attempt], {"id": "9"}) == [made]
    assert compensating.row(job.id).state == JobState.CANCELLED
    assert _revoker(compensating).advance(made)
    second = receipt_of(compensating, made)
    assert (second["revision"], first["revision"]) == (2, 1)
    assert [(call["ended"], call["outcome"]) for call in second["in_flight"]] == [("ended", "effect")]
    # It took effect after all, so it is compensated, too.
    assert [one["outcome"] for one in second["compensations"]] == ["pending"]
    with pytest.raises(BadInput, match="does not wait"):
        resolve(compensating, job.id, [asked.attempt])


def test_an_effect_that_is_told_after_its_step_was_refused_is_compensated(compensating: House) -> None:
    asked = intent(compensating, compensating.claim(compensating.job()))
    open_(compensating, asked)
    made = revoke(compensating, account_scope())
    open_(compensating, intent(compensating, asked.job, step=asked.step, again=True, repeats_unknown=True))
    assert not _revoker(compensating).advance(made)  # the call is on the wire
    done(compensating, asked, {"id": "7"})
    assert _revoker(compensating).advance(made)
    receipt = receipt_of(compensating, made)
    assert [call["outcome"] for call in receipt["in_flight"]] == ["effect"]
    assert [one["outcome"] for one in receipt["compensations"]] == ["pending"]


def test_a_replay_does_not_change_what_the_receipt_said_of_the_jobs(house: House) -> None:
    job = house.job()
    asked = intent(house, house.claim(house.job("other")))
    open_(house, asked)
    made = revoke(house, account_scope())
    close(house, asked, AttemptState.UNKNOWN, StepState.UNKNOWN)
    open_(house, intent(house, asked.job, position=2))
    revoker = quiet_revoker(house.database, SIGNER)
    assert revoker.advance(made)
    before = receipt_of(house, made)
    house.database.write(partial(replay_job, job=job, by="ops", at=datetime.now(UTC)))
    resolve(house, asked.job.id, [asked.attempt])
    assert revoker.advance(made)
    after = receipt_of(house, made)
    assert after["revision"] == 2
    assert after["cancelled_jobs"] == before["cancelled_jobs"]
    assert after["pages"] == before["pages"]


# the middle of things


@MOSTLY_SQLITE
def test_a_revoker_that_crashes_after_a_chunk_goes_on_where_it_was(house: House) -> None:
    made_jobs = [house.job(text=str(n)) for n in range(ChunkSize().jobs + 8)]
    made = revoke(house, Scope(kind=ScopeKind.TENANT, key="acme"))

    with pytest.raises(Killed):
        quiet_revoker(house.database, SIGNER, reached=killed_at("after_chunk")).advance(made)
    assert sorted(Counter(house.states().values()).items()) == [
        (JobState.CANCELLED, ChunkSize().jobs),
        (JobState.QUEUED, 8),
    ]
    later = house.job()
    assert quiet_revoker(house.database, SIGNER).advance(made)
    receipt = receipt_of(house, made)
    assert set(receipt["cancelled_jobs"]) == set(made_jobs)
    assert house.row(later).state == JobState.QUEUED


def test_of_two_revocations_of_the_same_jobs_each_job_is_on_one_receipt(house: House, ledger_url: str) -> None:
    made_jobs = {house.job(text=str(n)) for n in range(30)}
    made = [revoke(house, account_scope()), revoke(house, Scope(kind=ScopeKind.TENANT, key="acme"))]
    other = open_ledger(ledger_url)
    threads = [
        threading.Thread(target=quiet_revoker(database, SIGNER).advance, args=(one,))
        for one in made
        for database in (house.database, other)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    first, second = (receipt_of(house, one)["cancelled_jobs"] for one in made)
    assert not set(first) & set(second)
    assert {*first, *second} == made_jobs


def test_a_revocation_between_two_chunks_of_another_takes_what_is_left_and_both_wait_for_the_call(house: House) -> None:
    running = house.claim(house.job())
    asked = intent(house, running)
    open_(house, asked)
    queued = {house.job(text=str(n)) for n in range(ChunkSize().jobs + 8)}
    first = revoke(house, account_scope())

    with pytest.raises(Killed):
        quiet_revoker(house.database, SIGNER, reached=killed_at("after_chunk")).advance(first)
    assert house.row(running.id).state == JobState.STOPPING
    second = revoke(house, Scope(kind=ScopeKind.TENANT, key="acme"))
    revoker = quiet_revoker(house.database, SIGNER)
    assert [revoker.advance(one) for one in (second, first)] == [False, False], "the call is in flight under both"
    done(house, asked)
    assert [revoker.advance(one) for one in (second, first)] == [True, False], "who told it to stop waits for its end"
    assert isinstance(open_(house, intent(house, running, position=2)), Ended)
    assert revoker.advance(first)
    of_first, of_second = receipt_of(house, first), receipt_of(house, second)
    told = Counter([*of_first["cancelled_jobs"], *of_second["cancelled_jobs"]])
    assert told == Counter([running.id, *queued])
    assert running.id in of_first["cancelled_jobs"]
    assert len(of_second["cancelled_jobs"]) == 9
    in_flight = [[call["attempt"] for call in receipt["in_flight"]] for receipt in (of_first, of_second)]
    assert in_flight == [[asked.attempt], [asked.attempt]]


def test_what_has_finished_is_not_looked_at(house: House) -> None:
    """However long the history of a scope is, a revocation sees the unfinished jobs alone."""
    ended = [house.job(text=str(n)) for n in range(5)]
    for job in ended:
        claimed = house.claim(job)
        house.database.write(partial(ledger_jobs.finish, job=claimed))
    waiting = house.job()
    shared = house.database.read(lambda c: c.execute(select(jobs.c.scopes_sha256).distinct()).scalars().all())
    assert len(shared) == 1  # one set for all of them
    made = revoke(house, account_scope())
    assert quiet_revoker(house.database, SIGNER).advance(made)
    assert receipt_of(house, made)["cancelled_jobs"] == [waiting]


def test_the_size_of_a_chunk_follows_what_the_last_chunk_took() -> None:
    size = ChunkSize()
    first = size.jobs
    for doubled in (2 * first, 4 * first, 4 * first):  # which is the most
        size.after(size.jobs, timedelta(milliseconds=1))
        assert size.jobs == doubled
    size.after(size.jobs, timedelta(milliseconds=16))
    assert size.jobs == 2 * first
    size.after(0, timedelta(milliseconds=1))
    assert size.jobs == 2 * first  # it says nothing
    size.after(size.jobs, timedelta(milliseconds=80))
    assert size.jobs == first  # and never less


class Instant:
    """A ledger in which the statements of a chunk take no time to speak of; it knows how many jobs each might reach."""

    def __init__(self, database: Database) -> None:
        self.read = database.read
        self.limits: list[int] = []
        self._database = database

    def write(self, fn: Any, **more: Any) -> Any:
        if isinstance(fn, partial) and fn.func is cancel_chunk:
            self.limits += () if fn.keywords["cursor"].busy else (fn.keywords["limit"],)
            fn = partial(fn, monotonic=partial(next, count(step=0.000001)))
        return self._database.write(fn, **more)


@MOSTLY_SQLITE
def test_after_a_quick_chunk_the_next_one_reaches_more(house: House) -> None:
    first = ChunkSize().jobs
    for number in range(first + 1):
        house.job(text=str(number))
    store = Instant(house.database)
    assert quiet_revoker(store, SIGNER).advance(revoke(house, account_scope()))
    assert store.limits == [first, 2 * first]
    assert set(house.states().values()) == {JobState.CANCELLED}


def test_where_each_statement_is_slow_a_chunk_stays_worth_a_commit() -> None:
    size = ChunkSize()
    first = size.jobs
    for _ in range(10):
        size.after(size.jobs, timedelta(milliseconds=50))  # however few the jobs are
    assert size.jobs == first == 250


def test_a_chunk_may_take_as_long_as_it_waited_for_the_ledger() -> None:
    size = ChunkSize()
    first = size.jobs
    size.after(first, timedelta(milliseconds=20), timedelta(milliseconds=30))
    assert size.jobs == first * 3 // 2
    size.after(first, timedelta(milliseconds=20), timedelta(milliseconds=1))
    assert size.jobs == first


class Crowded(Instant):
    """A ledger in which each chunk waits 40 ms for its turn, and then takes 16."""

    now = 0.0

    def write(self, fn: Any, **more: Any) -> Any:
        self.now += 0.04
        done = super().write(fn, **more)
        if isinstance(done, Chunk):
            self.now += 0.016
            done = replace(done, took=timedelta(milliseconds=16))
        return done


@MOSTLY_SQLITE
def test_where_a_chunk_waits_for_others_the_next_one_reaches_more(house: House) -> None:
    first = ChunkSize().jobs
    for number in range(first + 1):
        house.job(text=str(number))
    store = Crowded(house.database)
    made = revoke(house, account_scope())
    assert quiet_revoker(store, SIGNER, monotonic=lambda: store.now).advance(made)
    assert store.limits == [first, 2 * first]


def test_a_chunk_whose_time_is_over_leaves_the_next_set_to_another(house: House) -> None:
    jobs_of = {author: [house.job(author=author) for _ in range(2)] for author in ("1001", "6666")}
    sets = [house.row(ids[0]).scopes_sha256 for ids in jobs_of.values()]
    made = revoke(house, Scope(kind=ScopeKind.TENANT, key="acme"))
    chunk = partial(cancel_chunk, revocation=made, limit=10)
    slow, quick = (count(step=milliseconds / 1000) for milliseconds in (9, 1))
    first = house.database.write(partial(chunk, cursor=Cursor(sets), monotonic=partial(next, slow)))
    assert (first.jobs, first.cursor) == (2, Cursor(sets[1:]))
    assert Counter(house.states().values()) == {JobState.CANCELLED: 2, JobState.QUEUED: 2}
    second = house.database.write(partial(chunk, cursor=Cursor(sets), monotonic=partial(next, quick)))
    assert (second.jobs, second.cursor) == (2, Cursor())
    assert set(house.states().values()) == {JobState.CANCELLED}


def test_a_chunk_goes_on_where_the_one_before_left_off(house: House) -> None:
    """PostgreSQL's index has those that were reached until it is vacuumed: to pass them again costs ever more."""
    queued = [house.job(text=str(number)) for number in range(5)]
    numbers = [house.row(job).accepted for job in queued]
    (digest,) = {house.row(job).scopes_sha256 for job in queued}
    chunk = partial(cancel_chunk, revocation=revoke(house, account_scope()), limit=2)
    cursor, reached = Cursor([digest]), []
    while cursor.sets:
        done = house.database.write(partial(chunk, cursor=cursor))
        reached.append((done.jobs, done.cursor))
        cursor = done.cursor
    assert reached == [(2, Cursor([digest], numbers[1])), (2, Cursor([digest], numbers[3])), (1, Cursor())]
    assert set(house.states().values()) == {JobState.CANCELLED}


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_a_job_that_somebody_has_keeps_no_other_from_being_reached(house: House, ledger_url: str) -> None:
    """SQLite has one writer anyway."""
    opens, *others = (house.job(text=str(number)) for number in range(4))
    made = revoke(house, account_scope())
    chunk = partial(cancel_chunk, revocation=made, limit=10)
    cursor = Cursor([house.row(opens).scopes_sha256])
    second = open_ledger(ledger_url)

    def hold(c: Connection) -> Chunk:
        c.execute(text("set local idle_in_transaction_session_timeout = 0"))  # it stands idle during the other's write
        c.execute(select(jobs.c.id).where(jobs.c.id == opens).with_for_update())
        return second.write(partial(chunk, cursor=cursor))

    assert house.database.write(hold).jobs == len(others)
    second.close()
    assert house.states() == {opens: JobState.QUEUED, **dict.fromkeys(others, JobState.CANCELLED)}
    assert house.database.write(partial(chunk, cursor=replace(cursor, busy=True))).jobs == 1
    assert house.states()[opens] == JobState.CANCELLED


@MOSTLY_SQLITE
def test_a_revocation_is_not_starved_by_openings(house: House, ledger_url: str) -> None:
    """While it waits for its lock, whoever is at it ends, and nobody gets in between again and again."""
    second = open_ledger(ledger_url)
    stop = threading.Event()
    opened = [0] * 8

    def opener(place: int, database: Database) -> None:
        racer = House(database)
        job = racer.claim(racer.job(text=f"{place}"), claim_for=timedelta(hours=1))
        while not stop.is_set():
            asked = intent(racer, job, position=opened[place] + 1)
            if not isinstance(open_(racer, asked), Opened):
                job = racer.claim(racer.job(text=racer.ids("text")), claim_for=timedelta(hours=1))
                continue
            opened[place] += 1

    databases = (house.database, second)
    threads = [threading.Thread(target=opener, args=(n, databases[n % 2])) for n in range(8)]
    for thread in threads:
        thread.start()
    slipped_in = []
    for _ in range(6):
        goal = sum(opened) + 20
        while sum(opened) < goal and all(thread.is_alive() for thread in threads):
            stop.wait(0.005)
        before = sum(opened)
        revoke(house, account_scope("acme.ada"))
        slipped_in.append(sum(opened) - before)
        house.connect("acme", "acme.ada")
    stop.set()
    for thread in threads:
        thread.join()
    second.close()
    assert len(slipped_in) == 6
    # One is under way in each thread, one may be let in before the revocation has its turn, and counting comes late.
    assert max(slipped_in) <= 10 * len(threads), slipped_in


# looking first, and narrowing


def test_a_preview_says_what_would_stop_and_changes_nothing(house: House) -> None:
    house.job()
    asked = intent(house, house.claim(house.job()))
    open_(house, asked)
    registry = Registry([house.workflow])
    look = partial(preview, workflows=registry, now=datetime.now(UTC))
    of_ada = house.database.read(partial(look, scope=account_scope()))
    assert {(one.workflow, one.state, one.jobs) for one in of_ada.jobs} == {
        ("say_it", "queued", 1),
        ("say_it", "running", 1),
    }
    assert (of_ada.calls_in_flight, of_ada.accounts, of_ada.services, of_ada.stopped_jobs) == (1, 1, (), 2)
    of_service = house.database.read(partial(look, scope=SERVICE_ACCOUNT))
    (service,) = of_service.services
    assert (service.account, service.workflows, service.unfinished_jobs) == ("acme/gh/acme.service", ("say_it",), 2)
    assert house.database.read(lambda c: c.execute(select(func.count()).select_from(revocations)).scalar_one()) == 0
    of_agent = house.database.read(
        lambda c: preview(c, Scope(kind=ScopeKind.AGENT, key="tester"), registry, now=datetime.now(UTC))
    )
    assert (of_agent.accounts, of_agent.stopped_jobs) == (0, 2)

"""Retention: what is old is forgotten in chunks, and what still counts is not."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count as count_from
from typing import Any, TypeVar

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import Connection, Table, func, insert, select, text, update

from identity.agents.api_keys import NewApiKey, NoCaller, Role, add_key, find_caller, revoke_key
from identity.agents.tables import api_keys, workloads
from identity.agents.workloads import Workload, add_workload
from identity.audit import AsWhom, record
from identity.audit.chain import Verified
from identity.audit.sealer import Sealer
from identity.audit.tables import audit
from identity.audit.verification import verify
from identity.connect_sessions.tables import connect_sessions
from identity.errors import BadInput, Unavailable
from identity.keys.signing import Signer
from identity.keys.trusted_keys import TrustedKeys
from identity.refresh.intents import IntentState
from identity.refresh.tables import refresh_intents
from identity.retention import Bookmark, look_at_intents, prune_intents, prune_sessions
from identity.secret import Secret
from pipeline.deliveries.duplicates import BODY_WINDOW
from pipeline.duties.forgetting import Course, Kind, forget_in_turn
from pipeline.duties.retention import Retention, look_at_jobs, prune, prune_bodies, prune_hashes, prune_steps
from pipeline.states import AttemptState, JobState, StepState
from pipeline.steps.replay import replay_job
from pipeline.tables import attempts, deliveries, delivery_bodies, idempotency_keys, jobs, schedules, slots, steps
from tests.ledger.house import House
from tests.ledger.plans import kept_plans, plans
from tests.ledger.rows import attempt_row, step_row
from tests.ledgers import MOSTLY_SQLITE

T = TypeVar("T")
DAY = timedelta(days=1)
NOW = datetime.now(UTC)
WHOLE = timedelta(minutes=5)
SIGNER = Signer.from_seed(b"s" * 32)


def forget(house: House, days: int, kept: Retention | None = None) -> dict[str, int]:
    return dict(prune(house.database, kept or Retention(), SIGNER, now=NOW + days * DAY, within=WHOLE))


def ended(house: House, *, once: str | None = None, attempt: AttemptState = AttemptState.EFFECT, **job: Any) -> str:
    """A finished job with one step and one attempt."""
    id = house.job()

    def write(c: Connection) -> None:
        did = {"parameters": {"text": "personal"}, "once_key": once, "result": {"id": "1"}}
        step = step_row(id, f"{id}.1", StepState.DONE, NOW, **did)
        c.execute(insert(steps), step)
        c.execute(insert(attempts), attempt_row(step, attempt))
        values = {"state": JobState.DONE, "finished_at": NOW} | job
        c.execute(update(jobs).where(jobs.c.id == id).values(values))

    house.database.write(write)
    return id


def count(house: House, table: Any, *where: Any) -> int:
    return house.database.read(
        lambda c: int(c.execute(select(func.count()).select_from(table).where(*where)).scalar_one())
    )


def test_bodies_go_after_their_days_and_a_repetition_is_still_recognised(house: House) -> None:
    first = house.accept(house.delivery("d-1"))
    assert forget(house, 29)["bodies"] == 0
    assert forget(house, 31)["bodies"] == 1
    assert forget(house, 31)["bodies"] == 0
    assert count(house, deliveries, func.length(deliveries.c.body) > 0) == 0
    assert house.accept(house.delivery("d-1")).jobs == first.jobs
    assert count(house, jobs) == 1


def test_steps_of_an_ended_job_go_and_it_cannot_be_replayed(house: House) -> None:
    job = ended(house, state=JobState.DEAD)
    assert forget(house, 89)["steps"] == 0
    assert forget(house, 91)["steps"] == 1
    assert (count(house, steps), count(house, attempts), house.row(job).event) == (0, 0, {})
    with pytest.raises(BadInput, match="was pruned"):
        house.database.write(partial(replay_job, job=job, by="eve", at=NOW))


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_a_replay_that_comes_as_its_job_is_pruned_is_refused(house: House) -> None:
    """It waits for the job, and reads it then. SQLite has one writer anyway."""
    job, said = ended(house, state=JobState.DEAD), list[str]()

    def ask() -> None:
        with pytest.raises(BadInput) as refusal:
            house.database.write(partial(replay_job, job=job, by="eve", at=NOW))
        said.append(str(refusal.value))

    late = threading.Thread(target=ask)
    waiting = text("select count(*) from pg_locks where locktype = 'transactionid' and not granted")

    def prune_slowly(c: Connection) -> None:
        assert prune_steps(c, before=NOW + DAY, ids=[job]) == 1
        late.start()
        while late.is_alive() and not c.execute(waiting).scalar_one():
            late.join(0.01)

    house.database.write(prune_slowly)
    late.join()
    assert "was pruned" in said[0]
    assert house.row(job).state == JobState.DEAD


@pytest.mark.parametrize(
    "fields",
    [
        {"state": JobState.WAITING, "finished_at": None},
        {"attempt": AttemptState.UNKNOWN},
        {"attempt": AttemptState.OPEN},
    ],
    ids=["has not ended", "an outcome is unknown", "a call is in flight"],
)
def test_what_is_not_settled_stays(house: House, fields: dict[str, Any]) -> None:
    ended(house, **fields)
    assert forget(house, 400)["steps"] == 0
    assert count(house, steps) == 1


def test_a_step_that_may_own_a_once_key_stays_with_its_attempts(house: House) -> None:
    ended(house, once="key")
    assert forget(house, 400)["steps"] == 1
    assert (count(house, steps), count(house, attempts)) == (1, 1)


def add_intents(house: House, *intents: tuple[int, IntentState, bytes | None, datetime]) -> None:
    """Of an account whose grant is of generation 2; each with its own, its answer and when it ended."""
    account = house.connect("acme", "acme.ada")
    rows = [
        {
            "id": f"intent-{generation}", "account_id": account, "generation": generation, "consented": 1,
            "state": state, "opened": 1, "started_at": NOW, "send_before": NOW, "settled_by": NOW,
            "presented": 1, "answer_sealed": sealed, "finished_at": finished_at,
        }
        for generation, state, sealed, finished_at in intents
    ]  # fmt: skip
    house.database.write(lambda c: c.execute(insert(refresh_intents), rows).rowcount)


def test_only_intents_of_past_generations_go(house: House) -> None:
    add_intents(
        house,
        (0, IntentState.COMMITTED, None, NOW),
        (1, IntentState.DISCARDED, b"kept, to be revoked", NOW),
        (2, IntentState.FAILED, None, NOW),
    )
    assert forget(house, 31)["intents"] == 1
    left = house.database.read(lambda c: c.execute(select(refresh_intents.c.id)).scalars().all())
    assert sorted(left) == ["intent-1", "intent-2"]


class Watched:
    """The ledger, and what was written to it; *refused* is not."""

    def __init__(self, house: House, *refused: Callable[..., int]) -> None:
        self.read = house.database.read
        self._write = house.database.write
        self._refused = refused
        self.written: list[Callable[..., int]] = []

    def write(self, fn: Callable[[Connection], T]) -> T:
        assert isinstance(fn, partial)
        if fn.func in self._refused:
            raise Unavailable(f"not {fn.func.__name__}")
        self.written.append(fn.func)
        outcome: T = self._write(fn)
        return outcome


def test_what_must_stay_is_looked_at_and_nobody_waits_for_that(house: House) -> None:
    """Not in a write: on SQLite every other waits for it."""
    ended(house, attempt=AttemptState.UNKNOWN)
    add_intents(house, (2, IntentState.DEAD, None, NOW))
    ledger = Watched(house)
    prune(ledger, Retention(), SIGNER, now=NOW + 400 * DAY, within=WHOLE)
    assert prune_bodies in ledger.written
    assert not {prune_steps, prune_intents} & set(ledger.written)


def test_a_tick_looks_at_some_of_what_must_stay_and_the_next_goes_on_behind_it(house: House) -> None:
    add_intents(
        house,
        *((number, IntentState.DEAD, None, NOW) for number in range(2, 125)),
        (1, IntentState.DEAD, None, NOW + DAY),
    )
    course = Course()

    def tick() -> int:
        now = NOW + 40 * DAY
        return prune(house.database, Retention(), SIGNER, now=now, within=WHOLE, course=course, chunk=1)["intents"]

    assert (tick(), list(course.bookmarks)) == (0, ["intents"])
    assert (tick(), list(course.bookmarks)) == (1, [])  # it came to the end, and begins anew
    assert (tick(), list(course.bookmarks)) == (0, ["intents"])


def test_a_tick_that_has_no_more_time_leaves_the_rest_to_the_next(house: House) -> None:
    add_intents(house, *((number, IntentState.DEAD, None, NOW) for number in range(30)))
    only, course = Retention(**{kept.name: 0 for kept in fields(Retention)} | {"intents": 30}), Course()
    for within, left in ((10, 29), (1000, 28)):
        prune(
            house.database, only, SIGNER, now=NOW + 40 * DAY, within=timedelta(seconds=within), chunk=1,
            course=course, monotonic=partial(next, count_from(0.0)),
        )  # fmt: skip
        assert count(house, refresh_intents) == left


def behind(what: str) -> float | None:
    return REGISTRY.get_sample_value("aswhom_retention_behind_seconds", {"what": what})


def test_a_kind_that_has_much_to_forget_leaves_the_others_their_share_and_says_that_it_is_behind(house: House) -> None:
    """A fortnight's bodies are a day's work; what expired meanwhile does not wait for it."""
    for number in range(60):
        house.accept(house.delivery(f"d-{number}", text=f"{number}"))
    expired = {
        "id": "session", "state_hash": "x", "tenant_id": "acme", "connection_id": "gh", "principal_id": "acme.ada",
        "started": 1, "scopes": [], "verifier_sealed": b"x", "expires_at": NOW, "created_at": NOW,
    }  # fmt: skip
    house.database.write(lambda c: c.execute(insert(connect_sessions), expired).rowcount)
    course, time = Course(), partial(next, count_from(0.0))  # every look at the clock takes a second

    def tick(seconds: float) -> Mapping[str, int]:
        after, within = NOW + 40 * DAY, timedelta(seconds=seconds)
        return prune(
            house.database, Retention(), SIGNER, now=after, within=within, chunk=1, course=course, monotonic=time
        )

    forgotten = tick(90)
    assert forgotten["sessions"] == 1
    assert 0 < forgotten["bodies"] < 60
    assert behind("sessions") == 0
    first = behind("bodies")
    tick(1)
    assert (first or 0) < (behind("bodies") or 0)
    tick(1000)
    assert (count(house, deliveries, func.length(deliveries.c.body) > 0), behind("bodies")) == (0, 0)


@pytest.mark.parametrize(("hours", "days"), [(20, 0), (30, 1)])
def test_a_process_that_starts_behind_does_not_count_from_its_start(house: House, hours: int, days: int) -> None:
    """Otherwise one that is started anew each day would never say that it is a day behind."""
    for number in range(30):
        house.accept(house.delivery(f"d-{number}", text=f"{number}"), now=NOW)
        ended(house)

    def restarted() -> list[float]:
        within, now = timedelta(seconds=40), NOW + 30 * DAY + timedelta(hours=hours)
        prune(
            house.database, only, SIGNER, now=now, within=within, chunk=1, course=Course(),
            monotonic=partial(next, count_from(0.0)),
        )  # fmt: skip
        return [behind(what) or 0 for what in ("bodies", "steps")]

    only = Retention(**{kept.name: 0 for kept in fields(Retention)} | {"bodies": 30, "steps": 30})
    for _ in range(2):
        assert all(days <= timedelta(seconds=since) / DAY < days + 0.1 for since in restarted())


def test_each_kind_is_the_first_once_however_long_one_takes(house: House) -> None:
    """A chunk that takes all of a tick, every time, keeps the others waiting for one tick and not for ever."""
    course, turns = Course(), set[str]()
    now = 0.0

    def slow(c: Connection, *, before: datetime, limit: int) -> int:
        nonlocal now
        now += 100
        return 1

    def quick(what: str) -> Callable[..., int]:
        def forget(c: Connection, *, before: datetime, limit: int) -> int:
            turns.add(what)
            return 0

        return forget

    kinds = [Kind(what="slow", days=1, how=slow), *(Kind(what=name, days=1, how=quick(name)) for name in "ab")]
    for _ in kinds:
        forget_in_turn(
            house.database, kinds, now=NOW, within=timedelta(seconds=10), course=course, chunk=1,
            progress=lambda what, number: None, monotonic=lambda: now,
        )  # fmt: skip
    assert turns == {"a", "b"}


@MOSTLY_SQLITE
def test_a_bodys_hash_goes_when_the_same_body_counts_as_new_anyhow(house: House) -> None:
    house.accept(house.delivery("d-1"), now=NOW)
    house.accept(house.delivery("d-2", text="later"), now=NOW + 2 * DAY)
    assert forget(house, BODY_WINDOW.days)["hashes of bodies"] == 0
    assert forget(house, BODY_WINDOW.days + 2)["hashes of bodies"] == 1
    assert count(house, delivery_bodies) == 1
    assert house.accept(house.delivery("d-3"), now=NOW + BODY_WINDOW + 2 * DAY).outcome == "accepted"


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_a_hash_that_is_seen_again_while_it_is_to_be_forgotten_stays(house: House) -> None:
    """Its row is taken over first, and whoever forgets has waited for its lock."""
    late, deleted = NOW + 10 * DAY, list[int]()
    house.accept(house.delivery("d-1"), now=NOW)

    def forget_it() -> None:
        deleted.append(house.database.write(partial(prune_hashes, before=late - DAY, limit=9)))

    waiting = text("select count(*) from pg_locks where locktype = 'transactionid' and not granted")
    forgetting = threading.Thread(target=forget_it)

    def take_over(c: Connection) -> None:
        c.execute(update(delivery_bodies).values(seen_at=late))
        forgetting.start()
        while forgetting.is_alive() and not c.execute(waiting).scalar_one():
            forgetting.join(0.01)

    house.database.write(take_over)
    forgetting.join()
    assert (deleted, count(house, delivery_bodies)) == ([0], 1)


@pytest.mark.parametrize("what", [jobs, refresh_intents], ids=["jobs", "intents"])
def test_what_ended_is_looked_through_by_its_index_from_where_the_last_look_came(house: House, what: Table) -> None:
    """Also where more ended at that one instant than a look is at."""
    look = look_at_jobs if what is jobs else look_at_intents
    bookmark = Bookmark(at=NOW, id="x")

    def read(c: Connection) -> object:
        return look(c, before=NOW + DAY, after=bookmark, limit=10)

    index = "ix_jobs_unpruned" if what is jobs else "ix_refresh_intents_finished"
    if house.database.engine.dialect.name == "sqlite":
        plan = plans(house.database, read)[0]
        assert "TEMP B-TREE" not in plan
        assert "((finished_at,id)>(?,?)" in plan
    else:
        plan = next(iter(kept_plans(house.database, lambda: house.database.read(read)).values()))
        assert "Sort" not in plan
        assert "Index Cond: ((finished_at < $1) AND (ROW(finished_at, id) > ROW(" in plan
    assert index in plan


def test_what_fails_keeps_nothing_else_from_being_forgotten(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """The heartbeat says the first of it, and the log says the others."""
    house.accept(house.delivery("d-1"))
    ended(house)

    with pytest.raises(Unavailable, match="not prune_bodies"):
        prune(Watched(house, prune_bodies, prune_sessions), Retention(), SIGNER, now=NOW + 400 * DAY, within=WHOLE)
    assert count(house, steps) == 0
    assert "sessions could not be forgotten" in caplog.text


def test_expired_connect_sessions_go(house: House) -> None:
    row = {
        "id": "session", "state_hash": "x", "tenant_id": "acme", "connection_id": "gh", "principal_id": "acme.ada",
        "started": 1, "scopes": [], "verifier_sealed": b"x", "expires_at": NOW, "created_at": NOW,
    }  # fmt: skip
    house.database.write(lambda c: c.execute(insert(connect_sessions), row).rowcount)
    assert forget(house, 6)["sessions"] == 0
    assert forget(house, 8)["sessions"] == 1


def add_api_key(c: Connection, id: str, *, expires_at: datetime | None = None) -> None:
    new = NewApiKey(id=id, tenant="acme", agent="bot", role=Role.AGENT, tools=None, users=None, expires_at=expires_at)
    add_key(c, Secret(f"awk_{id}"), new, by="eve", now=NOW)


def test_keys_that_ended_go_with_their_workloads_and_let_nobody_in_as_before(house: House) -> None:
    def write(c: Connection) -> None:
        add_api_key(c, "lasting")
        add_api_key(c, "expired", expires_at=NOW)
        add_api_key(c, "revoked")
        assert revoke_key(c, "revoked", by="eve", now=NOW)
        add_api_key(c, "ending", expires_at=NOW + 60 * DAY)
        stands = Workload(
            issuer="https://issuer.example", audience="us", subject="pod", jwks_url="https://issuer.example/k"
        )
        add_workload(c, "expired", stands, by="eve", now=NOW)

    house.database.write(write)
    assert forget(house, 89)["api keys"] == 0
    assert forget(house, 91)["api keys"] == 2
    left = house.database.read(lambda c: c.execute(select(api_keys.c.id)).scalars().all())
    assert (sorted(left), count(house, workloads)) == (["ending", "lasting"], 0)
    assert house.database.read(lambda c: find_caller(c, Secret("awk_expired"), now=NOW)) is NoCaller.UNKNOWN


def test_idempotency_keys_go_after_their_days_unless_their_job_goes_on(house: House) -> None:
    made = {"ended": ended(house), "running": house.job(), "revocation": "rev-1"}

    def write(c: Connection) -> None:
        add_api_key(c, "key")
        for key, id in made.items():
            row = {
                "tenant_id": "acme",
                "agent_id": "bot",
                "key": key,
                "request_hash": "",
                "made_id": id,
                "made_at": NOW,
            }
            c.execute(insert(idempotency_keys), row)

    house.database.write(write)
    assert forget(house, 29)["idempotency keys"] == 0
    assert forget(house, 31)["idempotency keys"] == 2
    assert house.database.read(lambda c: c.execute(select(idempotency_keys.c.key)).scalars().all()) == ["running"]


def test_slots_go_after_their_days_unless_their_schedule_comes_to_them_again(house: House) -> None:
    def write(c: Connection) -> None:
        for name, next_at in (("passed", NOW + DAY), ("set-back", NOW - DAY)):
            row = {
                "id": f"acme:{name}", "tenant_id": "acme", "name": name, "workflow": "w", "origin": "tenant",
                "cron": "0 0 * * *", "zone": "UTC", "catch_up": "skip", "at_most": 1, "jitter_seconds": 0,
                "paused": False, "next_at": next_at,
            }  # fmt: skip
            c.execute(insert(schedules), row)
            for job, slot in (("job-1", NOW - 2 * DAY), ("job-2", NOW)):
                taken = {"schedule_id": row["id"], "slot": slot, "job_id": job, "fired_at": NOW}
                c.execute(insert(slots), taken)

    house.database.write(write)
    assert forget(house, 89)["slots"] == 0
    assert forget(house, 91)["slots"] == 3
    (left,) = house.database.read(lambda c: c.execute(select(slots)).all())
    assert (left.schedule_id, left.slot) == ("acme:set-back", NOW)


def test_chunk_after_chunk_until_all_is_gone_and_nothing_of_the_audit(house: House) -> None:
    for _ in range(5):
        ended(house)
    before, told = count(house, audit), Counter[str]()

    def progress(what: str, number: int) -> None:
        assert 0 < number <= 2
        told[what] += number

    forgotten = prune(
        house.database, Retention(), SIGNER, now=NOW + 400 * DAY, within=WHOLE, chunk=2, progress=progress
    )
    assert (forgotten["steps"], count(house, steps), count(house, jobs)) == (5, 0, 5)
    assert told == Counter(forgotten)
    assert count(house, audit) == before


def test_zero_days_keep_for_good(house: House) -> None:
    ended(house)
    for_good = Retention(**{kept.name: 0 for kept in fields(Retention)})
    forgotten = forget(house, 4000, for_good)
    assert forgotten.pop("hashes of bodies"), "which no setting keeps: they mean nothing after three days"
    assert set(forgotten.values()) == {0}


def test_the_audit_is_kept_unless_it_is_to_be_forgotten(house: House) -> None:
    house.accept(house.delivery("d-1"))
    for at in (NOW, NOW + 30 * DAY):
        write = partial(record, kind="test", whom=AsWhom(tenant="acme"), id=f"row-{at:%j}", at=at)
        house.database.write(write)
        assert Sealer(house.database, SIGNER).run(now=at)
    kept = count(house, audit)
    assert forget(house, 4000)["audit"] == 0
    assert forget(house, 36, Retention(audit=7))["audit"] == kept - 1
    outcome = verify(house.database, TrustedKeys(SIGNER.public_key()))
    assert isinstance(outcome, Verified)
    assert (outcome.first, outcome.count) == (kept, 1)

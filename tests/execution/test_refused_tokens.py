"""Tokens that an upstream refuses, and refreshes that must wait: the whole step, over real HTTP, on each database."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
import redis
from sqlalchemy import Connection, event, func, select, update

from identity.audit.tables import audit
from identity.connections.registry import get_connection
from identity.model import AccountState, Credential
from identity.refresh.tables import refresh_intents
from identity.tables import grants, scopes
from identity.token_endpoint.gate import Endpoint
from pipeline.authoring.registry import Registry
from pipeline.db.database import DatabaseSettings
from pipeline.jobs import waits
from pipeline.jobs.intents import Opened
from pipeline.runtime import Runtime
from pipeline.runtime_settings import Keys, RuntimeSettings
from pipeline.states import AttemptState, JobState, Wait
from pipeline.steps.openings import open_attempt
from tests.identity.providers import reply
from tests.ledger.acts import attempt_states
from tests.ledger.house import House
from tests.ledger.house import intent_of as intent
from tests.ledger.tries import time_passes
from tests.ledger.workers import ADA, Workers
from tests.ledgers import TURN
from tests.waiting import PATIENCE
from tests.webhooks.parts import MemoryRing


def test_a_token_that_anothers_refresh_killed_is_replaced_and_not_refreshed(workers: Workers) -> None:
    """GitHub's rule: a refresh kills the access token in everybody's hands."""

    def killed(token: str) -> bool:
        if workers.generation() == 1:
            workers.coordinator().refresh(ADA, after_generation=1)
        return token == "token-acme.ada-1"

    workers.refuses = killed
    job = workers.house.job()
    workers.work(job)
    assert workers.house.row(job).state == JobState.DONE
    assert workers.tokens == ["token-acme.ada-1", "access-1"]
    assert workers.provider.presented.total() == 1
    assert workers.state() == AccountState.ACTIVE


def test_a_row_of_tokens_that_others_refreshes_killed_is_no_death(workers: Workers) -> None:
    def killed(token: str) -> bool:
        generation = workers.generation()
        if generation < 4:
            workers.coordinator().refresh(ADA, after_generation=generation)
        return token != "access-3"

    workers.refuses = killed
    job = workers.house.job()
    workers.work(job)
    assert workers.house.row(job).state == JobState.DONE
    assert workers.tokens == ["token-acme.ada-1", "access-1", "access-2", "access-3"]
    assert (workers.generation(), workers.state()) == (4, AccountState.ACTIVE)


def test_a_token_of_a_type_that_may_not_be_shown_opens_no_attempt(workers: Workers) -> None:
    def answers(token_type: str) -> None:
        workers.house.database.write(lambda c: c.execute(update(grants).values(token_type=token_type)))

    job = workers.house.job()
    answers("unsupported DPoP")
    for _ in range(2):
        workers.work(job)
        row = workers.house.row(job)
        assert (row.state, attempt_states(workers.house)) == (JobState.QUEUED, [])
        assert "a token of type 'DPoP'" in row.reason
        time_passes(workers)
    answers("bearer")
    workers.work(job)
    assert workers.house.row(job).state == JobState.DONE
    assert attempt_states(workers.house) == [AttemptState.EFFECT]


def test_a_job_whose_account_is_refused_waits_for_somebody_looks_again_and_is_given_up_one_day(
    workers: Workers,
) -> None:
    """As where its organisation's admin has taken the client out, and may let it in again."""
    granted = workers.provider.answer
    workers.provider.answer = lambda form: reply({"error": "unauthorized_client"}, 400)
    workers.house.database.write(lambda c: c.execute(update(grants).values(expires_at=datetime.now(UTC))))
    jobs = [workers.house.job() for _ in range(2)]
    first: dict[str, datetime] = {}
    for _ in range(2):
        for job in jobs:
            workers.work(job)
            row = workers.house.row(job)
            assert (row.state, row.wait) == (JobState.WAITING, Wait.CONSENT)
            assert "unauthorized_client" in row.reason
            assert row.due_at - datetime.now(UTC) < timedelta(minutes=10)
            assert first.setdefault(job, row.expires_at) == row.expires_at
            look = partial(waits.end_wait, job=job, fence=row.fence, wait=Wait.CONSENT, expired=False, reason=None)
            assert workers.house.database.write(look) == JobState.QUEUED
    workers.provider.answer = granted
    workers.house.database.write(lambda c: c.execute(update(refresh_intents).values(retry_at=None)))
    workers.work(jobs[0])
    assert workers.house.row(jobs[0]).state == JobState.DONE


def test_of_many_workers_whose_token_is_refused_one_refreshes(workers: Workers) -> None:
    at_once = 6
    together = threading.Barrier(at_once)

    def refused(token: str) -> bool:
        if token != "token-acme.ada-1":
            return False
        together.wait(PATIENCE)
        return True

    workers.refuses = refused
    jobs = [workers.house.job() for _ in range(at_once)]
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(workers.work, jobs))
    assert {workers.house.row(job).state for job in jobs} == {JobState.DONE}
    assert workers.provider.presented == {"refresh-acme.ada-1": 1}
    assert (workers.generation(), workers.state()) == (2, AccountState.ACTIVE)


def test_what_is_refused_after_a_forced_refresh_waits_for_a_person_and_revokes_nothing(workers: Workers) -> None:
    workers.refuses = lambda token: True
    job = workers.house.job()
    workers.work(job)
    row = workers.house.row(job)
    assert (row.state, row.wait, row.runs_spent) == (JobState.WAITING, Wait.CONSENT, 0)
    assert workers.tokens == ["token-acme.ada-1", "access-1"]
    assert workers.provider.presented.total() == 1
    assert (workers.generation(), workers.state()) == (2, AccountState.NEEDS_RECONNECT)
    database = workers.house.database
    assert database.read(lambda c: c.execute(select(func.count()).select_from(scopes)).scalar_one()) == 0
    kinds = database.read(lambda c: c.execute(select(audit.c.kind, audit.c.generation)).all())
    assert ("grant.refused", 2) in {(kind, generation) for kind, generation in kinds}


def test_what_waited_for_a_dead_grant_goes_on_when_its_person_has_connected_anew(workers: Workers) -> None:
    workers.refuses = lambda token: token != "access-2"
    job = workers.house.job()
    workers.work(job)
    assert (workers.house.row(job).wait, workers.state()) == (Wait.CONSENT, AccountState.NEEDS_RECONNECT)
    workers.ada_connects_anew()
    assert (workers.house.row(job).state, workers.state()) == (JobState.QUEUED, AccountState.ACTIVE)
    workers.work(job)
    assert workers.house.row(job).state == JobState.DONE
    assert workers.tokens == ["token-acme.ada-1", "access-1", "access-2"]


def test_what_waits_for_an_account_that_a_late_answer_brings_back_goes_on(workers: Workers, ledger_url: str) -> None:
    past = [timedelta()]
    settings = RuntimeSettings(
        database=DatabaseSettings(url=ledger_url, turn_timeout=TURN),
        keys=Keys(vault={1: b"k" * 32}, signing=b"s" * 32),
        base_url="http://127.0.0.1:1",
        allow_hosts=frozenset({"127.0.0.1"}),
    )
    runtime = Runtime(
        settings, Registry([workers.house.workflow]), MemoryRing(), clock=lambda: datetime.now(UTC) + past[0]
    )
    job = workers.house.job()
    seen: list[Any] = []

    def given_up_meanwhile(form: dict[str, str]) -> Any:
        past[0] = timedelta(minutes=1)
        assert runtime.coordinator.settle_abandoned() == 1
        workers.work(job)
        seen.append((workers.state(), workers.house.row(job).wait))
        return workers.provider.rotate(form)

    workers.provider.answer = given_up_meanwhile
    try:
        assert runtime.coordinator.refresh(ADA, after_generation=1) == 2
    finally:
        runtime.close()
    assert seen == [(AccountState.NEEDS_RECONNECT, Wait.CONSENT)]
    assert (workers.state(), workers.house.row(job).state) == (AccountState.ACTIVE, JobState.QUEUED)
    workers.work(job)
    assert workers.house.row(job).state == JobState.DONE


def test_a_refresh_over_the_pace_sends_the_job_back_with_a_date_and_spends_no_run(workers: Workers) -> None:
    workers.house.database.write(lambda c: c.execute(update(grants).values(expires_at=datetime.now(UTC))).rowcount)
    owner = workers.house.database.read(lambda c: get_connection(c, "gh"))
    workers.gate.pause(Endpoint.of(owner, Credential.AUTHORIZATION_CODE), timedelta(hours=1))
    job = workers.house.job()
    workers.work(job)
    row = workers.house.row(job)
    assert (row.state, row.runs_spent) == (JobState.QUEUED, 0)
    assert row.due_at - datetime.now(UTC) > timedelta(minutes=55)
    assert workers.provider.presented.total() == 0
    assert (workers.generation(), workers.state()) == (1, AccountState.ACTIVE)


def test_a_token_that_still_lives_serves_while_its_endpoint_must_be_left_alone(workers: Workers) -> None:
    soon = datetime.now(UTC) + timedelta(minutes=2)  # GitHub's are renewed ten minutes ahead
    workers.house.database.write(lambda c: c.execute(update(grants).values(expires_at=soon)).rowcount)
    owner = workers.house.database.read(lambda c: get_connection(c, "gh"))
    workers.gate.pause(Endpoint.of(owner, Credential.AUTHORIZATION_CODE), timedelta(hours=1))
    job = workers.house.job()
    workers.work(job)
    assert workers.house.row(job).state == JobState.DONE
    assert workers.tokens == ["token-acme.ada-1"]
    assert workers.provider.presented.total() == 0


def test_an_opening_looks_at_accounts_and_grants_once(house: House) -> None:
    asked = intent(house, house.claim(house.job()))

    def opening(c: Connection) -> tuple[Any, list[str]]:
        statements: list[str] = []

        def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
            statements.append(statement)

        event.listen(c, "before_cursor_execute", note)
        return open_attempt(c, asked), statements

    outcome, statements = house.database.write(opening)
    assert isinstance(outcome, Opened)
    of_tokens = [statement for statement in statements if re.search(r"\b(accounts|grants)\b", statement)]
    assert [statement.split()[0] for statement in of_tokens] == ["SELECT", "UPDATE"], of_tokens
    assert of_tokens[1].startswith("UPDATE grants SET used_at"), "the first use of a token is noted, for keep-alive"


def test_a_step_whose_token_lives_asks_redis_nothing(workers: Workers) -> None:
    class Untouched(redis.Redis):
        def execute_command(self, *_arguments: Any, **_options: Any) -> Any:
            raise AssertionError("Redis was asked")

    workers.redis = Untouched()
    job = workers.house.job()
    workers.work(job)
    assert (workers.house.row(job).state, workers.tokens) == (JobState.DONE, ["token-acme.ada-1"])
    with pytest.raises(AssertionError, match="Redis was asked"):  # it is the one that a refresh would ask
        workers.coordinator().refresh(ADA, after_generation=1)

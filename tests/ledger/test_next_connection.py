"""One provider connection follows another: what went through the former is done through the next, or asked about."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import pytest
from sqlalchemy import Connection, select

from identity.accounts.stops import set_stopped
from identity.audit import Act
from identity.connections.registry import add_connection, get_connection
from identity.model import Effect, Scope, ScopeKind
from pipeline.execution.services import StepSettings
from pipeline.states import JobState, Wait
from pipeline.tables import attempts
from pipeline.workflow import USER
from tests.ledger.acts import attempt_states
from tests.ledger.house import Say
from tests.ledger.tries import Found, answers, says, time_passes
from tests.ledger.workers import Workers, declare


class Look(Say):
    facts = replace(Say.facts, effect=Effect.READ)


def follow(workers: Workers) -> None:
    """Another connection of the platform's is added, and the former one stopped."""
    scope, act = Scope(kind=ScopeKind.CONNECTION, key="gh"), Act(audit_id="aud-1", by="test", now=datetime.now(UTC))

    def write(c: Connection) -> None:
        add_connection(c, replace(get_connection(c, "gh"), id="next"), now=act.now)
        set_stopped(c, scope, act, stopped=True, tenant=None)

    workers.house.database.write(write)


@pytest.mark.parametrize("action", [Say, Found], ids=["repeated", "searched for"])
def test_a_call_of_unknown_outcome_is_neither_repeated_nor_searched_for_through_another_connection(
    workers: Workers, action: type[Say]
) -> None:
    declare(workers, partial(says, action))
    workers.house.workflow = replace(workers.house.workflow, uses={action: USER})
    job = workers.house.job()
    answers(workers, 500)
    workers.work(job, StepSettings(attempts=3))
    follow(workers)
    time_passes(workers)
    before = attempt_states(workers.house)
    workers.work(job, StepSettings(attempts=3))
    row = workers.house.row(job)
    assert (row.state, row.wait) == (JobState.WAITING, Wait.UNKNOWN)
    assert "was sent through gh and no answer came, and now goes through next" in row.reason
    assert len(attempt_states(workers.house)) == len(before)


def test_what_only_reads_and_what_was_not_sent_yet_go_through_the_next_connection(workers: Workers) -> None:
    declare(workers, partial(says, Look))
    workers.house.workflow = replace(workers.house.workflow, uses={Look: USER})
    read, unsent = workers.house.job(), workers.house.job()
    answers(workers, 500)
    workers.work(read, StepSettings(attempts=3))
    follow(workers)
    time_passes(workers)
    for job in (read, unsent):
        workers.work(job, StepSettings(attempts=3))
        row = workers.house.row(job)
        assert (row.state, row.wait) == (JobState.WAITING, Wait.CONSENT)  # nobody has connected there
        assert row.waits_for == "account:acme/next/acme.ada"
    sent = workers.house.database.read(lambda c: c.execute(select(attempts.c.connection_id)).scalars().all())
    assert set(sent) == {"gh"}

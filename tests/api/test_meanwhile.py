"""A revocation that commits while a request is being accepted: nothing of its agent is accepted after it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import func, select, text

from identity.api_keys import Role
from identity.model import Scope, ScopeKind
from pipeline.ledger.requests import NotLetIn
from pipeline.requests import Keyed
from pipeline.revocation.tables import revocations
from pipeline.tables import jobs
from tests.api.town import Town
from tests.ledger.acts import listening
from tests.ledger.house import Say

pytestmark = pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)  # SQLite has one writer

AGENT = Scope(kind=ScopeKind.AGENT, key="acme.bot")
_WAITING = text("select count(*) from pg_locks where locktype = 'advisory' and not granted")


@contextmanager
def revoked_at(town: Town, words: str) -> Iterator[None]:
    """Another transaction revokes the agent as this thread comes to a statement with *words*.

    The statement runs when that has committed, or waits for this one.
    """
    this, revoking = threading.current_thread(), threading.Thread(target=town.revoke, args=(AGENT,))

    def hear(connection: Any, cursor: Any, statement: str, *more: Any) -> None:
        if words in statement and threading.current_thread() is this and revoking.ident is None:
            revoking.start()
            while revoking.is_alive() and not town.database.read(lambda c: c.execute(_WAITING).scalar_one()):
                revoking.join(0.01)

    with listening(town.database.engine, "before_cursor_execute", hear):
        yield
    revoking.join()


def execute(town: Town) -> str:
    keyed = Keyed(key="k-1", document={})
    return town.requests.execute(
        town.caller(), Say(text="x"), keyed, identifier="ada", request="req_1", now=town.now()
    ).id


def accepted_and_revoked(town: Town, job: str) -> tuple[int, int]:
    """The ledger numbers."""
    revoked = select(func.max(revocations.c.number)).scalar_subquery()
    both = select(jobs.c.accepted, revoked).where(jobs.c.id == job)
    accepted, number = town.database.read(lambda c: c.execute(both).one())
    return accepted, number


def test_a_key_whose_agent_was_revoked_after_it_was_looked_up_has_nothing_accepted(town: Town) -> None:
    with revoked_at(town, "INSERT INTO idempotency_keys"), pytest.raises(NotLetIn):
        execute(town)
    assert town.database.read(lambda c: c.execute(select(jobs.c.id)).all()) == []


def test_what_is_being_accepted_comes_before_the_revocation_and_falls_under_it(town: Town) -> None:
    with revoked_at(town, "nextval"):
        job = execute(town)
    accepted, revoked = accepted_and_revoked(town, job)
    assert accepted < revoked


def test_so_does_a_replay(town: Town) -> None:
    job, who = execute(town), town.caller(town.keys["acme", Role.ADMIN])
    town.requests.cancel(who, job, now=town.now())
    with revoked_at(town, "nextval"):
        town.requests.replay(who, job, now=town.now())
    accepted, revoked = accepted_and_revoked(town, job)
    assert accepted < revoked

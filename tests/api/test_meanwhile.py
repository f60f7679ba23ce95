"""A revocation that commits while a request is being accepted: nothing of its agent is accepted after it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import func, select, text

from identity.agents.api_keys import Role
from identity.model import Scope, ScopeKind
from pipeline.agents_api.callers import Keyed
from pipeline.agents_api.requests import NotLetIn
from pipeline.revocation.tables import revocations
from pipeline.tables import jobs
from tests.api.agents_api import AgentsApi
from tests.ledger.acts import listening
from tests.ledger.house import Say

pytestmark = pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)  # SQLite has one writer

AGENT = Scope(kind=ScopeKind.AGENT, key="acme.bot")
_WAITING = text("select count(*) from pg_locks where locktype = 'advisory' and not granted")


@contextmanager
def revoked_at(api: AgentsApi, words: str) -> Iterator[None]:
    """Another transaction revokes the agent as this thread comes to a statement with *words*.

    The statement runs when that has committed, or waits for this one.
    """
    this, revoking = threading.current_thread(), threading.Thread(target=api.revoke, args=(AGENT,))

    def hear(connection: Any, cursor: Any, statement: str, *more: Any) -> None:
        if words in statement and threading.current_thread() is this and revoking.ident is None:
            if connection.dialect.name == "postgresql":  # the transaction stands idle meanwhile
                cursor.execute("set local idle_in_transaction_session_timeout = 0")
            revoking.start()
            while revoking.is_alive() and not api.database.read(lambda c: c.execute(_WAITING).scalar_one()):
                revoking.join(0.01)

    with listening(api.database.engine, "before_cursor_execute", hear):
        yield
    revoking.join()


def execute(api: AgentsApi) -> str:
    keyed = Keyed(key="k-1", document={})
    return api.requests.execute(api.caller(), Say(text="x"), keyed, identifier="ada", request="req_1", now=api.now()).id


def accepted_and_revoked(api: AgentsApi, job: str) -> tuple[int, int]:
    """The ledger numbers."""
    revoked = select(func.max(revocations.c.number)).scalar_subquery()
    both = select(jobs.c.accepted, revoked).where(jobs.c.id == job)
    accepted, number = api.database.read(lambda c: c.execute(both).one())
    return accepted, number


def test_a_key_whose_agent_was_revoked_after_it_was_looked_up_has_nothing_accepted(api: AgentsApi) -> None:
    with revoked_at(api, "INSERT INTO idempotency_keys"), pytest.raises(NotLetIn):
        execute(api)
    assert api.database.read(lambda c: c.execute(select(jobs.c.id)).all()) == []


def test_what_is_being_accepted_comes_before_the_revocation_and_falls_under_it(api: AgentsApi) -> None:
    with revoked_at(api, "nextval"):
        job = execute(api)
    accepted, revoked = accepted_and_revoked(api, job)
    assert accepted < revoked


def test_so_does_a_replay(api: AgentsApi) -> None:
    job, who = execute(api), api.caller(api.keys["acme", Role.ADMIN])
    unkeyed = Keyed(key=None, document={})
    api.requests.cancel(who, job, unkeyed, now=api.now())
    with revoked_at(api, "nextval"):
        api.requests.replay(who, job, unkeyed, now=api.now())
    accepted, revoked = accepted_and_revoked(api, job)
    assert accepted < revoked

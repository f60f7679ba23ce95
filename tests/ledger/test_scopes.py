"""Scopes: a wait asks for what is missing and no more; what was granted is told beside what was used and is needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, ClassVar, TypeVar

import pytest
from sqlalchemy import Connection, insert, select, update

from identity.accounts.scopes import remember_stop, revoke_scope
from identity.connections.registry import get_connection
from identity.errors import TookTooLong
from identity.model import AccountKey, PrincipalKind, Scope, ScopeKind
from identity.sql.sequence import next_number
from identity.tables import accounts, grants, principals, provider_connections
from pipeline.accounts.abilities import scopes_to_ask
from pipeline.accounts.scope_report import AccountScopes, scope_report
from pipeline.action import Facts
from pipeline.authoring.registry import Registry
from pipeline.jobs.intents import Ended, Opened
from pipeline.states import AttemptState, StepState
from pipeline.steps import openings
from pipeline.steps.closings import Closing, close_attempt
from pipeline.tables import attempts
from pipeline.workflow import SERVICE, USER, workflow
from tests.ledger.acts import listening
from tests.ledger.house import House, Say, intent_of, say_it
from tests.ledger.house import Opened as OpenedEvent
from tests.ledger.plans import plans

T = TypeVar("T")
ADA = AccountKey(tenant="acme", connection="gh", principal="acme.ada")


class Shout(Say):
    """Says it louder."""

    facts: ClassVar[Facts] = replace(Say.facts, scopes=frozenset({"issues:write"}))


@workflow(
    agent="tester",
    on=say_it.on,
    event=OpenedEvent,
    user=lambda event: None,
    uses={Shout: USER | SERVICE},
    name="say_it",
)
def shout_it(run: Any, event: OpenedEvent) -> None:
    """It is not run here."""


WORKFLOWS = Registry([shout_it])


def grant(house: House, principal: str, *scopes: str) -> None:
    mine = grants.c.account_id == f"acc-acme.{principal}"
    house.database.write(lambda c: c.execute(update(grants).where(mine).values(scopes=list(scopes))))


def asked(house: House) -> tuple[str, ...]:
    return house.database.read(lambda c: scopes_to_ask(c, ADA, get_connection(c, "gh")))


def report(house: House) -> dict[str, AccountScopes]:
    now = datetime.now(UTC)
    found = scope_report(house.database, WORKFLOWS, tenant="acme", since=now - timedelta(days=7), now=now)
    return {one.principal: one for one in found}


@dataclass
class OneRead:
    """Of whose every statement the plan is asked for."""

    connection: Connection

    def read(self, fn: Callable[[Connection], T]) -> T:
        return fn(self.connection)


def test_a_link_asks_for_what_was_granted_and_what_the_waiting_step_lacks_alone(house: House) -> None:
    listed = update(provider_connections).values(scopes=["everything"])
    house.database.write(lambda c: c.execute(listed))
    grant(house, "ada", "metadata:read")
    assert asked(house) == ("metadata:read",)
    job = house.claim(house.job())
    base = intent_of(house, job)
    wanting = replace(base, lease=replace(base.lease, scopes=frozenset({"issues:write", "metadata:read"})))
    assert isinstance(house.database.write(partial(openings.open_attempt, intent=wanting)), Ended)
    assert house.row(job.id).lacks == ["issues:write"]
    assert asked(house) == ("metadata:read", "issues:write")
    dead = update(accounts).where(accounts.c.id == "acc-acme.ada").values(state="needs_reconnect")
    house.database.write(lambda c: c.execute(dead))
    assert asked(house) == ("everything", "metadata:read", "issues:write")  # then all of it is asked for anew


def test_what_is_granted_is_told_beside_what_was_used_and_what_anything_needs(house: House) -> None:
    grant(house, "ada", "issues:write", "repo:admin")
    grant(house, "service", "issues:write", "repo:admin")
    job = house.claim(house.job())
    base = intent_of(house, job, action=Shout.action_name())
    used = replace(base, lease=replace(base.lease, scopes=Shout.facts.scopes))
    assert isinstance(house.database.write(partial(openings.open_attempt, intent=used)), Opened)
    done = Closing(attempt=used.attempt, state=AttemptState.EFFECT, step_state=StepState.DONE, result={"id": "1"})
    house.database.write(partial(close_attempt, intent=used, closing=done))
    found = report(house)
    ada, service = found["acme.ada"], found["acme.service"]
    assert (ada.used, ada.unused, ada.idle) == (("issues:write",), ("repo:admin",), ("repo:admin",))
    assert (service.used, service.unused, service.idle) == ((), ("issues:write", "repo:admin"), ("repo:admin",))
    assert (ada.broad, service.broad) == (False, True)  # a person's grant risks one person
    grant(house, "service", "issues:write")
    assert report(house)["acme.service"].broad is False
    whole = update(accounts).where(accounts.c.id == "acc-acme.service").values(credential="installation")
    house.database.write(lambda c: c.execute(whole))
    assert report(house)["acme.service"].broad is True  # for every repository it has


def open_attempt(house: House, action: str) -> str:
    job = house.claim(house.job())
    intent = intent_of(house, job, action=action)
    assert isinstance(house.database.write(partial(openings.open_attempt, intent=intent)), Opened)
    return intent.attempt


def test_what_was_used_before_that_time_is_not_used_lately(house: House) -> None:
    grant(house, "ada", "issues:write", "repo:admin")
    earlier = datetime.now(UTC) - timedelta(days=8)
    long_ago = update(attempts).where(attempts.c.id == open_attempt(house, Shout.action_name()))
    house.database.write(lambda c: c.execute(long_ago.values(opened_at=earlier)))
    assert report(house)["acme.ada"].used == ()
    open_attempt(house, Say.action_name())
    assert report(house)["acme.ada"].used == ()
    open_attempt(house, Shout.action_name())
    assert report(house)["acme.ada"].used == ("issues:write",)


def test_of_services_alone_no_other_account_is_asked_for(house: House) -> None:
    """However many people there are. And of an account its index has what it tried lately."""
    now = datetime.now(UTC)

    def read(c: Connection) -> list[AccountScopes]:
        return [*scope_report(OneRead(c), WORKFLOWS, tenant=None, since=now, now=now, kind=PrincipalKind.SERVICE)]

    assert [one.principal for one in house.database.read(read)] == ["acme.service"]
    (plan,) = (plan for plan in plans(house.database, read) if "attempts" in plan)
    if house.database.engine.dialect.name == "sqlite":
        assert "ix_attempts_account (account_id=? AND opened>?)" in plan


def test_of_what_is_revoked_nothing_is_left_to_narrow_and_what_is_stopped_may_be_opened_again(house: House) -> None:
    acme = Scope(kind=ScopeKind.TENANT, key="acme")
    known = report(house)
    assert known
    house.database.write(lambda c: remember_stop(c, acme, stopped=True))
    assert report(house) == known
    house.database.write(lambda c: revoke_scope(c, acme, next_number(c), reason="leak", now=datetime.now(UTC)))
    assert report(house) == {}


def test_where_nothing_counts_as_lately_no_attempt_is_looked_at(house: House) -> None:
    now = datetime.now(UTC)

    def read(c: Connection) -> list[AccountScopes]:
        return [*scope_report(OneRead(c), WORKFLOWS, tenant=None, since=None, now=now)]

    assert house.database.read(read)
    assert not [plan for plan in plans(house.database, read) if "attempts" in plan]


def like_ada(c: Connection, *, number: int) -> None:
    """So many people of acme with a grant as hers."""
    account = dict(c.execute(select(accounts).where(accounts.c.id == "acc-acme.ada")).one()._mapping)
    grant = dict(c.execute(select(grants).where(grants.c.account_id == "acc-acme.ada")).one()._mapping)
    person = dict(c.execute(select(principals).where(principals.c.id == "acme.ada")).one()._mapping)
    names = [f"person-{one:04}" for one in range(number)]
    c.execute(insert(principals), [{**person, "id": f"acme.{name}", "name": name} for name in names])
    more = [{**account, "id": f"acc-{name}", "principal_id": f"acme.{name}", "external_id": name} for name in names]
    c.execute(insert(accounts), more)
    c.execute(insert(grants), [{**grant, "account_id": f"acc-{name}"} for name in names])


def test_accounts_are_told_of_some_hundreds_in_a_read_whose_statements_are_few(house: House) -> None:
    """Not one an account in one snapshot: forty thousand are asked about as well."""
    house.database.write(partial(like_ada, number=700))
    job = house.claim(house.job())
    intent = intent_of(house, job, action=Shout.action_name())
    assert isinstance(house.database.write(partial(openings.open_attempt, intent=intent)), Opened)
    reads = 0

    class Counted:
        def read(self, fn: Callable[[Connection], T]) -> T:
            nonlocal reads
            reads += 1
            return house.database.read(fn)

    asked, now = list[str](), datetime.now(UTC)

    def hear(_c: object, _cursor: object, statement: str, *_: object) -> None:
        asked.append(statement)

    with listening(house.database.engine, "before_cursor_execute", hear):
        told = [*scope_report(Counted(), WORKFLOWS, tenant=None, since=now - timedelta(days=7), now=now)]
    assert [one.principal for one in told] == sorted(one.principal for one in told)
    assert len(told) == 702
    assert next(one for one in told if one.principal == "acme.ada").used == ("issues:write",)
    assert reads == 2
    assert len(asked) < 40


def test_accounts_with_too_many_attempts_for_one_statement_are_read_fewer_at_a_time(house: House) -> None:
    house.database.write(partial(like_ada, number=60))
    since = datetime.now(UTC) - timedelta(days=7)

    class Slow:
        """Ends a statement that was to find more than thirty accounts, as a server does after half a minute."""

        def read(self, fn: Callable[[Connection], Any]) -> Any:
            found, after = house.database.read(fn)
            if len(found) > most:
                raise TookTooLong("a statement took too long, and the ledger's server ended it")
            return found, after

    def told() -> list[str]:
        every = scope_report(Slow(), WORKFLOWS, tenant=None, since=since, now=datetime.now(UTC))
        return [one.principal for one in every]

    most = 100
    together = told()
    most = 30
    assert told() == together
    assert len(together) == 62
    most = 0
    with pytest.raises(TookTooLong):
        told()

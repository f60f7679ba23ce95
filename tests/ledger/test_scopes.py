"""Scopes: a wait asks for what is missing and no more; what was granted is told beside what was used and is needed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, ClassVar

from sqlalchemy import Connection, update

from identity.connections import get_connection
from identity.model import AccountKey, PrincipalKind, Scope, ScopeKind
from identity.scopes import revoke_scope, stop_scope
from identity.sequence import next_number
from identity.tables import accounts, grants, provider_connections
from pipeline.accounts.abilities import scopes_to_ask
from pipeline.accounts.scope_report import AccountScopes, scope_report
from pipeline.action import Facts
from pipeline.ledger import openings
from pipeline.ledger.closings import Closing, close_attempt
from pipeline.ledger.intents import Ended, Opened
from pipeline.states import AttemptState, StepState
from pipeline.tables import attempts
from pipeline.workflow import SERVICE, USER, Registry, workflow
from tests.ledger.house import House, Say, intent_of, say_it
from tests.ledger.house import Opened as OpenedEvent
from tests.ledger.plans import plans

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
    found = house.database.read(
        lambda c: scope_report(c, WORKFLOWS, tenant="acme", since=now - timedelta(days=7), now=now)
    )
    return {one.principal: one for one in found}


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
        return scope_report(c, WORKFLOWS, tenant=None, since=now, now=now, kind=PrincipalKind.SERVICE)

    assert [one.principal for one in house.database.read(read)] == ["acme.service"]
    (plan,) = (plan for plan in plans(house.database, read) if "attempts" in plan)
    if house.database.engine.dialect.name == "sqlite":
        assert "ix_attempts_account (account_id=? AND opened>?)" in plan


def test_of_what_is_revoked_nothing_is_left_to_narrow_and_what_is_stopped_may_be_opened_again(house: House) -> None:
    acme = Scope(kind=ScopeKind.TENANT, key="acme")
    known = report(house)
    assert known
    house.database.write(lambda c: stop_scope(c, acme))
    assert report(house) == known
    house.database.write(lambda c: revoke_scope(c, acme, next_number(c), reason="leak", now=datetime.now(UTC)))
    assert report(house) == {}


def test_where_nothing_counts_as_lately_no_attempt_is_looked_at(house: House) -> None:
    now = datetime.now(UTC)

    def read(c: Connection) -> list[AccountScopes]:
        return scope_report(c, WORKFLOWS, tenant=None, since=None, now=now)

    assert house.database.read(read)
    assert not [plan for plan in plans(house.database, read) if "attempts" in plan]

"""What needs a person now is named and leads there; and what the queues are told to hold."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Update, update

from identity.accounts.scopes import remember_stop
from identity.audit import Act
from identity.console.roles import Held, Role
from identity.hold import set_hold
from identity.model import Scope, ScopeKind
from identity.principals import ensure_tenant
from pipeline.revocation.tables import revocations
from pipeline.states import JobState, Wait
from pipeline.tables import deliveries, jobs, schedules
from pipeline.views.queues import LATE, queues, waiting
from tests.console.console_app import ConsoleApp, Visit
from tests.ledger.plans import kept_plans, plans, statements_of
from webhooks.console.overview import TENANTS


def change(console: ConsoleApp, statement: Update) -> None:
    console.database.write(partial(Connection.execute, statement=statement))


def refused_delivery(console: ConsoleApp) -> None:
    console.done()
    change(console, update(deliveries).values(outcome="refused"))


def revocation_under_way(console: ConsoleApp) -> None:
    console.revoke(Scope(kind=ScopeKind.USER, key="acme.ada"), "acme")
    change(console, update(revocations).values(state="draining"))


def schedule_with_a_fault(console: ConsoleApp) -> None:
    console.schedule()
    change(console, update(schedules).values(fault="there is no such workflow any more"))


def stopped_agent(console: ConsoleApp) -> None:
    console.database.write(partial(remember_stop, scope=Scope(kind=ScopeKind.AGENT, key="tester"), stopped=True))


def waiting_for_approval(console: ConsoleApp) -> None:
    console.waiting(Wait.APPROVAL)


@pytest.mark.parametrize(
    ("cause", "need", "says", "leads"),
    [
        (
            refused_delivery,
            "delivery not taken in the last day",
            "Unrecognised, or another tenant",
            "deliveries?not_taken=1",
        ),
        (revocation_under_way, "revocation under way", "calls may still be in flight", "revocations"),
        (schedule_with_a_fault, "schedule with a fault", "The last slot could not be fired.", "schedules"),
        (ConsoleApp.pause, "provider connection paused", "gh", "connections"),
        (waiting_for_approval, "job waiting for approval", "Somebody has to say yes or no.", "approvals"),
        (stopped_agent, "stopped", "agent tester. Nothing opens under it until it is opened again.", None),
    ],
)
def test_what_needs_a_person_is_named_and_leads_there(
    sqlite_console: ConsoleApp, cause: Callable[[ConsoleApp], None], need: str, says: str, leads: str | None
) -> None:
    owner = sqlite_console.at(Role.OWNER)
    assert "Nothing needs you." in owner.sees("/console/")
    cause(sqlite_console)
    (named,) = re.findall(r'<li class="need .*?</li>', owner.sees("/console/"), re.DOTALL)
    assert f"<strong>{need}</strong>" in named
    assert '<span class="count">1</span>' in named
    assert says in named
    assert re.findall(r'href="([^"]*)"', named) == ([f"/console/{leads}"] if leads else [])
    if leads:
        owner.sees(f"/console/{leads}")


def operator(console: ConsoleApp, *tenants: str) -> Visit:
    return console.visit(*(Held(role=Role.OPERATOR, tenant=tenant) for tenant in tenants))


def test_who_has_roles_at_several_tenants_is_told_of_each(sqlite_console: ConsoleApp) -> None:
    both = operator(sqlite_console, "acme", "globex")
    sqlite_console.dead("a KeyError", tenant="globex")
    told = both.sees("/console/")
    assert "Nothing needs you at acme." in told
    assert "Nothing needs you at globex." not in told
    assert "/console/dead?tenant=globex" in told
    assert (told.count("<h3>acme</h3>"), told.count("<h3>globex</h3>")) == (1, 1), "and of the queues"
    assert "Nothing needs you." in both.sees("/console/?tenant=acme")
    assert "/console/dead?tenant=globex" in both.sees("/console/?tenant=globex")
    assert both.client.get("/console/?tenant=initech").status_code == 403


@pytest.mark.parametrize("path", ["/console/", "/console/approvals"])
def test_many_tenants_are_read_in_as_many_statements_as_two(console: ConsoleApp, path: str) -> None:
    console.database.write(
        lambda c: [ensure_tenant(c, id=f"t-{n}", name=f"t-{n}", now=datetime.now(UTC)) for n in range(150)]
    )

    def asked(tenants: int) -> int:
        held = [Held(role=role, tenant=f"t-{n}") for n in range(tenants) for role in (Role.OPERATOR, Role.APPROVER)]
        visit = console.visit(*held, name="Bob", subject="00u-bob")
        return len(statements_of(lambda: visit.sees(path)))

    assert asked(2) == asked(150) < 40


def test_so_many_tenants_are_shown_and_of_the_rest_how_many_there_are(sqlite_console: ConsoleApp) -> None:
    many = operator(sqlite_console, *(f"t-{n}" for n in range(TENANTS + 3)))
    told = many.sees("/console/")
    assert told.count("Nothing needs you at ") == TENANTS
    assert "You have a role at 3 more tenants." in told
    assert "more tenant" not in operator(sqlite_console, "acme", "globex").sees("/console/")


@pytest.mark.parametrize("of", [["acme", "initech"], None], ids=["of tenants", "of all"])
def test_the_queues_are_counted_by_the_indexes_of_what_is_not_over(
    console: ConsoleApp, of: Collection[str] | None
) -> None:
    def read(connection: Connection) -> None:
        queues(connection, of)
        waiting(connection, of)

    told: Collection[str] = plans(console.database, read)
    if console.database.engine.dialect.name == "postgresql":  # which reads a small table from end to end
        told = kept_plans(console.database, lambda: console.database.read(read)).values()
    indexes = ("ix_jobs_due", "ix_jobs_claimed", "ix_jobs_waiting", "ix_jobs_open")
    assert all(any(index in plan for index in indexes) for plan in told), "\n\n".join(told)


@pytest.mark.parametrize("tenant", ["acme", None])
def test_work_that_is_due_and_that_nobody_takes_needs_somebody(sqlite_console: ConsoleApp, tenant: str | None) -> None:
    seen, made = sqlite_console.at(Role.OPERATOR, tenant), sqlite_console.house.job()
    assert "Nothing needs you." in seen.sees("/console/"), "it has only just become due"
    due_at = datetime.now(UTC) - timedelta(hours=5)
    change(sqlite_console, update(jobs).where(jobs.c.id == made).values(due_at=due_at))
    told = seen.sees("/console/")
    assert "job due and not taken" in told
    assert "The oldest for 5 h." in told
    assert "Nothing needs you" not in told


def test_what_is_late_at_the_overview_is_late_in_the_alert() -> None:
    (rule,) = re.findall(r"AswhomWorkWaits\n +expr: \|\n.*> (\d+)\n", Path("deploy/prometheus/alerts.yml").read_text())
    assert timedelta(seconds=int(rule)) == LATE


def test_everybody_is_told_that_it_is_held_and_by_whom_only_who_sees_all(sqlite_console: ConsoleApp) -> None:
    act = Act(audit_id="hold", by="cli:root", now=datetime.now(UTC), why="a restore of 02:00")
    sqlite_console.database.write(partial(set_hold, act=act))
    made = sqlite_console.house.job()
    late = update(jobs).where(jobs.c.id == made).values(due_at=datetime.now(UTC) - timedelta(hours=5))
    change(sqlite_console, late)
    told = sqlite_console.at(Role.OWNER).sees("/console/")
    assert "the installation is held" in told
    assert "due and not taken" not in told
    assert "by cli:root: nothing goes out (a restore of 02:00)" in told
    theirs = operator(sqlite_console, "acme").sees("/console/")
    assert "the installation is held" in theirs
    assert "cli:root" not in theirs
    assert "restore" not in theirs


def stopped_connection(console: ConsoleApp) -> None:
    console.database.write(partial(remember_stop, scope=Scope(kind=ScopeKind.CONNECTION, key="gh"), stopped=True))


def stopped_agent_with_work(console: ConsoleApp) -> None:
    stopped_agent(console)
    console.house.job()


@pytest.mark.parametrize("cause", [ConsoleApp.pause, stopped_connection, stopped_agent_with_work])
def test_a_tenant_is_told_that_something_of_the_platforms_it_uses_is_stopped_and_not_what(
    console: ConsoleApp, cause: Callable[[ConsoleApp], None]
) -> None:
    cause(console)
    told = operator(console, "acme").sees("/console/")
    (named,) = re.findall(r'<li class="need .*?</li>', told, re.DOTALL)
    assert "thing of the platform’s is paused or stopped" in named
    assert "gh" not in re.sub(r"<[^>]*>", "", named)
    assert "Nothing needs you." in operator(console, "initech").sees("/console/"), "it uses none of that"


def queue(console: ConsoleApp, tenant: str | None) -> list[str]:
    """The hybrid queue, as somebody of that tenant sees it: due, oldest, later, running, stopping."""
    page = console.at(Role.OPERATOR, tenant).sees("/console/queues")
    (row,) = re.findall(r'<span class="pattern hybrid">.*?</tr>', page, re.DOTALL)
    cells = re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL)
    return [re.sub(r'.*datetime="([^"]+)".*', r"\1", cell) for cell in cells]


def test_the_queues_tell_what_is_due_and_under_way_and_nothing_of_another_tenant(console: ConsoleApp) -> None:
    now = datetime.now(UTC).replace(microsecond=0)

    def job(tenant: str = "acme", **values: Any) -> str:
        made = console.house.job(tenant=tenant)
        if values:
            change(console, update(jobs).where(jobs.c.id == made).values(**values))
        return made

    oldest, of_globex = now - timedelta(minutes=10), now - timedelta(minutes=20)
    job(due_at=oldest)
    job()
    job(due_at=now + timedelta(hours=1))
    for state in (JobState.RUNNING, JobState.RUNNING, JobState.RUNNING, JobState.STOPPING):
        claimed = job()
        console.house.claim(claimed)
        change(console, update(jobs).where(jobs.c.id == claimed).values(state=state))
    job("globex", due_at=of_globex)
    console.waiting()

    def moments(cells: list[str]) -> list[Any]:
        due, oldest, *rest = cells
        return [int(due), datetime.fromisoformat(oldest), *map(int, rest)]

    assert moments(queue(console, "acme")) == [2, oldest, 1, 3, 1]
    assert moments(queue(console, "globex")) == [1, of_globex, 0, 0, 0]
    assert moments(queue(console, None)) == [3, of_globex, 1, 3, 1]
    assert "<strong>1</strong> for consent" in console.at(Role.OPERATOR, "acme").sees("/console/queues")
    assert "No job waits." in console.at(Role.OPERATOR, "globex").sees("/console/queues")

"""The lists of the console leave out what does not fit what was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Column, select, update

from identity import audit
from identity.audit import AsWhom, Work
from identity.console.roles import Role
from identity.model import Scope, ScopeKind
from identity.principals import ensure_agent
from identity.tables import accounts
from pipeline.tables import deliveries, jobs
from tests.console.console_app import ConsoleApp


def shown(console: ConsoleApp, path: str, things: Sequence[str]) -> list[str]:
    """Those of *things* that the list at *path* leads to."""
    page = console.at(Role.OWNER).sees(f"/console/{path}")
    return [thing for thing in things if thing in page.partition("</form>")[2]]


@pytest.mark.parametrize(
    ("path", "clears_to"),
    [
        ("revocations?stuck=1&since=2026-01-01T00:00:00", "?stuck=1"),
        ("deliveries?not_taken=1&tenant=acme&source=github", "?not_taken=1&amp;tenant=acme"),
        ("deliveries?source=github", "?"),
    ],
)
def test_what_a_page_is_about_stays_when_its_filters_are_cleared(
    sqlite_console: ConsoleApp, path: str, clears_to: str
) -> None:
    assert f'<a class="clear" href="{clears_to}">' in sqlite_console.at(Role.OWNER).sees(f"/console/{path}")


def change(console: ConsoleApp, column: Column[Any], id: str, value: str) -> str:
    """Give the thing another value of that column; the value that it had."""
    table = column.table
    (before,) = console.rows(select(column).where(table.c.id == id))
    console.database.write(
        lambda c: c.execute(update(table).where(table.c.id == id).values({column.name: value})).rowcount
    )
    return str(before[0])


@pytest.mark.parametrize(
    ("field", "column", "value"),
    [
        ("workflow", jobs.c.workflow, "tidy"),
        ("pattern", jobs.c.pattern, "service"),
        ("user", jobs.c.user_id, "globex.ada"),
        ("agent", jobs.c.agent_id, "another"),
    ],
)
def test_jobs_that_do_not_fit_are_left_out(
    sqlite_console: ConsoleApp, field: str, column: Column[Any], value: str
) -> None:
    both = [sqlite_console.done(), sqlite_console.done()]
    sqlite_console.database.write(
        lambda c: ensure_agent(c, id="another", tenant=None, name="another", now=datetime.now(UTC))
    )
    former = change(sqlite_console, column, both[1], value)
    assert shown(sqlite_console, "jobs", both) == both
    assert shown(sqlite_console, f"jobs?{field}={former}", both) == both[:1]
    assert shown(sqlite_console, f"jobs?{field}={value}", both) == both[1:]


@pytest.mark.parametrize(
    ("column", "value"), [(deliveries.c.outcome, "unrecognised"), (deliveries.c.source, "slack")], ids=str
)
def test_deliveries_that_do_not_fit_are_left_out(sqlite_console: ConsoleApp, column: Column[Any], value: str) -> None:
    both = [str(sqlite_console.house.row(sqlite_console.done()).delivery_id) for _ in range(2)]
    former = change(sqlite_console, column, both[1], value)
    assert shown(sqlite_console, "deliveries", both) == both
    assert shown(sqlite_console, f"deliveries?{column.name}={former}", both) == both[:1]
    assert shown(sqlite_console, f"deliveries?{column.name}={value}", both) == both[1:]


def test_accounts_at_other_providers_are_left_out(sqlite_console: ConsoleApp) -> None:
    both = ["acc-acme.ada", "acc-globex.ada"]
    change(sqlite_console, accounts.c.provider, both[1], "slack")
    assert shown(sqlite_console, "accounts", both) == both
    assert shown(sqlite_console, "accounts?provider=github", both) == both[:1]
    assert shown(sqlite_console, "accounts?provider=slack", both) == both[1:]


def test_accounts_that_no_step_can_use_are_found_whatever_their_state(sqlite_console: ConsoleApp) -> None:
    both = ["acc-acme.ada", "acc-globex.ada"]
    sqlite_console.revoke(Scope(kind=ScopeKind.USER, key="acme.ada"), "acme")
    assert shown(sqlite_console, "accounts?state=active", both) == both
    assert shown(sqlite_console, "accounts?usable=no", both) == both[:1]
    assert shown(sqlite_console, "accounts?usable=yes", both) == both[1:]


ONE = {
    "kind": "attempt.closed", "principal": "acme.ada", "agent": "tester", "action": "github.Say", "account": "acc-1",
    "job": "job_1", "outcome": "effect",
}  # fmt: skip
OTHER = {
    "kind": "step.refused", "principal": "acme.bob", "agent": "another", "action": "slack.Say", "account": "acc-2",
    "job": "job_2", "outcome": "refused",
}  # fmt: skip


@pytest.mark.parametrize("field", ONE)
def test_records_of_the_audit_that_do_not_fit_are_left_out(sqlite_console: ConsoleApp, field: str) -> None:
    both = ["this is the one", "this is the other"]

    def write(c: Any) -> None:
        for reason, told in zip(both, (ONE, OTHER), strict=True):
            whom = AsWhom(tenant="acme", principal=told["principal"], agent=told["agent"], account=told["account"])
            work, at = Work(job=told["job"], action=told["action"]), datetime.now(UTC)
            audit.record(c, told["kind"], whom, work, id=reason, at=at, outcome=told["outcome"], reason=reason)

    sqlite_console.database.write(write)
    assert shown(sqlite_console, "audit", both) == both
    assert shown(sqlite_console, f"audit?{field}={ONE[field]}", both) == both[:1]
    assert shown(sqlite_console, f"audit?{field}={OTHER[field]}", both) == both[1:]

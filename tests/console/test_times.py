"""Lists are narrowed by time, say the exact one, lead back to the newest, and claim nothing of what is not seen."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Table, insert, select, update

from identity.audit.tables import audit
from identity.console.roles import Role
from identity.model import Scope, ScopeKind
from pipeline.ledger.paging import STRETCH
from pipeline.revocation.tables import revocations
from pipeline.tables import deliveries, jobs
from tests.console.console_app import ConsoleApp
from webhooks.console.lists import ROWS

THEN = datetime(2026, 11, 3, 14, 2, 11, tzinfo=UTC)
AFTER, BEFORE = "2026-11-03T14:02:12", "2026-11-03T14:02:11"


@pytest.fixture
def console(sqlite_console: ConsoleApp) -> ConsoleApp:
    return sqlite_console


def _date(console: ConsoleApp, table: Table, column: str, id: str, at: datetime = THEN) -> None:
    dated = update(table).where(table.c.id == id).values({column: at})
    console.database.write(lambda c: c.execute(dated).rowcount)


def _listed(console: ConsoleApp, path: str, ids: list[str]) -> list[str]:
    page = console.at(Role.OWNER).sees(f"/console/{path}").rpartition("</form>")[2]
    return [id for id in ids if id in page]


@pytest.mark.parametrize("kind", ["jobs", "deliveries", "revocations"])
def test_a_list_is_narrowed_to_what_was_from_then_until_then(console: ConsoleApp, kind: str) -> None:
    made: list[str] = [console.done(), console.done()]
    table, column = jobs, "created_at"
    if kind == "deliveries":
        made, table, column = [console.house.row(job).delivery_id for job in made], deliveries, "received_at"
    elif kind == "revocations":
        scope = Scope(kind=ScopeKind.USER, key="globex.ada")
        made, table, column = [console.revoke(scope, "globex") for _ in made], revocations, "effective_at"
    old, new = made
    _date(console, table, column, old)
    assert _listed(console, kind, [old, new]) == [old, new]
    assert _listed(console, f"{kind}?since={AFTER}", [old, new]) == [new]
    assert _listed(console, f"{kind}?until={AFTER}", [old, new]) == [old]
    assert _listed(console, f"{kind}?since={BEFORE}&until={AFTER}", [old, new]) == [old]
    assert _listed(console, f"{kind}?since=2026-11-03T15:02:12%2B01:00", [old, new]) == [new]
    page = console.at(Role.OWNER).sees(f"/console/{kind}?until={AFTER}")
    assert "2026-11-03 14:02:11 UTC</time>" in page, "as a log has it"
    assert f'name="until" value="{AFTER}"' in page
    answer = console.at(Role.OWNER).client.get(f"/console/{kind}?since=yesterday")
    assert (answer.status_code, "say it as 2026-11-28T14:02, in UTC" in answer.text) == (422, True)


def test_the_audit_is_narrowed_by_time(console: ConsoleApp) -> None:
    console.revoke(Scope(kind=ScopeKind.USER, key="globex.ada"), "globex")
    now = datetime.now(UTC)
    for field, seen in (("since", False), ("until", True)):
        later = (now + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M")
        page = console.at(Role.OWNER).sees(f"/console/audit?kind=revocation.effective&{field}={later}")
        assert ("revocation.effective</td>" in page) is seen


def _many_jobs(console: ConsoleApp, more: int) -> None:
    """So many that were done."""
    (row,) = console.rows(select(jobs).where(jobs.c.id == console.done()))
    made = [{**row._mapping, "id": f"job_{number:026}"} for number in range(more)]
    console.database.write(lambda c: c.execute(insert(jobs), made))


def test_a_later_page_leads_to_the_newest(console: ConsoleApp) -> None:
    _many_jobs(console, ROWS)
    owner = console.at(Role.OWNER)
    first = owner.sees("/console/jobs?state=done")
    assert ">Newest</a>" not in first
    older = first.partition('rel="next" href="')[2].partition('"')[0].replace("&amp;", "&")
    assert 'href="/console/jobs?state=done">Newest</a>' in owner.sees(older)


def test_nothing_found_in_a_stretch_is_not_called_nothing_at_all(console: ConsoleApp) -> None:
    owner = console.at(Role.OWNER)
    assert "No such job" in owner.sees("/console/jobs?agent=nobody")
    _many_jobs(console, STRETCH)
    page = owner.sees("/console/jobs?agent=nobody")
    assert ("None among these 10,000 jobs" in page, "No such job" in page) == (True, False)


def _about(console: ConsoleApp, kind: str) -> str:
    """What the audit's page shows of the newest record of that kind."""
    page = console.at(Role.OWNER).sees(f"/console/audit?kind={kind}")
    return page.partition("<tbody>")[2].partition("</tr>")[0]


def test_the_audit_says_and_leads_to_what_a_record_is_about(console: ConsoleApp) -> None:
    ids, operator = console.fill(), console.at(Role.OWNER)
    operator.sends("/console/schedules/pause", id="acme:morning")
    console.pause()
    operator.sends("/console/connections/gh/resume")
    row: Any = console.rows(select(audit.c.detail).where(audit.c.kind == "connection.resumed"))[0]
    assert row.detail["connection"] == "gh"
    for kind, what, leads in (
        ("schedule.paused", "acme:morning", "schedules?tenant=acme"),
        ("connection.resumed", "gh", "connections/gh"),
        ("revocation.effective", ids["revocation"], f"revocations/{ids['revocation']}"),
    ):
        told = _about(console, kind)
        assert f'href="/console/{leads}"' in told
        assert f">{what}</a>" in told
    assert '"scope": "user:globex.ada"' in _about(console, "revocation.effective"), "all of its detail"

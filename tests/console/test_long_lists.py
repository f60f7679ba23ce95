"""Lists that grow with the tenants are shown a page at a time, and the pages have all of it between them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html import unescape

import pytest
from sqlalchemy import insert, select, update

from identity.console.roles import Role
from identity.tables import provider_connections
from pipeline.revocation.tables import revocations
from pipeline.tables import schedules
from tests.console.console_app import ConsoleApp, Visit
from tests.ledger.rows import revocations_of_one_moment
from webhooks.console.lists import ROWS

MANY = 2 * ROWS + 3
HEADING = r'<th scope="row">(?:<a [^>]*>)?([^<]+)'


def pages(visit: Visit, path: str) -> list[list[str]]:
    """What each page of the list names, in its order."""
    found: list[list[str]] = []
    next: str | None = path
    while next is not None:
        page = visit.sees(next)
        found.append([unescape(name) for name in re.findall(HEADING, page)])
        further = re.search(r'rel="next" href="([^"]+)"', page)
        next = unescape(further[1]) if further else None
    return found


def with_many_schedules(console: ConsoleApp) -> list[str]:
    """Their ids, the next to fire first: two at a time, as crons have it, and one with a name that is not ASCII."""
    console.schedule()
    (row,) = console.rows(select(schedules))
    names = [f"é{number:03}" for number in range(MANY)]
    made = [
        {**row._mapping, "id": f"acme:{name}", "name": name, "next_at": row.next_at + timedelta(hours=number // 2)}
        for number, name in enumerate(names)
    ]
    console.database.write(lambda c: c.execute(insert(schedules), made))
    first = update(schedules).where(schedules.c.name == "morning").values(next_at=row.next_at - timedelta(days=1))
    console.database.write(lambda c: c.execute(first))
    return ["acme:morning", *(one["id"] for one in made)]


def with_many_connections(console: ConsoleApp) -> list[str]:
    """Their ids, the newest first."""
    (row,) = console.rows(select(provider_connections).where(provider_connections.c.id == "gh"))
    made = [
        {**row._mapping, "id": f"é{number:03}", "tenant_id": "acme", "created_at": row.created_at + timedelta(number)}
        for number in range(MANY)
    ]
    console.database.write(lambda c: c.execute(insert(provider_connections), made))
    return [one["id"] for one in reversed(made)]


@pytest.mark.parametrize("path", ["schedules", "schedules?tenant=acme"])
def test_schedules_are_shown_a_page_at_a_time_the_next_to_fire_first(console: ConsoleApp, path: str) -> None:
    ids = with_many_schedules(console)
    assert pages(console.at(Role.OWNER), f"/console/{path}") == [
        ids[:ROWS], ids[ROWS : 2 * ROWS], ids[2 * ROWS :],
    ]  # fmt: skip


def test_connections_are_shown_a_page_at_a_time_the_newest_first(console: ConsoleApp) -> None:
    before = [name for page in pages(console.at(Role.OWNER), "/console/connections") for name in page]
    ids = with_many_connections(console)
    shown = pages(console.at(Role.OWNER), "/console/connections")
    assert [len(page) for page in shown[:2]] == [ROWS, ROWS]
    assert [name for page in shown for name in page] == ids + before
    of_acme = pages(console.at(Role.OWNER), "/console/connections?tenant=acme")
    assert [name for page in of_acme for name in page] == ids


def test_revocations_of_one_moment_are_shown_in_the_order_in_which_they_took_effect(console: ConsoleApp) -> None:
    made = revocations_of_one_moment(datetime.now(UTC), many=MANY)
    console.database.write(lambda c: c.execute(insert(revocations), made))
    ids = [one["id"] for one in reversed(made)]
    assert pages(console.at(Role.OWNER), "/console/revocations") == [
        ids[:ROWS], ids[ROWS : 2 * ROWS], ids[2 * ROWS :],
    ]  # fmt: skip


def test_a_schedule_that_was_paused_on_a_later_page_is_said_there(sqlite_console: ConsoleApp) -> None:
    ids, operator = with_many_schedules(sqlite_console), sqlite_console.at(Role.OPERATOR)
    further = re.search(r'rel="next" href="([^"]+)"', operator.sees("/console/schedules"))
    assert further is not None
    second = operator.sees(unescape(further[1]))
    (action,) = set(re.findall(r'action="(/console/schedules/pause[^"]*)"', second))
    answer = operator.sends(unescape(action), id=ids[ROWS])
    came_back_to = operator.sees(answer.headers["Location"])
    assert f"{ids[ROWS]} is paused." in came_back_to
    further = re.search(r'rel="next" href="([^"]+)"', came_back_to)
    assert further is not None
    assert "is paused." not in operator.sees(unescape(further[1]))
    assert ids[ROWS + 1] in re.findall(HEADING, came_back_to)
    elsewhere = operator.sends("/console/schedules/pause", id=ids[-1])  # from a page that does not show it
    assert f"{ids[-1]} is paused." in operator.sees(elsewhere.headers["Location"])


def test_what_is_said_of_a_schedule_names_none_that_the_visitor_may_not_see(sqlite_console: ConsoleApp) -> None:
    sqlite_console.schedule()
    other = sqlite_console.at(Role.OPERATOR, "globex")
    assert "is paused." not in other.sees("/console/schedules?id=acme:morning&done=paused")

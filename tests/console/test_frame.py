"""What is around every page of the console: which installation it is, as of when, and whose things it shows."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import insert, update

import webhooks.pages
from identity.console.roles import Held, Role
from identity.tables import tenants
from tests.console.console_app import BASE, ConsoleApp, Visit
from webhooks.console.app import MOST_CHOICES

TEMPLATES = Path(webhooks.pages.__file__).parent / "templates" / "console"


def _tenants(console: ConsoleApp, number: int) -> None:
    made = [{"id": f"t{one}", "name": f"t{one}", "created_at": datetime.now(UTC)} for one in range(number)]
    console.database.write(lambda c: c.execute(insert(tenants), made))


def test_a_page_says_which_installation_it_is(sqlite_console: ConsoleApp) -> None:
    told = sqlite_console.at(Role.OWNER).sees("/console/jobs")
    assert "<title>Jobs · 127.0.0.1 · Aswhom</title>" in told
    app = sqlite_console._app(replace(sqlite_console.parts, label="staging"), BASE)
    visit = Visit(app.test_client())
    cookie = sqlite_console.at(Role.OWNER).client.get_cookie("aswhom-console")
    assert cookie is not None
    visit.client.set_cookie("aswhom-console", cookie.value)
    told = visit.sees("/console/revoke")
    assert "· staging · Aswhom</title>" in told
    assert '<span class="installation">staging</span>' in told


def test_a_page_that_is_asked_for_again_comes_without_its_frame(sqlite_console: ConsoleApp) -> None:
    owner = sqlite_console.at(Role.OWNER)
    sqlite_console.waiting()
    whole = owner.sees("/console/jobs")
    alone = owner.client.get("/console/jobs", headers={"Aswhom-Live": "1"}).text
    for frame in ('id="tenant"', '<nav class="side"', 'id="find"'):
        assert (frame in whole, frame in alone) == (True, False)
    live = re.compile(r'<div data-live="jobs">.*?</table>', re.DOTALL)
    again, before = (re.sub(r"</time> · [^<]+", "", text) for text in (alone, whole))  # how long ago that was
    assert live.findall(again) == live.findall(before) != []
    assert re.search(
        r"<time data-as-of data-person=\"[^\"]+\" datetime=\"[^\"]+\">\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC</time>", alone
    )


def test_a_tenant_is_chosen_among_few_and_typed_among_many(sqlite_console: ConsoleApp) -> None:
    owner = sqlite_console.at(Role.OWNER)
    assert "<option>acme</option>" in owner.sees("/console/jobs")
    _tenants(sqlite_console, MOST_CHOICES)
    told = owner.sees("/console/jobs?tenant=acme")
    assert "<option>t7</option>" not in told
    assert '<input id="tenant" name="tenant" value="acme"' in told
    assert "There is no tenant" not in told
    assert "There is no tenant initech." in owner.sees("/console/jobs?tenant=initech")


def test_a_tenant_that_was_deleted_is_marked(sqlite_console: ConsoleApp) -> None:
    owner, both = sqlite_console.at(Role.OWNER), [Held(role=Role.AUDITOR, tenant=one) for one in ("acme", "globex")]
    gone = update(tenants).where(tenants.c.id == "acme").values(deleted_at=datetime.now(UTC))
    sqlite_console.database.write(lambda c: c.execute(gone))
    marked = '<option>globex</option><option value="acme">acme (deleted)</option>'
    for visit in (owner, sqlite_console.visit(*both)):
        assert marked in visit.sees("/console/jobs")
    assert '<option value="acme" selected>' in owner.sees("/console/jobs?tenant=acme")
    _tenants(sqlite_console, MOST_CHOICES)
    assert "acme was deleted." in owner.sees("/console/jobs?tenant=acme")
    assert "was deleted." not in owner.sees("/console/jobs?tenant=globex")


def test_a_heading_says_whose_things_a_page_shows(sqlite_console: ConsoleApp) -> None:
    owner = sqlite_console.at(Role.OWNER)
    for path, heading in (
        ("", "What needs a person now at acme"),
        ("approvals", "Approvals of acme"),
        ("queues", "Queues of acme"),
    ):
        assert f"<h1>{heading}</h1>" in owner.sees(f"/console/{path}?tenant=acme")
        assert f"<h1>{heading.rpartition(' ')[0].rpartition(' ')[0]}</h1>" in owner.sees(f"/console/{path}")
    of_one = sqlite_console.at(Role.APPROVER, "acme")
    assert "<h1>What needs a person now at acme</h1>" in of_one.sees("/console/")


@pytest.mark.parametrize("template", sorted(TEMPLATES.glob("*.html")), ids=lambda path: path.stem)
def test_what_scrolls_by_itself_says_what_it_is(template: Path) -> None:
    names = re.findall(r'class="scroll"[^>]*aria-label="([^"]*)"', template.read_text())
    assert template.read_text().count('class="scroll"') == len(names) == len(set(names))
    assert "Table" not in names

"""A page of the console that keeps itself up to date, says since when it cannot, and leaves alone who reads it."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import expect
from sqlalchemy import update

from identity.console.roles import Held, Role
from pipeline.tables import attempts, jobs
from tests.browser.console_site import ConsoleSite
from tests.browser.person import Person

Meet = Callable[..., Person]

pytestmark = pytest.mark.usefixtures("chromium")  # by name, so that CI installs it


@pytest.fixture
def owner(site: ConsoleSite, person: Meet) -> Person:
    """Signed in, at the jobs."""
    somebody = person(viewport={"width": 1280, "height": 860})
    token = site.console.session(Held(role=Role.OWNER, tenant=None), name="owner@acme.example")
    somebody.is_signed_in(token, at=site.web)
    somebody.goes_to(f"{site.web}/console/jobs")
    return somebody


def test_a_page_whose_session_is_over_says_since_when_it_is_not_up_to_date(owner: Person) -> None:
    as_of = owner.tab.locator("[data-as-of]").inner_text()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", as_of)
    owner.tab.context.clear_cookies()
    trouble = owner.tab.get_by_role("status")
    expect(trouble).to_contain_text("your session is over. Load the page again to sign in.")
    expect(trouble).to_contain_text(f"Not up to date since {owner.tab.locator('[data-as-of]').inner_text()}")
    expect(owner.tab).to_have_title(re.compile("^Not up to date · Jobs"))
    assert "grayscale" in owner.tab.locator("[data-live]").evaluate("it => getComputedStyle(it).filter")
    owner.finds_it_accessible("stale")
    assert owner.complaints == []


def test_a_page_that_gets_no_answer_says_so_until_there_is_one(site: ConsoleSite, owner: Person) -> None:
    trouble, rows = owner.tab.get_by_role("status"), owner.tab.get_by_role("row")
    before = rows.count()
    owner.tab.context.set_offline(True)
    expect(trouble).to_contain_text("Aswhom does not answer.")
    site.console.waiting()
    owner.tab.context.set_offline(False)
    expect(rows).to_have_count(before + 1)
    expect(trouble).to_be_empty()
    expect(owner.tab).to_have_title(re.compile("^Jobs"))


def test_a_click_into_a_table_stops_nothing_and_what_is_the_same_stays_where_it_is(
    site: ConsoleSite, owner: Person
) -> None:
    rows = owner.tab.get_by_role("row")
    before, first = rows.count(), rows.nth(1).element_handle()
    as_of = owner.tab.locator("[data-as-of]").inner_text()
    owner.tab.get_by_role("cell").first.click()
    assert owner.tab.evaluate("document.activeElement.className") == "scroll"
    owner.tab.evaluate(
        """() => {
            window.replaced = 0;
            const seen = (all) => { for (const one of all) window.replaced += one.removedNodes.length; };
            new MutationObserver(seen).observe(document.querySelector("table"), { childList: true, subtree: true });
        }"""
    )
    expect(owner.tab.locator("[data-as-of]")).not_to_have_text(as_of)
    assert owner.tab.evaluate("window.replaced") == 0, "nothing was new"
    site.console.waiting()
    expect(rows).to_have_count(before + 1)
    assert first.evaluate("it => it.isConnected")
    assert owner.tab.evaluate("document.activeElement.className") == "scroll"


def test_what_is_unfolded_stays_so_while_its_story_goes_on(site: ConsoleSite, owner: Person) -> None:
    job = site.console.done()
    owner.goes_to(f"{site.web}/console/jobs/{job}")
    owner.tab.get_by_text("Result of step 1", exact=True).click()
    site.console.database.write(
        lambda c: c.execute(update(jobs).where(jobs.c.id == job).values(state="dead", reason="something new"))
    )
    expect(owner.tab.get_by_text("Something new.")).to_be_visible()
    expect(owner.tab.locator("details pre")).to_be_visible()


def test_what_a_person_is_at_work_in_is_held_and_that_is_said(site: ConsoleSite, owner: Person) -> None:
    job = site.console.in_doubt()
    owner.goes_to(f"{site.web}/console/jobs/{job}")
    owner.tab.locator("textarea").fill('{"id": "say-1"')
    site.console.database.write(
        lambda c: c.execute(update(jobs).where(jobs.c.id == job).values(state="cancelled", wait=None))
    )
    held = owner.tab.locator("[data-held]")
    expect(held).to_be_visible()
    expect(owner.tab.get_by_text("Cancel the job…")).to_be_visible()
    held.get_by_role("button", name="Show it").click()
    expect(owner.tab.get_by_role("button", name="Replay the job")).to_be_visible()
    assert owner.tab.locator("textarea").input_value() == '{"id": "say-1"'
    expect(held).to_be_hidden()


def test_a_form_half_filled_in_is_of_no_other_call_once_its_own_is_settled(site: ConsoleSite, owner: Person) -> None:
    job = site.console.in_doubt(steps=2)
    ended = update(jobs).where(jobs.c.id == job).values(state="dead", wait=None)
    site.console.database.write(lambda c: c.execute(ended))
    owner.goes_to(f"{site.web}/console/jobs/{job}")
    calls = owner.tab.locator("input[name=call]")
    first, second = (calls.nth(one).input_value() for one in (0, 1))
    owner.tab.locator("textarea").first.fill('{"id": "of the first"}')
    owner.tab.get_by_label("It did", exact=True).first.check()
    settled = update(attempts).where(attempts.c.id == first).values(state="effect", closed=1)
    site.console.database.write(lambda c: c.execute(settled))
    held = owner.tab.locator("[data-held]")
    expect(held).to_be_visible()
    assert calls.first.input_value() == first
    held.get_by_role("button", name="Show it").click()
    expect(calls).to_have_count(1)
    assert calls.input_value() == second
    assert owner.tab.locator("textarea").input_value() == ""
    assert owner.tab.get_by_role("radio", checked=True).count() == 0


def test_a_form_that_was_refused_stays_as_filled_in_while_its_job_goes_on(site: ConsoleSite, owner: Person) -> None:
    job = site.console.in_doubt()
    owner.goes_to(f"{site.web}/console/jobs/{job}")
    owner.tab.get_by_label("It did", exact=True).check()
    owner.tab.locator("textarea").fill('{"id": <7>')
    owner.tab.get_by_role("button", name="Put on record").click()
    expect(owner.tab.get_by_role("alert")).to_contain_text("has to be JSON")
    expect(owner.tab).to_have_url(f"{site.web}/console/jobs/{job}")
    owner.tab.get_by_role("heading", level=1).click()  # away from the field
    told = update(jobs).where(jobs.c.id == job).values(reason="something new")
    site.console.database.write(lambda c: c.execute(told))
    expect(owner.tab.get_by_text("Something new.")).to_be_visible()
    expect(owner.tab.get_by_role("status")).to_be_empty()
    assert owner.tab.locator("textarea").input_value() == '{"id": <7>'
    assert owner.tab.get_by_label("It did", exact=True).is_checked()
    with owner.tab.expect_request(lambda one: one.is_navigation_request()) as asked:
        owner.tab.reload()
    assert asked.value.method == "GET", "nothing is sent again"
    assert owner.complaints == []


@pytest.mark.parametrize("path", ["jobs/{job}", "revoke?kind=user&key=acme.ada"], ids=["live", "not live"])
def test_what_was_typed_is_not_lost_with_the_session_and_is_sent_after_the_next_sign_in(
    site: ConsoleSite, owner: Person, path: str
) -> None:
    at = f"{site.web}/console/{path.format(job=site.console.in_doubt())}"
    owner.goes_to(at)
    why = owner.tab.locator("input[name=why], input[name=reason]").first
    why.fill("it is in the channel, INC-4711")
    for label in ("It did not", "Type"):
        if (field := owner.tab.get_by_label(label)).count():
            field.check() if label == "It did not" else field.fill("acme.bob")
    owner.tab.context.clear_cookies()
    send = why.locator("xpath=ancestor::form").get_by_role("button")
    send.click()
    trouble = owner.tab.get_by_role("status").and_(owner.tab.locator("[data-trouble]"))
    expect(trouble).to_contain_text("session is over. Sign in in another tab, then go on here: what you typed stays.")
    expect(owner.tab).to_have_url(at)
    again = site.console.session(Held(role=Role.OWNER, tenant=None), name="owner@acme.example")
    owner.is_signed_in(again, at=site.web)
    with owner.tab.expect_response(lambda one: one.request.method == "POST") as answered:
        send.click()
    assert answered.value.status in (303, 422), "from a page of this session"
    assert "INC-4711" in (answered.value.request.post_data or "")


def test_what_one_person_typed_is_not_sent_as_another(site: ConsoleSite, owner: Person) -> None:
    job = site.console.in_doubt()
    at = f"{site.web}/console/jobs/{job}"
    owner.goes_to(at)
    owner.tab.get_by_label("It did not").check()
    owner.tab.locator("input[name=why]").first.fill("it is in the channel, INC-4711")
    sent: list[str] = []
    owner.tab.on("request", lambda one: sent.append(one.method) if one.method == "POST" else None)
    other = site.console.session(Held(role=Role.OWNER, tenant=None), name="owner@acme.example", subject="another")
    owner.is_signed_in(other, at=site.web)
    send = owner.tab.locator("input[name=why]").first.locator("xpath=ancestor::form").get_by_role("button")
    send.click()
    trouble = owner.tab.locator("[data-trouble]")
    expect(trouble).to_contain_text("somebody else is signed in in this browser by now. Sign in as yourself")
    assert sent == []
    expect(owner.tab).to_have_url(at)
    again = site.console.session(Held(role=Role.OWNER, tenant=None), name="owner@acme.example")
    owner.is_signed_in(again, at=site.web)
    with owner.tab.expect_response(lambda one: one.request.method == "POST") as answered:
        send.click()
    assert "INC-4711" in (answered.value.request.post_data or "")


def test_a_page_does_not_become_another_persons_under_the_first_ones_name(site: ConsoleSite, owner: Person) -> None:
    """A form that nobody typed into is not looked at before it is sent: it keeps the token of its own session."""
    owner.goes_to(f"{site.web}/console/jobs/{site.console.in_doubt()}")
    token = owner.tab.locator("main input[name=csrf]").first
    mine = token.input_value()
    other = site.console.session(Held(role=Role.OWNER, tenant=None), name="other@acme.example")
    owner.is_signed_in(other, at=site.web)
    trouble = owner.tab.locator("[data-trouble]")
    expect(trouble).to_contain_text("somebody else is signed in in this browser by now. Load the page")
    assert token.input_value() == mine


def test_updates_can_be_paused_and_stay_so_on_the_next_page(site: ConsoleSite, owner: Person) -> None:
    rows = owner.tab.get_by_role("row")
    before = rows.count()
    owner.tab.get_by_role("button", name="Pause updates").click()
    expect(owner.tab.get_by_role("status")).to_contain_text("updates are paused here")
    owner.goes_to(f"{site.web}/console/jobs?state=")
    expect(owner.tab).to_have_title(re.compile("^Paused · Jobs"))
    site.console.waiting()
    owner.tab.get_by_role("button", name="Resume updates").click()
    expect(rows).to_have_count(before + 1)
    expect(owner.tab.get_by_role("status")).to_be_empty()


def test_a_page_asks_for_what_changes_alone_and_a_later_page_of_a_list_not_at_all(
    site: ConsoleSite, owner: Person
) -> None:
    with owner.tab.expect_response(re.compile("/console/jobs$")) as answered:
        owner.tab.wait_for_event("response")
    assert '<nav class="side"' not in answered.value.text()
    for _ in range(60):
        site.console.waiting()
    owner.goes_to(f"{site.web}/console/jobs")
    owner.tab.get_by_role("link", name="Older").click()
    expect(owner.tab.locator("[data-pause]")).to_be_hidden()

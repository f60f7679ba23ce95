"""The pages for those who read them otherwise: by screen reader, in another script, at 400 %, or on paper."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import expect
from sqlalchemy import update

from identity.console.roles import Held, Role
from identity.tables import principals
from pipeline.tables import jobs
from tests.browser.console_site import ConsoleSite
from tests.browser.person import FITS, Person
from tests.ledger.approval_case import SHOWN, ApprovalCase

Meet = Callable[..., Person]

pytestmark = pytest.mark.usefixtures("chromium")  # by name, so that CI installs it

#: Whether, on the line of *element*, what follows the first *name* is to the right of it.
IN_ORDER = """(element, [name, after]) => {
    const at = (text) => {
        const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
        for (let node = walker.nextNode(); node !== null; node = walker.nextNode()) {
            const begin = node.nodeValue.indexOf(text);
            if (begin < 0) continue;
            const range = document.createRange();
            range.setStart(node, begin);
            range.setEnd(node, begin + text.length);
            return range.getBoundingClientRect();
        }
        throw new Error(`${text} is not there`);
    };
    return at(after).left >= at(name).right - 1;
}"""


@pytest.fixture
def owner(site: ConsoleSite, person: Meet) -> Person:
    """Signed in."""
    somebody = person(viewport={"width": 1280, "height": 860})
    token = site.console.session(Held(role=Role.OWNER, tenant=None), name="owner@acme.example")
    somebody.is_signed_in(token, at=site.web)
    return somebody


def test_a_name_from_right_to_left_moves_nothing_that_stands_beside_it(site: ConsoleSite, owner: Person) -> None:
    hebrew, case = "אדה", ApprovalCase(site.console.house)
    rename = update(principals).where(principals.c.id == "acme.bob").values(name="bob\N{RIGHT-TO-LEFT OVERRIDE}")
    start = update(jobs).where(jobs.c.id == case.job.id).values(triggered_by=hebrew, triggered_login=None)
    site.console.database.write(lambda c: c.execute(start))
    shown = {**SHOWN, "amount": "900 EUR", "as_whom": {**SHOWN["as_whom"], "name": f"12 {hebrew}"}}
    case.ask(shown={**shown, "does": f"Refund {hebrew}", "action": "7.Refund"})
    site.console.database.write(lambda c: c.execute(rename))
    owner.goes_to(f"{site.web}/console/approvals/{case.row.id}")
    facts = owner.tab.locator("dl.facts dd")
    expect(facts.filter(has_text="900 EUR")).to_have_text("900 EUR")
    for about, after in (("Refund", "7.Refund"), (", 20", "20")):
        fact = facts.filter(has_text=about).filter(has_text=hebrew)
        assert fact.evaluate(IN_ORDER, [hebrew, after]), about
    needs = owner.tab.locator(".list")
    expect(needs).to_contain_text('"bob\\u202e", carol, by the rule')


def test_a_long_name_runs_over_no_edge_of_a_page_at_400_percent(site: ConsoleSite, person: Meet) -> None:
    endless = "x" * 180
    case = ApprovalCase(site.console.house)
    case.ask(shown={**SHOWN, "does": endless, "agent": endless, "resource": endless})
    owner = person(viewport={"width": 320, "height": 256})
    token = site.console.session(Held(role=Role.OWNER, tenant=None), name=f"{endless}@acme.example")
    owner.is_signed_in(token, at=site.web)
    told = update(jobs).where(jobs.c.id == site.ids["dead"]).values(reason=endless)
    site.console.database.write(lambda c: c.execute(told))
    for path in (f"approvals/{case.row.id}", f"jobs/{site.ids['dead']}", "dead"):
        owner.goes_to(f"{site.web}/console/{path}")
        owner.tab.locator("summary").first.click()
        assert owner.tab.evaluate(FITS), path
        last = owner.tab.get_by_role("link", name="Audit")
        assert last.evaluate("it => it.getBoundingClientRect().right <= innerWidth"), "all pages are in view"
        name = owner.tab.locator(".who summary")
        assert name.evaluate("it => it.scrollWidth <= it.clientWidth"), "the whole name is read"


def test_what_an_act_did_has_the_focus_and_a_refusal_is_in_the_title(site: ConsoleSite, owner: Person) -> None:
    job = site.console.dead("no")
    owner.goes_to(f"{site.web}/console/jobs/{job}")
    owner.tab.get_by_role("button", name="Replay the job").click()
    expect(owner.tab.get_by_text("The job is queued again.")).to_be_focused()
    owner.goes_to(f"{site.web}/console/revoke?kind=user&key=acme.ada")
    owner.tab.get_by_label("Type acme.ada").fill("acme.bob")
    owner.tab.get_by_role("button", name="Revoke now").click()
    expect(owner.tab).to_have_title(re.compile("^Nothing is revoked · Revoke user acme.ada"))
    expect(owner.tab.get_by_label("Type acme.ada")).to_be_focused()


def test_the_keyboard_keeps_its_place_when_what_it_was_at_goes_away(site: ConsoleSite, owner: Person) -> None:
    jobs_of = [site.console.waiting(), site.console.waiting()]
    owner.goes_to(f"{site.web}/console/jobs?state=waiting")
    link = owner.tab.locator(f'a[href*="{jobs_of[0]}"]')
    link.focus()
    ended = update(jobs).where(jobs.c.id == jobs_of[0]).values(state="cancelled", wait=None)
    site.console.database.write(lambda c: c.execute(ended))
    expect(link).to_have_count(0)
    expect(owner.tab.get_by_role("group", name="The jobs")).to_be_focused()


def test_the_menu_covers_nothing_that_the_keyboard_reaches_after_it(site: ConsoleSite, owner: Person) -> None:
    owner.goes_to(f"{site.web}/console/jobs")
    owner.reaches("owner@acme.example")
    owner.presses("Enter")
    owner.presses("Tab")
    assert owner.focused == "Sign out"
    owner.presses("Tab")
    assert owner.focused == "Overview"
    expect(owner.tab.get_by_role("button", name="Sign out")).to_be_hidden()


def test_a_change_is_announced_and_so_is_one_that_is_held(site: ConsoleSite, owner: Person) -> None:
    job = site.console.in_doubt()
    owner.goes_to(f"{site.web}/console/jobs/{job}")
    state = owner.tab.locator(".lead")
    announced = "it => it.closest('[aria-live=polite]') !== null"
    assert state.evaluate(announced)
    before = state.element_handle()
    owner.tab.locator("textarea").fill('{"id": "say-1"')
    ended = update(jobs).where(jobs.c.id == job).values(state="cancelled", wait=None)
    site.console.database.write(lambda c: c.execute(ended))
    expect(state).to_contain_text("cancelled")
    assert before.evaluate("it => it.isConnected"), "a new element would not be announced"
    held = owner.tab.locator("[data-held]")
    expect(held).to_be_visible()
    assert held.evaluate(announced)
    held.get_by_role("button", name="Show it").press("Enter")
    expect(held).to_be_hidden()
    expect(owner.tab.locator("main")).to_be_focused()


def test_a_selection_that_ends_in_a_list_holds_it(site: ConsoleSite, owner: Person) -> None:
    owner.goes_to(f"{site.web}/console/jobs")
    owner.tab.evaluate(
        """() => {
            const from = document.querySelector("h1").firstChild, to = document.querySelector("td").firstChild;
            getSelection().setBaseAndExtent(from, 0, to, to.childNodes.length);
        }"""
    )
    site.console.waiting()
    expect(owner.tab.locator("[data-held]")).to_be_visible()


def test_a_printed_receipt_has_whole_ids_and_nothing_to_press(site: ConsoleSite, owner: Person) -> None:
    owner.goes_to(f"{site.web}/console/jobs")
    owner.tab.emulate_media(media="print", color_scheme="dark")
    assert owner.tab.evaluate("getComputedStyle(document.body).color") == "rgb(27, 31, 39)", "dark ink"
    whole = "it => getComputedStyle(it, '::after').content === JSON.stringify(it.title)"
    assert owner.tab.locator("a.id").first.evaluate(whole)
    for part in ("nav", ".top input", "button"):
        expect(owner.tab.locator(part).first).to_be_hidden()
    owner.tab.set_viewport_size({"width": 718, "height": 1000})  # A4 within its margins
    for path in ("jobs", f"jobs/{site.ids['job']}", f"revocations/{site.ids['revocation']}"):
        owner.goes_to(f"{site.web}/console/{path}")
        assert owner.tab.evaluate(FITS), path

"""By keyboard alone: signing in, every act that decides something at the console, and the page of an approval link."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import pytest

from identity.console.roles import Held, Role
from identity.principals import link_alias
from identity.tables import provider_connections
from identity.withdrawals.tables import withdrawals
from pipeline.revocation.tables import revocations
from pipeline.states import ApprovalState, JobState
from pipeline.tables import schedules
from tests.browser.console_site import ConsoleSite
from tests.browser.person import Person
from tests.ledger.approval_case import SHOWN, ApprovalCase

Meet = Callable[..., Person]

BOB = "00u-bob"  # the subject of his sign-in

pytestmark = pytest.mark.usefixtures("chromium")  # by name, so that CI installs it


@pytest.fixture
def case(site: ConsoleSite) -> ApprovalCase:
    """A step of ada's waits for bob or carol of acme."""
    case = ApprovalCase(site.console.house)
    case.ask(shown=SHOWN)
    return case


def test_an_owner_signs_in_by_the_link_and_cancels_a_job_by_keyboard_alone(site: ConsoleSite, person: Meet) -> None:
    owner = person(viewport={"width": 1280, "height": 860})
    owner.goes_to(site.link())
    owner.reaches("Sign in")
    owner.presses("Enter")
    owner.tab.wait_for_url("**/console/")
    assert owner.heading == "What needs a person now"
    owner.presses("Tab")
    assert owner.focused == "Skip to the content"
    owner.reaches("Go to an id")
    owner.tab.keyboard.type(site.ids["waiting"])
    owner.presses("Enter")
    owner.tab.wait_for_url(f"**/jobs/{site.ids['waiting']}")
    owner.reaches("Cancel the job…")
    owner.presses("Enter")
    owner.reaches("Cancel the job")
    owner.presses("Enter")
    owner.tab.wait_for_url("**done=cancelled")
    assert "The job is cancelled." in owner.text
    assert site.console.state(site.ids["waiting"]) is JobState.CANCELLED
    assert owner.complaints == []


@pytest.mark.slow
def test_an_approval_a_replay_and_a_revocation_by_keyboard_alone(
    site: ConsoleSite, case: ApprovalCase, person: Meet
) -> None:
    link = partial(link_alias, tenant="acme", provider="console", external_id=BOB, login=None, made_by="admin:test")
    site.console.database.write(partial(link, principal="acme.bob", now=datetime.now(UTC)))
    bob = person(viewport={"width": 1280, "height": 860})
    bob.is_signed_in(site.console.session(Held(role=Role.OWNER, tenant=None), name=BOB), at=site.web)
    bob.goes_to(f"{site.web}/console/")
    _approves(site, case, bob)
    _replays(site, bob)
    _revokes(site, bob)
    assert bob.complaints == []


@pytest.mark.slow
def test_what_came_to_nothing_is_put_right_by_keyboard_alone(site: ConsoleSite, person: Meet) -> None:
    console, asks = site.console, site.console.in_doubt()
    lost = console.dead("the worker fell", body=b'{"author": "1001", "installation": {"id": 77}}')
    _stick(site)
    owner = _signed_in(site, person)

    owner.goes_to(f"{site.web}/console/jobs/{asks}")
    owner.reaches("It did")
    owner.presses("ArrowDown")
    assert owner.focused == "It did not"
    owner.chooses("Put on record", leads_to="**done=resolved")
    assert console.state(asks) is JobState.QUEUED

    owner.goes_to(f"{site.web}/console/deliveries/{console.house.row(lost).delivery_id}")
    owner.chooses("Start 1 job", leads_to="**done=replayed")
    assert console.state(lost) is JobState.QUEUED

    owner.chooses("Dead letters", leads_to="**/console/dead")
    owner.chooses("Replay 1… of say_it: the provider answers 500", leads_to="**/dead/replay?**")
    owner.chooses("Replay 1 of acme", leads_to="**replayed=1**")
    assert "1 job accepted anew" in owner.text
    assert console.state(site.ids["dead"]) is JobState.QUEUED

    owner.goes_to(f"{site.web}/console/revocations/{site.ids['revocation']}")
    owner.chooses("Ask the provider again", leads_to="**done=asked")
    assert [row.state for row in console.rows(withdrawals.select())] == ["pending"]
    assert owner.complaints == []


@pytest.mark.slow
def test_what_is_held_up_goes_on_by_keyboard_alone(site: ConsoleSite, person: Meet) -> None:
    console = site.console
    console.lose("acc-acme.ada")
    console.house.give_secret("gh")  # for its link
    console.pause()
    owner = _signed_in(site, person)

    owner.goes_to(f"{site.web}/console/connections/gh")
    owner.chooses("Use it again", leads_to="**done=resumed")
    assert {row.paused_reason for row in console.rows(provider_connections.select())} == {None}

    owner.goes_to(f"{site.web}/console/accounts/acc-acme.ada")
    owner.chooses("Make a link", leads_to="**/reconnect")
    assert "Give this link to acme.ada alone." in owner.text

    owner.chooses("Schedules", leads_to="**/console/schedules")
    for act, done in (("Pause", True), ("Resume", False)):
        owner.chooses(f"{act} acme:morning", leads_to=f"**done={act.lower()}d")
        assert [row.paused for row in console.rows(schedules.select())] == [done]
    assert owner.complaints == []


def _signed_in(site: ConsoleSite, person: Meet) -> Person:
    owner = person(viewport={"width": 1280, "height": 860})
    session = site.console.session(Held(role=Role.OWNER, tenant=None), name="somebody")
    owner.is_signed_in(session, at=site.web)
    owner.goes_to(f"{site.web}/console/")
    return owner


def _stick(site: ConsoleSite) -> None:
    """The provider could not be asked to follow a revocation, and its receipt says so."""
    console, revocation = site.console, site.ids["revocation"]
    console.stick(revocation)
    (row,) = console.rows(revocations.select())
    stuck = {**row.receipt, "provider": {**row.receipt["provider"], "answer": "stuck"}}
    change = revocations.update().where(revocations.c.id == revocation).values(receipt=stuck)
    console.database.write(lambda c: c.execute(change).rowcount)


def _approves(site: ConsoleSite, case: ApprovalCase, bob: Person) -> None:
    bob.chooses("Approvals", leads_to="**/console/approvals")
    bob.chooses("Refund a charge", leads_to=f"**/approvals/{case.row.id}")
    assert "900 EUR" in bob.text
    bob.reaches("Approve")
    bob.presses("Enter")
    bob.tab.get_by_text("Your yes counts.").wait_for()
    assert case.row.state == ApprovalState.APPROVED


def _replays(site: ConsoleSite, bob: Person) -> None:
    bob.types(site.ids["dead"], into="Go to an id")
    bob.presses("Enter")
    bob.tab.wait_for_url(f"**/jobs/{site.ids['dead']}")
    bob.chooses("Replay the job", leads_to="**done=replayed")
    assert "The job is queued again" in bob.text
    assert site.console.state(site.ids["dead"]) is JobState.QUEUED


def _revokes(site: ConsoleSite, bob: Person) -> None:
    before = len(site.console.rows(revocations.select()))
    bob.chooses("Revocations", leads_to="**/revocations")
    bob.chooses("Revoke…", leads_to="**/revoke")
    bob.types("user", into="What")
    bob.types("acme.ada", into="Its id")
    bob.chooses("See what it would stop", leads_to="**key=acme.ada")
    assert "Nothing is revoked yet" in bob.text
    bob.types("she left the company", into="Why, for the receipt and the audit")
    bob.chooses("Revoke now", leads_to="**key=acme.ada")
    assert bob.focused == "Type acme.ada to say that you mean it", "the browser leads to what is missing"
    assert len(site.console.rows(revocations.select())) == before
    bob.tab.keyboard.type("acme.ada")
    bob.chooses("Revoke now", leads_to="**/revocations/**")
    assert "she left the company" in bob.text.lower()
    (made,) = [row for row in site.console.rows(revocations.select()) if row.key == "acme.ada"]
    assert (made.kind, made.requested_by) == ("user", f"console:{BOB}")


def test_the_page_of_an_approval_link_is_answered_by_keyboard_and_accessible(
    site: ConsoleSite, case: ApprovalCase, person: Meet
) -> None:
    bob = person()
    _, link = site.console.parts.approving.invite(case.row.id, "acme.bob", now=datetime.now(UTC))
    bob.goes_to(link)
    assert bob.heading == "May this be done?"
    bob.finds_it_accessible("ask")
    bob.tab.set_viewport_size({"width": 320, "height": 700})
    narrowest = "Math.min(...[...document.querySelectorAll('.facts dd')].map((one) => one.clientWidth))"
    assert bob.tab.evaluate(narrowest) > 200, "a fact is read on a phone, whatever it is called"
    bob.tab.set_viewport_size({"width": 900, "height": 900})
    bob.presses("Tab")
    assert bob.focused == "Approve", "the first thing a keyboard reaches is what there is to do"
    bob.presses("Tab")
    assert bob.focused == "Deny"
    bob.presses("Shift+Tab")
    bob.presses("Enter")
    bob.tab.get_by_role("heading", name="You approved it").wait_for()
    bob.finds_it_accessible("done")
    assert case.row.state == ApprovalState.APPROVED
    bob.goes_to(link[:-2])
    assert bob.heading == "This link is not known"
    bob.finds_it_accessible("failed")
    assert bob.complaints == []

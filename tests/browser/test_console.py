"""The console in a real browser: signing in, without JavaScript, live, and accessible."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest

from identity.console.roles import Held, Role
from identity.console.sign_in import SignIn, SignInSettings
from identity.http.client import Client
from identity.secret import Secret
from pipeline.states import JobState
from pipeline.steps.replay import replay_job
from tests.browser.console_site import ConsoleSite
from tests.browser.person import Person
from tests.ledger.approval_case import SHOWN, ApprovalCase
from tests.loopback import LOOPBACK
from tests.servers.oidc import oidc as run_oidc
from tests.servers.process import free_port

Meet = Callable[..., Person]

pytestmark = pytest.mark.usefixtures("chromium")  # by name, so that CI installs it


def _signed_in(site: ConsoleSite, person: Meet, role: Role = Role.OWNER, **context: object) -> Person:
    somebody = person(viewport={"width": 1280, "height": 860}, **context)
    token = site.console.session(Held(role=role, tenant=None), name=f"{role}@acme.example")
    somebody.is_signed_in(token, at=site.web)
    somebody.goes_to(f"{site.web}/console/")
    return somebody


def test_each_role_sees_its_pages_and_acts_without_javascript(site: ConsoleSite, person: Meet) -> None:
    for role in Role:
        job = site.console.dead("no")
        somebody = _signed_in(site, person, role, java_script_enabled=False)
        pages = somebody.tab.get_by_role("navigation").get_by_role("link").all_inner_texts()
        assert pages[:4] == ["Overview", "Approvals", "Jobs", "Dead letters"]
        assert ("Audit" in pages) is (role is not Role.APPROVER)
        somebody.goes_to(f"{site.web}/console/jobs/{job}")
        replay = somebody.tab.get_by_role("button", name="Replay the job")
        assert replay.count() == (1 if role in (Role.OWNER, Role.OPERATOR) else 0)
        if replay.count():
            replay.click()
            assert "The job is queued again" in somebody.text
            assert site.console.state(job) is JobState.QUEUED
        assert somebody.complaints == []


def test_a_page_keeps_itself_up_to_date_and_leaves_a_person_at_work_alone(site: ConsoleSite, person: Meet) -> None:
    owner = _signed_in(site, person)
    owner.goes_to(f"{site.web}/console/jobs")
    before = owner.tab.get_by_role("row").count()
    owner.tab.get_by_label("User").fill("somebody")
    site.console.waiting()
    owner.tab.get_by_role("row").nth(before).wait_for()
    assert owner.tab.get_by_label("User").input_value() == "somebody"
    assert owner.complaints == []


def test_a_page_that_changes_stays_scrolled_and_offers_what_can_be_done_now(site: ConsoleSite, person: Meet) -> None:
    owner = _signed_in(site, person)
    owner.tab.set_viewport_size({"width": 340, "height": 700})
    owner.goes_to(f"{site.web}/console/jobs")
    before = owner.tab.get_by_role("row").count()
    owner.tab.locator(".scroll").evaluate("it => { it.scrollLeft = 60; }")
    job = site.console.waiting()
    owner.tab.get_by_role("row").nth(before).wait_for()
    assert owner.tab.locator(".scroll").evaluate("it => it.scrollLeft") == 60
    owner.goes_to(f"{site.web}/console/jobs/{job}")
    owner.tab.get_by_text("Cancel the job…").click()
    owner.tab.get_by_role("button", name="Cancel the job", exact=True).click()
    owner.tab.get_by_text("The job is cancelled.").wait_for()
    owner.tab.wait_for_url(lambda url: "done=" not in url)
    owner.tab.get_by_role("button", name="Replay the job").wait_for()
    site.console.database.write(partial(replay_job, job=job, by="somebody else", at=site.console.now()))
    owner.tab.get_by_text("Cancel the job…").wait_for()
    assert owner.tab.get_by_role("button", name="Replay the job").count() == 0
    assert owner.complaints == []


@pytest.mark.slow
def test_pages_are_accessible_by_day_by_night_and_on_a_narrow_screen(site: ConsoleSite, person: Meet) -> None:
    owner = _signed_in(site, person)
    owner.finds_it_accessible("overview")
    owner.goes_to(f"{site.web}/console/jobs/{site.console.in_doubt()}")
    owner.finds_it_accessible("job")
    assert owner.complaints == []


#: What docs/howto/console.md says that a role does not see, by the first word of the address.
UNSEEN: Mapping[Role, frozenset[str]] = {
    Role.OWNER: frozenset(),
    Role.OPERATOR: frozenset(),
    Role.AUDITOR: frozenset({"revoke"}),
    Role.APPROVER: frozenset(
        {"queues", "deliveries", "accounts", "connections", "revocations", "revoke", "schedules", "audit"}
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("role", list(Role))
def test_every_page_that_a_role_sees_is_accessible_and_the_others_are_refused(
    site: ConsoleSite, person: Meet, role: Role
) -> None:
    ids = site.ids
    site.console.lose("acc-acme.ada")
    site.console.pause()
    case = ApprovalCase(site.console.house)
    case.ask(shown=SHOWN)
    somebody, refused = _signed_in(site, person, role), 0
    for name, path in {
        "approvals": "approvals",
        "approval": f"approvals/{case.row.id}",
        "jobs": "jobs",
        "no-job": "jobs?state=stopping",
        "dead": "dead",
        "queues": "queues",
        "deliveries": "deliveries",
        "delivery": f"deliveries/{ids['delivery']}",
        "accounts": "accounts",
        "account": f"accounts/{ids['account']}",
        "connections": "connections",
        "connection": "connections/gh",
        "revocations": "revocations",
        "revocation": f"revocations/{ids['revocation']}",
        "revoke": "revoke",
        "stake": "revoke?kind=user&key=acme.ada",
        "schedules": "schedules",
        "audit": "audit",
        "not-there": "jobs/job_x",
    }.items():
        answer = somebody.tab.goto(f"{site.web}/console/{path}")
        assert answer is not None
        if path.partition("/")[0].partition("?")[0] in UNSEEN[role]:
            assert (answer.status, somebody.heading) == (403, "This is not for you"), name
            refused += 1
            if refused > 1:
                continue  # one such page is like the next
        else:
            assert answer.status == (404 if name == "not-there" else 200), name
        somebody.finds_it_accessible(f"{role}-{name}")
    assert (refused > 0) is bool(UNSEEN[role])
    assert somebody.complaints == []


@pytest.mark.slow
def test_the_pages_of_signing_in_and_out_are_accessible(site: ConsoleSite, person: Meet) -> None:
    owner = _signed_in(site, person)
    owner.goes_to(f"{site.web}/console/jobs/job_x")
    owner.tab.get_by_role("link", name="Go to the console").click()
    owner.tab.locator("summary").click()
    owner.tab.get_by_role("button", name="Sign out").click()
    assert owner.heading == "Sign in to Aswhom"
    owner.finds_it_accessible("sign-in")
    owner.goes_to(site.link())
    owner.finds_it_accessible("link")
    assert owner.complaints == []


@pytest.mark.slow
def test_people_sign_in_at_a_certified_provider(tmp_path: Path, migrated_sqlite: Path, person: Meet) -> None:
    port = free_port()
    back = f"http://127.0.0.1:{port}/console/callback"
    shutil.copy(migrated_sqlite, tmp_path / "ledger.sqlite")
    with (
        run_oidc(redirect_uri=back) as peer,
        Client(policy=LOOPBACK, pool_size=2) as http,
    ):
        settings = SignInSettings(
            issuer=peer.issuer,
            client_id=peer.client_id,
            client_secret=Secret(peer.client_secret),
            redirect_uri=back,
            scopes=("openid", "email", "groups"),
            roles_claim="groups",
        )
        with ConsoleSite(tmp_path / "ledger.sqlite", port=port, sign_in=SignIn(settings, http)) as site:
            grace = person()
            grace.goes_to(f"{site.web}/console/dead")
            grace.tab.get_by_role("button", name="Continue to sign-in").click()
            grace.signs_in_at_oidc("operator-grace", back="**/console/dead")
            assert grace.heading == "Dead letters"
            grace.tab.get_by_role("link", name="Replay 1…").click()
            grace.tab.get_by_role("button", name="Replay 1 of acme").click()
            assert "1 job accepted anew" in grace.text
            assert site.console.house.row(site.ids["dead"]).reason == "replayed by console:operator-grace@example.test"

"""The console over the whole system in real processes: a job's story against the upstreams' logs, and a revocation."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deploy.demo import people
from deploy.demo.provision import GITHUB
from identity.audit import Act
from identity.console import sessions
from identity.model import AccountKey
from identity.secret import Secret
from pipeline.states import JobState
from tests.browser.person import Person
from tests.browser.pictures import PICTURES
from tests.servers.valkey import Valkey
from tests.system.rig import System

Meet = Callable[..., Person]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("chromium")]


def _link(system: System) -> str:
    token, audit_id, now = Secret(secrets.token_urlsafe(32)), system.ids("aud"), datetime.now(UTC)
    system.runtime.database.write(
        lambda c: sessions.make_link(c, token, Act(audit_id=audit_id, by="cli:root", now=now))
    )
    return f"{system.web}/console/link/{token.reveal()}"


def test_a_jobs_story_is_what_the_upstreams_saw_and_a_revocation_ends_in_a_receipt(
    own_valkey: Valkey, tmp_path: Path, person: Meet
) -> None:
    system = System(tmp_path, f"sqlite:///{tmp_path}/ledger.sqlite", own_valkey)
    try:
        system.start_sandbox()
        system.start("web", "worker", "revocations", "housekeeping")
        system.connect("acme", "ada")
        half = AccountKey(tenant="acme", connection=GITHUB, principal="acme.grace")  # and not Linear
        people.connect(system.runtime, half, web=system.web, login="grace", now=datetime.now(UTC))
        system.pull("acme/shop", "ada", "bug", "infra")
        system.pull("acme/shop", "grace", "bug")
        system.wait(lambda: len(system.jobs()) >= 2, "two accepted jobs")
        system.settled()
        owner = person(viewport={"width": 1280, "height": 860})
        owner.goes_to(_link(system))
        owner.tab.get_by_role("button", name="Sign in").click()
        owner.tab.wait_for_url("**/console/")
        owner.tab.get_by_text("waiting for consent").wait_for()
        owner.pictures("console-overview")
        _story(system, owner)
        _revocation(system, owner)
        assert owner.complaints == []
        assert tuple(owner.pictured) == PICTURES
    finally:
        system.close()


def _story(system: System, owner: Person) -> None:
    """Every attempt on the page is a request that the upstream logged, and the other way round."""
    done = next(job for job in system.jobs() if job.state == JobState.DONE)
    owner.goes_to(f"{system.web}/console/jobs/{done.id}")
    owner.pictures("console-job")
    shown = owner.tab.locator("table.attempts tbody th code").all_inner_texts()
    log = {entry["attempt"]: entry for name in ("github", "linear", "slack") for entry in system.sandbox(name, "log")}
    mine = [one.id for one in system.attempts() if one.job_id == done.id]
    assert sorted(shown) == sorted(mine)
    assert set(shown) <= set(log)
    waits = next(job for job in system.jobs() if job.state == JobState.WAITING)
    owner.goes_to(f"{system.web}/console/jobs/{waits.id}")
    parked = owner.tab.locator("li.moment").filter(has_text="It began to wait")
    assert "needs the consent of acme.grace" in parked.inner_text()
    owner.tab.go_back()
    told = owner.tab.locator("div.step").all_inner_texts()
    assert [text.partition("\n")[0].partition(" ")[2].partition(" ")[0] for text in told] == [
        step.action for step in system.steps(done.id)
    ]
    for text, step in zip(told, system.steps(done.id), strict=True):
        assert step.pattern in text, text
        assert step.reason in text, text
        (attempt,) = [id for id in shown if id in text]
        by_user = "as user" in text
        assert (log[attempt]["actor"] == "ada") is by_user, text
        assert str(log[attempt]["status"]) in text


def _revocation(system: System, owner: Person) -> None:
    owner.goes_to(f"{system.web}/console/revoke")
    owner.tab.get_by_label("What").select_option("user")
    owner.tab.get_by_label("Its id", exact=True).fill("acme.ada")
    owner.tab.get_by_role("button", name="See what it would stop").click()
    assert "Nothing is revoked yet" in owner.text
    owner.tab.get_by_label("Why").fill("she left the company")
    owner.tab.get_by_label("Type").fill("acme.ada")
    owner.tab.get_by_role("button", name="Revoke now").click()
    owner.tab.get_by_text("The signature holds").wait_for()  # the page asks for itself again
    assert "she left the company" in owner.text.lower()
    owner.pictures("console-revocation")

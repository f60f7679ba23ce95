"""From a thing one comes to what it has to do with, and from any id that somebody was given to its page."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from sqlalchemy import Connection, insert, select, update

from identity.accounts.scopes import revoke_scope
from identity.console.roles import Role
from identity.model import AccountKey, PrincipalKind, Scope, ScopeKind
from identity.principals import ensure_principal, ensure_tenant
from identity.tables import accounts, provider_connections
from pipeline.jobs.awaited import consent_of
from pipeline.tables import attempts, deliveries, jobs, steps
from tests.console.console_app import ConsoleApp
from tests.docs.pages import ROOT
from tests.ledger.approval_case import SHOWN, ApprovalCase

ADA = AccountKey(tenant="acme", connection="gh", principal="acme.ada")


@pytest.fixture
def console(sqlite_console: ConsoleApp) -> ConsoleApp:
    return sqlite_console


def test_a_job_leads_to_the_approval_that_it_waits_for(console: ConsoleApp) -> None:
    case = ApprovalCase(console.house)
    case.ask(shown=SHOWN)
    page = console.at(Role.APPROVER, "acme").sees(f"/console/jobs/{case.row.job_id}")
    link = f'<a class="id" href="/console/approvals/{case.row.id}"'
    assert page.count(link) == 2, "why it waits, and when it was asked for"


def test_a_job_that_waits_for_consent_leads_to_the_account_for_whoever_may_see_it(console: ConsoleApp) -> None:
    job = console.waiting()
    waits = update(jobs).where(jobs.c.id == job).values(waits_for=consent_of(ADA))
    console.database.write(lambda c: c.execute(waits).rowcount)
    link = 'href="/console/accounts/acc-acme.ada"'
    assert link in console.at(Role.AUDITOR, "acme").sees(f"/console/jobs/{job}")
    page = console.at(Role.APPROVER, "acme").sees(f"/console/jobs/{job}")
    assert ("acme.ada at gh" in page, link in page) == (True, False)


def test_a_job_leads_to_its_accounts_its_user_and_its_records(console: ConsoleApp) -> None:
    job = console.done()
    page = console.at(Role.AUDITOR, "acme").sees(f"/console/jobs/{job}")
    for address in (
        "/console/accounts/acc-acme.ada",
        "/console/accounts?tenant=acme&amp;user=acme.ada",
        "/console/jobs?tenant=acme&amp;user=acme.ada",
        f"/console/audit?tenant=acme&amp;job={job}",
    ):
        assert f'href="{address}"' in page


@pytest.mark.parametrize(
    "scope", [Scope(kind=ScopeKind.ACCOUNT, key=str(ADA)), Scope(kind=ScopeKind.USER, key="acme.ada")], ids=str
)
def test_a_revoked_account_and_its_revocation_lead_to_each_other(console: ConsoleApp, scope: Scope) -> None:
    id, owner = console.revoke(scope, "acme"), console.at(Role.OWNER)
    console.database.write(lambda c: revoke_scope(c, scope, 10**6, reason="no", now=datetime.now(UTC)))
    ended = update(accounts).where(accounts.c.id == "acc-acme.ada").values(state="revoked")
    console.database.write(lambda c: c.execute(ended).rowcount)
    assert f'href="/console/revocations/{id}"' in owner.sees("/console/accounts/acc-acme.ada")
    led = "/console/accounts?tenant=acme&amp;user=acme.ada"
    if scope.kind is ScopeKind.ACCOUNT:
        led = "/console/accounts/acc-acme.ada"
    assert f'href="{led}"' in owner.sees(f"/console/revocations/{id}")


def test_an_account_names_what_ended_it_and_of_the_platforms_no_person(console: ConsoleApp) -> None:
    account = Scope(kind=ScopeKind.ACCOUNT, key=str(ADA))
    console.revoke(account, "acme")
    console.house.connect("acme", "acme.ada")  # who consented again, before the next
    ended = console.revoke(Scope(kind=ScopeKind.CONNECTION, key="gh"), None)
    later = console.revoke(account, "acme")
    everything, acme = console.at(Role.AUDITOR), console.at(Role.AUDITOR, "acme")
    told = everything.sees("/console/accounts/acc-acme.ada")
    assert ("Revoked by <strong>test</strong>" in told, ended in told, later in told) == (True, True, False)
    assert "Revoked by <strong>the platform</strong>" in acme.sees("/console/accounts/acc-acme.ada")


def test_a_revoked_connection_is_linked_for_whoever_may_see_it(console: ConsoleApp) -> None:
    id = console.revoke(Scope(kind=ScopeKind.CONNECTION, key="gh"), "acme")
    link = 'href="/console/connections/gh"'
    assert link in console.at(Role.AUDITOR).sees(f"/console/revocations/{id}")
    assert link not in console.at(Role.AUDITOR, "acme").sees(f"/console/revocations/{id}")


def test_the_accounts_of_one_user_are_found(console: ConsoleApp) -> None:
    page = console.at(Role.OWNER).sees("/console/accounts?user=acme.ada")
    assert ("acc-acme.ada" in page, "acc-globex.ada" in page) == (True, False)


def _named_like_ids(console: ConsoleApp) -> None:
    """A tenant with a user, and a connection, whose names begin as ids here do."""
    (row,) = console.rows(select(provider_connections).where(provider_connections.c.id == "gh"))
    alike, now = {**row._mapping, "id": "job-board"}, datetime.now(UTC)

    def write(c: Connection) -> None:
        ensure_tenant(c, id="con-edison", name="Con Edison", now=now)
        ensure_principal(c, id="con-edison.ada", tenant="con-edison", kind=PrincipalKind.USER, name="ada", now=now)
        c.execute(insert(provider_connections), alike)

    console.database.write(write)


def test_any_id_leads_to_its_page(console: ConsoleApp) -> None:
    _named_like_ids(console)
    job, owner = console.done(), console.at(Role.OWNER)
    (step,) = (row.id for row in console.rows(select(steps.c.id).where(steps.c.job_id == job)))
    delivery = console.house.row(job).delivery_id
    (sent,) = (row.delivery_id for row in console.rows(select(deliveries.c.delivery_id)))
    named = update(attempts).where(attempts.c.number == 2).values(id="att_01m8ngeymgxtkqb476v6v6hvap")
    console.database.write(lambda c: c.execute(named))
    for wanted, leads in (
        (job, f"jobs/{job}"),
        (f' "{job.upper()}", ', f"jobs/{job}"),
        (step, f"jobs/{job}#{step}"),
        (f"{step}.1", f"jobs/{job}#{step}"),
        ("att_01m8ngeymgxtkqb476v6v6hvap", f"jobs/{job}#{step}"),
        (sent, f"deliveries/{delivery}"),
        ("gh", "connections/gh"),
        ("acme.ada", "accounts?tenant=acme&user=acme.ada"),
        ("con-edison.ada", "accounts?tenant=con-edison&user=con-edison.ada"),
        ("job-board", "connections/job-board"),
        ("acc-acme.ada", "accounts/acc-acme.ada"),
    ):
        answer = owner.client.get("/console/find", query_string={"id": wanted})
        assert (answer.status_code, answer.location) == (303, f"/console/{leads}"), wanted
    assert f'id="{step}"' in owner.sees(f"/console/jobs/{job}")


def test_what_leads_nowhere_or_to_what_is_not_theirs_is_not_found_and_stays_typed(console: ConsoleApp) -> None:
    job = console.done()
    (step,) = (row.id for row in console.rows(select(steps.c.id).where(steps.c.job_id == job)))
    (sent,) = (row.delivery_id for row in console.rows(select(deliveries.c.delivery_id)))
    stranger = console.at(Role.AUDITOR, "globex")
    for wanted in ("no-such <thing>", step, sent, "gh", "acme.ada", ""):
        answer = stranger.client.get("/console/find", query_string={"id": wanted})
        assert (answer.status_code, "<h1>Not found</h1>" in answer.text) == (404, True), wanted
    answer = stranger.client.get("/console/find", query_string={"id": "no-such <thing>"})
    assert 'value="no-such &lt;thing"' in answer.text


def test_each_page_that_an_alert_leads_to_is_there(console: ConsoleApp) -> None:
    rules = (ROOT / "deploy/prometheus/alerts.yml").read_text(encoding="utf-8")
    owner, led = console.at(Role.OWNER), re.findall(r"console: '{{ \$externalLabels\.console }}(\S+)'", rules)
    assert "/console/dead" in led
    for path in led:
        assert "<h1" in owner.sees(path)

"""Who may see and do what: every page and act with every role, tenant by tenant, and forms from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from html import unescape

import pytest

from identity.console.roles import Held, Role
from identity.model import Scope, ScopeKind
from pipeline.states import JobState
from tests.console.console_app import ConsoleApp, Visit
from tests.ledger.approval_case import SHOWN, ApprovalCase
from webhooks.console.access import NEEDS

WORK = {"overview", "find", "approvals", "approval", "jobs", "job", "dead"}
SEEN = "queues deliveries delivery accounts account connections connection revocations revocation receipt"
REST = set(f"{SEEN} schedules audit".split())
DONE = "cancel_job replay_job resolve_job look_dead replay_dead replay_delivery reconnect retry_revocation"
ACTS = set(f"{DONE} pause_schedule resume_schedule".split())
REVOKING = {"stake", "revoke"}
OPENING = {"resume_connection"}
DECIDING = {"answer_approval"}

#: What docs/howto/console.md says, in other words than the code.
MAY: Mapping[Role, set[str]] = {
    Role.OWNER: WORK | REST | ACTS | REVOKING | OPENING | DECIDING,
    Role.OPERATOR: WORK | REST | ACTS | REVOKING,
    Role.AUDITOR: WORK | REST,
    Role.APPROVER: WORK | DECIDING,
}


def _asked(console: ConsoleApp, ids: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Every page and act of the console: its name, method and address."""
    values = {name: ids.get(name.partition("_")[2] or name, "") for name in NEEDS} | {"receipt": ids["revocation"]}
    with console.app.test_request_context():
        for rule in console.app.url_map.iter_rules():
            blueprint, _, name = rule.endpoint.partition(".")
            if blueprint != "console":
                continue
            method = "POST" if "POST" in (rule.methods or ()) else "GET"
            yield name, method, str(rule.rule).replace("<id>", values.get(name) or "x")


def test_every_page_and_act_says_what_it_needs(sqlite_console: ConsoleApp) -> None:
    rules = [rule.endpoint for rule in sqlite_console.app.url_map.iter_rules()]
    assert sorted(NEEDS) == sorted(name.partition(".")[2] for name in rules if name.startswith("console."))
    assert set(NEEDS) == WORK | REST | ACTS | REVOKING | OPENING | DECIDING


@pytest.mark.parametrize("role", list(Role))
def test_a_role_may_what_the_documents_say_and_nothing_else(sqlite_console: ConsoleApp, role: Role) -> None:
    ids, somebody = sqlite_console.fill(), sqlite_console.at(role)
    for name, method, path in _asked(sqlite_console, ids):
        answer = somebody.sends(path) if method == "POST" else somebody.client.get(path)
        refused = answer.status_code == 403
        assert refused is (name not in MAY[role]), (role, name, answer.status_code)
        assert answer.status_code < 500, (name, answer.text)


@pytest.mark.parametrize("role", list(Role))
def test_no_page_offers_a_role_what_it_may_not(sqlite_console: ConsoleApp, role: Role) -> None:
    ids, somebody = sqlite_console.fill(), sqlite_console.at(role)
    ids["in doubt"] = sqlite_console.in_doubt()
    where = sqlite_console.app.url_map.bind("127.0.0.1")
    pages = [path for name, method, path in _asked(sqlite_console, ids) if method == "GET" and name in MAY[role]]
    offered: set[str] = set()
    if "look_dead" in MAY[role]:
        pages.append("/console/dead/replay?workflow=say_it&cause=the+provider+answers+500")
    for path in (*pages, *(f"/console/jobs/{ids[job]}" for job in ("waiting", "dead", "in doubt"))):
        shown = somebody.client.get(path).text
        assert shown.count("<h1") <= 1, path
        for tag in re.findall(r"<(?:a|form)\b[^>]*>", shown):
            address = re.search(r' (?:href|action)="(/console/[^"?#]*)', tag)
            if address is None:
                continue
            endpoint, _ = where.match(unescape(address[1]), method="POST" if 'method="post"' in tag else "GET")
            blueprint, _, name = endpoint.partition(".")
            assert blueprint != "console" or name in MAY[role], (role, path, name)
            offered.add(name)
    assert offered >= MAY[role] & {"cancel_job", "replay_job", "resolve_job", "replay_dead", "stake", "accounts"}


def test_whoever_asks_for_a_page_that_is_not_there_sees_one_that_says_so(sqlite_console: ConsoleApp) -> None:
    owner, browser = sqlite_console.at(Role.OWNER).client, {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    for path in ("/console/nowhere", "/connect/a/b/c", "/approvals/a/b"):
        lost = owner.get(path, headers=browser)
        assert (lost.status_code, "There is no such page" in lost.text) == (404, True), path
        assert "default-src 'none'" in lost.headers["Content-Security-Policy"]
        assert owner.get(path, headers={"Accept": "*/*"}).content_type == "application/problem+json"
    of_a_form = owner.get("/console/jobs/job_1/replay", headers=browser)
    assert (of_a_form.status_code, "POST" in of_a_form.headers["Allow"]) == (405, True)
    assert "where a form is sent to" in of_a_form.text
    assert owner.get("/v1/nowhere", headers=browser).content_type == "application/problem+json"


@pytest.mark.parametrize("role", [Role.AUDITOR, Role.APPROVER])
def test_whoever_only_looks_does_not_see_what_a_call_sent(sqlite_console: ConsoleApp, role: Role) -> None:
    path = f"/console/jobs/{sqlite_console.in_doubt()}"
    assert "secret" in sqlite_console.at(Role.OPERATOR).sees(path)
    assert "secret" not in sqlite_console.at(role).sees(path)


def test_whoever_is_not_signed_in_sees_and_does_nothing(sqlite_console: ConsoleApp) -> None:
    ids, nobody = sqlite_console.fill(), sqlite_console.app.test_client()
    for name, method, path in _asked(sqlite_console, ids):
        answer = nobody.open(path, method=method)
        assert answer.status_code == 303, name
        assert answer.headers["Location"].startswith("/console/sign-in"), name
    assert sqlite_console.state(ids["waiting"]) is JobState.WAITING


def test_a_tenants_people_see_nothing_of_another_tenant(console: ConsoleApp) -> None:
    ids, globex = console.fill(), console.at(Role.OWNER, "globex")
    job = console.done(tenant="globex")
    for kind in ("job", "delivery", "account"):
        path = {"job": "jobs", "delivery": "deliveries", "account": "accounts"}[kind]
        assert globex.client.get(f"/console/{path}/{ids[kind]}").status_code == 404
    assert globex.client.get("/console/connections/gh").status_code == 404, "the platform's"
    assert globex.client.get("/console/jobs?tenant=acme").status_code == 403
    listed = globex.sees("/console/jobs")
    assert job in listed
    assert ids["job"] not in listed
    for path in ("", "dead", "deliveries", "accounts", "audit", "schedules", "revocations"):
        shown = globex.sees(f"/console/{path}")
        assert not [id for what, id in ids.items() if what not in ("connection", "revocation") and id in shown], path
        assert "acme</td>" not in shown, path


def test_a_tenants_people_act_on_nothing_of_another_tenant(sqlite_console: ConsoleApp) -> None:
    ids, globex = sqlite_console.fill(), sqlite_console.at(Role.OWNER, "globex")
    case, in_doubt = ApprovalCase(sqlite_console.house), sqlite_console.in_doubt()
    case.ask(shown=SHOWN)
    theirs = sqlite_console.revoke(Scope(kind=ScopeKind.AGENT, key="acme.bot"), "acme")
    for path in (f"revocations/{theirs}", f"revocations/{theirs}/receipt.json", f"approvals/{case.row.id}"):
        assert sqlite_console.at(Role.OWNER, "acme").client.get(f"/console/{path}").status_code == 200, path
        assert globex.client.get(f"/console/{path}").status_code == 404, path
    for path, form in (
        (f"jobs/{in_doubt}/resolve", {"effect": "no"}),
        (f"revocations/{theirs}/retry", {}),
        (f"approvals/{case.row.id}/answer", {"answer": "yes", "digest": case.row.digest}),
        (f"jobs/{ids['waiting']}/cancel", {}),
        (f"jobs/{ids['dead']}/replay", {}),
        (f"deliveries/{ids['delivery']}/replay", {}),
        (f"accounts/{ids['account']}/reconnect", {}),
        ("schedules/pause", {"id": ids["schedule"]}),
        ("revoke", {"kind": "user", "key": "acme.ada", "typed": "acme.ada"}),
        ("revoke", {"kind": "connection", "key": "gh", "typed": "gh"}),
        ("connections/gh/resume", {}),
    ):
        assert globex.sends(f"/console/{path}", **form).status_code == 404, path
    group = {"tenant": "acme", "workflow": "say_it", "cause": "the provider answers 500"}
    assert globex.sends("/console/dead/replay", **group).status_code == 403
    assert sqlite_console.state(ids["waiting"]) is JobState.WAITING
    assert sqlite_console.state(ids["dead"]) is JobState.DEAD
    assert sqlite_console.state(in_doubt) is JobState.WAITING
    assert case.row.state == "open"


def test_a_page_that_forgets_to_check_shows_no_strangers_row(
    sqlite_console: ConsoleApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    console, ids = sqlite_console, sqlite_console.fill()
    monkeypatch.setattr("webhooks.console.access.check", lambda tenant: None)
    acme, globex = console.at(Role.OWNER, "acme"), console.at(Role.OWNER, "globex")
    for page in (f"jobs/{ids['waiting']}", f"deliveries/{ids['delivery']}", f"accounts/{ids['account']}"):
        assert acme.client.get(f"/console/{page}").status_code == 200, page
        assert globex.client.get(f"/console/{page}").status_code == 404, page


def test_a_list_whose_tenant_is_forgotten_shows_no_strangers_rows(
    sqlite_console: ConsoleApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    console, ids = sqlite_console, sqlite_console.fill()
    monkeypatch.setattr("webhooks.console.access.seen_tenant", lambda: None)
    acme, globex = console.at(Role.OWNER, "acme"), console.at(Role.OWNER, "globex")
    for page, id in (
        ("jobs", ids["waiting"]),
        ("deliveries", ids["delivery"]),
        ("accounts", ids["account"]),
        ("schedules", ids["schedule"]),
    ):
        assert id in acme.sees(f"/console/{page}"), page
        assert id not in globex.sees(f"/console/{page}"), page


def test_a_role_of_one_tenant_is_none_of_another(sqlite_console: ConsoleApp) -> None:
    """An auditor of everything who is operator of acme may act in acme alone."""
    console = sqlite_console
    client = console.app.test_client()
    token = console.session(Held(role=Role.AUDITOR, tenant=None), Held(role=Role.OPERATOR, tenant="acme"))
    client.set_cookie("aswhom-console", token.reveal())
    somebody, ours, theirs = Visit(client), console.dead("no"), console.dead("no", tenant="globex")
    assert somebody.sends(f"/console/jobs/{ours}/replay").status_code == 303
    assert somebody.sends(f"/console/jobs/{theirs}/replay").status_code == 403
    assert (console.state(ours), console.state(theirs)) == (JobState.QUEUED, JobState.DEAD)


def test_a_form_that_is_not_from_a_page_of_the_session_does_nothing(sqlite_console: ConsoleApp) -> None:
    console, ids = sqlite_console, sqlite_console.fill()
    owner, other = console.at(Role.OWNER), console.at(Role.OWNER)
    path = f"/console/jobs/{ids['waiting']}/cancel"
    assert owner.client.post(path).status_code == 400
    assert owner.client.post(path, data={"csrf": other.token}).status_code == 400
    for header in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        assert owner.client.post(path, data={"csrf": owner.token}, headers=header).status_code == 400
    assert console.state(ids["waiting"]) is JobState.WAITING
    ours = {"Origin": "http://127.0.0.1", "Sec-Fetch-Site": "same-origin"}
    assert owner.client.post(path, data={"csrf": owner.token}, headers=ours).status_code == 303
    assert console.state(ids["waiting"]) is JobState.CANCELLED


def test_a_session_ends_with_its_time_and_with_signing_out(sqlite_console: ConsoleApp) -> None:
    console = sqlite_console
    owner, other = console.at(Role.OWNER), console.at(Role.OWNER)
    assert owner.sees("/console/")
    elsewhere = {"Origin": "https://evil.example"}
    assert owner.client.post("/console/sign-out", data={"csrf": owner.token}, headers=elsewhere).status_code == 400
    assert owner.client.post("/console/sign-out").status_code == 400
    kept = owner.client.get_cookie("aswhom-console")
    assert owner.sends("/console/sign-out").status_code == 303
    assert kept is not None
    owner.client.set_cookie("aswhom-console", kept.value)  # a copy that somebody kept
    assert owner.client.get("/console/").status_code == 303
    assert other.sees("/console/")
    console.ahead = timedelta(hours=8, seconds=1)
    assert other.client.get("/console/").status_code == 303


def test_pages_run_our_script_alone_and_cannot_be_framed_or_kept(sqlite_console: ConsoleApp) -> None:
    headers = sqlite_console.at(Role.OWNER).client.get("/console/").headers
    policy = headers["Content-Security-Policy"]
    for directive in ("default-src 'none'", "script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"):
        assert directive in policy
    assert "unsafe" not in policy
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Frame-Options"] == "DENY"

"""Approvals at the console: whose answer counts, and that it is counted as theirs."""

from __future__ import annotations

import html
import re
from datetime import UTC, datetime
from functools import partial

import pytest
from sqlalchemy import insert, select

from identity.audit.tables import audit
from identity.console.roles import Held, Role
from identity.console.sessions import Via
from identity.principals import link_alias
from pipeline.approvals.tables import approvals
from tests.console.console_app import BASE, ConsoleApp, Visit
from tests.ledger.approval_case import HIDING, ON_A_PAGE, SHOWN, UNSEEN, UNSEEN_SPELT_OUT, ApprovalCase

BOB = "00u-bob"  # the subject of his sign-in


@pytest.fixture
def console(sqlite_console: ConsoleApp) -> ConsoleApp:
    return sqlite_console


@pytest.fixture
def case(console: ConsoleApp) -> ApprovalCase:
    """A step of ada's waits for bob or carol of acme."""
    case = ApprovalCase(console.house)
    case.ask(shown=SHOWN)
    return case


def _known(console: ConsoleApp, principal: str = "acme.bob") -> None:
    """An admin has said who bob is at acme."""
    link = partial(link_alias, tenant="acme", provider="console", external_id=BOB, login=None, made_by="admin:test")
    console.database.write(partial(link, principal=principal, now=datetime.now(UTC)))


def _bob(console: ConsoleApp, role: Role = Role.APPROVER, via: Via = Via.OPENID) -> Visit:
    client = console.app.test_client()
    client.set_cookie("aswhom-console", console.session(Held(role=role, tenant="acme"), name=BOB, via=via).reveal())
    return Visit(client)


def test_no_fact_of_an_approval_holds_what_cannot_be_seen(console: ConsoleApp) -> None:
    case = ApprovalCase(console.house)
    case.ask(shown=HIDING)
    bob = _bob(console)
    for path, facts in (("approvals", 4), (f"approvals/{case.row.id}", 9)):
        page = bob.sees(f"/console/{path}")
        assert UNSEEN not in page
        assert page.count(UNSEEN_SPELT_OUT) >= facts


def test_an_approver_sees_all_that_is_asked_and_their_yes_counts(console: ConsoleApp, case: ApprovalCase) -> None:
    _known(console)
    bob, id = _bob(console), case.row.id
    assert "Refund a charge" in bob.sees("/console/approvals")
    shown = bob.sees(f"/console/approvals/{id}?done=yes")
    assert "Your yes counts." not in shown, "whatever the address says"
    for said in (*ON_A_PAGE, "As <strong>acme.bob"):
        assert said in shown
    answer = bob.sends(f"/console/approvals/{id}/answer", answer="yes", digest=case.row.digest)
    assert answer.status_code == 303
    assert case.row.state == "approved"
    assert "Your yes counts." in bob.sees(answer.headers["Location"])
    (row,) = console.rows(select(audit).where(audit.c.kind == "approval.answered"))
    assert (row.principal_id, row.detail["said_as"], row.detail["through"]) == ("acme.bob", f"console:{BOB}", "console")
    assert "Nothing waits for an approval" in bob.sees("/console/approvals")
    assert "Refund a charge" in bob.sees("/console/approvals?state=approved")


def test_an_answer_to_something_else_than_was_shown_does_not_count(console: ConsoleApp, case: ApprovalCase) -> None:
    _known(console)
    answer = _bob(console).sends(f"/console/approvals/{case.row.id}/answer", answer="yes", digest="of something else")
    assert answer.status_code == 422
    assert "look at it again" in answer.text
    assert case.row.state == "open"


def test_whom_nobody_has_introduced_whoever_asked_and_whoever_came_by_a_link_cannot_answer(
    console: ConsoleApp, case: ApprovalCase
) -> None:
    path, form = f"/console/approvals/{case.row.id}", {"answer": "yes", "digest": case.row.digest}
    assert "aswhom aliases add --tenant acme" in _bob(console).sees(path)
    assert _bob(console).sends(f"{path}/answer", **form).status_code == 422
    _known(console, "acme.ada")
    page = _bob(console).sees(path)
    assert "Nothing is asked of you: acme.ada asked for it, and whoever asks does not approve." in page
    assert 'name="answer"' not in page
    assert "asked for it, and whoever asks does not approve" in _bob(console).sends(f"{path}/answer", **form).text
    by_link = _bob(console, Role.OWNER, Via.LINK)
    assert f"aswhom approvals link {case.row.id} --for USER" in by_link.sees(path)
    assert "aswhom aliases" not in by_link.sees(path)
    assert by_link.sends(f"{path}/answer", **form).status_code == 422
    assert case.row.state == "open"


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.AUDITOR])
def test_a_role_that_does_not_decide_cannot_answer(console: ConsoleApp, case: ApprovalCase, role: Role) -> None:
    _known(console)
    path, form = f"/console/approvals/{case.row.id}", {"answer": "yes", "digest": case.row.digest}
    assert "Your role does not decide" in _bob(console, role).sees(path)
    assert _bob(console, role).sends(f"{path}/answer", **form).status_code == 403
    assert case.row.state == "open"


def test_the_list_goes_on_page_by_page_and_says_so(console: ConsoleApp, case: ApprovalCase) -> None:
    one = dict(case.row._mapping)
    ids = [one["id"], *(f"apr_{number:03}" for number in range(119))]
    console.database.write(lambda c: c.execute(insert(approvals), [{**one, "id": id} for id in ids[1:]]))
    bob, path, seen, pages = _bob(console), "/console/approvals", list[str](), 0
    while path:
        told = bob.sees(path)
        seen += re.findall(r'href="/console/approvals/(\w+)"', told)
        pages += 1
        older = re.search(r'rel="next" href="([^"]+)"', told)
        path = html.unescape(older[1]) if older else ""
    assert (pages, sorted(seen)) == (3, sorted(ids))


def test_where_people_sign_in_the_link_of_an_approval_answers_nothing_by_itself(
    console: ConsoleApp, case: ApprovalCase
) -> None:
    """Whoever has bob's link without being bob sees nothing and decides nothing; bob, signed in, does."""
    _known(console)
    approving = console.parts.approving
    _, url = approving.invite(case.row.id, "acme.bob", now=datetime.now(UTC))
    link, page = url.removeprefix(BASE), f"/console/approvals/{case.row.id}"
    app = console.with_sign_in()
    thief, bob = app.test_client(), Visit(app.test_client())
    opened = thief.get(link)
    assert (opened.status_code, opened.location) == (303, page)
    assert thief.get(page).location.startswith("/console/sign-in")
    form = {"answer": "yes", "digest": case.row.digest}
    assert thief.post(link, data=form, headers={"Origin": BASE}).status_code == 403
    assert case.row.state == "open"
    bob.client.set_cookie("aswhom-console", console.session(Held(role=Role.APPROVER, tenant="acme"), name=BOB).reveal())
    assert bob.client.get(link).location == page
    assert bob.sends(f"{page}/answer", **form).status_code == 303
    assert case.row.state == "approved"

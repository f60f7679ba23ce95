"""Approvals at the console: whose answer counts, and that it is counted as theirs."""

from __future__ import annotations

import html
import re
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from identity.audit.tables import audit
from identity.console.roles import Held, Role
from identity.console.sessions import Via
from identity.principals import link_alias
from pipeline.approvals.tables import approvals
from pipeline.approvals.views import LOOKED_AT, approvals_page
from pipeline.ledger.paging import Turn
from pipeline.states import ApprovalState
from pipeline.tables import jobs
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
    assert row.detail["from"] == "127.0.0.1"
    assert "Nothing awaits your answer" in bob.sees("/console/approvals")
    assert "Nothing waits for an approval" in bob.sees("/console/approvals?state=open")
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
    assert _listed(_bob(console).sees("/console/approvals?awaits=me")) == []
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


def _row(case: ApprovalCase, id: str, approvers: list[str], expires_at: datetime, action: str) -> dict[str, Any]:
    """One that is like the case's."""
    (need,) = case.row.needs
    needs = [{**need, "rule": "acme.bob decides", "approvers": approvers}]
    shown = {**SHOWN, "does": action}
    return {**case.row._mapping, "id": id, "needs": needs, "shown": shown, "expires_at": expires_at}


def _listed(page: str) -> list[str]:
    return re.findall(r'href="/console/approvals/(\w+)"', page)


def test_an_approver_sees_first_what_awaits_them_and_what_expires_next_before_the_rest(
    console: ConsoleApp, case: ApprovalCase
) -> None:
    _known(console)
    bob, now = _bob(console), datetime.now(UTC)
    console.database.write(
        lambda c: c.execute(
            insert(approvals),
            [
                _row(case, "apr_soon", ["acme.bob", "acme.carol"], now + timedelta(minutes=5), "soon"),
                _row(case, "apr_other", ["acme.carol"], now + timedelta(minutes=50), "carol's"),
            ],
        )
    )
    mine = bob.sees("/console/approvals")
    assert _listed(mine) == ["apr_soon", case.row.id]
    assert mine.count('<strong class="error"><time') == 1, "what expires within minutes is marked"
    assert _listed(bob.sees("/console/approvals?state=open")) == ["apr_soon", "apr_other", case.row.id]
    answer = {"answer": "yes", "digest": case.row.digest}
    assert bob.sends(f"/console/approvals/{case.row.id}/answer", **answer).status_code == 303
    assert _listed(bob.sees("/console/approvals?awaits=me")) == ["apr_soon"]
    owner = _bob(console, Role.OWNER)
    assert _listed(owner.sees("/console/approvals")) == ["apr_soon", "apr_other"], "who runs this sees everybody's"
    assert _listed(owner.sees("/console/approvals?awaits=me")) == ["apr_soon"]


def test_an_approver_who_wants_to_see_what_is_decided_sees_it(console: ConsoleApp, case: ApprovalCase) -> None:
    _known(console)
    bob = _bob(console)
    assert bob.sends(f"/console/approvals/{case.row.id}/answer", answer="yes", digest=case.row.digest).location
    page = bob.sees("/console/approvals?awaits=me&state=approved")
    assert (_listed(page), "these are everybody’s" in page) == ([case.row.id], True)
    assert "<option selected>approved</option>" in page
    page = bob.sees("/console/approvals?awaits=me&state=open")
    assert ("Nothing awaits your answer" in page, "these are everybody’s" in page) == (True, False)


def test_whoever_has_answered_is_led_to_what_awaits_them_next(console: ConsoleApp, case: ApprovalCase) -> None:
    _known(console)
    bob, now = _bob(console), datetime.now(UTC)
    later, soon, others = (timedelta(minutes=number) for number in (40, 20, 5))
    made = [
        _row(case, "apr_later", ["acme.bob"], now + later, "later"),
        _row(case, "apr_soon", ["acme.bob"], now + soon, "soon"),
        _row(case, "apr_other", ["acme.carol"], now + others, "carol's"),
    ]
    console.database.write(lambda c: c.execute(insert(approvals), made))
    for id, next in ((case.row.id, "apr_soon"), ("apr_soon", "apr_later"), ("apr_later", None)):
        path = f"/console/approvals/{id}"
        assert "Next: " not in bob.sees(path), "one thing at a time"
        digest = re.search(r'name="digest" value="([^"]+)"', bob.sees(path))
        assert digest is not None
        shown = bob.sees(bob.sends(f"{path}/answer", answer="yes", digest=digest[1]).location)
        assert _listed(shown) == ([next] if next else [])
        assert ("To the approvals" in shown) is (next is None)


def test_what_awaits_somebody_is_listed_of_every_tenant_at_which_they_decide(
    console: ConsoleApp, case: ApprovalCase
) -> None:
    _known(console)
    bob = console.visit(Held(role=Role.APPROVER, tenant="aaa"), Held(role=Role.APPROVER, tenant="acme"), name=BOB)
    assert _listed(bob.sees("/console/approvals")) == [case.row.id]
    assert _listed(bob.sees("/console/approvals?awaits=me&tenant=aaa")) == []


def test_a_page_of_what_awaits_somebody_is_full_whatever_they_do_not_decide_lies_before_it(
    console: ConsoleApp, case: ApprovalCase
) -> None:
    _known(console)
    bob, soon = _bob(console), datetime.now(UTC) + timedelta(minutes=5)
    asked, job = [f"apr_asked{n:03}" for n in range(60)], console.house.job()
    console.database.write(lambda c: c.execute(update(jobs).where(jobs.c.id == job).values(user_id="acme.bob")))
    made = [{**_row(case, id, ["acme.bob"], soon, "bob asked for it"), "job_id": job} for id in asked]
    console.database.write(lambda c: c.execute(insert(approvals), made))
    assert _listed(bob.sees("/console/approvals")) == [case.row.id]
    _, views = console.database.read(
        lambda c: approvals_page(c, Turn(limit=1), tenant=None, state=ApprovalState.OPEN, awaiting=["acme.bob"])
    )
    assert [one.id for one in views] == [case.row.id], "and so is whoever has answered led to it"
    further = [{**one, "id": f"{one['id']}-{n}"} for one in made for n in range(5)]
    console.database.write(lambda c: c.execute(insert(approvals), further))
    page, views = console.database.read(
        lambda c: approvals_page(c, Turn(limit=1), tenant=None, state=ApprovalState.OPEN, awaiting=["acme.bob"])
    )
    assert (page.next is not None, page.looked_through, views) == (True, LOOKED_AT, []), "and it says how far it looked"


def test_who_does_not_decide_is_offered_no_list_of_theirs(console: ConsoleApp, case: ApprovalCase) -> None:
    _known(console)
    for role, offered in ((Role.APPROVER, True), (Role.OWNER, True), (Role.OPERATOR, False), (Role.AUDITOR, False)):
        told = _bob(console, role).sees("/console/approvals")
        assert ('name="awaits"' in told) is offered
        assert _listed(told) == [case.row.id]

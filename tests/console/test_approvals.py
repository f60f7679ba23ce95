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
from tests.console.town import BASE, Town, Visit
from tests.ledger.desk import ON_A_PAGE, SHOWN, Desk

BOB = "00u-bob"  # the subject of his sign-in


@pytest.fixture
def town(sqlite_town: Town) -> Town:
    return sqlite_town


@pytest.fixture
def desk(town: Town) -> Desk:
    """A step of ada's waits for bob or carol of acme."""
    desk = Desk(town.house)
    desk.ask(shown=SHOWN)
    return desk


def _known(town: Town, principal: str = "acme.bob") -> None:
    """An admin has said who bob is at acme."""
    link = partial(link_alias, tenant="acme", provider="console", external_id=BOB, login=None, made_by="admin:test")
    town.database.write(partial(link, principal=principal, now=datetime.now(UTC)))


def _bob(town: Town, role: Role = Role.APPROVER, via: Via = Via.OPENID) -> Visit:
    client = town.app.test_client()
    client.set_cookie("aswhom-console", town.session(Held(role=role, tenant="acme"), name=BOB, via=via).reveal())
    return Visit(client)


def test_an_approver_sees_all_that_is_asked_and_their_yes_counts(town: Town, desk: Desk) -> None:
    _known(town)
    bob, id = _bob(town), desk.row.id
    assert "Refund a charge" in bob.sees("/console/approvals")
    shown = bob.sees(f"/console/approvals/{id}")
    for said in (*ON_A_PAGE, "As <strong>acme.bob"):
        assert said in shown
    answer = bob.sends(f"/console/approvals/{id}/answer", answer="yes", digest=desk.row.digest)
    assert answer.status_code == 303
    assert desk.row.state == "approved"
    (row,) = town.rows(select(audit).where(audit.c.kind == "approval.answered"))
    assert (row.principal_id, row.detail["said_as"], row.detail["through"]) == ("acme.bob", f"console:{BOB}", "console")
    assert "Nothing waits for an approval" in bob.sees("/console/approvals")
    assert "Refund a charge" in bob.sees("/console/approvals?state=approved")


def test_an_answer_to_something_else_than_was_shown_does_not_count(town: Town, desk: Desk) -> None:
    _known(town)
    answer = _bob(town).sends(f"/console/approvals/{desk.row.id}/answer", answer="yes", digest="of something else")
    assert answer.status_code == 422
    assert "look at it again" in answer.text
    assert desk.row.state == "open"


def test_whom_nobody_has_introduced_whoever_asked_and_whoever_came_by_a_link_cannot_answer(
    town: Town, desk: Desk
) -> None:
    path, form = f"/console/approvals/{desk.row.id}", {"answer": "yes", "digest": desk.row.digest}
    assert "aswhom aliases add --tenant acme" in _bob(town).sees(path)
    assert _bob(town).sends(f"{path}/answer", **form).status_code == 422
    _known(town, "acme.ada")
    assert "asked for it, and whoever asks does not approve" in _bob(town).sends(f"{path}/answer", **form).text
    by_link = _bob(town, Role.OWNER, Via.LINK)
    assert f"aswhom approvals link {desk.row.id} --for USER" in by_link.sees(path)
    assert "aswhom aliases" not in by_link.sees(path)
    assert by_link.sends(f"{path}/answer", **form).status_code == 422
    assert desk.row.state == "open"


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.AUDITOR])
def test_a_role_that_does_not_decide_cannot_answer(town: Town, desk: Desk, role: Role) -> None:
    _known(town)
    path, form = f"/console/approvals/{desk.row.id}", {"answer": "yes", "digest": desk.row.digest}
    assert "Your role does not decide" in _bob(town, role).sees(path)
    assert _bob(town, role).sends(f"{path}/answer", **form).status_code == 403
    assert desk.row.state == "open"


def test_the_list_goes_on_page_by_page_and_says_so(town: Town, desk: Desk) -> None:
    one = dict(desk.row._mapping)
    ids = [one["id"], *(f"apr_{number:03}" for number in range(119))]
    town.database.write(lambda c: c.execute(insert(approvals), [{**one, "id": id} for id in ids[1:]]))
    bob, path, seen, pages = _bob(town), "/console/approvals", list[str](), 0
    while path:
        told = bob.sees(path)
        seen += re.findall(r'href="/console/approvals/(\w+)"', told)
        pages += 1
        older = re.search(r'rel="next" href="([^"]+)"', told)
        path = html.unescape(older[1]) if older else ""
    assert (pages, sorted(seen)) == (3, sorted(ids))


def test_where_people_sign_in_the_link_of_an_approval_answers_nothing_by_itself(town: Town, desk: Desk) -> None:
    """Whoever has bob's link without being bob sees nothing and decides nothing; bob, signed in, does."""
    _known(town)
    approving = town.console.approving
    _, url = approving.invite(desk.row.id, "acme.bob", now=datetime.now(UTC))
    link, page = url.removeprefix(BASE), f"/console/approvals/{desk.row.id}"
    app = town.with_sign_in()
    thief, bob = app.test_client(), Visit(app.test_client())
    opened = thief.get(link)
    assert (opened.status_code, opened.location) == (303, page)
    assert thief.get(page).location.startswith("/console/sign-in")
    form = {"answer": "yes", "digest": desk.row.digest}
    assert thief.post(link, data=form, headers={"Origin": BASE}).status_code == 403
    assert desk.row.state == "open"
    bob.client.set_cookie("aswhom-console", town.session(Held(role=Role.APPROVER, tenant="acme"), name=BOB).reveal())
    assert bob.client.get(link).location == page
    assert bob.sends(f"{page}/answer", **form).status_code == 303
    assert desk.row.state == "approved"

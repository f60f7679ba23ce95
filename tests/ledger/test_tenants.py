"""Tenants that are added: of two who add the same one, one has. And links of people that are taken back."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, func, select

from identity.audit import Act
from identity.audit.tables import audit
from identity.errors import BadInput
from pipeline.approvals.votes import Channel, Counted, NotCounted
from pipeline.db.database import Database
from pipeline.desk import tenants
from pipeline.jobs.intents import Approved, Ended, Opened
from pipeline.states import ApprovalState
from tests.ledger.acts import until_awaited
from tests.ledger.approval_case import FOUR_EYES, ApprovalCase
from tests.ledger.house import House
from tests.ledger.links import SLACK, linked, taken_back


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_whoever_adds_a_tenant_while_it_is_added_is_told_that_it_is_there(database: Database) -> None:
    """Neither has seen the other's row. SQLite has one writer anyway."""
    told: list[str] = []

    def add(c: Connection, name: str) -> str:
        return tenants.add(c, "mill", Act(audit_id=f"aud-{name}", by="test", now=datetime.now(UTC)), name=name)

    def add_late() -> None:
        try:
            told.append(database.write(lambda c: add(c, "late")))
        except BadInput as error:
            told.append(str(error))

    late = threading.Thread(target=add_late)
    assert until_awaited(database, lambda c: add(c, "early"), by=late) == "mill.service"
    assert told == ["there is a tenant mill already: choose another id"]
    assert database.read(lambda c: c.execute(select(func.count()).select_from(audit)).scalar_one()) == 1


def test_a_link_that_leads_to_somebody_else_by_now_is_not_taken_back(house: House) -> None:
    """Whoever was asked was shown the former."""
    with pytest.raises(BadInput, match=r"is linked to acme\.ada by now, and not to acme\.bob"):
        house.database.write(partial(taken_back, provider="github", external_id="1001"))
    assert house.database.read(lambda c: tenants.alias(c, "acme", "github", "1001")) == "acme.ada"
    assert house.database.read(lambda c: c.execute(select(audit).where(audit.c.kind == "alias.removed")).all()) == []


def test_a_link_that_is_taken_back_leaves_jobs_with_whom_they_were_accepted_for(house: House) -> None:
    remove = partial(taken_back, provider="github", external_id="1001", principal="acme.ada")
    before = house.job("before")
    assert house.database.write(remove) == []
    after = house.job("after")
    assert [house.row(job).user_id for job in (before, after)] == ["acme.ada", None]
    (said,) = house.database.read(lambda c: c.execute(select(audit).where(audit.c.kind == "alias.removed")).all())
    assert (said.tenant_id, said.reason, said.detail["principal"]) == ("acme", "by test", "acme.ada")
    with pytest.raises(BadInput, match="nobody is linked"):
        house.database.write(remove)


@pytest.mark.parametrize(
    ("provider", "said"),
    [("slack", SLACK), ("slack-eu", SLACK), ("console", {"channel": Channel.CONSOLE, "said_as": "console:Bob"})],
)
@pytest.mark.parametrize("quorum", [1, 2])
def test_a_yes_through_a_link_that_is_taken_back_counts_no_more(
    house: House, provider: str, said: dict[str, Any], quorum: int
) -> None:
    """Of two who must say it, one has; or the job was woken, and has not opened its step yet."""
    case = ApprovalCase(house, replace(FOUR_EYES, quorum=quorum))
    case.ask()
    linked(house, "acme.bob", provider, "U1")
    assert isinstance(case.say("acme.bob", **said), Counted)
    first = case.row
    assert house.database.write(partial(taken_back, provider=provider, external_id="U1")) == [first.id]
    assert case.row.state == ApprovalState.VOID
    assert "who said yes as acme.bob" in case.row.reason
    case.again()
    assert isinstance(case.ask(), Ended)
    assert (case.row.state, case.row.id != first.id) == (ApprovalState.OPEN, True)
    told = house.database.read(lambda c: c.execute(select(audit.c.detail).where(audit.c.kind == "alias.removed")).one())
    assert told.detail["voided"] == [first.id]


@pytest.mark.parametrize("said", [SLACK, {"channel": Channel.PAGE, "said_as": "link:acme.bob"}])
def test_a_yes_that_was_said_otherwise_stands(house: House, said: dict[str, Any]) -> None:
    case = ApprovalCase(house)
    case.ask()
    for id in ("U1", "U2"):
        linked(house, "acme.bob", "slack", id)
    case.say("acme.bob", **said)
    assert house.database.write(partial(taken_back, provider="slack", external_id="U2")) == []
    assert case.row.state == ApprovalState.APPROVED


def test_an_approval_that_was_used_stays_what_it_was(house: House) -> None:
    case = ApprovalCase(house)
    case.ask()
    linked(house, "acme.bob", "slack", "U1")
    case.say("acme.bob", **SLACK)
    case.again()
    given = case.ask()
    assert isinstance(given, Approved)
    assert isinstance(case.open(approval=given), Opened)
    assert house.database.write(partial(taken_back, provider="slack", external_id="U1")) == []
    assert case.row.state == ApprovalState.APPROVED


def test_an_answer_that_comes_after_its_link_was_taken_back_does_not_count(house: House) -> None:
    """Whose it is was looked up before it was counted."""
    case = ApprovalCase(house)
    case.ask()
    link = linked(house, "acme.bob", "slack", "U1")
    house.database.write(partial(taken_back, provider="slack", external_id="U1"))
    late = case.say("acme.bob", **SLACK, link=link)
    assert late == NotCounted(reason="slack user U1 is not linked to acme.bob any more")


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_an_answer_beside_the_removal_of_its_link_waits_for_it(house: House) -> None:
    """SQLite has one writer anyway."""
    case = ApprovalCase(house)
    case.ask()
    link = linked(house, "acme.bob", "slack", "U1")
    came: list[object] = []
    by = threading.Thread(target=lambda: came.append(case.say("acme.bob", **SLACK, link=link)))
    remove = partial(taken_back, provider="slack", external_id="U1")
    assert until_awaited(house.database, remove, by=by) == []
    assert [type(one) for one in came] == [NotCounted]

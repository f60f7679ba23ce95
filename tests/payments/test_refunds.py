"""A refund needs two people besides whoever asked, and is made once, by a token that names them."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

import pytest
from sqlalchemy import select

from identity.model import PrincipalKind
from identity.policy_ledger import policy_text
from identity.principals import ensure_principal
from pipeline.policy_change import put_in_force
from pipeline.states import JobState
from pipeline.tables import workflow_settings
from tests.payments.office import SMALL, Office

TWO_EYES_MORE = """
[[allow]]
name = "refunds"
when = { action = "invoices.RefundInvoice" }
limit = "5000 EUR"

[[rule]]
name = "two people for money that comes back"
when = { action = "invoices.RefundInvoice" }
approval = { approvers = ["ada", "grace", "edsger"], quorum = 2 }
"""


@pytest.fixture
def paid(office: Office) -> Office:
    """An invoice is paid, and ada wants it back."""
    town, now = office.town, datetime.now(UTC)
    person = partial(ensure_principal, tenant="acme", kind=PrincipalKind.USER, now=now)
    town.runtime.database.write(partial(person, id="acme.edsger", name="edsger"))
    _, before = town.runtime.database.read(lambda c: policy_text(c, "acme"))
    change = partial(put_in_force, over=None, by="cli:test", audit_id=town.runtime.ids("aud"), now=now)
    town.runtime.database.write(lambda c: change(c, "acme", before + TWO_EYES_MORE))
    on = workflow_settings.insert().values(tenant_id="acme", workflow="refund_invoice", enabled=True, config={})
    town.runtime.database.write(lambda c: c.execute(on))
    office.ask()
    town.settle()
    town.report("acme", "refund.requested", {"invoice": SMALL, "requested_by": "ada"})
    town.settle()
    return office


def back(office: Office) -> list[str]:
    return [one["amount"] for one in office.movements() if one["kind"] == "refund"]


def test_a_refund_is_made_once_two_others_said_yes_and_both_are_in_its_token(paid: Office) -> None:
    assert paid.answer(by="ada").status_code == 409, "whoever asked may not"
    assert paid.answer(by="grace").status_code == 200
    paid.town.settle()
    assert back(paid) == [], "one yes is not two"
    assert paid.answer(by="edsger").status_code == 200
    paid.town.settle()
    assert {job.state for job in paid.town.jobs()} == {JobState.DONE}
    assert back(paid) == ["480.00"]
    token = paid.capabilities()[-1]
    assert (token.action, sorted(token.approved_by)) == ("invoices.RefundInvoice", ["acme.edsger", "acme.grace"])
    assert paid.replay(paid.stolen("/refund")).json() == {"error": "invalid_token", "reason": "closed"}
    paid.town.report("acme", "refund.requested", {"invoice": SMALL, "requested_by": "grace"})
    paid.town.settle()
    assert len(back(paid)) <= 1, "asked for twice, refunded once"


def test_one_no_refunds_nothing(paid: Office) -> None:
    assert paid.answer(by="grace").status_code == 200
    assert paid.answer(by="edsger", yes=False).status_code == 200
    paid.town.settle()
    assert back(paid) == []
    assert "invoices.RefundInvoice" not in {one.action for one in paid.capabilities()}


def test_without_an_allowance_not_even_two_people_can_refund(office: Office) -> None:
    on = workflow_settings.insert().values(tenant_id="acme", workflow="refund_invoice", enabled=True, config={})
    office.town.runtime.database.write(lambda c: c.execute(on))
    office.ask()
    office.town.settle()
    office.town.report("acme", "refund.requested", {"invoice": SMALL, "requested_by": "ada"})
    office.town.settle()
    switched_on = office.town.runtime.database.read(
        lambda c: c.execute(select(workflow_settings.c.workflow).where(workflow_settings.c.tenant_id == "acme")).all()
    )
    assert len(switched_on) > 1
    assert [job.state for job in office.town.jobs()] == [JobState.DONE, JobState.DEAD]
    assert "no [[allow]] of the tenant's policy is about it" in office.town.jobs()[-1].reason
    assert back(office) == []

"""A refund needs two people besides whoever asked, and is made once, by a token that names them."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from identity.errors import BadInput
from pipeline.states import JobState
from pipeline.tables import workflow_settings
from tests.ledgers import MOSTLY_SQLITE
from tests.payments.payments import SMALL, Payments
from tests.payments.scenes import allow_refunds

pytestmark = MOSTLY_SQLITE


@pytest.fixture
def paid(payments: Payments) -> Payments:
    """An invoice is paid, and ada wants it back."""
    allow_refunds(payments)
    payments.ask()
    payments.system.settle()
    payments.ask_back(SMALL)
    payments.system.settle()
    return payments


def back(payments: Payments) -> list[str]:
    return [one["amount"] for one in payments.movements() if one["kind"] == "refund"]


def test_a_refund_is_made_once_two_others_said_yes_and_both_are_in_its_token(paid: Payments) -> None:
    with pytest.raises(BadInput, match="asked for it, and whoever asks does not approve"):
        paid.answer(by="ada")
    assert paid.answer(by="grace").status_code == 200
    paid.system.settle()
    assert back(paid) == [], "one yes is not two"
    assert paid.answer(by="edsger").status_code == 200
    paid.system.settle()
    assert {job.state for job in paid.system.jobs()} == {JobState.DONE}
    assert back(paid) == ["480.00"]
    token = paid.capabilities()[-1]
    assert (token.action, sorted(token.approved_by)) == ("invoices.RefundInvoice", ["acme.edsger", "acme.grace"])
    assert paid.replay(paid.stolen("/refund")).json() == {"error": "invalid_token", "reason": "closed"}
    paid.ask_back(SMALL, by="grace")
    paid.system.settle()
    assert back(paid) == ["480.00"], "asked for twice, refunded once"


def test_one_no_refunds_nothing(paid: Payments) -> None:
    assert paid.answer(by="grace").status_code == 200
    assert paid.answer(by="edsger", yes=False).status_code == 200
    paid.system.settle()
    assert back(paid) == []
    assert "invoices.RefundInvoice" not in {one.action for one in paid.capabilities()}


def test_without_an_allowance_not_even_two_people_can_refund(payments: Payments) -> None:
    on = workflow_settings.insert().values(tenant_id="acme", workflow="refund_invoice", enabled=True, config={})
    payments.system.runtime.database.write(lambda c: c.execute(on))
    payments.ask()
    payments.system.settle()
    payments.ask_back(SMALL)
    payments.system.settle()
    switched_on = payments.system.runtime.database.read(
        lambda c: c.execute(select(workflow_settings.c.workflow).where(workflow_settings.c.tenant_id == "acme")).all()
    )
    assert len(switched_on) > 1
    assert [job.state for job in payments.system.jobs()] == [JobState.DONE, JobState.DEAD]
    assert "no [[allow]] of the tenant's policy is about it" in payments.system.jobs()[-1].reason
    assert back(payments) == []

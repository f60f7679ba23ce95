"""Somebody tries to have money moved that is not theirs to move: by a deputy, another name, or a change in between."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

from sqlalchemy import update

from identity.audit import Act
from identity.policy.ledger import policy_text
from identity.principals import link_alias
from pipeline.approvals.views import approval
from pipeline.approvals.votes import Channel, NotCounted, Vote
from pipeline.policy.change import put_in_force
from pipeline.states import ApprovalState, JobState
from pipeline.tables import steps
from tests.ledgers import MOSTLY_SQLITE
from tests.payments.payments import LARGE, OF_ACME_ALONE, SMALL, Payments
from tests.tasks.approvals import asked

pytestmark = MOSTLY_SQLITE


def test_a_confused_deputy_acts_for_nobody_whom_the_tenant_of_whoever_signed_does_not_know(payments: Payments) -> None:
    """Globex's own system, validly signed, names acme's invoice and one of acme's people."""
    payments.ask(OF_ACME_ALONE, by="grace", tenant="globex")
    (job,) = payments.system.settle()
    assert (job.tenant_id, job.state) == ("globex", JobState.DEAD)
    assert "no principal is linked to who that is" in job.reason
    assert payments.capabilities() == []


def test_a_confused_deputy_reaches_the_books_of_whoever_signed_and_no_others(payments: Payments) -> None:
    """Linus is globex's, and the invoice he names is acme's."""
    payments.ask(OF_ACME_ALONE, by="linus", tenant="globex")
    (job,) = payments.system.settle()
    assert (job.tenant_id, job.state) == ("globex", JobState.DEAD)
    assert job.reason == "ActionFailed: invoices.GetInvoice failed: the invoices say not_found"
    (asked,) = payments.capabilities()
    assert (asked.tenant_id, asked.principal_id, asked.resource) == (
        "globex",
        "globex.linus",
        f"invoices/{OF_ACME_ALONE}",
    )
    payments.ask(OF_ACME_ALONE)
    payments.system.settle()
    assert [(one["tenant"], one["invoice"]) for one in payments.movements()] == [("acme", OF_ACME_ALONE)]


def test_whoever_asked_does_not_approve_under_a_name_that_another_sender_knows_them_by(payments: Payments) -> None:
    """Ada asks, and says yes as grace: an admin finds out in time that both are hers, and asked or not it is no yes."""
    payments.ask(LARGE)
    payments.system.settle()
    first = asked(payments.system)
    assert payments.answer(by="grace").status_code == 200
    link = partial(
        link_alias,
        tenant="acme",
        provider="chat",
        external_id="ada",  # as the tenant's own system names her
        principal="acme.grace",
        login=None,
        made_by="admin:test",
        now=datetime.now(UTC),
    )
    payments.system.runtime.database.write(link)
    (job,) = payments.system.settle()
    assert (job.state, "whoever asked may not" in job.reason) == (JobState.DEAD, True), "there is nobody else to ask"
    assert payments.movements() == []
    voided = payments.system.runtime.database.read(lambda c: approval(c, first.id))
    assert voided is not None
    assert voided.state is ApprovalState.VOID


def test_an_invoice_that_grows_between_approval_and_call_is_asked_about_anew(payments: Payments) -> None:
    """The run after the yes finds another amount on file: what would be paid is not what was approved."""
    payments.ask(LARGE)
    payments.system.settle()
    first = asked(payments.system)
    assert payments.answer(by="grace").status_code == 200
    dearer = {"id": LARGE, "vendor": "Umbrella", "amount": "49000.00", "currency": "EUR", "status": "open"}
    read = update(steps).where(steps.c.position == 1).values(result=dearer)  # as if the books had said so
    payments.system.runtime.database.write(lambda c: c.execute(read))
    payments.system.settle()
    assert payments.movements() == []
    assert asked(payments.system).id != first.id
    assert asked(payments.system).shown["amount"] == "49000.00 EUR"


def test_an_invoice_whose_vendor_raises_it_after_the_yes_is_not_paid_at_either_price(payments: Payments) -> None:
    """What was read stays what is paid: the books refuse that, and at the new price it is asked about anew."""
    payments.ask(LARGE)
    payments.system.settle()
    first = asked(payments.system)
    assert payments.answer(by="grace").status_code == 200
    payments.sandbox.order("invoices", "reprice", tenant="acme", invoice=LARGE, amount="49000.00")
    (job,) = payments.system.settle()
    assert (job.state, "wrong_amount" in job.reason) == (JobState.DEAD, True)
    (_, pay) = payments.capabilities()
    assert (pay.limit_amount, pay.approved_by) == ("12500.00", ["acme.grace"])
    assert payments.movements() == []
    payments.ask(LARGE)
    payments.system.settle()
    assert asked(payments.system).id != first.id
    assert asked(payments.system).shown["amount"] == "49000.00 EUR"
    assert payments.answer(by="grace").status_code == 200
    payments.system.settle()
    assert [(one["invoice"], one["amount"]) for one in payments.movements()] == [(LARGE, "49000.00")]


def test_a_release_that_writes_another_request_does_not_send_it_on_the_yes_to_the_one_before(
    payments: Payments,
) -> None:
    """Action and parameters are as approved: only the bytes on the wire would differ."""
    payments.ask(LARGE)
    payments.system.settle()
    first = asked(payments.system)
    assert payments.answer(by="grace").status_code == 200
    deployed = payments.deploy("tests.payments.next_release")
    (job,) = deployed.system.settle()
    assert (job.wait, payments.movements()) == ("approval", [])
    voided = payments.system.runtime.database.read(lambda c: approval(c, first.id))
    assert voided is not None
    assert (voided.state, voided.reason) == (ApprovalState.VOID, "what would be done changed")
    again = asked(payments.system)
    assert again.shown["parameters"] == first.shown["parameters"]
    assert again.shown["request_sha256"] != first.shown["request_sha256"]
    assert deployed.answer(by="grace").status_code == 200
    deployed.system.settle()
    (_, pay) = payments.capabilities()
    assert pay.request_sha256 == again.shown["request_sha256"]
    assert payments.stolen("?notify=vendor")["target"] == f"/v1/invoices/{LARGE}/pay?notify=vendor"
    assert [one["invoice"] for one in payments.movements()] == [LARGE]
    deployed.system.close()


def test_a_yes_under_a_looser_policy_pays_nothing_under_a_tighter_one(payments: Payments) -> None:
    payments.ask(LARGE)
    payments.system.settle()
    assert payments.answer(by="grace").status_code == 200
    _, before = payments.system.runtime.database.read(lambda c: policy_text(c, "acme"))
    tighter = before.replace('limit = "50000 EUR"', 'limit = "10000 EUR"')
    change = partial(put_in_force, over=None, act=Act(audit_id="aud_tighter", by="cli:test", now=datetime.now(UTC)))
    payments.system.runtime.database.write(lambda c: change(c, "acme", tighter))
    (job,) = payments.system.settle()
    assert job.state == JobState.DEAD
    assert payments.movements() == []


def test_an_agent_cannot_answer_for_itself(payments: Payments) -> None:
    """Its name is no user's, and a service principal has no word either."""
    payments.ask(LARGE)
    payments.system.settle()
    view = asked(payments.system)
    for who in ("accounts-payable", "acme.service", "acme.accounts-payable"):
        given = Vote(
            approval=view.id,
            tenant="acme",
            principal=who,
            yes=True,
            digest=view.digest,
            channel=Channel.CONSOLE,
            said_as=who,
        )
        assert isinstance(payments.system.runtime.approving.vote(given, now=datetime.now(UTC)), NotCounted)
    assert asked(payments.system).state is ApprovalState.OPEN


def test_the_same_yes_does_not_pay_another_invoice(payments: Payments) -> None:
    payments.ask(LARGE)
    payments.system.settle()
    assert payments.answer(by="grace").status_code == 200
    payments.ask(SMALL)
    payments.system.settle()
    payments.ask("inv_1005")  # over every limit
    payments.system.settle()
    assert sorted(one["invoice"] for one in payments.movements()) == [SMALL, LARGE]

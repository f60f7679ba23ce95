"""The payments at their ordinary work: what starts each, its two steps, who has to say yes, and what money moves."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from identity.audit import Act
from identity.model import PrincipalKind
from identity.policy.ledger import policy_text
from identity.principals import ensure_principal
from pipeline.policy.change import put_in_force
from pipeline.states import Wait
from pipeline.tables import workflow_settings
from tests.docs.pages import page
from tests.payments.payments import LARGE, PAID_ALREADY, Paying, Payments

# As the page has it, put behind what is in force.
(_SHOWN,) = re.findall(
    r"### Two people for a refund\n.*?```toml\nformat = 1\n(.*?)```", page("approvals.md"), re.DOTALL
)
TWO_EYES_MORE = str(_SHOWN)


def allow_refunds(payments: Paying) -> None:
    """Acme has refunds switched on, and two people of three have to say yes to each."""
    database, now = payments.system.runtime.database, datetime.now(UTC)
    person = partial(ensure_principal, tenant="acme", kind=PrincipalKind.USER, now=now)
    database.write(partial(person, id="acme.edsger", name="edsger"))
    _, before = database.read(lambda c: policy_text(c, "acme"))
    change = partial(
        put_in_force, over=None, act=Act(audit_id=payments.system.runtime.ids("aud"), by="cli:test", now=now)
    )
    database.write(lambda c: change(c, "acme", before + TWO_EYES_MORE))
    on = workflow_settings.insert().values(tenant_id="acme", workflow="refund_invoice", enabled=True, config={})
    database.write(lambda c: c.execute(on))


@dataclass(frozen=True, kw_only=True)
class Payment:
    """It reads an invoice, waits for *approvers*, and moves its money."""

    workflow: str
    start: Callable[[Paying], None]
    approvers: tuple[str, ...]
    actions: tuple[str, str]
    endpoints: tuple[str, str]  # the sandbox's names for them
    moves: dict[str, str]

    def begin(self, payments: Payments, *, before: int) -> None:
        """Start it, and let everything be done that comes *before* that step, counted from 0."""
        self.start(payments)
        if before:
            self.approved(payments)

    def approved(self, payments: Payments) -> None:
        """Let work be done until people have to say yes, and they do."""
        (job,) = payments.system.settle()
        assert (job.workflow, job.wait) == (self.workflow, Wait.APPROVAL), job.reason
        for name in self.approvers:
            assert payments.answer(by=name).status_code == 200

    def finish(self, payments: Payments) -> Any:
        """The job at its end."""
        (job,) = payments.system.settle()
        if job.wait == Wait.APPROVAL:
            self.approved(payments)
            (job,) = payments.system.settle()
        return job


def _refund(payments: Paying) -> None:
    allow_refunds(payments)
    payments.ask_back(PAID_ALREADY)


PAYMENTS = (
    Payment(
        workflow="pay_invoice",
        start=lambda payments: payments.ask(LARGE),
        approvers=("grace",),
        actions=("invoices.GetInvoice", "invoices.PayInvoice"),
        endpoints=("get_invoice", "pay_invoice"),
        moves={"kind": "payment", "tenant": "acme", "invoice": LARGE, "amount": "12500.00"},
    ),
    Payment(
        workflow="refund_invoice",
        start=_refund,
        approvers=("grace", "edsger"),
        actions=("invoices.GetInvoice", "invoices.RefundInvoice"),
        endpoints=("get_invoice", "refund_invoice"),
        moves={"kind": "refund", "tenant": "acme", "invoice": PAID_ALREADY, "amount": "640.00"},
    ),
)

"""Refunds a paid invoice on a person's request, as far as policy allows it.

The tenant's policy decides how many people must approve: docs/approvals.md has one that requires two.
"""

from __future__ import annotations

from pipeline.run import Run
from pipeline.workflow import USER, NoConfig, workflow
from tasks.actions import invoices
from tasks.events.standard import RefundRequested, refund_requested


@workflow(
    agent="accounts-payable",
    on=refund_requested(),
    event=RefundRequested,
    user=lambda event: event.requested_by,
    triggered_by=lambda event: event.requested_by,
    uses={invoices.GetInvoice: USER, invoices.RefundInvoice: USER},
)
def refund_invoice(run: Run[NoConfig], event: RefundRequested) -> None:
    """Refund the invoice's own amount, once, however often it is requested; the request cannot name an amount."""
    invoice = run.do(invoices.GetInvoice(id=event.invoice), as_=run.user)
    if invoice.status == "paid":
        back = invoices.RefundInvoice(id=event.invoice, amount=invoice.amount, currency=invoice.currency)
        run.do(back, as_=run.user, once=event.invoice)

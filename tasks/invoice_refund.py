"""Take back a paid invoice that a person asked to have refunded, as far as policy allows it.

How many people have to say yes is the tenant's policy alone: docs/approvals.md has one that wants two.
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
    """Take back what the books say was paid, once, whoever asks again; the request cannot name an amount."""
    invoice = run.do(invoices.GetInvoice(id=event.invoice), as_=run.user)
    if invoice.status == "paid":
        back = invoices.RefundInvoice(id=event.invoice, amount=invoice.amount, currency=invoice.currency)
        run.do(back, as_=run.user, once=event.invoice)

"""Pays an invoice on a person's request, within the policy's limit or with a second person's approval."""

from __future__ import annotations

from pipeline.run import Run
from pipeline.workflow import USER, NoConfig, workflow
from tasks.actions import invoices
from tasks.events.standard import PaymentRequested, payment_requested


@workflow(
    agent="accounts-payable",
    on=payment_requested(),
    event=PaymentRequested,
    user=lambda event: event.requested_by,
    triggered_by=lambda event: event.requested_by,
    uses={invoices.GetInvoice: USER, invoices.PayInvoice: USER},
)
def pay_invoice(run: Run[NoConfig], event: PaymentRequested) -> None:
    """Pay the invoice's own amount, once, however often it is requested; the request cannot name an amount."""
    invoice = run.do(invoices.GetInvoice(id=event.invoice), as_=run.user)
    if invoice.status == "open":
        payment = invoices.PayInvoice(id=event.invoice, amount=invoice.amount, currency=invoice.currency)
        run.do(payment, as_=run.user, once=event.invoice)

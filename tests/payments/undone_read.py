"""A release of the payments in which the invoice is read once more, as the service, if a revocation cancels the job."""

from __future__ import annotations

from pipeline.run import Run
from pipeline.workflow import USER, NoConfig, compensate, workflow
from tasks.actions import invoices
from tasks.events.standard import PaymentRequested, payment_requested


@workflow(
    agent="accounts-payable",
    on=payment_requested(),
    event=PaymentRequested,
    user=lambda event: event.requested_by,
    triggered_by=lambda event: event.requested_by,
    uses={
        invoices.GetInvoice: USER.on_revoke(compensate(invoices.GetInvoice, lambda read, _: read)),
        invoices.PayInvoice: USER,
    },
)
def pay_invoice(run: Run[NoConfig], event: PaymentRequested) -> None:
    """Pay the invoice's own amount, as other releases do."""
    invoice = run.do(invoices.GetInvoice(id=event.invoice), as_=run.user)
    payment = invoices.PayInvoice(id=event.invoice, amount=invoice.amount, currency=invoice.currency)
    run.do(payment, as_=run.user, once=event.invoice)

"""A later release of the payments: the same action and parameters make a different request."""

from __future__ import annotations

from pipeline.action import Call, Request
from pipeline.run import Run
from pipeline.workflow import USER, NoConfig, workflow
from tasks.actions import invoices
from tasks.events.standard import PaymentRequested, payment_requested


class PayInvoice(invoices.PayInvoice):
    """Pay an open invoice in full. Moves money out."""

    def request(self, call: Call) -> Request:
        before = super().request(call)
        return Request(method="POST", path=before.path, params={"notify": "vendor"}, json=before.json)


@workflow(
    agent="accounts-payable",
    on=payment_requested(),
    event=PaymentRequested,
    user=lambda event: event.requested_by,
    triggered_by=lambda event: event.requested_by,
    uses={invoices.GetInvoice: USER, PayInvoice: USER},
)
def pay_invoice(run: Run[NoConfig], event: PaymentRequested) -> None:
    """Pay the invoice's own amount, as the release before did."""
    invoice = run.do(invoices.GetInvoice(id=event.invoice), as_=run.user)
    payment = PayInvoice(id=event.invoice, amount=invoice.amount, currency=invoice.currency)
    run.do(payment, as_=run.user, once=event.invoice)

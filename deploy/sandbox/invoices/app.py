"""Invoices that are read, paid and refunded only with capabilities, each valid for one invoice."""

import threading
from collections import deque
from decimal import Decimal, InvalidOperation
from typing import Any

from flask import Flask, Response, jsonify, request

from deploy.sandbox.invoices.books import Books, Refused
from deploy.sandbox.invoices.leave import Leave, NoLeave
from deploy.sandbox.journal import Clock, Journal
from deploy.sandbox.surface import entry, equip, json_body, touched


def create_invoices(world: dict[str, Any], *, journal: Journal, clock: Clock) -> Flask:
    app = Flask(__name__)
    books, leave = Books(world["invoices"]["tenants"]), Leave(world["invoices"], clock)
    wire: deque[dict[str, str]] = deque(maxlen=1000)  # what an eavesdropper would record
    lock = threading.Lock()

    @app.before_request
    def overhear() -> None:
        if request.headers.get("Authorization"):
            heard = {
                "method": request.method,
                "target": request.environ["RAW_URI"],
                "authorization": request.headers["Authorization"],
                "idempotency_key": request.headers.get("Idempotency-Key", ""),
                "body": request.get_data(as_text=True),
            }
            with lock:
                wire.append(heard)

    @app.get("/v1/invoices/<key>")
    def get_invoice(key: str) -> Response:
        capability = leave.granted(action="invoices.GetInvoice", resource=f"invoices/{key}")
        touched(key, effect=False)
        return jsonify(books.show(capability.tenant, key))

    @app.post("/v1/invoices/<key>/pay")
    def pay_invoice(key: str) -> Response:
        return move(key, "invoices.PayInvoice", books.pay)

    @app.post("/v1/invoices/<key>/refund")
    def refund_invoice(key: str) -> Response:
        return move(key, "invoices.RefundInvoice", books.refund)

    def move(key: str, action: str, act: Any) -> Response:
        amount, currency = _money()
        resource = f"invoices/{key}"
        capability = leave.granted(action=action, resource=resource, amount=amount, currency=currency)
        # All tokens of one call share these; a new token has a new id.
        marks = [f"{capability.tenant} {capability.step} {capability.request_sha256}"]
        if entry().idempotency_key:
            marks.append(f"{capability.tenant} {entry().idempotency_key}")
        done = act(capability.tenant, key, amount, currency, marks=marks)
        touched(key, effect=not done["repeated"])
        response = jsonify({**done, "approved_by": list(capability.approved_by)})
        if done["repeated"]:
            response.headers["Idempotent-Replayed"] = "true"
        return response

    @app.get("/_sandbox/movements")
    def read_movements() -> Response:
        return jsonify(books.movements)

    @app.get("/_sandbox/wire")
    def read_wire() -> Response:
        """Return every request that carried a token, with the token, for tests and the demo to steal."""
        with lock:
            return jsonify(list(wire))

    @app.post("/_sandbox/reprice")
    def reprice() -> Response:
        body = json_body("tenant", "invoice", "amount")
        books.reprice(body["tenant"], body["invoice"], body["amount"])
        return jsonify(ok=True)

    @app.post("/_sandbox/forget")
    def forget() -> Response:
        books.forget()
        with lock:
            wire.clear()
        return jsonify(ok=True)

    @app.errorhandler(NoLeave)
    def no_leave(error: NoLeave) -> tuple[Response, int, dict[str, str]]:
        shown = {"WWW-Authenticate": f'Bearer error="{error.error}"'} if error.status == 401 else {}
        return jsonify(error=error.error, reason=error.reason), error.status, shown

    @app.errorhandler(Refused)
    def refused(error: Refused) -> tuple[Response, int]:
        return jsonify(error=error.error), error.status

    equip(app, journal=journal)
    return app


def _money() -> tuple[Decimal, str]:
    document = request.get_json(silent=True)
    if not isinstance(document, dict) or document.keys() != {"amount", "currency"}:
        raise Refused(400, "not_money")
    try:
        amount = Decimal(str(document["amount"]))
    except InvalidOperation:
        raise Refused(400, "not_money") from None
    if not amount.is_finite() or amount <= 0:
        raise Refused(400, "not_money")
    return amount, str(document["currency"])

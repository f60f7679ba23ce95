"""Stripe's API, limited to subscriptions (docs.stripe.com/api).

Bodies are form-encoded, lists use cursors, and an idempotency key returns the first answer again.
"""

import threading
from typing import Any

from flask import Flask, Response, jsonify, request

from deploy.sandbox.journal import Clock, Journal
from deploy.sandbox.static_tokens import StaticTokens
from deploy.sandbox.surface import BadControl, entry, equip, json_body, touched

PAGE, MOST = 10, 100
_AT_FIRST = {"status": "active"}


class Refused(Exception):
    def __init__(self, status: int, kind: str, message: str, **more: str) -> None:
        super().__init__(message)
        self.status = status
        self.error = {"type": kind, "message": message, **more}


def create_stripe(world: dict[str, Any], *, journal: Journal, clock: Clock) -> Flask:
    app = Flask(__name__)
    accounts = world["stripe"]["accounts"]
    tokens = StaticTokens({row["restricted_key"]: row for row in accounts}, tenant="tenant")
    lock = threading.Lock()
    books = {
        row["id"]: [_subscription(one, int(clock().timestamp())) for one in row["subscriptions"]] for row in accounts
    }
    answered: dict[tuple[str, str], tuple[Any, dict[str, Any]]] = {}

    def account(permission: str) -> str:
        """Return the account of the restricted key. Raise Refused."""
        row, works = tokens.presented("key")
        if row is not None:
            entry().actor = row["id"]
        if row is None or not works:
            raise Refused(401, "invalid_request_error", "Invalid API Key provided", code="api_key_expired")
        if permission not in row["permissions"]:
            raise Refused(403, "invalid_request_error", f"The key lacks {permission}", code="more_permissions_required")
        return str(row["id"])

    @app.get("/v1/subscriptions")
    def list_subscriptions() -> Response:
        owner = account("subscriptions:read")
        expanded = "data.latest_invoice" in request.args.getlist("expand[]")
        if expanded:
            account("invoices:read")
        limit = request.args.get("limit", PAGE, type=int)
        if not 1 <= limit <= MOST:
            raise Refused(400, "invalid_request_error", "limit is between 1 and 100", param="limit")
        with lock:
            rows = [row for row in books[owner] if _is_listed(row, request.args.get("status"))]
            start, after = 0, request.args.get("starting_after")
            if after is not None:
                ids = [row["id"] for row in rows]
                if after not in ids:
                    raise Refused(400, "invalid_request_error", "No such subscription", param="starting_after")
                start = ids.index(after) + 1
            shown = [_shown(row, expanded=expanded) for row in rows[start : start + limit]]
        more = start + limit < len(rows)
        return jsonify(object="list", url="/v1/subscriptions", has_more=more, data=shown)

    @app.post("/v1/subscriptions/<key>")
    def update_subscription(key: str) -> Response:
        owner = account("subscriptions:write")
        asked = sorted(request.form.items(multi=True))
        with lock:
            known = answered.get((owner, entry().idempotency_key or ""))
            if known is not None:
                if known[0] != (key, asked):
                    raise Refused(400, "idempotency_error", "Keys can only be used with the same parameters")
                response = jsonify(known[1])
                response.headers["Idempotent-Replayed"] = "true"
                return response
            row = next((one for one in books[owner] if one["id"] == key), None)
            if row is None:
                raise Refused(404, "invalid_request_error", "No such subscription", code="resource_missing")
            for name, value in asked:
                if not (name.startswith("metadata[") and name.endswith("]")):
                    raise Refused(400, "invalid_request_error", "unknown parameter", param=name)
                row["metadata"][name.removeprefix("metadata[")[:-1]] = value
            touched(key)
            shown = _shown(row, expanded=False)
            if entry().idempotency_key:
                answered[owner, entry().idempotency_key or ""] = ((key, asked), shown)
        return jsonify(shown)

    @app.get("/_sandbox/subscriptions")
    def read_subscriptions() -> Response:
        with lock:
            return jsonify(
                {row["tenant"]: [_shown(one, expanded=True) for one in books[row["id"]]] for row in accounts}
            )

    @app.post("/_sandbox/subscriptions/<key>")
    def edit_subscription(key: str) -> Response:
        """Set a subscription's `status`."""
        status = str(json_body("status")["status"])
        with lock:
            found = [row for rows in books.values() for row in rows if row["id"] == key]
            if not found:
                raise BadControl(f"there is no subscription {key}")
            found[0]["status"] = status
        return jsonify(ok=True)

    @app.post("/_sandbox/forget")
    def forget() -> Response:
        """Reset every subscription to its initial state."""
        with lock:
            answered.clear()
            for rows in books.values():
                for row in rows:
                    row.update(_AT_FIRST, metadata={})
        return jsonify(ok=True)

    @app.errorhandler(Refused)
    def refused(error: Refused) -> tuple[Response, int]:
        return jsonify(error=error.error), error.status

    equip(app, journal=journal)
    app.register_blueprint(tokens.control())
    return app


def _subscription(row: dict[str, Any], now: int) -> dict[str, Any]:
    return {**row, **_AT_FIRST, "metadata": {}, "created": now}


def _is_listed(row: dict[str, Any], status: str | None) -> bool:
    """Apply the status filter of docs.stripe.com/api/subscriptions/list. The default is all but canceled ones."""
    match status:
        case "all":
            return True
        case None:
            return bool(row["status"] != "canceled")
        case _:
            return bool(row["status"] == status)


def _shown(row: dict[str, Any], *, expanded: bool) -> dict[str, Any]:
    invoice = {
        "id": row["id"].replace("sub_", "in_"),
        "object": "invoice",
        "currency": "eur",
        "status": "paid",
        "subtotal": row["invoiced"],
    }
    price = {"id": "price_team", "object": "price", "currency": "eur", "unit_amount": row["unit_amount"]}
    item = {"id": row["id"].replace("sub_", "si_"), "object": "subscription_item", "price": price}
    return {
        "id": row["id"],
        "object": "subscription",
        "customer": row["customer"],
        "status": row["status"],
        "currency": "eur",
        "created": row["created"],
        "metadata": dict(row["metadata"]),
        "items": {"object": "list", "has_more": False, "data": [{**item, "quantity": row["quantity"]}]},
        "latest_invoice": invoice if expanded else invoice["id"],
    }
